"""The one update, and the resumable train loop that SFT, the gold RM and the proxies share."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rmo import config, sharding
from rmo.files import Checkpoints, Log
from rmo.models import Params

Batch = Any
Loss = Callable[[Params, Batch], tuple[jax.Array, dict[str, jax.Array]]]


class TrainState(NamedTuple):
    """Arrays only."""

    step: jax.Array  # i32[]
    params: Params
    opt_state: Any


def make_optimizer(o: config.Optimizer, steps: int) -> optax.GradientTransformation:
    """AdamW behind global-norm clipping, with `o`'s schedule over `steps`."""
    rest = max(steps - o.warmup, 1)
    decay = {
        "constant": optax.constant_schedule(o.lr),
        "cosine": optax.cosine_decay_schedule(o.lr, rest, alpha=0.1),
        "linear": optax.linear_schedule(o.lr, 0.1 * o.lr, rest),
    }[o.schedule]
    schedule = optax.join_schedules([optax.linear_schedule(0.0, o.lr, o.warmup), decay], [o.warmup])
    return optax.chain(
        optax.clip_by_global_norm(o.clip),
        optax.adamw(schedule, b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay),
    )


def init_state(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    return TrainState(jnp.int32(0), params, tx.init(params))


def update(
    state: TrainState, loss: Loss, batch: Batch, tx: optax.GradientTransformation
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of gradient descent. Not jitted: `train` jits it, `ppo.iteration` scans it."""
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params, batch)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {**metrics, "loss": value, "grad_norm": optax.global_norm(grads)}
    return TrainState(state.step + 1, params, opt_state), metrics


def train(
    init: Callable[[], Params],
    loss: Loss,
    batch_at: Callable[[int], Batch],
    steps: int,
    optimizer: config.Optimizer,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    log: Log,
    members: bool = False,
    every: int = 200,
) -> Params:
    """Train from `init()` for `steps`, continuing from the last checkpoint if there is one.

    Args:
      batch_at: step -> host batch, a pure function of the step, so that a killed run repeats bit for bit.
      members: parameters and batches have a leading axis M of independent members, trained as one vmapped program.
      every: steps between checkpoints.
    """
    tx = make_optimizer(optimizer, steps)
    make, one = (lambda: init_state(init(), tx)), partial(update, loss=loss, tx=tx)
    if members:
        make = lambda: jax.vmap(lambda p: init_state(p, tx))(init())  # noqa: E731
    step_fn = jax.vmap(lambda s, b: one(s, batch=b)) if members else (lambda s, b: one(s, batch=b))
    shardings = sharding.shardings_of(jax.eval_shape(make), mesh)
    state = jax.jit(make, out_shardings=shardings)()
    state, start = checkpoints.restore(state)
    log.resume(start)
    step_fn = jax.jit(step_fn, donate_argnums=0, out_shardings=(shardings, None))
    pending = None
    for step in range(start, steps):
        state, metrics = step_fn(state, sharding.put_batch(batch_at(step), mesh, axis=int(members)))
        if pending is not None:  # the previous step's numbers, now that this one is dispatched
            log.write(*pending)
        pending = (step, metrics)
        if (step + 1) % every == 0 and step + 1 < steps:
            log.write(*pending)
            pending = None
            checkpoints.save(step + 1, state)
    if pending is not None:
        log.write(*pending)
    log.close()
    return state.params
