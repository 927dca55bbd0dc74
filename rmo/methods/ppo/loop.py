"""A policy's climb: PPO iterations until gold is to be read, the read, and again; checkpoints on the way.

Small policies climb side by side, many iterations in one program. One that fills the machine makes its iterations in
three programs, so that what sampling, scoring and updating take is known, and each holds only what it needs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmo.methods.bench import SPREAD
from rmo.methods.climb import MINUTES, Observe, kept, next_limit, nothing_else, over_tasks, record
from rmo.methods.ppo import update as ppo
from rmo.methods.ppo.update import Frozen, PPOState, Setup, Task, iteration
from rmo.models import metrics, scoring
from rmo.models.sampling import join, response_stats, sample
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
    """(target, read_at) once gold was read. Targets lie on one grid and only rise, so that the number of reads is
    bounded."""
    rise = jnp.maximum(ppo.grid_above(s.c.d_step, state.kl), state.target + 0.5 * s.c.d_step)
    return jnp.where(state.kl >= state.target**2, rise, state.target), state.iteration


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
        drawn = sample(s.lm, policy, prompts, prompt_mask, keys, s.length, s.eos)
        stats = response_stats(s.lm, policy, prompts, prompt_mask, drawn.tokens, drawn.mask, frozen.reference)
        logps, ref_logps = stats["logps"], stats["ref_logps"]
        tokens_BT, mask_BT = join(prompts, prompt_mask, drawn.tokens, drawn.mask)
        for_proxy, for_gold = s.reward.reader(tokens_BT, mask_BT), s.gold_reader(tokens_BT, mask_BT)
        scores_KB = s.reward.members(task.reward, *for_proxy)
        apart = {SPREAD: combination.spread(scores_KB)} if s.reward.how else {}
        length = jnp.sum(drawn.mask, axis=1)
        ended = jnp.any((drawn.tokens == s.eos) & drawn.mask, axis=1)
        return {
            "kl": jnp.sum(stats["kl"] * drawn.mask, axis=1),
            "kl_k1": metrics.kl_k1(logps, ref_logps, drawn.mask),
            "kl_k3": metrics.kl_k3(logps, ref_logps, drawn.mask),
            "proxy": s.reward.of_members(task.reward, scores_KB),
            "gold": frozen.gold_calibration(scoring.score(s.gold, frozen.gold, *for_gold)),
            "proxy_cut": s.reward.reader.cut(for_proxy[1]),
            "gold_cut": s.gold_reader.cut(for_gold[1]),
            "entropy": jnp.sum(stats["entropy"] * drawn.mask, axis=1) / length,
            "length": length.astype(jnp.float32),
            "unfinished": 1.0 - ended.astype(jnp.float32),
            "tokens": drawn.tokens,
            "mask": drawn.mask,
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


@dataclass
class Climb:
    """M members on their way: what `train_ppo` changes as it goes. A checkpoint holds the first four."""

    states: PPOState
    history: Tree  # of `s.reads` reads, blank beyond the k-th
    last: Tree  # metrics of each member's last iteration since the last read
    k: int  # reads so far
    none: Tree  # `last` where no iteration was made
    placed: PPOState  # shardings of the states
    everywhere: jax.sharding.Sharding
    limit: int = 1  # iterations of the next dispatch
    saved: float = 0.0  # when a checkpoint was written last

    def save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint; its number only has to grow."""
        number = self.k + int(jnp.sum(self.states.iteration))
        k = jax.device_put(np.int32(self.k), self.everywhere)
        checkpoints.save(number, (self.states, self.history, self.last, k))
        self.saved = time.monotonic()

    def unfinished(self, s: Setup, tasks: Task) -> bool:
        """Whether some member has iterations left, or a last read."""
        if self.k == 0:
            return True
        going = ~finished(s, tasks, self.states) | (self.states.iteration > self.states.read_at)
        return self.k < s.reads and bool(jnp.any(going))


