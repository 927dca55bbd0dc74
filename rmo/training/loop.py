"""The one update, and the resumable train loop that SFT, the gold RM and the proxies share."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rmo import config
from rmo.models.transformer import Params
from rmo.runtime import flops, hosts, sharding
from rmo.runtime.files import Checkpoints
from rmo.tracking.jsonl import Log

Batch = Any
Loss = Callable[[Params, Batch], tuple[jax.Array, dict[str, jax.Array]]]
VALIDATIONS = 10  # times that a member which may stop early is validated


class TrainState(NamedTuple):
    """Arrays only."""

    step: jax.Array  # i32[]
    params: Params
    opt_state: Any


class First(NamedTuple):
    """The parameters that a training starts from."""

    init: Callable[[], Params]  # draws them, inside a program
    load: Callable[[], Params] | None = None  # fetches them instead, e.g. a checkpoint's; only where nothing is resumed


class Member(NamedTuple):
    """What may differ between trainings that share one program; every leaf has a leading axis M."""

    steps: jax.Array  # i32[M]; after as many, a member rests while the others go on
    key: jax.Array  # of dropout
    weight_decay: jax.Array  # f32[M]
    dropout: jax.Array  # f32[M]
    smoothing: jax.Array  # f32[M]
    stop_early: jax.Array  # bool[M], keep the parameters with the lowest validation loss


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
    schedule = optax.join_schedules(
        [optax.linear_schedule(0.0, o.lr, o.warmup), lambda count: decay(count / rest)], [o.warmup]
    )
    return optax.chain(
        optax.clip_by_global_norm(o.clip),
        optax.adamw(
            schedule, b1=o.b1, b2=o.b2, eps=o.eps,
            weight_decay=o.weight_decay if weight_decay is None else weight_decay,  # type: ignore[arg-type]
        ),
    )  # fmt: skip


def init_state(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    return TrainState(jnp.int32(0), params, tx.init(params))


def update(
    state: TrainState, loss: Loss, batch: Batch, tx: optax.GradientTransformation, parts: int = 1
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of gradient descent. Not jitted: `train` jits it, `ppo.iteration` scans it.

    With `parts` the batch is split along its first axis and gradients are summed over the parts, each weighing as many
    `tokens` as its loss says it is a mean of (1 where it says none), so the step is that of the whole batch.
    """
    value, metrics, grads = gradient(loss, state.params, batch, parts)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {**metrics, "loss": value, "grad_norm": optax.global_norm(grads)}
    return TrainState(state.step + 1, params, opt_state), metrics


def gradient(loss: Loss, params: Params, batch: Batch, parts: int) -> tuple[jax.Array, dict[str, jax.Array], Params]:
    """(loss, metrics, gradient) of a batch."""
    of = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        (value, metrics), grads = of(params, batch)
        return value, metrics, sharding.at_rest(grads)
    split = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch)

    def add(total, part):
        (value, metrics), grads = of(params, jax.tree.map(sharding.split, part))
        weight = jnp.float32(metrics.get("tokens", 1.0))
        new = jax.tree.map(lambda x: weight * x, (value, {**metrics, "tokens": 1.0}, grads))
        return sharding.at_rest(jax.tree.map(jnp.add, total, new)), None

    first = jax.tree.map(lambda x: x[0], split)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), jax.eval_shape(of, params, first))
    start = (zero[0][0], {**zero[0][1], "tokens": jnp.float32(0)}, zero[1])
    (value, metrics, grads), _ = jax.lax.scan(add, start, split)
    tokens = metrics["tokens"]
    value, metrics, grads = jax.tree.map(lambda x: x / tokens, (value, metrics, grads))
    said = {"tokens": tokens} if "tokens" in zero[0][1] else {}
    return value, {**{n: x for n, x in metrics.items() if n != "tokens"}, **said}, grads


def update_member(
    state: TrainState, loss: Callable[[Params, Batch, Member, jax.Array], Any], batch: Batch, member: Member, o
) -> tuple[TrainState, dict[str, jax.Array]]:
    """`update` of one member, by its own settings; a member that has made its steps stays as it is."""
    tx = make_optimizer(o, member.steps, member.weight_decay)
    mine = lambda params, batch: loss(params, batch, member, state.step)  # noqa: E731
    new, metrics = update(state, mine, batch, tx, o.accumulate)
    return jax.tree.map(lambda n, old: jnp.where(state.step < member.steps, n, old), new, state), metrics


def make_step(
    loss: Callable[..., Any], optimizer: config.Optimizer, steps: int, members: Member | None = None
) -> tuple[Callable[[Params], TrainState], Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]]:
    """(parameters -> first state, (state, batch) -> (state, metrics)), of one model or of M members side by side."""
    tx = make_optimizer(optimizer, steps)
    begin = partial(init_state, tx=tx)

    def step(state: TrainState, batch: Batch):
        if members is None:
            return update(state, loss, batch, tx, optimizer.accumulate)
        return jax.vmap(lambda s, b, m: update_member(s, loss, b, m, optimizer))(state, batch, members)

    return begin if members is None else jax.vmap(begin), step


