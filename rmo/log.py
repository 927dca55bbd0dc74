"""Logs of a stage: metrics and speed as JSON lines, a progress bar; parts that are made once."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from rmo import flops, hosts
from rmo.files import read_npz, remote, write_npz, write_text
from rmo.mirror import Wandb


class Spoken:
    """Progress where no line can be written over (a notebook, a file): a line at the end, and now and then before."""

    every = 20.0  # seconds

    def __init__(self, name: str, total: int, unit: str, done: int):
        self.name, self.total, self.unit, self.first, self.n, self.postfix = name, total, unit, done, done, ""
        self.began = self.said = time.monotonic()

    def update(self, by: int = 1) -> None:
        self.n += by
        if time.monotonic() - self.said > self.every:
            made = self.n - self.first
            left = tqdm.format_interval((time.monotonic() - self.began) * (self.total - self.n) / max(made, 1))
            self.say(f"{left} left")

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self.postfix = text

    def close(self) -> None:
        self.say()

    def say(self, *more: str) -> None:
        self.said = time.monotonic()
        spent = tqdm.format_interval(self.said - self.began)
        parts = [f"{self.n:,}/{self.total:,} {self.unit}s", spent, *more, self.postfix]
        print(f"{self.name:<24.24}  {', '.join(filter(None, parts))}", file=sys.stderr, flush=True)


def progress(name: str, total: int, unit: str, done: int = 0) -> tqdm | Spoken:
    """A progress bar with ETA or, where a bar could not be written over, lines."""
    notebook = "JPY_PARENT_PID" in os.environ  # what Jupyter's and Colab's `!` commands inherit; they have a terminal
    if hosts.writer() and (notebook or not sys.stderr.isatty()):
        return Spoken(name, total, unit, done)
    return tqdm(
        total=total, desc=f"{name:<24.24}", unit=unit, initial=done, mininterval=0.5, dynamic_ncols=True,
        disable=not hosts.writer(),
    )  # fmt: skip


class Lines:
    """A JSON-lines file that grows; of a URL, which cannot be appended to, all of it is written again now and then."""

    every = 30.0  # seconds

    def __init__(self, path: Path):
        self.path, self.lines, self.flushed = path, [], time.monotonic()

    def resume(self, step: int) -> dict[int, dict[str, Any]]:
        """Keep the rows of steps before this one; returns them by step."""
        kept, rows = [], {}
        if hosts.writer() and self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    break
                if row["step"] < step:
                    kept.append(line + "\n")
                    rows[row.pop("step")] = row
        self.lines = kept
        write_text(self.path, "".join(kept))
        return rows

    def append(self, row: dict[str, Any]) -> None:
        if not hosts.writer():
            return
        line = json.dumps(row) + "\n"
        if not remote(self.path):
            with open(self.path, "a") as file:
                file.write(line)
            return
        self.lines.append(line)
        if time.monotonic() - self.flushed > self.every:
            self.flush()

    def flush(self) -> None:
        if remote(self.path):
            write_text(self.path, "".join(self.lines))
            self.flushed = time.monotonic()


class Log:
    """metrics.jsonl of one stage, its progress bar, and the wandb mirror.

    speed.jsonl beside it says where the time went: per line of metrics its seconds, those of them in what was `timed`
    and in waiting for the device, tokens per second, FLOP/s as a share of the devices' peak (matmuls that the model
    asks for: nothing computed twice counts twice), and the most memory that a device ever held.
    """

    def __init__(self, directory: Path, name: str, total: int, unit: str = "step"):
        self.metrics, self.speed = Lines(directory / "metrics.jsonl"), Lines(directory / "speed.jsonl")
        self.bar = progress(name, total, unit)
        self.last = time.monotonic()
        self.spent: dict[str, float] = {}
        self.work = {"tokens": 0.0, "flops": 0.0}

    def resume(self, step: int) -> None:
        """Drop what was written after the checkpoint: those steps come again."""
        metrics, speed = self.metrics.resume(step), self.speed.resume(step)
        for at in sorted(metrics | speed):
            Wandb.log(at, metrics.get(at, {}), speed.get(at, {}))
        self.bar.update(step - self.bar.n)
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

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        """One line; arrays over members become lists."""
        with self.timed("wait"):
            values = {name: value.tolist() for name, value in hosts.fetch(metrics).items()}
        self.metrics.append({"step": step, **values})
        Wandb.log(step, values, self.pace(step))
        loss = values.get("loss", values.get("kl"))
        if loss is not None:
            self.bar.set_postfix_str(f"{'loss' if 'loss' in values else 'KL'} {np.mean(loss):.4g}", refresh=False)
        self.bar.update(step + 1 - self.bar.n)

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
        self.speed.append({"step": step, **out})
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
    there = {file.name for file in directory.glob("*.npz")} if directory.exists() else set()
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
            Wandb.log(i, {}, log.pace(i))
            if hosts.preempted():
                log.close()
                raise hosts.Preempted
        log.bar.update(max(i + 1 - log.bar.n, 0))
        yield part
    log.close()
