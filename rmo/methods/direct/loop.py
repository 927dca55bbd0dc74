"""A policy on its way from the initial one: steps until gold is to be read, the read, and again; checkpoints between.

As PPO's (rmo/methods/ppo/loop.py); what both have in common is rmo/methods/climb.py.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmo.methods.climb import (
    Climb,
    Observe,
    begin_or_resume,
    go_on,
    kept,
    look,
    nothing_else,
    observed_shapes,
    over_tasks,
    record,
    sampled,
)
from rmo.methods.direct.update import Frozen, Setup, State, Task, begin, chunked, split_at, stretch
from rmo.methods.targets import next_target
from rmo.models import metrics, scoring
from rmo.models.sampling import join, response_stats
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
    """Once gold was read."""
    return states._replace(target=next_target(s.c.d_step, states.kl, states.target), read_at=states.step)


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
        out = chunked(s, partial(judged, s, frozen, policy), prompts, prompt_mask, keys)
        shown = {name: out.pop(name) for name in ("tokens", "mask")}
        out["implicit"] = task.beta * out["kl_k1"]
        # How the implicit reward judges pairs of the policy's own samples: each draw against the next of its prompt.
        implicit, gold = (by_prompt(out[name]) for name in ("implicit", "gold"))
        gaps = (x - jnp.roll(x, 1, axis=1) for x in (implicit, gold))
        out["accuracy"] = metrics.agreement(*gaps)["accuracy"]
        means = {name: jnp.mean(by_prompt(value), axis=1) for name, value in out.items()}
        return means | held_out(s, frozen, task, policy) | shown

    return over_tasks(s.side_by_side, one, tasks, states.policy.params)


def judged(s: Setup, frozen: Frozen, policy: Params, prompts, prompt_mask, keys) -> dict[str, jax.Array]:
    """One response to each prompt and what is known of it, [B, ...]."""
    prompts, prompt_mask = sharding.split(prompts), sharding.split(prompt_mask)
    drawn, out = sampled(s.lm, policy, frozen.reference, prompts, prompt_mask, keys, s.length, s.eos)
    tokens_BS, mask_BS = s.gold_reader(*join(prompts, prompt_mask, drawn.tokens, drawn.mask))
    gold = frozen.gold_calibration(scoring.score(s.gold, frozen.gold, tokens_BS, mask_BS))
    return out | {"gold": gold, "gold_cut": s.gold_reader.cut(mask_BS)}


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


def first_climb(
    s: Setup, frozen: Frozen, tasks: Task, mesh: jax.sharding.Mesh, checkpoints: Checkpoints, observe: Observe
) -> Climb:
    """The climb as the last checkpoint left it, or before its first read."""
    members, responses = tasks.key.shape[0], frozen.read_prompts[0].shape[0] * s.c.read_draws

    def seen(states: State) -> dict[str, Tree]:
        found = jax.eval_shape(lambda *args: kept(s.c.read_draws, read(s, *args)), frozen, tasks, states)
        one_task, one_state = jax.eval_shape(partial(pick, m=0), (tasks, states))
        last = jax.eval_shape(partial(stretch, s), frozen, one_task, one_state)[1]
        return {
            "read": found | observed_shapes(observe, members, responses, s.length),
            "last": {name: jax.ShapeDtypeStruct((members, *x.shape), x.dtype) for name, x in last.items()},
            "step": states.step,
        }

    begins = jax.vmap(partial(begin, s), in_axes=(None, 0))
    return begin_or_resume(begins, (frozen.reference, tasks), seen, s.reads, mesh, checkpoints)


def learn(s: Setup, frozen: Frozen, tasks: Task, climb: Climb, log: Tracker) -> None:
    """At most `climb.limit` stretches of every member that is not due."""
    with log.timed("learn"):
        states = jax.device_put(climb.states, climb.placed)
        climb.states, climb.last = advance(s, frozen, tasks, states, climb.last, np.int32(climb.limit))
        jax.block_until_ready(climb.states.step)


def take_read(s: Setup, frozen: Frozen, tasks: Task, climb: Climb, log: Tracker, observe: Observe) -> None:
    """Read every member and set what it is read at next."""
    states = climb.states
    measured = look(partial(read, s, frozen, tasks), climb, s.c.read_draws, log, observe)
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
    climb = first_climb(s, frozen, tasks, mesh, checkpoints, observe)
    frozen, tasks = sharding.place((frozen, tasks), sharding.shardings_of((frozen, tasks), mesh))
    log.resume(climb.k)
    while climb.unfinished(partial(finished, s, tasks), s.reads):
        if climb.k:
            go_on(
                climb, partial(due, s, tasks), partial(learn, s, frozen, tasks, climb, log), checkpoints, log, "update"
            )
        take_read(s, frozen, tasks, climb, log, observe)
        if climb.k % every == 0:
            log.flush()
            climb.save(checkpoints)
    log.close()
    return jax.tree.map(lambda x: x[: climb.k], hosts.fetch(climb.history)), climb.states