def begin_or_resume(
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
    begin = jax.vmap(partial(ppo.begin, s), in_axes=(0, 0, 0) if start else (None, 0), axis_size=tasks.key.shape[0])
    first = (start.policies, critics, start.kl) if start else (frozen.reference, critics)
    shapes = jax.eval_shape(begin, *first)
    placed = sharding.shardings_of(shapes, mesh)
    like = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, placed)
    observed = observed_shapes(s, frozen, tasks, observe)
    seen = {
        "read": jax.eval_shape(partial(read_and_kept, s), frozen, tasks, shapes) | observed,
        "last": jax.eval_shape(partial(advance, s), frozen, tasks, shapes)[1],
        "iteration": jax.ShapeDtypeStruct(tasks.key.shape[:1], jnp.int32),
    }
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def blank(x: jax.ShapeDtypeStruct, *leading: int) -> jax.Array:
        return jnp.full((*leading, *x.shape), np.nan if x.dtype == jnp.float32 else 0, x.dtype)

    def blanks() -> tuple[Tree, Tree]:
        return jax.tree.map(lambda x: blank(x, s.reads), seen), jax.tree.map(blank, seen["last"])

    history, none = jax.jit(blanks, out_shardings=everywhere)()
    zero = jax.device_put(np.int32(0), everywhere)
    (states, history, last, k), resumed = checkpoints.restore((like, history, none, zero))
    if not resumed:
        states = jax.jit(begin, out_shardings=placed)(*first)
    return Climb(states, history, last, int(k), none, placed, everywhere, saved=time.monotonic())


def read_and_kept(s: Setup, frozen: Frozen, tasks: Task, states: PPOState) -> dict[str, jax.Array]:
    """A read as the history holds it, but for what is observed on the host."""
    return kept(s.c.read_draws, read(s, frozen, tasks, states))


def observed_shapes(s: Setup, frozen: Frozen, tasks: Task, observe: Observe) -> dict[str, jax.ShapeDtypeStruct]:
    """Of what `observe` gives, found by asking it about responses without a word."""
    rows = tasks.key.shape[0], frozen.read_prompts[0].shape[0] * s.c.read_draws, s.length
    found = observe(np.zeros(rows, np.int32), np.zeros(rows, bool))
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in found.items()}


def iterate(s: Setup, frozen: Frozen, tasks: Task, climb: Climb, checkpoints: Checkpoints, log: Tracker) -> None:
    """Iterate until every member is due for a read.

    Raises:
      Preempted: the run was told to stop; what is done is saved.
    """
    while not bool(jnp.all(due(s, tasks, climb.states))):
        started, limit = time.monotonic(), np.int32(climb.limit)
        if s.in_phases:
            last = jax.tree.map(jnp.copy, climb.last)
            climb.states, climb.last = in_phases(s, frozen, tasks, climb.states, last, climb.limit, log)
        else:
            with log.timed("iterate"):
                states = jax.device_put(climb.states, climb.placed)
                climb.states, climb.last = advance(s, frozen, tasks, states, climb.last, limit)
                jax.block_until_ready(climb.states.iteration)
        iteration, kl = hosts.fetch((climb.states.iteration, climb.states.kl))
        log.show(climb.k, iteration=iteration, kl=kl)
        climb.limit = int(hosts.agree(np.int32(next_limit(climb.limit, time.monotonic() - started))))
        if hosts.preempted():
            log.close()
            climb.save(checkpoints)
            raise hosts.Preempted
        if hosts.agree(np.bool_(time.monotonic() - climb.saved > MINUTES * 60)):
            log.flush()
            climb.save(checkpoints)


def take_read(
    s: Setup, frozen: Frozen, tasks: Task, climb: Climb, log: Tracker, cost: float, observe: Observe = nothing_else
) -> None:
    """Read every member and set what it is read at next. `cost`: FLOPs of one member's iteration, 0 where not known."""
    states, last = climb.states, climb.last
    with log.timed("read"):
        whole = jax.block_until_ready(read(s, frozen, tasks, states))
        measured = kept(s.c.read_draws, whole)
        if observe is not nothing_else:
            measured |= observe(*hosts.fetch((whole["tokens"], whole["mask"])))
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
    climb = begin_or_resume(s, frozen, tasks, critics, mesh, checkpoints, observe, start)
    frozen, tasks = sharding.place((frozen, tasks), sharding.shardings_of((frozen, tasks), mesh))
    log.resume(climb.k)
    known = flops.peak(jax.devices()[0].device_kind)
    cost = model_flops(s, frozen, tasks, climb.states) if known else 0.0
    saved = climb.k
    while climb.unfinished(s, tasks):
        if climb.k:
            iterate(s, frozen, tasks, climb, checkpoints, log)
        take_read(s, frozen, tasks, climb, log, cost, observe)
        if climb.k % every == 0:
            log.flush()
            climb.save(checkpoints)
            saved = climb.k
    log.close()
    if keep_end and climb.k != saved:
        climb.save(checkpoints)
    return jax.tree.map(lambda x: x[: climb.k], hosts.fetch(climb.history)), climb.states
