"""What compiling costs: programs by name and seconds, as JAX reports them. A program that is compiled more often than
it should be is a shape or a static argument that changes from call to call.
"""

import time
from collections import Counter

import jax

_programs: Counter[str] = Counter()
_spans: list[tuple[float, float]] = []  # tracing, lowering, compiling or fetching from the cache


def _note(event: str, start_time: float, end_time: float, **about: str | int) -> None:
    if not event.startswith("/jax/core/compile/"):
        return
    if event.endswith("backend_compile_duration"):
        name = str(about.get("fun_name", ""))
        _programs[name.removeprefix("jit(").removesuffix(")")] += 1
    while _spans and _spans[-1][0] >= start_time:  # what lies within another counts once
        _spans.pop()
    _spans.append((start_time, end_time))


jax.monitoring.register_event_time_span_listener(_note)


class Compiling:
    """What this process compiles from now on."""

    def __init__(self) -> None:
        self.begun = time.time()
        self.before = Counter(_programs)

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in _spans if start >= self.begun)

    @property
    def programs(self) -> dict[str, int]:
        """How often each was compiled, or fetched from the cache of compiled programs."""
        return dict(sorted((_programs - self.before).items()))
