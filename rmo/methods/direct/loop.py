"""A policy on its way from the initial one: steps until gold is to be read, the read, and again; checkpoints between.

As PPO's climb (rmo/methods/ppo/loop.py), whose parts that know nothing of an RM are used here.
"""

import time
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmo.methods.climb import MINUTES, Observe, kept, next_limit, nothing_else, over_tasks, record
from rmo.methods.direct.update import Frozen, Setup, State, Task, begin, chunked, split_at, stretch
from rmo.methods.ppo.update import grid_above
from rmo.models import metrics, scoring
from rmo.models.sampling import join, response_stats, sample
from rmo.models.transformer import Params
from rmo.runtime import hosts, sharding
from rmo.runtime.types import Tree
from rmo.training.tracker import Checkpoints, Tracker
from rmo.training.update import Metrics, pick


@partial(jax.jit, static_argnames="s")
def finished(s: Setup, tasks: Task, states: State) -> jax.Array:
    """Whether members have reached kl_max or made all their steps, bool[M]."""
    return (states.kl >= s.c.kl_max) | (states.step >= tasks.steps)


@partial(jax.jit, static_argnames="s")
def due(s: Setup, tasks: Task, states: State) -> jax.Array:
    """Whether gold is to be read before a member goes on: sqrt(KL) is at its target, `patience` steps have passed
    since the last read, or it is finished."""
    waited = states.step >= states.read_at + s.c.patience
    return (states.kl >= states.target**2) | waited | finished(s, tasks, states)


@partial(jax.jit, static_argnames="s", donate_argnames="states")
def advance(s: Setup, frozen: Frozen, tasks: Task, states: State, last: Metrics, limit: ArrayLike = 2**30):
    """Stretches of steps of each of M members until it is `due`, at most `limit`; those that are due rest. Where the
    loop is cut changes nothing. Returns (states, metrics of each member's last step: those of `last` where it made
    none)."""

    def one(task: Task, state: State, last: Metrics):
        def more(carry: tuple[jax.Array, State, Metrics]) -> jax.Array:
            return ~due(s, task, carry[1]) & (carry[0] < limit)

        def go(carry: tuple[jax.Array, State, Metrics]) -> tuple[jax.Array, State, Metrics]:
            return carry[0] + 1, *stretch(s, frozen, task, carry[1])

        return jax.lax.while_loop(more, go, (jnp.int32(0), state, last))[1:]

    states, last = over_tasks(s.side_by_side, one, tasks, states, last)
    return sharding.at_rest(states), last


@partial(jax.jit, static_argnames="s")
def after_read(s: Setup, states: State) -> State:
    """Once gold was read: targets lie on one grid and only rise, so that the number of reads is bounded."""
    rise = jnp.maximum(grid_above(s.c.d_step, states.kl), states.target + 0.5 * s.c.d_step)
    target = jnp.where(states.kl >= states.target**2, rise, states.target)
    return states._replace(target=target, read_at=states.step)


@partial(jax.jit, static_argnames="s")
def read(s: Setup, frozen: Frozen, tasks: Task, states: State) -> dict[str, jax.Array]:
    """Means per held-out prompt, f32[M, Q] each, of `read_draws` samples of every member's policy, the samples
    themselves (`tokens` and `mask` [M, Q * read_draws, R]), and of the held-out comparisons f32[M]: `held_accuracy` and
    `held_margin` of the implicit reward against gold, `held_preferred`, the log-ratio of what gold prefers.

    The sampling keys are the same at every read (common random numbers: less noise between points).
    """
    prompts, prompt_mask = (jnp.repeat(x, s.c.read_draws, axis=0) for x in frozen.read_prompts)

    def by_prompt(x: jax.Array) -> jax.Array:
        return x.reshape(-1, s.c.read_draws)

    def one(task: Task, policy: Params) -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.fold_in(task.key, 2**31 - 1), prompts.shape[0])
        out = chunked(s, partial(sampled, s, frozen, policy), prompts, prompt_mask, keys)
        shown = {name: out.pop(name) for name in ("tokens", "mask")}
        out["implicit"] = task.beta * out["kl_k1"]
        # How the implicit reward judges pairs of the policy's own samples: each draw against the next of its prompt.
        implicit, gold = (by_prompt(out[name]) for name in ("implicit", "gold"))
        gaps = (x - jnp.roll(x, 1, axis=1) for x in (implicit, gold))
        out["accuracy"] = metrics.agreement(*gaps)["accuracy"]
        means = {name: jnp.mean(by_prompt(value), axis=1) for name, value in out.items()}
        return means | held_out(s, frozen, task, policy) | shown

    return over_tasks(s.side_by_side, one, tasks, states.policy.params)


