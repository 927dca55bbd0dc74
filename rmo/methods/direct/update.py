"""Steps of direct alignment on the run's comparisons, in stretches, each with a look at how far the policy has come."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rmo.methods.direct.losses import direct
from rmo.methods.direct.settings import Direct
from rmo.methods.ppo.update import in_chunks
from rmo.models.reader import IDS, Reader
from rmo.models.sampling import response_stats, sample
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.rewards.calibration import Calibration
from rmo.runtime import sharding
from rmo.runtime.types import Tree
from rmo.training.update import Metrics, TrainState, init_state, make_optimizer, update


@dataclass(frozen=True)
class Setup:
    """What is static."""

    lm: LanguageModel
    gold: RewardModel
    c: Direct
    prompt: int  # P
    length: int  # R
    eos: int
    most: int  # steps of the member with the most
    side_by_side: bool = True  # members under one vmap; else they take turns
    gold_reader: Reader = IDS

    @property
    def reads(self) -> int:
        """Most reads that a member can need: one at the start, one per step of sqrt(KL), one per spell of patience."""
        return 2 + math.ceil(self.c.kl_max**0.5 / self.c.d_step) + self.most // self.c.patience


class LabelledPairs(NamedTuple):
    """C comparisons with what the reference says of them."""

    tokens: jax.Array  # i32[C, 2, T]
    mask: jax.Array  # bool[C, 2, T]
    reference: jax.Array  # f32[C, 2], log-probabilities of the responses


class Frozen(NamedTuple):
    """Arrays that no update changes, the same for all members."""

    reference: Params
    gold: Params
    gold_calibration: Calibration
    read_prompts: tuple[jax.Array, jax.Array]  # tokens and mask [Q, P]
    train: LabelledPairs
    held_out: tuple[jax.Array, jax.Array]  # tokens and mask [C, 2, T], the one that gold scores higher first


class Task(NamedTuple):
    """What differs between members that share one program; each leaf has a leading axis M."""

    loss: jax.Array  # i32[], its place in `losses.LOSSES`
    beta: jax.Array  # f32[]
    key: jax.Array  # of sampling
    steps: jax.Array  # i32[]
    order: jax.Array  # i32[S, B], which training comparisons each step learns from
    sides: jax.Array  # i32[C, 2], where the response that is taken as preferred is, and where the other


class State(NamedTuple):
    """Arrays only."""

    step: jax.Array  # i32[]
    kl: jax.Array  # f32[], of the last look
    target: jax.Array  # f32[], sqrt(KL) at which gold is read next
    read_at: jax.Array  # i32[], the step at which gold was read last
    policy: TrainState

    @property
    def iteration(self) -> jax.Array:
        """As every climb's states call their steps."""
        return self.step


def optimizer(s: Setup, task: Task) -> optax.GradientTransformation:
    """Of one member: its schedule ends with its own steps."""
    return make_optimizer(s.c.optimizer, task.steps)


def begin(s: Setup, reference: Params, task: Task) -> State:
    """The state before the first step: the policy is the reference."""
    policy = init_state(reference, optimizer(s, task))
    return State(jnp.int32(0), jnp.float32(0), jnp.float32(s.c.d_step), jnp.int32(0), policy)


Split = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def split_at(s: Setup, tokens_BT: jax.Array, mask_BT: jax.Array) -> Split:
    """(prompts, their mask, responses, their mask) of whole sequences."""
    return tokens_BT[:, : s.prompt], mask_BT[:, : s.prompt], tokens_BT[:, s.prompt :], mask_BT[:, s.prompt :]


