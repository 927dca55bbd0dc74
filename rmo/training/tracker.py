"""What the training loops ask of their surroundings: somebody to tell what happens, and a place for checkpoints.

A run gives `rmo.tracking.jsonl.Log` and `rmo.runtime.checkpointer.Checkpoints`; a notebook that wants neither files nor
progress gives `Silent()` and `NoCheckpoints()`.
"""

import contextlib
from collections.abc import Mapping
from typing import Protocol

import jax
from numpy.typing import ArrayLike

from rmo.runtime.types import Tree


class Tracker(Protocol):
    """Hears what a loop does. Every method is called by all processes of a run, equally often."""

    def resume(self, step: int) -> None:
        """Before the first step: the loop goes on at `step`, 0 for a new one; lines of later steps are void."""

    def timed(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Seconds inside count as those of `what`."""
        ...

    def did(self, tokens: float, flops: float) -> None:
        """Work since the last `write`, of all devices together; 0 where it is not known."""

    def write(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """The numbers of one step, each a scalar or f32[M] over members. Reading them waits for the device."""

    def show(self, done: int, **latest: ArrayLike) -> None:
        """So many steps are done, for people, and what is known by now, without a line of its own."""

    def flush(self) -> None:
        """A checkpoint follows: what was written up to it must not be lost."""

    def close(self) -> None:
        """The loop ends here, or stops to be continued."""


class Checkpoints(Protocol):
    """Keeps the newest state of one loop."""

    def save(self, step: int, state: Tree) -> None:
        """The state reached after `step` updates; all processes together."""

    def restore(self, state: Tree) -> tuple[Tree, int]:
        """(what was saved, its step), laid out as `state` is; (`state`, 0) where nothing was saved."""
        ...


class Silent:
    """A `Tracker` that tells nobody."""

    def resume(self, step: int) -> None:
        pass

    def timed(self, what: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def did(self, tokens: float, flops: float) -> None:
        pass

    def write(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        pass

    def show(self, done: int, **latest: ArrayLike) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class NoCheckpoints:
    """`Checkpoints` that keep nothing: a loop starts anew."""

    def save(self, step: int, state: Tree) -> None:
        pass

    def restore(self, state: Tree) -> tuple[Tree, int]:
        return state, 0
