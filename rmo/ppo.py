"""PPO against a proxy (Schulman et al. 2017; paper section 3). One jitted iteration; runs share one program.

An iteration samples, scores, estimates advantages and makes epochs x minibatches of clipped updates of two separate
networks. Gold is never seen by the optimiser: it is read on fixed held-out prompts whenever sqrt(KL) has grown enough.
"""

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rmo import config, hosts, losses, metrics, models, reward, sharding
from rmo.files import Checkpoints, Log
from rmo.models import LanguageModel, Params, RewardModel
from rmo.reader import IDS, Reader
from rmo.sample import join, response_stats, sample
from rmo.train import TrainState, init_state, make_optimizer, update


@dataclass(frozen=True)
class Setup:
    """What is static in one PPO run."""

    lm: LanguageModel
    critic: RewardModel
    proxy: RewardModel
    gold: RewardModel
    c: config.PPO
    length: int  # R
    eos: int
    # Members under one vmap, each waiting for the slowest at every read; else they take turns.
    side_by_side: bool = True
    proxy_reader: Reader = IDS
    gold_reader: Reader = IDS

    @property
    def optimizers(self) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """For the policy and for the critic."""
        steps = self.c.max_steps * self.c.epochs * self.c.minibatches
        return make_optimizer(self.c.policy_optimizer, steps), make_optimizer(self.c.critic_optimizer, steps)

    @property
    def reads(self) -> int:
        """Most reads that a member can need: one at the start, one per step of sqrt(KL), one per spell of patience."""
        return 2 + math.ceil(self.c.kl_max**0.5 / self.c.d_step) + self.c.max_steps // self.c.patience


class Frozen(NamedTuple):
    """Arrays that no update changes. Prompts are (tokens, mask) pairs."""

    reference: Params
    gold: Params
    gold_calibration: reward.Calibration
    train_prompts: tuple[jax.Array, jax.Array]  # [Q, P]
    read_prompts: tuple[jax.Array, jax.Array]  # [Q, P]
    gold_logits: float | jax.Array = 1.0  # that one standard deviation of gold is


class Member(NamedTuple):
    """What differs between runs that share one program."""

    proxy: Params
    proxy_calibration: reward.Calibration
    key: jax.Array
    kl_coef: jax.Array  # f32[]


class PPOState(NamedTuple):
    """Arrays only."""

    iteration: jax.Array  # i32[]
    kl: jax.Array  # f32[], what the last rollout showed
    target: jax.Array  # f32[], sqrt(KL) at which gold is read next
    read_at: jax.Array  # i32[], iteration at which gold was read last
    policy: TrainState
    critic: TrainState


class Rollout(NamedTuple):
    """One batch of episodes; everything about responses is [B, R], 0 where mask is unset."""

    prompts: jax.Array  # i32[B, P]
    prompt_mask: jax.Array  # bool[B, P]
    tokens: jax.Array
    mask: jax.Array
    logps: jax.Array
    values: jax.Array
    advantages: jax.Array
    returns: jax.Array


def gae(rewards_BR: jax.Array, values_BR: jax.Array, mask_BR: jax.Array, lam: float) -> tuple[jax.Array, jax.Array]:
    """(advantages, returns) f32[B, R] with gamma 1 (Schulman et al. 2015, eq. 16); the episode ends with the mask.

    delta_t = r_t + V_{t+1} - V_t and A_t = delta_t + lam A_{t+1}, with V and A zero after the last token.
    """
    values_BR = values_BR * mask_BR
    after_BR = jnp.concatenate([values_BR[:, 1:], jnp.zeros_like(values_BR[:, :1])], axis=1)
    delta_BR = (rewards_BR + after_BR - values_BR) * mask_BR

    def backwards(advantage_B, delta_B):
        advantage_B = delta_B + lam * advantage_B
        return advantage_B, advantage_B

    _, advantages_RB = jax.lax.scan(backwards, jnp.zeros_like(delta_BR[:, 0]), delta_BR.T, reverse=True)
    advantages_BR = advantages_RB.T * mask_BR
    return advantages_BR, advantages_BR + values_BR


