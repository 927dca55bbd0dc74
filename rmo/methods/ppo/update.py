"""PPO against a reward (Schulman et al. 2017; paper section 3). One jitted iteration; runs share one program.

An iteration samples, scores, estimates advantages and makes epochs x minibatches of clipped updates of two separate
networks. Gold is never seen by the optimiser: it is read on the way (loop.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from rmo import config
from rmo.methods.targets import grid_above
from rmo.models import metrics, scoring, transformer
from rmo.models.reader import IDS, Reader
from rmo.models.sampling import join, response_stats, sample
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.rewards.calibration import Calibration
from rmo.rewards.reward import Reward, RewardParams
from rmo.runtime import sharding
from rmo.runtime.types import Tree
from rmo.training import losses
from rmo.training.update import TrainState, init_state, make_optimizer, update

if TYPE_CHECKING:
    from rmo.methods.ppo.regulariser import Regulariser

Values = Tree  # f32[B, R]; () without a critic


@dataclass(frozen=True)
class Estimator:
    """How the rewards of a batch become the policy's update: what other methods do otherwise in PPO's loop."""

    # (setup, rewards f32[B, R], values, mask bool[B, R]) -> (advantages f32[B, R], returns that the critic learns)
    advantages: Callable[["Setup", jax.Array, Values, jax.Array], tuple[jax.Array, Values]]
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]] = losses.clipped_policy  # takes what this one does
    critic: bool = True  # whether a value network is held and trained
    responses: int = 1  # to each prompt of a batch, next to one another
    whole: bool = False  # one update of the whole batch, for losses that cannot correct what an older policy wrote


def by_critic(s: "Setup", rewards_BR: jax.Array, values_BR: Values, mask_BR: jax.Array) -> tuple[jax.Array, Values]:
    """Generalised advantages, whitened over the batch; the critic learns the returns."""
    advantages_BR, returns_BR = gae(rewards_BR, values_BR, mask_BR, s.c.lam)
    return metrics.whiten(advantages_BR, mask_BR), returns_BR


BY_CRITIC = Estimator(by_critic)  # PPO's


@dataclass(frozen=True)
class Setup:
    """What is static in one PPO run."""

    lm: LanguageModel
    critic: RewardModel
    reward: Reward
    gold: RewardModel
    c: config.PPO
    length: int  # R
    eos: int
    # Members under one vmap, each waiting for the slowest at every read; else they take turns.
    side_by_side: bool = True
    in_phases: bool = False  # sampling, scoring and updating are programs of their own
    gold_reader: Reader = IDS
    estimator: Estimator = BY_CRITIC
    regulariser: "Regulariser | None" = None

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
    gold_calibration: Calibration
    train_prompts: tuple[jax.Array, jax.Array]  # [Q, P]
    read_prompts: tuple[jax.Array, jax.Array]  # [Q, P]
    gold_logits: float | jax.Array = 1.0  # that one standard deviation of gold is


class Task(NamedTuple):
    """What differs between runs that share one program."""

    reward: RewardParams
    key: jax.Array
    kl_coef: jax.Array  # f32[]
    d_per_step: jax.Array  # f32[], the path that an anchored member is held to; 0: none
    coef: Tree = ()  # f32[], of the regulariser; () without one
    kl_max: jax.Array | None = None  # f32[], where it ends; None: where the setup says


class PPOState(NamedTuple):
    """Arrays only."""

    iteration: jax.Array  # i32[]
    kl: jax.Array  # f32[], what the last rollout showed
    target: jax.Array  # f32[], sqrt(KL) at which gold is read next
    read_at: jax.Array  # i32[], iteration at which gold was read last
    policy: TrainState
    critic: TrainState | tuple[()]  # none where the estimator needs none


def begin(s: Setup, start: Params, critic: Params | tuple[()], kl: ArrayLike = 0.0) -> PPOState:
    """The state before the first iteration of a policy that is the reference or, of one that is not, so many nats from
    it."""
    policy_tx, critic_tx = s.optimizers
    policy, critic_state = init_state(start, policy_tx), init_state(critic, critic_tx) if critic else ()
    now = jnp.asarray(kl, jnp.float32)
    return PPOState(jnp.int32(0), now, grid_above(s.c.d_step, now), jnp.int32(0), policy, critic_state)


class Rollout(NamedTuple):
    """One batch of episodes; everything about responses is [B, R], 0 where mask is unset."""

    prompts: jax.Array  # i32[B, P]
    prompt_mask: jax.Array  # bool[B, P]
    tokens: jax.Array
    mask: jax.Array
    logps: jax.Array
    values: Values
    advantages: jax.Array
    returns: Values


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


ANCHOR = 4.0  # KL coefficient per unit of sqrt(KL) ahead of the path: a tenth ahead costs about what gold gains


def penalty(task: Task, state: PPOState) -> jax.Array:
    """The KL coefficient of the next iteration, f32[].

    An anchored member's grows in proportion to how far sqrt(KL) of the last rollout is ahead of the path
    d(t) = d_per_step * iteration (Ziegler et al. 2019, section 2.2, hold KL to a constant; here the target moves).
    """
    ahead = jnp.sqrt(jnp.maximum(state.kl, 0.0)) - task.d_per_step * state.iteration
    return task.kl_coef + jnp.where(task.d_per_step > 0, ANCHOR * jnp.maximum(ahead, 0.0), 0.0)


def episode_rewards(score_B, logps_BR, ref_logps_BR, mask_BR, kl_coef) -> jax.Array:
    """Per-token rewards f32[B, R]: -kl_coef * log(policy/reference) everywhere, the score on the last real token."""
    last_BR = jnp.arange(mask_BR.shape[1])[None] == scoring.last_token(mask_BR)[:, None]
    penalty_BR = kl_coef * (logps_BR - ref_logps_BR)
    return (jnp.where(last_BR, score_B[:, None], 0.0) - penalty_BR) * mask_BR


class Drawn(NamedTuple):
    """Episodes as they were sampled, [B] and [B, R]."""

    rows: jax.Array  # i32[B], which training prompts
    tokens: jax.Array
    mask: jax.Array
    logps: jax.Array  # the sampler's own


def in_chunks(s: Setup, fn: Any, *trees: Any) -> Any:
    """fn of all rows of the trees, `chunk` of them at a time, or fewer so that the parts are equal and, if that can
    be, every device has its share of each."""
    rows = jax.tree.leaves(trees)[0].shape[0]
    if not s.c.chunk or s.c.chunk >= rows:
        return fn(*trees)
    chunk = max((n for n in range(1, s.c.chunk + 1) if rows % n == 0), key=lambda n: (sharding.divides(n), n))
    # Each chunk is split over all devices: GSPMD might as well give some chunks to some of them, and then everything
    # that a chunk computes is moved about, at every token.
    cut = jax.tree.map(lambda x: sharding.split(x.reshape(-1, chunk, *x.shape[1:]), 1), trees)
    found = jax.lax.map(lambda args: jax.tree.map(sharding.split, fn(*args)), cut)
    found = jax.tree.map(lambda x: sharding.split(x, 1), found)
    return jax.tree.map(lambda x: sharding.split(x.reshape(rows, *x.shape[2:])), found)


def draw(s: Setup, frozen: Frozen, state: PPOState, key: jax.Array) -> Drawn:
    """Sample a batch of episodes. Each has its own key, so it does not matter which go together; responses to one
    prompt stand next to one another."""
    prompt_key, sample_key = jax.random.split(key)
    each = s.estimator.responses
    rows_B = jax.random.randint(prompt_key, (s.c.batch // each,), 0, frozen.train_prompts[0].shape[0])
    rows_B = rows_B if each == 1 else jnp.repeat(rows_B, each)

    def some(rows_B, keys_B) -> Drawn:
        prompts, prompt_mask = (sharding.split(x[rows_B]) for x in frozen.train_prompts)
        drawn = sample(s.lm, state.policy.params, prompts, prompt_mask, keys_B, s.length, s.eos)
        return Drawn(rows_B, drawn.tokens, drawn.mask, drawn.logps)

    return in_chunks(s, some, rows_B, jax.random.split(sample_key, s.c.batch))


def judge(s: Setup, frozen: Frozen, task: Task, state: PPOState, drawn: Drawn) -> tuple[Rollout, dict[str, jax.Array]]:
    """Score episodes and prepare them for the update. Old log-probs are teacher-forced, as in the update, so that the
    first ratio is 1; `sampler_gap` is how far the sampler's own are from them."""

    def some(rows_B, tokens, mask, drawn_logps) -> dict[str, Tree]:
        prompts, prompt_mask = (sharding.split(x[rows_B]) for x in frozen.train_prompts)
        policy = state.policy.params
        stats = response_stats(s.lm, policy, prompts, prompt_mask, tokens, mask, frozen.reference)
        tokens_BT, mask_BT = join(prompts, prompt_mask, tokens, mask)
        values: Values = ()
        if state.critic:
            critic, where = state.critic.params, slice(prompts.shape[1] - 1, -1)
            values = transformer.values(s.critic, critic, tokens_BT, mask_BT, where) * mask
        logps = stats["logps"] * mask
        return {
            "logps": logps, "ref_logps": stats["ref_logps"] * mask, "values": values,
            "score": s.reward(task.reward, tokens_BT, mask_BT), "kl": jnp.sum(stats["kl"] * mask, axis=1),
            "gap": jnp.max(jnp.abs(drawn_logps - logps), axis=1),
        }  # fmt: skip

    found, mask = in_chunks(s, some, *drawn), drawn.mask
    prompts, prompt_mask = (sharding.split(x[drawn.rows]) for x in frozen.train_prompts)
    logps, values = found["logps"], found["values"]
    kl_coef, score, said = penalty(task, state), found["score"], {}
    if s.regulariser:
        score, said = s.regulariser.reward(score, logps, found["ref_logps"], drawn.tokens, mask, task.coef)
    rewards = episode_rewards(score, logps, found["ref_logps"], mask, kl_coef)
    advantages, returns = s.estimator.advantages(s, rewards, values, mask)
    if state.critic:
        said = {**said, "explained_variance": metrics.explained_variance(values, returns, mask)}
    out = Rollout(prompts, prompt_mask, drawn.tokens, mask, logps, values, advantages, returns)
    return out, {
        "kl": jnp.mean(found["kl"]),
        "proxy": jnp.mean(found["score"]),
        "length": jnp.mean(jnp.sum(mask, axis=1).astype(jnp.float32)),
        "sampler_gap": jnp.max(found["gap"]),
        "kl_coef": kl_coef,
        **said,
    }


