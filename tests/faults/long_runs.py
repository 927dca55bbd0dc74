"""Long runs: what 24 hours of reads and checkpoints leave, and what looks at a run of 2,000 stage instances.

A day of training is some 300 checkpoints and some thousand lines of metrics. `day` makes as many with a program that
takes no time, through the real loop, and measures the process now and then; `stages` makes one stage after another, as a
grid of thousands does in one process. After warm-up nothing may grow but the log.
"""

import gc
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from rmo.config import Optimizer
from rmo.runtime import sharding
from rmo.runtime.checkpointer import Checkpoints
from rmo.tracking.jsonl import Log
from rmo.training.loop import train
from tests.faults.case import Case

EVERY = 3  # lines of metrics to a checkpoint
MIB = 2**20


class Measured(NamedTuple):
    """One look at this process and its stage's directory."""

    at: int  # steps, or stages
    rss: float  # MiB
    handles: int
    threads: int
    maps: int  # pieces of memory; a process may have 65,530 on Linux
    files: int
    log: int  # bytes of metrics.jsonl and speed.jsonl


def measured(at: int, where: Path) -> Measured:
    """Now."""
    gc.collect()
    me = psutil.Process()
    files = [path for path in where.rglob("*") if path.is_file()]
    log = sum(path.stat().st_size for path in files if path.suffix == ".jsonl")
    maps = Path("/proc/self/maps")
    pieces = maps.read_text().count("\n") if maps.exists() else 0
    return Measured(at, me.memory_info().rss / MIB, me.num_fds(), me.num_threads(), pieces, len(files), log)


def toy_loss(
    params: dict[str, jax.Array], batch: dict[str, jax.Array], *_: object
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Least squares."""
    error = batch["x"] @ params["w"] - batch["y"]
    loss = (error**2).mean()
    return loss, {"loss": loss}


def one_stage(where: Path, steps: int, every: int, looks: list[Measured], look_every: int) -> None:
    """The real loop, log and checkpoints around a program that takes no time."""
    mesh, rng = sharding.make_mesh(1), np.random.default_rng(0)
    x = rng.normal(size=(8, 4)).astype(np.float32)

    def batch_at(step: int) -> dict[str, np.ndarray]:
        if look_every and step and step % look_every == 0:
            looks.append(measured(step, where))
        return {"x": x, "y": x.sum(-1)}

    def first() -> dict[str, jax.Array]:
        return {"w": jnp.zeros(4)}

    with jax.set_mesh(mesh):
        log = Log(where, "toy", steps)
        train(first, toy_loss, batch_at, steps, Optimizer(), mesh, Checkpoints(where), log, every=every)


def day(checkpoints: int, where: Path, looks: int = 8) -> list[Measured]:
    """So many checkpoints, with `EVERY` lines of metrics to each."""
    found: list[Measured] = []
    steps = checkpoints * EVERY + 1
    one_stage(where, steps, EVERY, found, max(steps // looks, 1))
    return found


def stages(count: int, where: Path, looks: int = 8) -> list[Measured]:
    """One stage after another in one process, as `rmo run` makes a grid."""
    found = []
    for i in range(count):
        one_stage(where / str(i), 3, 100, [], 0)
        let_go_as_runner()
        if i % max(count // looks, 1) == 0:
            found.append(measured(i, where / str(i)))
    return found


def let_go_as_runner() -> None:
    """What `runner.execute` does between two stages."""
    from rmo.runtime.compiling import let_go

    let_go()


def slope(looks: Sequence[Measured], name: str) -> float:
    """Growth per step or stage after warm-up, the first third: from the least of the next third to that of the last, so
    that what the collector has not yet freed does not count."""
    third = len(looks) // 3
    middle, last = looks[third : 2 * third], looks[2 * third :]
    low = [min(getattr(look, name) for look in part) for part in (middle, last)]
    return (low[1] - low[0]) / (np.mean([look.at for look in last]) - np.mean([look.at for look in middle]))


def growing(looks: Sequence[Measured], most: dict[str, float]) -> str:
    """What grows faster per step or stage than it may; empty where nothing does."""
    found = {name: slope(looks, name) for name in most}
    return "; ".join(f"{name} grows by {found[name]:.3g} each" for name in most if found[name] > most[name])


# Per step: a day has some thousands; what they add must stay below 100 MiB, one handle and one thread.
PER_STEP = {"rss": 0.02, "handles": 0.002, "threads": 0.002, "files": 0.002, "maps": 0.05}
# Per stage of a grid of 2,000: 2 GiB of memory, and handles, threads and pieces far from their limits.
PER_STAGE = {"rss": 1.0, "handles": 0.1, "threads": 0.1, "maps": 20.0}


# Looking at a large run.


def peak_of(command: Sequence[str], limit: float = 60.0) -> tuple[float, float, int, str]:
    """(seconds, peak MiB, exit code, what it said) of a command of rmo in a process of its own: CPU seconds, since a machine
    with other work makes wall time a matter of that, by `core`'s measure."""
    pid_out = tempfile.TemporaryFile("w+")  # noqa: SIM115
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "100"}
    code = "import atexit; from rmo.cli.main import main\n"
    code += "atexit.register(lambda: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]))\nmain()"
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", code, *command],
        environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, pid_out.fileno(), 1), (os.POSIX_SPAWN_DUP2, pid_out.fileno(), 2)],
    )
    began = time.monotonic()
    while True:
        got, status, usage = os.wait4(pid, os.WNOHANG)
        if got:
            break
        if time.monotonic() - began > 60 * limit:
            os.kill(pid, 9)
        time.sleep(0.05)
    pid_out.seek(0)
    said, seconds = pid_out.read(), (usage.ru_utime + usage.ru_stime) / core()
    peak = said.split()[-1:]  # KiB; what wait4 says counts its parent's, before it was another program
    memory = int(peak[0]) / 1024 if peak and peak[0].isdigit() else float("inf")
    return seconds, memory, os.waitstatus_to_exitcode(status), said