def train(
    first: First | Callable[[], Params],
    loss: Callable[..., Any],
    batch_at: Callable[[int], Batch],
    steps: int,
    optimizer: config.Optimizer,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    log: Log,
    members: Member | None = None,
    validate: Callable[[Params], jax.Array] | None = None,
    validations: int = VALIDATIONS,
    every: int = 200,
) -> Params:
    """Train from `first` for `steps`, continuing from the last checkpoint if there is one.

    Args:
      loss: a `Loss`; with `members` it takes (params, batch, member, step).
      batch_at: step -> host batch, a pure function of the step, so that a killed run repeats bit for bit.
      members: parameters and batches have a leading axis M of independent members, trained as one vmapped program.
      validate: one member's parameters -> its validation loss, read `validations` times per training of each member
        and at its end; members that `stop_early` end with the parameters that had the lowest.
      every: steps between checkpoints.

    Raises:
      Preempted: the run was told to stop; the steps made are saved.
    """
    begin, step_fn = make_step(loss, optimizer, steps, members)
    first = first if isinstance(first, First) else First(first)
    shapes = jax.eval_shape(lambda: begin(first.init()))
    shardings = sharding.shardings_of(shapes, mesh)
    like = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, shardings)
    best = None
    if validate is not None and members is not None:
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        losses_M = jax.device_put(jnp.full(members.steps.shape, jnp.inf), everywhere)
        best = (losses_M, like.params)
    due_at = due_steps(members, validations) if best is not None else lambda step: np.zeros(1, bool)
    # What was saved is looked for before anything is drawn or loaded: a whole state never exists twice.
    restored, start = checkpoints.restore({"state": like} if best is None else {"state": like, "best": best})
    state, best = restored["state"], restored.get("best")
    if not start:
        if first.load:
            state = jax.jit(begin, out_shardings=shardings, donate_argnums=0)(first.load())
        else:
            state = jax.jit(lambda: begin(first.init()), out_shardings=shardings)()
        best = best and (best[0], jax.tree.map(jnp.copy, state.params))
    pack = lambda: {"state": state} if best is None else {"state": state, "best": best}  # noqa: E731
    log.resume(start)
    step_fn = jax.jit(step_fn, donate_argnums=0, out_shardings=(shardings, None))
    keep_fn = jax.jit(partial(keep_best, validate))
    pending, cost = None, 0.0
    for step in range(start, steps):
        with log.timed("batch"):
            rows = batch_at(step)
            batch = sharding.put_batch(rows, mesh, axis=int(members is not None))
        if step == start and flops.peak(jax.devices()[0].device_kind):
            cost = model_flops(loss, like.params, rows, members)
        tokens = sum(x.sum() for x in jax.tree.leaves(rows) if x.dtype == bool)
        state, metrics = step_fn(state, batch)
        if best is not None and (due := due_at(step)).any():
            best = keep_fn(best, state.params, due)
        if pending is not None:  # the previous step's numbers, now that this one is dispatched
            log.write(*pending)
        log.did(tokens, cost)
        pending = (step, metrics)
        if (step + 1) % every == 0 and step + 1 < steps:
            log.write(*pending)
            pending = None
            log.flush()
            checkpoints.save(step + 1, pack())
        elif hosts.preempted() and step + 1 < steps:
            log.write(*pending)
            log.close()
            checkpoints.save(step + 1, pack())
            raise hosts.Preempted
    if pending is not None:
        log.write(*pending)
    log.close()
    if best is None or members is None:
        return state.params
    return where_member(members.stop_early, best[1], state.params)


def model_flops(loss: Callable[..., Any], params: Params, batch: Batch, members: Member | None) -> float:
    """FLOPs of one step as the model asks for them: a backward pass costs two forward ones."""
    if members is None:
        return 3 * flops.forward(loss, params, batch)
    each = lambda p, b, m: loss(p, b, m, jnp.int32(0))  # noqa: E731
    return 3 * flops.forward(jax.vmap(each), params, batch, members)


def due_steps(members: Member | None, validations: int) -> Callable[[int], np.ndarray]:
    """step -> which members are to be validated after it, bool[M]."""
    assert members is not None
    steps, early = hosts.fetch((members.steps, members.stop_early))
    every = np.maximum(steps // validations, 1)
    return lambda step: early & (step < steps) & (((step + 1) % every == 0) | (step + 1 == steps))


@jax.jit
def pick(tree: Any, m: Any) -> Any:
    """Member m of a tree with a leading axis of members, or several."""
    return jax.tree.map(lambda x: x[m], tree)


def where_member(choice_M: jax.Array, yes: Params, no: Params) -> Params:
    """Each member's parameters from one of two trees."""
    return jax.tree.map(lambda y, n: jnp.where(choice_M.reshape(-1, *[1] * (y.ndim - 1)), y, n), yes, no)


def keep_best(validate, best: tuple[jax.Array, Params], params: Params, due_M: jax.Array) -> tuple[jax.Array, Params]:
    """(lowest validation loss so far f32[M], its parameters), looking only at members that are due."""
    loss_M = jax.vmap(validate)(params)
    better_M = due_M & (loss_M < best[0])
    return jnp.where(better_M, loss_M, best[0]), where_member(better_M, params, best[1])
