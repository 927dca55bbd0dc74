"""A policy's climb: PPO iterations until gold is to be read, the read, and again; checkpoints on the way.

Small policies climb side by side, many iterations in one program. One that fills the machine makes its iterations in
three programs, so that what sampling, scoring and updating take is known, and each holds only what it needs.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmo.methods.bench import SPREAD
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
from rmo.methods.ppo import update as ppo
from rmo.methods.ppo.update import Frozen, PPOState, Setup, Task, iteration
from rmo.methods.targets import next_target
from rmo.models import metrics, scoring
from rmo.models.sampling import join
from rmo.models.transformer import Params
from rmo.rewards import combination
from rmo.runtime import flops, hosts, sharding
from rmo.runtime.types import Tree
from rmo.training.tracker import Checkpoints, Tracker
from rmo.training.update import pick


@partial(jax.jit, static_argnames="s")
def finished(s: Setup, task: Task, state: PPOState) -> jax.Array:
    """Whether a member has reached kl_max or made max_steps."""
    end = s.c.kl_max if task.kl_max is None else task.kl_max
    return (state.kl >= end) | (state.iteration >= s.c.max_steps)


@partial(jax.jit, static_argnames="s")
def due(s: Setup, task: Task, state: PPOState) -> jax.Array:
    """Whether gold is to be read before a member goes on: sqrt(KL) is at its target, `patience` steps have passed
    since the last read, or it is finished."""
    waited = state.iteration >= state.read_at + s.c.patience
    return (state.kl >= state.target**2) | waited | finished(s, task, state)


@partial(jax.jit, static_argnames="s", donate_argnames="states")
def advance(s: Setup, frozen: Frozen, tasks: Task, states: PPOState, last: Tree = None, limit: ArrayLike = 2**30):
    """Iterate each of M members until it is `due`, at most `limit` times; those that are due rest.

    No host sync in the loop, and where the loop is cut changes nothing. Returns (states, metrics of each member's last
    iteration: those of `last`, or nan, where it made none).
    """

    def one(task: Task, state: PPOState, last):
        step, first = partial(iteration, s, frozen, task), state.iteration

        def more(carry: tuple[PPOState, Tree]) -> jax.Array:
            return ~due(s, task, carry[0]) & (carry[0].iteration < first + limit)

        return jax.lax.while_loop(more, lambda carry: step(carry[0]), (state, last))

    if last is None:
        seen = jax.eval_shape(
            lambda m, x: over_tasks(s.side_by_side, partial(iteration, s, frozen), m, x)[1], tasks, states
        )
        last = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), seen)
    states, last = over_tasks(s.side_by_side, one, tasks, states, last)
    return sharding.at_rest(states), last


def in_phases(s: Setup, frozen: Frozen, tasks: Task, states: PPOState, last: Tree, limit: int, log: Tracker):
    """As `advance`, member after member, an iteration being three programs whose seconds go to the log."""

    def finish(what: str, program: Callable[..., Tree], *args: Tree) -> Tree:
        with log.timed(what):
            return jax.block_until_ready(program(s, *args))

    for m in range(tasks.key.shape[0]):
        for _ in range(limit):
            if hosts.fetch(due(s, tasks, states))[m]:
                break
            drawn = finish("sample", draw_one, frozen, tasks, states, m)
            batch, out = finish("score", judge_one, frozen, tasks, states, m, drawn)
            states, last = finish("update", learn_one, tasks, states, last, m, batch, out)
            if hosts.preempted():
                return states, last
    return states, last


def model_flops(s: Setup, frozen: Frozen, tasks: Task, states: PPOState) -> float:
    """FLOPs of one member's iteration as the models ask for them: a backward pass costs two forward ones."""
    task, state = jax.eval_shape(lambda tree: pick(tree, 0), (tasks, states))
    drawn = jax.eval_shape(partial(ppo.draw, s), frozen, state, task.key)
    batch, _ = jax.eval_shape(partial(ppo.judge, s), frozen, task, state, drawn)
    part = jax.eval_shape(lambda tree: jax.tree.map(lambda x: x[: s.c.batch // s.c.minibatches], tree), batch)
    rolled = flops.forward(partial(ppo.draw, s), frozen, state, task.key, loop=s.length)
    rolled += flops.forward(partial(ppo.judge, s), frozen, task, state, drawn)
    learned = flops.forward(partial(ppo.policy_loss, s), state.policy.params, part)
    if state.critic:
        learned += flops.forward(partial(ppo.critic_loss, s), state.critic.params, part)
    return rolled + 3 * s.c.epochs * s.c.minibatches * learned


@partial(jax.jit, static_argnames="s")
def draw_one(s: Setup, frozen: Frozen, tasks: Task, states: PPOState, m: jax.Array) -> ppo.Drawn:
    task, state = pick((tasks, states), m)
    return ppo.draw(s, frozen, state, ppo.keys_of(task, state)[0])


@partial(jax.jit, static_argnames="s")
def judge_one(s: Setup, frozen: Frozen, tasks: Task, states: PPOState, m: jax.Array, drawn: ppo.Drawn):
    task, state = pick((tasks, states), m)
    return ppo.judge(s, frozen, task, state, drawn)


@partial(jax.jit, static_argnames="s", donate_argnames=("states", "last"))
def learn_one(s: Setup, tasks: Task, states: PPOState, last: Tree, m: jax.Array, batch: ppo.Rollout, out: Tree):
    task, state = pick((tasks, states), m)
    new, learned = ppo.after(state, out, ppo.learn(s, state, batch, ppo.keys_of(task, state)[1]))
    put = partial(jax.tree.map, lambda every, one: every.at[m].set(one))
    return sharding.at_rest(put(states, new)), put(last, out | learned)


@partial(jax.jit, static_argnames="s")
def after_read(s: Setup, state: PPOState) -> tuple[jax.Array, jax.Array]:
    """(target, read_at) once gold was read."""
    return next_target(s.c.d_step, state.kl, state.target), state.iteration


@partial(jax.jit, static_argnames="s")
def read(s: Setup, frozen: Frozen, tasks: Task, states: PPOState) -> dict[str, jax.Array]:
    """Means per held-out prompt, f32[M, Q] each, of `read_draws` samples of every member's policy, and the samples
    themselves: `tokens` and `mask` [M, Q * read_draws, R].

    The sampling keys are the same at every read (common random numbers: less noise between points).
    """
    prompts, prompt_mask = (jnp.repeat(x, s.c.read_draws, axis=0) for x in frozen.read_prompts)

    def per_prompt(x: jax.Array) -> jax.Array:
        return jnp.mean(x.reshape(-1, s.c.read_draws), axis=1)

    def some(task: Task, policy: Params, prompts, prompt_mask, keys) -> dict[str, jax.Array]:
        prompts, prompt_mask = sharding.split(prompts), sharding.split(prompt_mask)
        drawn, out = sampled(s.lm, policy, frozen.reference, prompts, prompt_mask, keys, s.length, s.eos)
        tokens_BT, mask_BT = join(prompts, prompt_mask, drawn.tokens, drawn.mask)
        for_proxy, for_gold = s.reward.reader(tokens_BT, mask_BT), s.gold_reader(tokens_BT, mask_BT)
        scores_KB = s.reward.members(task.reward, *for_proxy)
        apart = {SPREAD: combination.spread(scores_KB)} if s.reward.how else {}
        return out | {
            "proxy": s.reward.of_members(task.reward, scores_KB),
            "gold": frozen.gold_calibration(scoring.score(s.gold, frozen.gold, *for_gold)),
            "proxy_cut": s.reward.reader.cut(for_proxy[1]),
            "gold_cut": s.gold_reader.cut(for_gold[1]),
            **apart,
        }

    def one(task: Task, policy: Params):
        keys = jax.random.split(jax.random.fold_in(task.key, 2**31 - 1), prompts.shape[0])
        out = ppo.in_chunks(s, partial(some, task, policy), prompts, prompt_mask, keys)
        shown = {name: out.pop(name) for name in ("tokens", "mask")}
        # How the proxy judges pairs of this policy's own samples: each draw against the next of its prompt.
        gap, gold_gap = (out[n] - jnp.roll(out[n].reshape(-1, s.c.read_draws), 1, 1).ravel() for n in ("proxy", "gold"))
        out |= metrics.agreement(gap * frozen.gold_logits, gold_gap * frozen.gold_logits)
        return {name: per_prompt(value) for name, value in out.items()} | shown

    return over_tasks(s.side_by_side, one, tasks, states.policy.params)


class Start(NamedTuple):
    """Where M members begin that do not begin at the reference."""

    policies: Params  # a leading axis of M
    kl: jax.Array  # f32[M], theirs from the reference


def first_climb(
    s: Setup,
    frozen: Frozen,
    tasks: Task,
    critics: Params | tuple[()],
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    observe: Observe = nothing_else,
    start: Start | None = None,
) -> Climb:
    """The climb as the last checkpoint left it, or before its first read."""
    members = tasks.key.shape[0]
    begin = jax.vmap(partial(ppo.begin, s), in_axes=(0, 0, 0) if start else (None, 0), axis_size=members)
    first = (start.policies, critics, start.kl) if start else (frozen.reference, critics)
    responses = frozen.read_prompts[0].shape[0] * s.c.read_draws

    def seen(states: PPOState) -> dict[str, Tree]:
        found = jax.eval_shape(lambda *args: kept(s.c.read_draws, read(s, *args)), frozen, tasks, states)
        return {
            "read": found | observed_shapes(observe, members, responses, s.length),
            "last": jax.eval_shape(partial(advance, s), frozen, tasks, states)[1],
            "iteration": jax.ShapeDtypeStruct((members,), jnp.int32),
        }

    return begin_or_resume(begin, first, seen, s.reads, mesh, checkpoints)


def iterate(s: Setup, frozen: Frozen, tasks: Task, climb: Climb, log: Tracker) -> None:
    """At most `climb.limit` iterations of every member that is not due."""
    if s.in_phases:
        last = jax.tree.map(jnp.copy, climb.last)
        climb.states, climb.last = in_phases(s, frozen, tasks, climb.states, last, climb.limit, log)
        return
    with log.timed("iterate"):
        states = jax.device_put(climb.states, climb.placed)
        climb.states, climb.last = advance(s, frozen, tasks, states, climb.last, np.int32(climb.limit))
        jax.block_until_ready(climb.states.iteration)


def take_read(
    s: Setup, frozen: Frozen, tasks: Task, climb: Climb, log: Tracker, cost: float, observe: Observe = nothing_else
) -> None:
    """Read every member and set what it is read at next. `cost`: FLOPs of one member's iteration, 0 where not known."""
    states, last = climb.states, climb.last
    measured = look(partial(read, s, frozen, tasks), climb, s.c.read_draws, log, observe)
    if climb.k:
        made, length = hosts.fetch((states.iteration - states.read_at, last["length"]))
        log.did(float(np.nansum(made * length)) * s.c.batch, float(made.sum()) * cost)
    seen = {"read": measured, "last": last, "iteration": states.iteration}
    climb.history = record(climb.history, seen, climb.k)
    named = [name for name in ("kl", "proxy", "gold", "length", "entropy", SPREAD) if name in measured]
    means = {name: jnp.mean(measured[name], axis=-1) for name in named}
    shown = {f"last_{name}": value for name, value in last.items()} if climb.k else {}
    log.write(climb.k, {**means, "iteration": states.iteration, **shown})
    target, read_at = after_read(s, states)
    climb.states, climb.last = states._replace(target=target, read_at=read_at), climb.none
    climb.k += 1


def train_ppo(
    s: Setup,
    frozen: Frozen,
    tasks: Task,
    critics: Params | tuple[()],
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    log: Tracker,
    every: int = 8,
    observe: Observe = nothing_else,
    start: Start | None = None,
    keep_end: bool = False,
) -> tuple[dict[str, Tree], PPOState]:
    """Optimise every member until it is finished, reading on the way; resumes from the last checkpoint.

    `critics` has the leading axis M, or is () where the estimator needs none; every policy starts at the reference, or
    where `start` says. Every so many reads there is a checkpoint, and with `keep_end` at the end too, for those who
    come back for it.

    Returns (history, final states). history["read"] holds `read`'s values per read, [K, M, Q] (`tokens`, `mask`:
    [K, M, Q, R]), and what `observe` says, on the host, of all samples of a read; history["last"] the metrics of the
    last iteration before it, [K, M], and history["iteration"] its number. A finished member repeats its iteration
    number: such reads are not new points.

    Raises:
      Preempted: the run was told to stop; what is done is saved.
    """
    climb = first_climb(s, frozen, tasks, critics, mesh, checkpoints, observe, start)
    frozen, tasks = sharding.place((frozen, tasks), sharding.shardings_of((frozen, tasks), mesh))
    log.resume(climb.k)
    known = flops.peak(jax.devices()[0].device_kind)
    cost = model_flops(s, frozen, tasks, climb.states) if known else 0.0
    saved = climb.k
    while climb.unfinished(partial(finished, s, tasks), s.reads):
        if climb.k:
            go_on(
                climb,
                partial(due, s, tasks),
                partial(iterate, s, frozen, tasks, climb, log),
                checkpoints,
                log,
                "iteration",
            )
        take_read(s, frozen, tasks, climb, log, cost, observe)
        if climb.k % every == 0:
            log.flush()
            climb.save(checkpoints)
            saved = climb.k
    log.close()
    if keep_end and climb.k != saved:
        climb.save(checkpoints)
    return jax.tree.map(lambda x: x[: climb.k], hosts.fetch(climb.history)), climb.states
