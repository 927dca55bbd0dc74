"""What compiling costs: programs by name and seconds, as JAX reports them. A program that is compiled more often than
it should be is a shape or a static argument that changes from call to call.
"""

import gc
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np

from rmo.runtime import hosts

MAPS = 20_000  # pieces of memory that may be mapped before compiled programs are let go
_programs: Counter[str] = Counter()
_spans: list[tuple[float, float]] = []  # tracing, lowering, compiling or fetching from the cache; monotonic seconds


def _note(event: str, start_time: float, end_time: float, **about: str | int) -> None:
    if not event.startswith("/jax/core/compile/"):
        return
    if event.endswith("backend_compile_duration"):
        name = str(about.get("fun_name", ""))
        _programs[name.removeprefix("jit(").removesuffix(")")] += 1
    end = time.monotonic()  # JAX's own times are those of a clock that may be set in between
    start = end - max(end_time - start_time, 0.0)
    while _spans and _spans[-1][0] >= start:  # what lies within another counts once
        _spans.pop()
    _spans.append((start, end))


jax.monitoring.register_event_time_span_listener(_note)


class Compiling:
    """What this process compiles from now on."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.before = Counter(_programs)

    @property
    def seconds(self) -> float:
        spent = sum(end - max(start, self.begun) for start, end in _spans if end > self.begun)
        return min(spent, time.monotonic() - self.begun)

    @property
    def programs(self) -> dict[str, int]:
        """How often each was compiled, or fetched from the cache of compiled programs."""
        return dict(sorted((_programs - self.before).items()))


def let_go() -> None:
    """Between two stages: forget compiled programs where there are many. A process of Linux may map 65,530 pieces of
    memory and dies beyond; every program takes some, and a grid has thousands. The cache on disk has them."""
    maps = Path("/proc/self/maps")
    many = maps.exists() and maps.read_bytes().count(b"\n") > MAPS
    if hosts.agree(np.bool_(many)):  # all or none: compiling, processes may wait for one another
        jax.clear_caches()
        gc.collect()