def policy_loss(s: Setup, params: Params, batch: Rollout) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A train.Loss for the policy."""
    stats = response_stats(s.lm, params, batch.prompts, batch.prompt_mask, batch.tokens, batch.mask)
    logps_BR = stats["logps"] * batch.mask
    loss, out = s.estimator.loss(logps_BR, batch.logps, batch.advantages, batch.mask, s.c.clip)
    entropy = metrics.masked_mean(stats["entropy"], batch.mask)
    return loss, {"tokens": batch.mask.sum(), **out, "entropy": entropy}


def critic_loss(s: Setup, params: Params, batch: Rollout) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A train.Loss for the critic."""
    tokens_BT, mask_BT = join(batch.prompts, batch.prompt_mask, batch.tokens, batch.mask)
    values = transformer.values(s.critic, params, tokens_BT, mask_BT, slice(batch.prompts.shape[1] - 1, -1))
    loss = losses.clipped_value(values * batch.mask, batch.values, batch.returns, batch.mask, s.c.clip)
    return loss, {"tokens": batch.mask.sum()}


def learn(
    s: Setup, state: PPOState, batch: Rollout, key: jax.Array
) -> tuple[TrainState, TrainState | tuple[()], dict[str, jax.Array]]:
    """Epochs x minibatches of updates: (policy, critic, metrics)."""
    policy_tx, critic_tx = s.optimizers
    orders = jax.vmap(lambda key: jax.random.permutation(key, s.c.batch))(jax.random.split(key, s.c.epochs))

    def minibatch(carry, rows):
        policy, critic = carry
        part = jax.tree.map(lambda x: x[rows], batch)
        policy, policy_metrics = update(
            policy, partial(policy_loss, s), part, policy_tx, s.c.policy_optimizer.accumulate
        )
        if critic:
            critic, critic_metrics = update(
                critic, partial(critic_loss, s), part, critic_tx, s.c.critic_optimizer.accumulate
            )
            policy_metrics = {**policy_metrics, "critic_loss": critic_metrics["loss"]}
        return (policy, critic), policy_metrics

    rows = orders.reshape(s.c.epochs * s.c.minibatches, -1)
    (policy, critic), seen = jax.lax.scan(minibatch, (state.policy, state.critic), rows)
    names = ("clip_fraction", "approx_kl", "entropy", *(("critic_loss",) if critic else ()))
    out = {name: jnp.mean(seen[name]) for name in names}
    return policy, critic, out | {"first_ratio": seen["ratio"][0], "policy_loss": jnp.mean(seen["loss"])}


def after(
    state: PPOState,
    rolled: dict[str, jax.Array],
    learned: tuple[TrainState, TrainState | tuple[()], dict[str, jax.Array]],
) -> tuple[PPOState, dict[str, jax.Array]]:
    """(state after an iteration, what `learn` measured)."""
    policy, critic, measured = learned
    return PPOState(state.iteration + 1, rolled["kl"], state.target, state.read_at, policy, critic), measured


def keys_of(task: Task, state: PPOState) -> jax.Array:
    """Keys of sampling and of shuffling in the next iteration."""
    return jax.random.split(jax.random.fold_in(task.key, state.iteration))


def iteration(s: Setup, frozen: Frozen, task: Task, state: PPOState) -> tuple[PPOState, dict[str, jax.Array]]:
    """One PPO iteration; its randomness is fold_in(task.key, iteration). Metrics belong to the policy before it."""
    sample_key, shuffle_key = keys_of(task, state)
    batch, out = judge(s, frozen, task, state, draw(s, frozen, state, sample_key))
    state, learned = after(state, out, learn(s, state, batch, shuffle_key))
    return state, out | learned