def episode_rewards(score_B, logps_BR, ref_logps_BR, mask_BR, kl_coef) -> jax.Array:
    """Per-token rewards f32[B, R]: -kl_coef * log(policy/reference) everywhere, the score on the last real token."""
    last_BR = jnp.arange(mask_BR.shape[1])[None] == reward.last_token(mask_BR)[:, None]
    penalty_BR = kl_coef * (logps_BR - ref_logps_BR)
    return (jnp.where(last_BR, score_B[:, None], 0.0) - penalty_BR) * mask_BR


def rollout(
    s: Setup, frozen: Frozen, member: Member, state: PPOState, key: jax.Array
) -> tuple[Rollout, dict[str, jax.Array]]:
    """Sample a batch and prepare it for the update. Old log-probs are teacher-forced, as in the update, so that the
    first ratio is 1; `sampler_gap` is how far the sampler's own are from them."""
    prompt_key, sample_key = jax.random.split(key)
    rows_B = jax.random.randint(prompt_key, (s.c.batch,), 0, frozen.train_prompts[0].shape[0])
    keys_B = jax.random.split(sample_key, s.c.batch)

    def episodes(rows_B, keys_B) -> dict[str, jax.Array]:
        """Everything about some of the episodes; each has its own key, so it does not matter which go together."""
        prompts, prompt_mask = (sharding.split(x[rows_B]) for x in frozen.train_prompts)
        policy, critic = state.policy.params, state.critic.params
        drawn = sample(s.lm, policy, prompts, prompt_mask, keys_B, s.length, s.eos)
        mask = drawn.mask
        stats = response_stats(s.lm, policy, prompts, prompt_mask, drawn.tokens, mask, frozen.reference)
        tokens_BT, mask_BT = join(prompts, prompt_mask, drawn.tokens, mask)
        raw_B = reward.score(s.proxy, member.proxy, *s.proxy_reader(tokens_BT, mask_BT))
        values = models.values(s.critic, critic, tokens_BT, mask_BT, slice(prompts.shape[1] - 1, -1)) * mask
        logps = stats["logps"] * mask
        return {
            "tokens": drawn.tokens, "mask": mask, "logps": logps, "ref_logps": stats["ref_logps"] * mask,
            "values": values, "score": member.proxy_calibration(raw_B), "kl": jnp.sum(stats["kl"] * mask, axis=1),
            "gap": jnp.max(jnp.abs(drawn.logps - logps), axis=1),
        }  # fmt: skip

    if s.c.chunk and s.c.chunk < s.c.batch:
        in_chunks = lambda x: x.reshape(-1, s.c.chunk, *x.shape[1:])  # noqa: E731
        found = jax.lax.map(lambda args: episodes(*args), (in_chunks(rows_B), in_chunks(keys_B)))
        found = jax.tree.map(lambda x: sharding.split(x.reshape(s.c.batch, *x.shape[2:])), found)
    else:
        found = episodes(rows_B, keys_B)
    prompts, prompt_mask = (sharding.split(x[rows_B]) for x in frozen.train_prompts)
    mask, logps, values = found["mask"], found["logps"], found["values"]
    rewards = episode_rewards(found["score"], logps, found["ref_logps"], mask, member.kl_coef)
    advantages, returns = gae(rewards, values, mask, s.c.lam)
    advantages = metrics.whiten(advantages, mask)
    out = Rollout(prompts, prompt_mask, found["tokens"], mask, logps, values, advantages, returns)
    return out, {
        "kl": jnp.mean(found["kl"]),
        "proxy": jnp.mean(found["score"]),
        "length": jnp.mean(jnp.sum(mask, axis=1).astype(jnp.float32)),
        "explained_variance": metrics.explained_variance(values, returns, mask),
        "sampler_gap": jnp.max(found["gap"]),
    }