def response_logps(s: Setup, params: Params, tokens_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Log-probabilities f32[B] of whole responses to their prompts, in nats."""
    prompts, prompt_mask, tokens, mask = split_at(s, tokens_BT, mask_BT)
    return jnp.sum(response_stats(s.lm, params, prompts, prompt_mask, tokens, mask)["logps"] * mask, axis=1)


def pair_logps(s: Setup, params: Params, tokens_B2T: jax.Array, mask_B2T: jax.Array) -> jax.Array:
    """f32[B, 2], of both responses."""
    tokens, mask = (x.reshape(-1, x.shape[-1]) for x in (tokens_B2T, mask_B2T))
    return response_logps(s, params, tokens, mask).reshape(-1, 2)


@partial(jax.jit, static_argnames=("s", "chunk"))
def logps_of_all(s: Setup, params: Params, tokens_C2T: jax.Array, mask_C2T: jax.Array, chunk: int = 256) -> jax.Array:
    """f32[C, 2], `chunk` pairs at a time."""
    count, whole = len(tokens_C2T), -(-len(tokens_C2T) // chunk) * chunk
    fill = [(0, whole - count), (0, 0), (0, 0)]
    parts = tuple(jnp.pad(x, fill, mode="edge").reshape(-1, chunk, *x.shape[1:]) for x in (tokens_C2T, mask_C2T))
    return jax.lax.map(lambda part: pair_logps(s, params, *part), parts).reshape(whole, 2)[:count]


def batch_of(frozen: Frozen, task: Task, step: jax.Array) -> LabelledPairs:
    """The comparisons of a step, as the member's labels have them: what it takes as preferred is first."""
    rows_B = task.order[step]
    side_B2 = task.sides[rows_B]
    return LabelledPairs(*(sharding.split(x[rows_B[:, None], side_B2]) for x in frozen.train))


def learn(s: Setup, frozen: Frozen, task: Task, state: State) -> tuple[State, Metrics]:
    """One step on one batch."""

    def loss(params: Params, batch: LabelledPairs) -> tuple[jax.Array, Metrics]:
        logps_B2 = pair_logps(s, params, batch.tokens, batch.mask)
        return direct(task.loss, task.beta, logps_B2 - batch.reference)

    batch, tx = batch_of(frozen, task, state.step), optimizer(s, task)
    policy, found = update(state.policy, loss, batch, tx, s.c.optimizer.accumulate)
    return state._replace(step=state.step + 1, policy=policy), found


def chunked(s: Setup, fn: Callable[..., Tree], *trees: Tree) -> Tree:
    """fn of all rows of the trees, `c.chunk` of them at a time."""
    return in_chunks(s, fn, *trees)  # type: ignore[arg-type]  # of a setup it asks for the chunk alone


def exact_kl(s: Setup, frozen: Frozen, policy: Params, key: jax.Array, draws: int) -> jax.Array:
    """KL from the reference, f32[]: exact for every next token, summed over each of `draws` responses to each held-out
    prompt, their mean."""
    prompts, prompt_mask = (jnp.repeat(x, draws, axis=0) for x in frozen.read_prompts)

    def some(prompts, prompt_mask, keys) -> jax.Array:
        prompts, prompt_mask = sharding.split(prompts), sharding.split(prompt_mask)
        drawn = sample(s.lm, policy, prompts, prompt_mask, keys, s.length, s.eos)
        stats = response_stats(s.lm, policy, prompts, prompt_mask, drawn.tokens, drawn.mask, frozen.reference)
        return jnp.sum(stats["kl"] * drawn.mask, axis=1)

    return jnp.mean(chunked(s, some, prompts, prompt_mask, jax.random.split(key, prompts.shape[0])))


def stretch(s: Setup, frozen: Frozen, task: Task, state: State) -> tuple[State, Metrics]:
    """`c.look` steps, fewer where the member ends, then a look at its KL. Metrics are of the last step."""
    end = jnp.minimum(state.step + s.c.look, task.steps)

    def more(carry: tuple[State, Metrics]) -> jax.Array:
        return carry[0].step < end

    first = learn(s, frozen, task, state)
    state, found = jax.lax.while_loop(more, lambda carry: learn(s, frozen, task, carry[0]), first)
    kl = exact_kl(s, frozen, state.policy.params, jax.random.fold_in(task.key, state.step), s.c.look_draws)
    return state._replace(kl=kl), found