def core() -> float:
    """CPU seconds in which a core adds ten million numbers in Python: what is promised is for one that needs one second;
    machines of the same name have needed four."""
    began, total = time.process_time(), 0
    for i in range(10_000_000):
        total += i
    return time.process_time() - began


SECONDS, MEMORY = 5.0, 1024.0  # of looking at a run of 2,000 stage instances and 200,000 points; `core`'s, MiB


def looking(where: Path, sweeps: int, points: int) -> Iterator[tuple[str, float, float, str]]:
    """(command, CPU seconds, peak MiB, what went wrong) of `rmo watch --once`, `rmo list` and `rmo report`."""
    from tests.helpers import large_run

    run = large_run.make(where, sweeps, points)
    config = where.parent / "large.py"
    config.write_text(
        f"from tests.helpers.large_run import experiment as made\n\n\ndef experiment():\n    return made({sweeps})\n"
    )
    for command in (
        ["watch", str(run.root), "--once"],
        ["list", str(config), "--runs", str(where)],
        ["report", str(run.root)],
    ):
        seconds, memory, code, said = peak_of(command)
        yield command[0], seconds, memory, "" if code == 0 else f"exit code {code}: {said[-300:]}"


def campaign(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """A day of training, many stages in one process, and looks at a run of 2,000 stage instances."""
    checkpoints = min(max(3 * cases, 30), 300)
    yield Case(f"a day: {checkpoints} checkpoints", growing(day(checkpoints, where / "day"), PER_STEP))
    count = min(max(cases, 18), 100)
    yield Case(f"{count} stages in one process", growing(stages(count, where / "stages"), PER_STAGE))
    sweeps = 20 if cases >= 100 else 2
    for command, seconds, memory, problem in looking(where / "large", sweeps, 100):
        slow = f"{seconds:.1f} s and {memory:.0f} MiB" if seconds > SECONDS or memory > MEMORY else ""
        yield Case(f"rmo {command} of a run with {sweeps * 10_000:,} points", problem or slow)