def sampled(s: Setup, frozen: Frozen, policy: Params, prompts, prompt_mask, keys) -> dict[str, jax.Array]:
    """One response to each prompt and what is known of it, [B, ...]."""
    prompts, prompt_mask = sharding.split(prompts), sharding.split(prompt_mask)
    drawn = sample(s.lm, policy, prompts, prompt_mask, keys, s.length, s.eos)
    stats = response_stats(s.lm, policy, prompts, prompt_mask, drawn.tokens, drawn.mask, frozen.reference)
    tokens_BS, mask_BS = s.gold_reader(*join(prompts, prompt_mask, drawn.tokens, drawn.mask))
    length = jnp.sum(drawn.mask, axis=1)
    ended = jnp.any((drawn.tokens == s.eos) & drawn.mask, axis=1)
    return {
        "kl": jnp.sum(stats["kl"] * drawn.mask, axis=1),
        "kl_k1": metrics.kl_k1(stats["logps"], stats["ref_logps"], drawn.mask),
        "kl_k3": metrics.kl_k3(stats["logps"], stats["ref_logps"], drawn.mask),
        "gold": frozen.gold_calibration(scoring.score(s.gold, frozen.gold, tokens_BS, mask_BS)),
        "gold_cut": s.gold_reader.cut(mask_BS),
        "entropy": jnp.sum(stats["entropy"] * drawn.mask, axis=1) / length,
        "length": length.astype(jnp.float32),
        "unfinished": 1.0 - ended.astype(jnp.float32),
        "tokens": drawn.tokens,
        "mask": drawn.mask,
    }


def held_out(s: Setup, frozen: Frozen, task: Task, policy: Params) -> dict[str, jax.Array]:
    """How the implicit reward judges comparisons to other prompts than it learned from, by gold. The reference's
    log-probabilities come from the same program, so that its own log-ratios are exactly 0."""

    def log_ratios(tokens_C2T: jax.Array, mask_C2T: jax.Array) -> jax.Array:
        tokens, mask = (x.reshape(-1, x.shape[-1]) for x in (tokens_C2T, mask_C2T))
        stats = response_stats(s.lm, policy, *split_at(s, tokens, mask), frozen.reference)
        return metrics.kl_k1(stats["logps"], stats["ref_logps"], mask[:, s.prompt :]).reshape(-1, 2)

    log_ratios_C2 = chunked(s, log_ratios, *frozen.held_out)
    gap_C = task.beta * (log_ratios_C2[:, 0] - log_ratios_C2[:, 1])
    return {
        "held_accuracy": jnp.mean(0.5 + 0.5 * jnp.sign(gap_C)),
        "held_margin": jnp.mean(gap_C),
        "held_preferred": jnp.mean(log_ratios_C2[:, 0]),
    }


