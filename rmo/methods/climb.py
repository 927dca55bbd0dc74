"""What every way that trains a policy from the initial one has in common: members in one program, reads, being told to
stop."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmo import config
from rmo.models import metrics
from rmo.models.sampling import Sampled, response_stats, sample
from rmo.models.transformer import LanguageModel, Params
from rmo.runtime import hosts, sharding
from rmo.runtime.types import Tree
from rmo.training.tracker import Checkpoints, Tracker

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


def sampled(
    lm: LanguageModel,
    policy: Params,
    reference: Params,
    prompts: jax.Array,
    prompt_mask: jax.Array,
    keys: jax.Array,
    length: int,
    eos: int,
) -> tuple[Sampled, dict[str, jax.Array]]:
    """A response of at most `length` tokens to each of B prompts i32[B, P], and what is known of it without a
    reward, [B, ...]: its KL from the reference, exact and by two estimators, entropy per token, length."""
    drawn = sample(lm, policy, prompts, prompt_mask, keys, length, eos)
    stats = response_stats(lm, policy, prompts, prompt_mask, drawn.tokens, drawn.mask, reference)
    tokens_B = jnp.sum(drawn.mask, axis=1)
    ended = jnp.any((drawn.tokens == eos) & drawn.mask, axis=1)
    return drawn, {
        "kl": jnp.sum(stats["kl"] * drawn.mask, axis=1),
        "kl_k1": metrics.kl_k1(stats["logps"], stats["ref_logps"], drawn.mask),
        "kl_k3": metrics.kl_k3(stats["logps"], stats["ref_logps"], drawn.mask),
        "entropy": jnp.sum(stats["entropy"] * drawn.mask, axis=1) / tokens_B,
        "length": tokens_B.astype(jnp.float32),
        "unfinished": 1.0 - ended.astype(jnp.float32),
        "tokens": drawn.tokens,
        "mask": drawn.mask,
    }


@dataclass
class Climb:
    """M members on their way: what a loop changes as it goes. A checkpoint holds the first four."""

    states: Tree  # with `iteration` i32[M], `kl` f32[M] and `read_at` i32[M] among its arrays
    history: Tree  # of all the reads there can be, blank beyond the k-th
    last: Tree  # metrics of each member's last step
    k: int  # reads so far
    none: Tree  # `last` where no step was made
    placed: Tree  # shardings of the states
    everywhere: jax.sharding.Sharding
    limit: int = 1  # steps of the next dispatch
    saved: float = 0.0  # when a checkpoint was written last

    def save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint; its number only has to grow."""
        number = self.k + int(jnp.sum(self.states.iteration))
        k = jax.device_put(np.int32(self.k), self.everywhere)
        checkpoints.save(number, (self.states, self.history, self.last, k))
        self.saved = time.monotonic()

    def unfinished(self, finished: Callable[[Tree], jax.Array], reads: int) -> bool:
        """Whether some member has steps left, or a last read."""
        if self.k == 0:
            return True
        going = ~finished(self.states) | (self.states.iteration > self.states.read_at)
        return self.k < reads and bool(jnp.any(going))


def begin_or_resume(
    begin: Callable[..., Tree],
    first: Tree,
    seen_of: Callable[[Tree], dict[str, Tree]],
    reads: int,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
) -> Climb:
    """The climb as the last checkpoint left it, or before its first read.

    Args:
      begin: of `first`, the members' first states.
      seen_of: of the states' shapes, those of all that a read sees; under "last" the metrics of a step.
      reads: most there can be.
    """
    shapes = jax.eval_shape(begin, *first)
    placed = sharding.shardings_of(shapes, mesh)
    like = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, placed)
    seen = seen_of(shapes)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def blank(x: jax.ShapeDtypeStruct, *leading: int) -> jax.Array:
        return jnp.full((*leading, *x.shape), np.nan if x.dtype == jnp.float32 else 0, x.dtype)

    def blanks() -> tuple[Tree, Tree]:
        return jax.tree.map(lambda x: blank(x, reads), seen), jax.tree.map(blank, seen["last"])

    history, none = jax.jit(blanks, out_shardings=everywhere)()
    zero = jax.device_put(np.int32(0), everywhere)
    (states, history, last, k), resumed = checkpoints.restore((like, history, none, zero))
    if not resumed:
        states = jax.jit(begin, out_shardings=placed)(*first)
    return Climb(states, history, last, int(k), none, placed, everywhere, saved=time.monotonic())


def observed_shapes(observe: Observe, members: int, responses: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Of what `observe` gives, found by asking it about responses without a word."""
    if observe is nothing_else:
        return {}
    rows = members, responses, length
    found = observe(np.zeros(rows, np.int32), np.zeros(rows, bool))
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in found.items()}


def go_on(
    climb: Climb,
    due: Callable[[Tree], jax.Array],
    dispatch: Callable[[], None],
    checkpoints: Checkpoints,
    log: Tracker,
    count: str,
) -> None:
    """Steps until every member is due for a read: `dispatch` makes at most `climb.limit` of each that is not, and says
    so in `climb`. `count` is what people call a step.

    Raises:
      Preempted: the run was told to stop; what is done is saved.
    """
    while not bool(jnp.all(due(climb.states))):
        started = time.monotonic()
        dispatch()
        made, kl = hosts.fetch((climb.states.iteration, climb.states.kl))
        log.show(climb.k, **{count: made, "kl": kl})
        climb.limit = int(hosts.agree(np.int32(next_limit(climb.limit, time.monotonic() - started))))
        if hosts.preempted():
            log.close()
            climb.save(checkpoints)
            raise hosts.Preempted
        if hosts.agree(np.bool_(time.monotonic() - climb.saved > MINUTES * 60)):
            log.flush()
            climb.save(checkpoints)


def look(
    read: Callable[[Tree], dict], climb: Climb, read_draws: int, log: Tracker, observe: Observe
) -> dict[str, Tree]:
    """A read of every member, as it is kept, with what is observed of all its samples on the host."""
    with log.timed("read"):
        whole = jax.block_until_ready(read(climb.states))
        measured = kept(read_draws, whole)
        if observe is not nothing_else:
            measured |= observe(*hosts.fetch((whole["tokens"], whole["mask"])))
    return measured
