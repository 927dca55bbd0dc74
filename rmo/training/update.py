"""The one update: what SFT, reward models and both halves of PPO do with a loss; one model, or members side by side."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from rmo import config
from rmo.models.transformer import Params
from rmo.runtime import sharding
from rmo.runtime.types import Tree

Batch = Tree  # of arrays whose first axis is the batch; its bool arrays are the masks of tokens
Metrics = dict[str, jax.Array]  # numbers of one step, by name
Loss = Callable[[Params, Batch], tuple[jax.Array, Metrics]]


class TrainState(NamedTuple):
    """Arrays only."""

    step: jax.Array  # i32[]
    params: Params
    opt_state: optax.OptState


class Member(NamedTuple):
    """What may differ between trainings that share one program; every leaf has a leading axis M."""

    steps: jax.Array  # i32[M]; after as many, a member rests while the others go on
    key: jax.Array  # of dropout
    weight_decay: jax.Array  # f32[M]
    dropout: jax.Array  # f32[M]
    smoothing: jax.Array  # f32[M]
    stop_early: jax.Array  # bool[M], keep the parameters with the lowest validation loss


MemberLoss = Callable[[Params, Batch, Member, jax.Array], tuple[jax.Array, Metrics]]  # of one member at a step i32[]


def make_optimizer(
    o: config.Optimizer, steps: int | jax.Array, weight_decay: float | jax.Array | None = None
) -> optax.GradientTransformation:
    """AdamW behind global-norm clipping, with `o`'s schedule over `steps`. `steps` and `weight_decay` may be traced."""
    rest = jnp.maximum(steps - o.warmup, 1)
    decay = {
        "constant": optax.constant_schedule(o.lr),
        "cosine": optax.cosine_decay_schedule(o.lr, 1, alpha=0.1),
        "linear": optax.linear_schedule(o.lr, 0.1 * o.lr, 1),
    }[o.schedule]

    def after_warmup(count: ArrayLike) -> ArrayLike:
        return decay(jnp.divide(count, rest))

    warmup = optax.linear_schedule(0.0, o.lr, o.warmup)
    schedule = optax.join_schedules([warmup, after_warmup], [o.warmup])
    shrink: Any = o.weight_decay if weight_decay is None else weight_decay  # optax wants a float, and takes arrays
    adamw = optax.adamw(schedule, b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=shrink)
    return optax.chain(optax.clip_by_global_norm(o.clip), adamw)


def init_state(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    return TrainState(jnp.int32(0), params, tx.init(params))


def update(
    state: TrainState, loss: Loss, batch: Batch, tx: optax.GradientTransformation, parts: int = 1
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent. Not jitted: `train` jits it, `ppo.iteration` scans it.

    With `parts` the batch is split along its first axis and gradients are summed over the parts, each weighing as many
    `tokens` as its loss says it is a mean of (1 where it says none), so the step is that of the whole batch.
    """
    value, metrics, grads = gradient(loss, state.params, batch, parts)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {**metrics, "loss": value, "grad_norm": optax.global_norm(grads)}
    return TrainState(state.step + 1, params, opt_state), metrics


def gradient(loss: Loss, params: Params, batch: Batch, parts: int) -> tuple[jax.Array, Metrics, Params]:
    """(loss, metrics, gradient) of a batch."""
    of = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        (value, metrics), grads = of(params, batch)
        return value, metrics, sharding.at_rest(grads)
    split = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch)

    def add(total: Tree, part: Batch) -> tuple[Tree, None]:
        (value, metrics), grads = of(params, jax.tree.map(sharding.split, part))
        weight = jnp.float32(metrics.get("tokens", 1.0))
        new = jax.tree.map(lambda x: weight * x, (value, {**metrics, "tokens": 1.0}, grads))
        return sharding.at_rest(jax.tree.map(jnp.add, total, new)), None

    first = jax.tree.map(lambda x: x[0], split)
    shapes = jax.eval_shape(of, params, first)
    (value, metrics), grads = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
    counts_tokens = "tokens" in metrics
    (value, metrics, grads), _ = jax.lax.scan(add, (value, {**metrics, "tokens": jnp.float32(0)}, grads), split)
    tokens = metrics["tokens"]
    value, metrics, grads = jax.tree.map(lambda x: x / tokens, (value, metrics, grads))
    del metrics["tokens"]  # of a mean, 1
    return value, {**metrics, "tokens": tokens} if counts_tokens else metrics, grads


def update_member(
    state: TrainState, loss: MemberLoss, batch: Batch, member: Member, o: config.Optimizer
) -> tuple[TrainState, Metrics]:
    """`update` of one member, by its own settings; a member that has made its steps stays as it is."""

    def own_loss(params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
        return loss(params, batch, member, state.step)

    tx = make_optimizer(o, member.steps, member.weight_decay)
    new, metrics = update(state, own_loss, batch, tx, o.accumulate)
    return jax.tree.map(lambda n, old: jnp.where(state.step < member.steps, n, old), new, state), metrics


def make_step(
    loss: Callable[..., tuple[jax.Array, Metrics]],
    optimizer: config.Optimizer,
    steps: int,
    members: Member | None = None,
) -> tuple[Callable[[Params], TrainState], Callable[[TrainState, Batch], tuple[TrainState, Metrics]]]:
    """(parameters -> first state, (state, batch) -> (state, metrics)), of one model or of M members side by side.

    Args:
      loss: a `Loss`, or with `members` a `MemberLoss`.
    """
    tx = make_optimizer(optimizer, steps)
    begin = partial(init_state, tx=tx)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if members is None:
            return update(state, loss, batch, tx, optimizer.accumulate)
        return jax.vmap(lambda s, b, m: update_member(s, loss, b, m, optimizer))(state, batch, members)

    return begin if members is None else jax.vmap(begin), step


@jax.jit
def pick(tree: Tree, m: jax.Array | np.ndarray | int) -> Tree:
    """Member m of a tree with a leading axis of members, or several."""
    return jax.tree.map(lambda x: x[m], tree)


def where_member(choice_M: jax.Array, yes: Params, no: Params) -> Params:
    """Each member's parameters from one of two trees."""

    def choose(y: jax.Array, n: jax.Array) -> jax.Array:
        return jnp.where(choice_M.reshape(-1, *[1] * (y.ndim - 1)), y, n)

    return jax.tree.map(choose, yes, no)