def policy_loss(s: Setup, params: Params, batch: Rollout) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A train.Loss for the policy."""
    stats = response_stats(s.lm, params, batch.prompts, batch.prompt_mask, batch.tokens, batch.mask)
    logps_BR = stats["logps"] * batch.mask
    loss, out = losses.clipped_policy(logps_BR, batch.logps, batch.advantages, batch.mask, s.c.clip)
    entropy = metrics.masked_mean(stats["entropy"], batch.mask)
    return loss - s.c.entropy_coef * entropy, {**out, "entropy": entropy, "tokens": batch.mask.sum()}


def critic_loss(s: Setup, params: Params, batch: Rollout) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A train.Loss for the critic."""
    tokens_BT, mask_BT = join(batch.prompts, batch.prompt_mask, batch.tokens, batch.mask)
    values = models.values(s.critic, params, tokens_BT, mask_BT, slice(batch.prompts.shape[1] - 1, -1))
    loss = losses.clipped_value(values * batch.mask, batch.values, batch.returns, batch.mask, s.c.clip)
    return loss, {"tokens": batch.mask.sum()}


def iteration(s: Setup, frozen: Frozen, member: Member, state: PPOState) -> tuple[PPOState, dict[str, jax.Array]]:
    """One PPO iteration; its randomness is fold_in(member.key, iteration). Metrics belong to the policy before it."""
    sample_key, shuffle_key = jax.random.split(jax.random.fold_in(member.key, state.iteration))
    batch, out = rollout(s, frozen, member, state, sample_key)
    policy_tx, critic_tx = s.optimizers
    orders = jax.vmap(lambda key: jax.random.permutation(key, s.c.batch))(jax.random.split(shuffle_key, s.c.epochs))

    def minibatch(carry, rows):
        policy, critic = carry
        part = jax.tree.map(lambda x: x[rows], batch)
        policy, policy_metrics = update(
            policy, partial(policy_loss, s), part, policy_tx, s.c.policy_optimizer.accumulate
        )
        critic, critic_metrics = update(
            critic, partial(critic_loss, s), part, critic_tx, s.c.critic_optimizer.accumulate
        )
        return (policy, critic), {**policy_metrics, "critic_loss": critic_metrics["loss"]}

    rows = orders.reshape(s.c.epochs * s.c.minibatches, -1)
    (policy, critic), seen = jax.lax.scan(minibatch, (state.policy, state.critic), rows)
    out |= {name: jnp.mean(seen[name]) for name in ("clip_fraction", "approx_kl", "entropy", "critic_loss")}
    out |= {"first_ratio": seen["ratio"][0], "policy_loss": jnp.mean(seen["loss"])}
    return PPOState(state.iteration + 1, out["kl"], state.target, state.read_at, policy, critic), out


def finished(s: Setup, state: PPOState) -> jax.Array:
    """Whether a member has reached kl_max or made max_steps."""
    return (state.kl >= s.c.kl_max) | (state.iteration >= s.c.max_steps)


def due(s: Setup, state: PPOState) -> jax.Array:
    """Whether gold is to be read before a member goes on: sqrt(KL) is at its target, `patience` steps have passed
    since the last read, or it is finished."""
    return (state.kl >= state.target**2) | (state.iteration >= state.read_at + s.c.patience) | finished(s, state)


def fills(shape: config.Model) -> bool:
    """Whether one policy keeps an accelerator busy. Smaller ones go side by side; larger ones (and all on a CPU) take
    turns: they would only wait for the slowest at every read, and hold as many copies gathered for decoding."""
    return shape.weights > 2**27


def over_members(s: Setup, fn: Any, *trees: Any) -> Any:
    """fn of every member, in one program; trees have a leading axis M."""
    return jax.vmap(fn)(*trees) if s.side_by_side else jax.lax.map(lambda args: fn(*args), trees)


@partial(jax.jit, static_argnames="s", donate_argnames="states")
def advance(s: Setup, frozen: Frozen, members: Member, states: PPOState, last: Any = None, limit: Any = 2**30):
    """Iterate each of M members until it is `due`, at most `limit` times; those that are due rest.

    No host sync in the loop, and where the loop is cut changes nothing. Returns (states, metrics of each member's last
    iteration: those of `last`, or nan, where it made none).
    """

    def one(member: Member, state: PPOState, last):
        step, first = partial(iteration, s, frozen, member), state.iteration
        more = lambda carry: ~due(s, carry[0]) & (carry[0].iteration < first + limit)  # noqa: E731
        return jax.lax.while_loop(more, lambda carry: step(carry[0]), (state, last))

    if last is None:
        seen = jax.eval_shape(lambda m, x: over_members(s, partial(iteration, s, frozen), m, x)[1], members, states)
        last = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), seen)
    states, last = over_members(s, one, members, states, last)
    return sharding.at_rest(states), last


