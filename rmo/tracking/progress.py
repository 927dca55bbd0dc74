"""How far the work is, for people: in a terminal a heading and a bar, elsewhere plain lines at a modest pace."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from rmo.runtime import hosts

EVERY = 30.0  # seconds between two lines where no bar can be drawn


def terminal() -> bool:
    """Whether a line can be written over; not below a notebook's `!`, which gives its commands a terminal."""
    return sys.stderr.isatty() and "JPY_PARENT_PID" not in os.environ


def say(line: str) -> None:
    """A line on stderr, by the process that writes."""
    if hosts.writer():
        print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`8.1 s`, `41 s`, `12 min`, `5.0 h` or `3.5 days`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


class Stage:
    """The stage that is being made: bars under its heading need no name, and end with it."""

    name = ""
    bar: tqdm | None = None


@contextlib.contextmanager
def stage(name: str, number: int, of: int, left: str = "") -> Iterator[None]:
    """Say that a stage begins and, where no bar shows it, when it is done."""
    say(f"stage {number} of {of}: {name}{left}")
    began = time.monotonic()
    Stage.name, Stage.bar = name, None
    try:
        yield
    finally:
        Stage.name = ""
        if Stage.bar is not None:
            Stage.bar.close()  # what an error says comes after it
    if not terminal():
        say(f"{name}: done in {duration(time.monotonic() - began)}")


class Progress:
    """A bar with rate and ETA in a terminal, else a line now and then; only the process that writes shows it."""

    def __init__(self, name: str, total: int, unit: str, done: int = 0):
        self.name, self.total, self.unit, self.n = Stage.name or name, total, unit, done
        self.began = self.line_at = time.monotonic()
        self.bar = Stage.bar = tqdm(
            total=total,
            desc=None if Stage.name else name,
            unit=unit,
            initial=done,
            mininterval=0.5,
            dynamic_ncols=True,
            postfix="starting",
            disable=not (hosts.writer() and terminal()),
        )

    def resume(self, done: int) -> None:
        """So much was done before: no part of the rate."""
        self.n = self.bar.n = self.bar.initial = self.bar.last_print_n = done
        self.bar.refresh()

    def to(self, n: int, latest: str = "") -> None:
        """`n` are done, and what is known by now, e.g. the loss."""
        if not self.bar.disable:
            self.bar.set_postfix_str(latest, refresh=False)
            self.bar.update(n - self.n)
            if n == self.n:
                self.bar.refresh()
        elif (now := time.monotonic()) - self.line_at > EVERY:
            self.line_at = now
            line = f"{self.name}: {n}/{self.total} {self.unit}s after {duration(now - self.began)}"
            say(f"{line}, {latest}" if latest else line)
        self.n = n

    def close(self) -> None:
        self.bar.close()