@dataclass
class Climb:
    """M members on their way: what `train` changes as it goes. A checkpoint holds the first four."""

    states: State
    history: Tree  # of `s.reads` reads, blank beyond the k-th
    last: Metrics  # of each member's last step; nan before its first
    k: int  # reads so far
    placed: State  # shardings of the states
    everywhere: jax.sharding.Sharding
    limit: int = 1  # stretches of the next dispatch
    saved: float = 0.0  # when a checkpoint was written last

    def save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint; its number only has to grow."""
        number = self.k + int(jnp.sum(self.states.step))
        k = jax.device_put(np.int32(self.k), self.everywhere)
        checkpoints.save(number, (self.states, self.history, self.last, k))
        self.saved = time.monotonic()

    def unfinished(self, s: Setup, tasks: Task) -> bool:
        """Whether some member has steps left, or a last read."""
        going = ~finished(s, tasks, self.states) | (self.states.step > self.states.read_at)
        return self.k == 0 or (self.k < s.reads and bool(jnp.any(going)))


def begin_or_resume(
    s: Setup, frozen: Frozen, tasks: Task, mesh: jax.sharding.Mesh, checkpoints: Checkpoints, observe: Observe
) -> Climb:
    """The climb as the last checkpoint left it, or before its first read."""
    first = jax.vmap(partial(begin, s), in_axes=(None, 0))
    shapes = jax.eval_shape(first, frozen.reference, tasks)
    placed = sharding.shardings_of(shapes, mesh)
    like = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, placed)
    rows = shapes.step.shape[0], frozen.read_prompts[0].shape[0] * s.c.read_draws, s.length
    observed = {} if observe is nothing_else else observe(np.zeros(rows, np.int32), np.zeros(rows, bool))
    one_task, one_state = jax.eval_shape(partial(pick, m=0), (tasks, shapes))
    found = jax.eval_shape(partial(stretch, s), frozen, one_task, one_state)[1]
    seen = {
        "read": jax.eval_shape(lambda *args: kept(s.c.read_draws, read(s, *args)), frozen, tasks, shapes) | observed,
        "last": {name: jax.ShapeDtypeStruct((*shapes.step.shape, *x.shape), x.dtype) for name, x in found.items()},
        "step": shapes.step,
    }
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def blank(x: jax.ShapeDtypeStruct, *leading: int) -> jax.Array:
        return jnp.full((*leading, *x.shape), np.nan if x.dtype == jnp.float32 else 0, x.dtype)

    def blanks() -> tuple[Tree, Tree]:
        return jax.tree.map(lambda x: blank(x, s.reads), seen), jax.tree.map(blank, seen["last"])

    history, last = jax.jit(blanks, out_shardings=everywhere)()
    zero = jax.device_put(np.int32(0), everywhere)
    (states, history, last, k), resumed = checkpoints.restore((like, history, last, zero))
    if not resumed:
        states = jax.jit(first, out_shardings=placed)(frozen.reference, tasks)
    return Climb(states, history, last, int(k), placed, everywhere, saved=time.monotonic())


def go_on(s: Setup, frozen: Frozen, tasks: Task, climb: Climb, checkpoints: Checkpoints, log: Tracker) -> None:
    """Steps until every member is due for a read.

    Raises:
      Preempted: the run was told to stop; what is done is saved.
    """
    while not bool(jnp.all(due(s, tasks, climb.states))):
        started = time.monotonic()
        with log.timed("learn"):
            states = jax.device_put(climb.states, climb.placed)
            climb.states, climb.last = advance(s, frozen, tasks, states, climb.last, np.int32(climb.limit))
            jax.block_until_ready(climb.states.step)
        step, kl = hosts.fetch((climb.states.step, climb.states.kl))
        log.show(climb.k, update=step, kl=kl)
        climb.limit = int(hosts.agree(np.int32(next_limit(climb.limit, time.monotonic() - started))))
        if hosts.preempted():
            log.close()
            climb.save(checkpoints)
            raise hosts.Preempted
        if hosts.agree(np.bool_(time.monotonic() - climb.saved > MINUTES * 60)):
            log.flush()
            climb.save(checkpoints)


def take_read(s: Setup, frozen: Frozen, tasks: Task, climb: Climb, log: Tracker, observe: Observe) -> None:
    """Read every member and set what it is read at next."""
    states = climb.states
    with log.timed("read"):
        whole = jax.block_until_ready(read(s, frozen, tasks, states))
        measured = kept(s.c.read_draws, whole)
        if observe is not nothing_else:
            measured |= observe(*hosts.fetch((whole["tokens"], whole["mask"])))
    seen = {"read": measured, "last": climb.last, "step": states.step}
    climb.history = record(climb.history, seen, climb.k)
    means = {name: jnp.mean(measured[name], axis=-1) for name in ("kl", "gold", "length", "entropy")}
    means["held_accuracy"] = measured["held_accuracy"]
    shown = {f"last_{name}": value for name, value in climb.last.items()} if climb.k else {}
    log.write(climb.k, {**means, "update": states.step, **shown})
    climb.states = after_read(s, states)
    climb.k += 1


def train(
    s: Setup,
    frozen: Frozen,
    tasks: Task,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    log: Tracker,
    every: int = 8,
    observe: Observe = nothing_else,
) -> tuple[dict[str, Tree], State]:
    """Train every member, reading on the way; resumes from the last checkpoint, of which there is one every so many
    reads.

    Returns (history, final states). history["read"] holds `read`'s values per read, [K, M, Q] or [K, M] (`tokens`,
    `mask`: [K, M, Q, R]), and what `observe` says, on the host, of all samples of a read; history["last"] the metrics
    of the last step before it, [K, M], and history["step"] its number. A finished member repeats its step: such reads
    are not new points.

    Raises:
      Preempted: the run was told to stop; what is done is saved.
    """
    climb = begin_or_resume(s, frozen, tasks, mesh, checkpoints, observe)
    frozen, tasks = sharding.place((frozen, tasks), sharding.shardings_of((frozen, tasks), mesh))
    log.resume(climb.k)
    while climb.unfinished(s, tasks):
        if climb.k:
            go_on(s, frozen, tasks, climb, checkpoints, log)
        take_read(s, frozen, tasks, climb, log, observe)
        if climb.k % every == 0:
            log.flush()
            climb.save(checkpoints)
    log.close()
    return jax.tree.map(lambda x: x[: climb.k], hosts.fetch(climb.history)), climb.states
