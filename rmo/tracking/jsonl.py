"""Logs of a stage: metrics and speed as JSON lines, its progress; work made part by part, each part once."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from numpy.typing import ArrayLike

from rmo.runtime import flops, hosts
from rmo.runtime.files import Row, naming, need_hold, read_npz, remote, write_npz, write_text
from rmo.tracking.progress import Progress
from rmo.tracking.wandb_mirror import Wandb


class Lines:
    """A JSON-lines file that grows; of a URL, which cannot be appended to, all of it is written again now and then."""

    every = 30.0  # seconds

    def __init__(self, path: Path):
        self.path, self.flushed = path, time.monotonic()
        self.lines: list[str] = []  # of a URL: all of them

    def resume(self, step: int) -> dict[int, Row]:
        """Keep the rows of steps before this one; returns them by step."""
        kept, rows = [], {}
        for line, row in self.rows():
            if row["step"] < step:
                kept.append(line + "\n")
                rows[row.pop("step")] = row
        self.lines = kept
        write_text(self.path, "".join(kept))
        return rows

    def rows(self) -> Iterator[tuple[str, Row]]:
        """(line, what it says) of the lines that are there, up to one that was cut off in the middle or damaged."""
        if not (hosts.writer() and self.path.exists()):
            return
        for line in self.path.read_bytes().decode(errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                return
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                return
            yield line, row

    def append(self, row: Row) -> None:
        if not hosts.writer():
            return
        need_hold()
        line = json.dumps(row) + "\n"
        if not remote(self.path):
            with naming(self.path), open(self.path, "a") as file:
                file.write(line)
            return
        self.lines.append(line)
        if time.monotonic() - self.flushed > self.every:
            self.flush()

    def flush(self) -> None:
        if remote(self.path) and self.lines:  # on a disk there is no file before the first line either
            write_text(self.path, "".join(self.lines))
            self.flushed = time.monotonic()


# What people see of a stage's metrics while it is made.
SHOWN = {
    "loss": "loss {:.3g}",
    "accuracy": "accuracy {:.2f}",
    "kl": "KL {:.3g}",
    "gold": "gold {:.2f}",
    "proxy": "proxy {:.2f}",
    "iteration": "iteration {:.0f}",
}


class Log:  # a `rmo.training.tracker.Tracker`
    """metrics.jsonl of one stage, its progress for people, and the wandb mirror.

    speed.jsonl beside it says how far it is (`step` of `of`) and where the time went: per line of metrics its seconds,
    those of them in what was `timed` and in waiting for the device, tokens per second, FLOP/s as a share of the
    devices' peak (matmuls that the model asks for: nothing computed twice counts twice), and the most memory that a
    device ever held.
    """

    def __init__(self, directory: Path, name: str, total: int, unit: str = "step", mirrored: bool = True):
        """Without `mirrored`, of a part of a stage, nothing is sent to wandb, whose steps are the stage's own."""
        self.mirrored = mirrored
        self.metrics, self.speed = Lines(directory / "metrics.jsonl"), Lines(directory / "speed.jsonl")
        self.bar = Progress(name, total, unit)
        self.latest: dict[str, float] = {}
        self.last = time.monotonic()
        self.spent: dict[str, float] = {}
        self.work = {"tokens": 0.0, "flops": 0.0}

    def resume(self, step: int) -> None:
        """Drop what was written after the checkpoint: those steps come again."""
        metrics, speed = self.metrics.resume(step), self.speed.resume(step)
        for at in sorted(metrics | speed):
            self.mirror(at, metrics.get(at, {}), speed.get(at, {}))
        self.bar.resume(step)
        self.last = time.monotonic()

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Seconds inside count as those of `what`."""
        began = time.monotonic()
        yield
        self.spent[what] = self.spent.get(what, 0.0) + time.monotonic() - began

    def did(self, tokens: float, flops: float) -> None:
        """Work since the last line, of all devices together; 0 where it is not known."""
        self.work["tokens"] += tokens
        self.work["flops"] += flops

    def write(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """One line; arrays over members become lists."""
        with self.timed("wait"):
            values = {name: value.tolist() for name, value in hosts.fetch(metrics).items()}
        self.metrics.append({"step": step, **values})
        self.mirror(step, values, self.pace(step))
        self.show(step + 1, **{name: values[name] for name in SHOWN if name in values})

    def mirror(self, step: int, values: Row, pace: Row) -> None:
        """A line to wandb too."""
        if self.mirrored:
            Wandb.log(step, values, pace)

    def show(self, done: int, **latest: ArrayLike) -> None:
        """So many steps are done, for people, and what is known by now: means over members."""
        self.latest |= {name: float(np.mean(np.asarray(value))) for name, value in latest.items()}
        shown = [form.format(self.latest[name]) for name, form in SHOWN.items() if name in self.latest]
        self.bar.to(done, ", ".join(shown))

    def pace(self, step: int) -> dict[str, float]:
        """One line of speed.jsonl: what was done since the last one, and at what rate."""
        now = time.monotonic()
        seconds, self.last = now - self.last, now
        out = {"seconds": seconds, **self.spent}
        most = flops.peak(jax.devices()[0].device_kind) * jax.device_count()
        if self.work["tokens"]:
            out["tokens_per_second"] = self.work["tokens"] / seconds
        if self.work["flops"] and most:
            out["utilisation"] = self.work["flops"] / seconds / most
        if peak := flops.memory_in_use():
            out["peak_memory"] = peak
        self.spent, self.work = {}, dict.fromkeys(self.work, 0.0)
        out = {name: round(value, 6) for name, value in out.items()}
        self.speed.append({"step": step, "of": self.bar.total, **out})
        return out

    def flush(self) -> None:
        """Before a checkpoint: what is logged up to it must not be lost."""
        self.metrics.flush()
        self.speed.flush()

    def close(self) -> None:
        """Finish the files and the bar."""
        self.flush()
        self.bar.close()


def parts(
    directory: Path, count: int, make: Callable[[int], dict[str, np.ndarray]], log: Log
) -> Iterator[dict[str, np.ndarray]]:
    """Yield part 0..count-1, made once and kept in `directory`, so that a killed stage continues where it was.

    Raises:
      Preempted: the run was told to stop; what is made is kept.
    """
    there = set()
    if directory.exists():
        there = {file.name for file in directory.glob("*.npz")}
    found = hosts.agree(np.array([f"{i:05d}.npz" in there for i in range(count)]))
    log.resume(int(np.argmin(np.append(found, False))))
    for i in range(count):
        file = directory / f"{i:05d}.npz"
        if found[i]:
            part = read_npz(file)
        else:
            if i and found[i - 1]:
                log.last = time.monotonic()  # reading parts that were there is not making this one
            part = make(i)
            write_npz(file, **part)
            log.mirror(i, {}, log.pace(i))
            if hosts.preempted():
                log.close()
                raise hosts.Preempted
        log.bar.to(max(i + 1, log.bar.n))
        yield part
    log.close()
