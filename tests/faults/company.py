"""Time and company: clocks that jump, runs that share a directory, holders that hang, SIGTERM anywhere, wandb failing at
every call, readers of stdout that go away."""

import contextlib
import io
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from rmo.runtime import hosts
from rmo.tracking.wandb_mirror import Wandb
from tests.faults import kills, one_stage
from tests.faults.case import Case
from tests.faults.one_stage import Finished
from tests.helpers.smoke import ROOT, SMOKE

HERE = Path(__file__).parent
MOST = 100  # times that a stage is asked to stop


def campaign(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """Two fifths holders of one stage, two fifths wandb, the rest SIGTERM and readers that go."""
    yield from holders(max(cases * 2 // 5, 1), seed, where / "holders")
    yield from itertools.islice(wandb_failing(seed, where / "wandb"), max(cases * 2 // 5, 1))
    yield from readers_gone(where / "readers")
    yield from told_to_stop(max(cases // 5, 1), seed, where / "stopped")


# Holders of one stage, in processes of their own (holders.py).


def holders(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """Clocks that jump, machines whose clocks differ, holders that are killed or hang and come back."""
    command = [sys.executable, str(HERE / "holders.py"), str(where), str(cases), str(seed)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        seen = 0
        for line in process.stdout:
            seen += 1
            yield Case(*json.loads(line))
    if seen < cases or process.returncode:
        yield Case(f"holders {seed} {seen}", f"the processes ended with {process.returncode} after {seen} cases")


# wandb.


class Failing:
    """A stand-in for wandb whose k-th call fails; of a server that is gone, every one after it too."""

    def __init__(self, at: int, error: Exception, for_good: bool):
        self.at, self.error, self.for_good, self.calls = at, error, for_good, []

    def __call__(self, name: str, answer: object = None) -> Callable[..., object]:
        def call(*_: object, **__: object) -> object:
            self.calls.append(name)
            k = len(self.calls) - 1
            if k == self.at or (self.for_good and k > self.at):
                raise self.error
            return answer

        return call

    def module(self) -> types.ModuleType:
        """What `import wandb` gives."""
        settings = types.SimpleNamespace(mode="online", wandb_dir="wandb")
        run = types.SimpleNamespace(
            id="id", offline=False, project_url="url", starting_step=0, log=self("log"), finish=self("finish"),
            log_artifact=self("log_artifact"), summary=types.SimpleNamespace(update=self("update")),
        )  # fmt: skip
        artifact = types.SimpleNamespace(add_file=self("add_file"))
        made = types.ModuleType("wandb")
        for name, answer in {
            "setup": types.SimpleNamespace(settings=settings), "login": True, "init": run, "Table": None, "Html": None,
            "Artifact": artifact, "Settings": None,
        }.items():  # fmt: skip
            setattr(made, name, self(name, answer))
        return made


def mirrored(root: Path) -> None:
    """Every call that a run makes of its mirror: two stages, the second of which ends on an error."""
    Wandb.start("project", root, SMOKE, ["tag"])
    with Wandb.stage("sft", "sft-1"):
        for step in range(3):
            Wandb.log(step, {"loss": [1.0, 2.0], "kl": [0.0, 1.0]}, {"seconds": 1.0})
        Wandb.show({"params": {"total": 3}}, {"curve": [{"kl": 1.0}]}, {"report": "<p>"})
        Wandb.keep({"a": root / "a"})
    with contextlib.suppress(ZeroDivisionError), Wandb.stage("report", "report-1"):
        Wandb.log(0, {"loss": 1.0}, {})
        raise ZeroDivisionError


def wandb_failing(seed: int, where: Path) -> Iterator[Case]:
    """Every call of wandb fails once, and from there on for good, in every way that is known."""
    whole, _ = mirror_with(Failing(-1, ValueError(), False), where / "whole")
    errors = [ConnectionResetError("gone"), TimeoutError(), OSError(28, "No space left on device"), RuntimeError("x\ny"),
              BrokenPipeError(), KeyError("run"), AssertionError(), MemoryError()]  # fmt: skip
    every = [(k, error, good) for k in range(len(whole.calls)) for error in errors for good in (False, True)]
    random.Random(seed).shuffle(every)
    for i, (k, error, for_good) in enumerate(every):
        tried, problem = mirror_with(Failing(k, error, for_good), where / str(i))
        kind = "and all after it" if for_good else "once"
        lines = [line for line in problem.splitlines() if line]
        what = f"wandb's call {k} ({whole.calls[k]}) fails {kind} with {type(error).__name__}"
        yield Case(what, "; ".join(lines) if tried.calls else "wandb was never called")


def mirror_with(failing: Failing, root: Path) -> tuple[Failing, str]:
    """(the stand-in with what was called, what went wrong)."""
    root.mkdir(parents=True)
    (root / "a").write_text("a")
    before = {name: getattr(Wandb, name) for name in ("shared", "run", "announced", "failed", "token")}
    there, said = sys.modules.get("wandb"), io.StringIO()
    sys.modules["wandb"] = failing.module()
    try:
        Wandb.shared = Wandb.run = None
        Wandb.announced = Wandb.failed = False
        with contextlib.redirect_stdout(said):
            mirrored(root)
    except Exception as error:
        return failing, f"the run would end with {type(error).__name__}: {error}"
    finally:
        for name, value in before.items():
            setattr(Wandb, name, value)
        del sys.modules["wandb"]
        if there is not None:
            sys.modules["wandb"] = there
    told = [line for line in said.getvalue().splitlines() if line.startswith("rmo: wandb failed")]
    failed = failing.at >= 0
    fine = 1 <= len(told) <= 2 if failed else not told
    return failing, "" if fine else f"{len(told)} lines say that wandb failed: {told}"


# Readers of stdout and stderr that go away.

SPEAKER = """
import os, pty, sys
sys.path.insert(0, {root!r})
from rmo.runtime import hosts
def gone(kind):
    if kind == "pipe":
        read, write = os.pipe()
        os.close(read)
    elif kind == "terminal":
        read, write = pty.openpty()
        os.close(read)
    else:
        write = os.open("/dev/full", os.O_WRONLY)
    return write
for kind in ("pipe", "terminal", "full disk"):
    for stream in (1, 2):
        for late in (0, 1):
            pid = os.fork()
            if not pid:
                kept = os.dup(1)
                if not late:
                    os.dup2(gone(kind), stream)
                hosts.outlive_readers()
                if late:
                    os.dup2(gone(kind), stream)
                problem = "it ended"
                try:
                    for k in range(300):
                        print("x" * 100, flush=k % 2 == 0)
                        print("y" * 100, file=sys.stderr)
                    sys.stdout.flush()
                    os.write(stream, b"z")
                    problem = ""
                except BaseException as error:
                    problem = f"{{type(error).__name__}}: {{error}}"
                os.write(kept, f"\\nCASE{{kind}}|{{stream}}|{{late}}|{{problem}}\\n".encode())
                os._exit(0)
            os.waitpid(pid, 0)
"""


def readers_gone(where: Path) -> Iterator[Case]:
    """A closed pipe, a terminal that is gone, a full disk, below stdout or stderr: what runs goes on."""
    where.mkdir(parents=True, exist_ok=True)
    code = SPEAKER.format(root=str(ROOT))
    environ = {**os.environ, "JAX_PLATFORMS": "cpu"}
    got = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    found = [line[4:].split("|", 3) for line in got.stdout.splitlines() if line.startswith("CASE")]
    for kind, stream, late, problem in found:
        when = "once it speaks" if late == "1" else "from the start"
        yield Case(f"readers: {kind} below descriptor {stream} gone {when}", problem)
    if len(found) != 12:
        yield Case("readers", f"{len(found)} of 12 cases were heard of: {got.stderr[-300:]}")


# SIGTERM.


def told_to_stop(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """Every kind of stage, asked to stop at a poll drawn at random and begun again, as often as it takes; the bytes are
    those of a run that was never asked."""
    one_stage.prepare(where)
    with one_stage.often():
        finished, rng = kills.finished_run(where), random.Random(seed)
        stages = list(finished.stages)
        rng.shuffle(stages)
        for number in range(cases):
            stage = stages[number % len(stages)]
            asked, problem = stopped_again_and_again(finished, kills.fresh(where), stage, rng)
            yield Case(f"told to stop {asked} times in {stage}", problem)


def stopped_again_and_again(finished: Finished, where: Path, stage: str, rng: random.Random) -> tuple[int, str]:
    """(how often it stopped, what is wrong)."""
    runs = finished.before(stage, where)
    try:
        for asked in range(MOST):
            with asked_at(rng.randrange(1, 4) + asked // 2):  # later and later, so that it gets on
                ended = kills.timed(runs, f"--only=={stage}")
            if ended.code == 0:
                return asked, finished.difference(runs, [stage])
            if ended.code != hosts.PREEMPTED:
                return asked, ended.refusal(runs) or ended.line
            if "asked to stop, and saved; the same command continues" not in ended.line:
                return asked, f"not said that it is saved: {ended.line}"
            if left := [str(path) for path in runs.rglob("HOLDER")]:
                return asked, f"{left[0]} was left behind"
        return MOST, "it never comes to an end"
    finally:
        shutil.rmtree(runs, ignore_errors=True)


@contextlib.contextmanager
def asked_at(poll: int) -> Iterator[None]:
    """SIGTERM comes before the `poll`-th time that the run asks."""
    real, polls = hosts.preempted, itertools.count(1)
    hosts.preempted = lambda: next(polls) >= poll
    try:
        yield
    finally:
        hosts.preempted = real


TIMES = ("speed.jsonl", "cost.json")


def content(root: Path) -> dict[str, bytes]:
    """The bytes of every file but those that hold times, and the parameters' own, whose format holds times too."""
    files = [
        path for path in root.rglob("*") if path.is_file() and path.name not in TIMES and "params" not in path.parts
    ]
    found = {path: path.read_bytes() for path in files}  # of DONE the first line: it lists the checksums of times too
    return {str(p.relative_to(root)): text.split(b"\n")[0] if p.name == "DONE" else text for p, text in found.items()}


def differing(expected: dict[str, bytes], found: dict[str, bytes]) -> str:
    """Which files differ; empty where none does."""
    names = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    return f"{', '.join(sorted(names)[:5])} differ" if names else ""