@partial(jax.jit, static_argnames="s")
def after_read(s: Setup, state: PPOState) -> tuple[jax.Array, jax.Array]:
    """(target, read_at) once gold was read. Targets lie on one grid and only rise, so that the number of reads is
    bounded."""
    above = (jnp.sqrt(jnp.maximum(state.kl, 0)) // s.c.d_step + 1) * s.c.d_step
    rise = jnp.maximum(above, state.target + 0.5 * s.c.d_step)
    return jnp.where(state.kl >= state.target**2, rise, state.target), state.iteration


@partial(jax.jit, static_argnames="s")
def read(s: Setup, frozen: Frozen, members: Member, states: PPOState) -> dict[str, jax.Array]:
    """Means per held-out prompt, f32[M, Q] each, of `read_draws` samples of every member's policy.

    The sampling keys are the same at every read (common random numbers: less noise between points).
    """
    prompts, prompt_mask = (jnp.repeat(x, s.c.read_draws, axis=0) for x in frozen.read_prompts)
    per_prompt = lambda x: jnp.mean(x.reshape(-1, s.c.read_draws), axis=1)  # noqa: E731

    def one(member: Member, policy: Params):
        keys = jax.random.split(jax.random.fold_in(member.key, 2**31 - 1), prompts.shape[0])
        drawn = sample(s.lm, policy, prompts, prompt_mask, keys, s.length, s.eos)
        stats = response_stats(s.lm, policy, prompts, prompt_mask, drawn.tokens, drawn.mask, frozen.reference)
        logps, ref_logps = stats["logps"], stats["ref_logps"]
        tokens_BT, mask_BT = join(prompts, prompt_mask, drawn.tokens, drawn.mask)
        for_proxy, for_gold = s.proxy_reader(tokens_BT, mask_BT), s.gold_reader(tokens_BT, mask_BT)
        length = jnp.sum(drawn.mask, axis=1)
        ended = jnp.any((drawn.tokens == s.eos) & drawn.mask, axis=1)
        out = {
            "kl": jnp.sum(stats["kl"] * drawn.mask, axis=1),
            "kl_k1": metrics.kl_k1(logps, ref_logps, drawn.mask),
            "kl_k3": metrics.kl_k3(logps, ref_logps, drawn.mask),
            "proxy": member.proxy_calibration(reward.score(s.proxy, member.proxy, *for_proxy)),
            "gold": frozen.gold_calibration(reward.score(s.gold, frozen.gold, *for_gold)),
            "proxy_cut": s.proxy_reader.cut(for_proxy[1]),
            "gold_cut": s.gold_reader.cut(for_gold[1]),
            "entropy": jnp.sum(stats["entropy"] * drawn.mask, axis=1) / length,
            "length": length.astype(jnp.float32),
            "unfinished": 1.0 - ended.astype(jnp.float32),
        }
        # How the proxy judges pairs of this policy's own samples: each draw against the next of its prompt.
        gap, gold_gap = (out[n] - jnp.roll(out[n].reshape(-1, s.c.read_draws), 1, 1).ravel() for n in ("proxy", "gold"))
        out |= metrics.agreement(gap * frozen.gold_logits, gold_gap * frozen.gold_logits)
        # The first draw of each prompt is kept, so that people can read what the policy writes.
        shown = {"tokens": drawn.tokens[:: s.c.read_draws], "mask": drawn.mask[:: s.c.read_draws]}
        return {name: per_prompt(value) for name, value in out.items()} | shown

    return over_members(s, one, members, states.policy.params)


def train_ppo(
    s: Setup,
    frozen: Frozen,
    members: Member,
    critics: Params,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    log: Log,
    every: int = 8,
) -> tuple[dict[str, Any], PPOState]:
    """Optimise every member until it is finished, reading on the way; resumes from the last checkpoint.

    `critics` has the leading axis M; every policy starts at the reference.

    Returns (history, final states). history["read"] holds `read`'s values per read, [K, M, Q] (`tokens`, `mask`:
    [K, M, Q, R]); history["last"] the metrics of the last iteration before it, [K, M], and history["iteration"] its
    number. A finished member repeats its iteration number: such reads are not new points.

    Raises:
      Preempted: the run was told to stop; what is done is saved.
    """
    policy_tx, critic_tx = s.optimizers
    size = members.key.shape[0]
    begin = jax.vmap(
        lambda reference, critic: PPOState(
            jnp.int32(0), jnp.float32(0), jnp.float32(s.c.d_step), jnp.int32(0), init_state(reference, policy_tx),
            init_state(critic, critic_tx),
        ),
        in_axes=(None, 0),
    )  # fmt: skip
    shapes = jax.eval_shape(begin, frozen.reference, critics)
    at = sharding.shardings_of(shapes, mesh)
    like = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, at)
    seen = {
        "read": jax.eval_shape(partial(read, s), frozen, members, shapes),
        "last": jax.eval_shape(partial(advance, s), frozen, members, shapes)[1],
        "iteration": jax.ShapeDtypeStruct((size,), jnp.int32),
    }
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    blank = lambda n, x: jnp.full((*n, *x.shape), np.nan if x.dtype == jnp.float32 else 0, x.dtype)  # noqa: E731
    history = jax.device_put(jax.tree.map(partial(blank, (s.reads,)), seen), everywhere)
    none = jax.device_put(jax.tree.map(partial(blank, ()), seen["last"]), everywhere)
    frozen, members = sharding.place((frozen, members), sharding.shardings_of((frozen, members), mesh))
    count = lambda k: jax.device_put(np.int32(k), everywhere)  # noqa: E731
    (states, history, last, k), found = checkpoints.restore((like, history, none, count(0)))
    k = int(k)
    if not found:
        states = jax.jit(begin, out_shardings=at)(frozen.reference, critics)

    def save() -> None:  # its number only has to grow
        number = k + int(jnp.sum(states.iteration))
        checkpoints.save(number, (states, history, last, count(k)))

    log.resume(k)
    saved, limit = time.monotonic(), 1
    while k < s.reads and (k == 0 or bool(jnp.any(~finished(s, states) | (states.iteration > states.read_at)))):
        while k and not bool(jnp.all(due(s, states))):
            started = time.monotonic()
            states, last = advance(s, frozen, members, jax.device_put(states, at), last, limit)
            jax.block_until_ready(states.iteration)
            limit = hosts.agree(np.int32(next_limit(limit, time.monotonic() - started)))
            if hosts.preempted():
                log.close()
                save()
                raise hosts.Preempted
        seen = {"read": read(s, frozen, members, states), "last": last, "iteration": states.iteration}
        for name, new in seen.items():
            history[name] = jax.tree.map(lambda all_K, one: all_K.at[k].set(one), history[name], new)  # noqa: B023
        means = {name: jnp.mean(seen["read"][name], axis=-1) for name in ("kl", "proxy", "gold", "length", "entropy")}
        shown = {f"last_{n}": v for n, v in last.items()} if k else {}
        log.write(k, {**means, "iteration": states.iteration, **shown})
        target, read_at = after_read(s, states)
        states, last = states._replace(target=target, read_at=read_at), none
        k += 1
        if k % every == 0 or bool(hosts.agree(np.bool_(time.monotonic() - saved > MINUTES * 60))):
            log.flush()
            save()
            saved = time.monotonic()
    log.close()
    return jax.tree.map(lambda x: x[:k], hosts.fetch(history)), states


MINUTES = 10  # between checkpoints, where reads are far apart


def next_limit(limit: int, seconds: float) -> int:
    """Iterations of the next dispatch: enough that dispatching costs nothing, few enough to be told to stop."""
    return 2 * limit if seconds < 1 else max(limit // 2, 1) if seconds > 4 else limit
