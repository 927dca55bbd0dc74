"""What every way that trains a policy from the initial one has in common: members in one program, reads, being told to
stop."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax.typing import ArrayLike

from rmo import config
from rmo.runtime import sharding
from rmo.runtime.types import Tree

MINUTES = 10  # between checkpoints, where iterations are long
Observe = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


def nothing_else(tokens_MBR: np.ndarray, mask_MBR: np.ndarray) -> dict[str, np.ndarray]:
    """No further measurement of what a read sampled."""
    return {}


@partial(jax.jit, static_argnames="read_draws")
def kept(read_draws: int, measured: dict[str, Tree]) -> dict[str, Tree]:
    """What is kept of a read: of its samples the first draw of each prompt, so that people can read what the policy
    writes."""
    return {name: x[:, ::read_draws] if name in ("tokens", "mask") else x for name, x in measured.items()}


def fills(shape: config.Model) -> bool:
    """Whether one policy keeps an accelerator busy. Smaller ones go side by side; larger ones (and all on a CPU) take
    turns: they would only wait for the slowest at every read, and hold as many copies gathered for decoding."""
    return shape.weights > 2**27


def over_tasks(side_by_side: bool, fn: Callable[..., Tree], *trees: Tree) -> Tree:
    """fn of every member, in one program; trees have a leading axis M."""
    return jax.vmap(fn)(*trees) if side_by_side else jax.lax.map(lambda args: fn(*args), trees)


@partial(jax.jit, donate_argnums=0)
def record(history: Tree, seen: Tree, k: ArrayLike) -> Tree:
    """A history with what the k-th read has seen; every device holds all of it."""
    return jax.tree.map(lambda all_K, one: sharding.copied(all_K.at[k].set(one)), history, seen)


def next_limit(limit: int, seconds: float) -> int:
    """Iterations of the next dispatch: enough that dispatching costs nothing, few enough to be told to stop."""
    if seconds < 1:
        return min(2 * limit, 2**16)
    return max(limit // 2, 1) if seconds > 4 else limit
