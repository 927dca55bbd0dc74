"""The one update, and the resumable train loop that SFT, the gold RM and the proxies share."""

import operator
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmo import config
from rmo.models.transformer import Params
from rmo.runtime import flops, hosts, sharding
from rmo.runtime.types import Tree
from rmo.training.tracker import Checkpoints, Tracker
from rmo.training.update import Batch, Member, Metrics, TrainState, make_step, where_member

VALIDATIONS = 20  # times that a member which may stop early is validated


class First(NamedTuple):
    """The parameters that a training starts from."""

    init: Callable[[], Params]  # draws them, inside a program
    load: Callable[[], Params] | None = None  # fetches them instead, e.g. a checkpoint's; only where nothing is resumed


Best = tuple[jax.Array, Params]  # of M members the lowest validation loss so far, f32[M], and its parameters


class LateWriter:
    """Writes the numbers of a step once the next one is dispatched, so that the device never waits for the host."""

    def __init__(self, log: Tracker):
        self.log = log
        self.pending: tuple[int, Metrics] | None = None

    def push(self, step: int, metrics: Metrics) -> None:
        self.flush()
        self.pending = (step, metrics)

    def flush(self) -> None:
        if self.pending is not None:
            self.log.write(*self.pending)
        self.pending = None


def train(
    first: First | Callable[[], Params],
    loss: Callable[..., tuple[jax.Array, Metrics]],
    batch_at: Callable[[int], Batch],
    steps: int,
    optimizer: config.Optimizer,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    log: Tracker,
    members: Member | None = None,
    validate: Callable[[Params, Tree], jax.Array] | None = None,
    held: Tree = None,
    apart: bool = False,
    validations: int = VALIDATIONS,
    every: int = 200,
) -> Params:
    """Train from `first` for `steps`, continuing from the last checkpoint if there is one.

    Args:
      loss: a `Loss`, or with `members` a `MemberLoss`.
      batch_at: step -> host batch, a pure function of the step, so that a killed run repeats bit for bit.
      members: parameters and batches have a leading axis M of independent members, trained as one vmapped program.
      validate: (one member's parameters, `held`) -> its validation loss, read `validations` times per training of
        each member and at its end; members that `stop_early` end with the parameters that had the lowest.
      held: what members are validated on: an argument, since XLA would fold what is computed of constants alone.
      apart: whether each member has its own part of `held`, arrays then with a leading axis M.
      every: steps between checkpoints.

    Raises:
      Preempted: the run was told to stop; the steps made are saved.
    """
    begin, step_fn = make_step(loss, optimizer, steps, members)
    first = first if isinstance(first, First) else First(first)
    shapes = placed_shapes(first, begin, mesh)
    shardings = jax.tree.map(operator.attrgetter("sharding"), shapes)
    watched = members if validate is not None else None
    (state, best), start = begin_or_resume(first, begin, shapes, mesh, checkpoints, watched)
    log.resume(start)
    step_fn = jax.jit(step_fn, donate_argnums=0, out_shardings=(shardings, None))
    keep_fn = jax.jit(partial(keep_best, validate, apart))
    due_at = due_steps(watched, validations)
    late, cost = LateWriter(log), 0.0
    for step in range(start, steps):
        with log.timed("batch"):
            rows = batch_at(step)
            batch = sharding.put_batch(rows, mesh, axis=int(members is not None))
        if step == start and flops.peak(jax.devices()[0].device_kind):
            cost = model_flops(loss, shapes.params, rows, members)
        state, metrics = step_fn(state, batch)
        if best is not None and (due := due_at(step)).any():
            best = keep_fn(best, state.params, due, held)
        late.push(step, metrics)
        log.did(real_tokens(rows), cost)
        if (step + 1) % every == 0 and step + 1 < steps:
            late.flush()
            log.flush()
            checkpoints.save(step + 1, to_save(state, best))
        elif hosts.preempted() and step + 1 < steps:
            late.flush()
            log.close()
            checkpoints.save(step + 1, to_save(state, best))
            raise hosts.Preempted
    late.flush()
    log.close()
    if best is None or members is None:
        return state.params
    return where_member(members.stop_early, best[1], state.params)


def placed_shapes(first: First, begin: Callable[[Params], TrainState], mesh: jax.sharding.Mesh) -> TrainState:
    """Shapes of the first state, with the shardings that it rests in; nothing is drawn."""

    def draw() -> TrainState:
        return begin(first.init())

    def place(x: jax.ShapeDtypeStruct, at: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)

    shapes = jax.eval_shape(draw)
    return jax.tree.map(place, shapes, sharding.shardings_of(shapes, mesh))


def begin_or_resume(
    first: First,
    begin: Callable[[Params], TrainState],
    shapes: TrainState,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    watched: Member | None,
) -> tuple[tuple[TrainState, Best | None], int]:
    """((state, best parameters of `watched` members, if any), steps made).

    What was saved is looked for before anything is drawn or loaded: a whole state never exists twice.
    """
    best = None
    if watched is not None:
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        best = (jax.device_put(jnp.full(watched.steps.shape, jnp.inf), everywhere), shapes.params)
    restored, start = checkpoints.restore(to_save(shapes, best))
    if start:
        return (restored["state"], restored.get("best")), start
    state = first_state(first, begin, shapes)
    if best is not None:
        best = (best[0], jax.tree.map(jnp.copy, state.params))
    return (state, best), 0


def first_state(first: First, begin: Callable[[Params], TrainState], shapes: TrainState) -> TrainState:
    """The state before the first update, on the mesh: of parameters that are loaded, or else drawn."""
    shardings = jax.tree.map(operator.attrgetter("sharding"), shapes)
    if first.load:
        return jax.jit(begin, out_shardings=shardings, donate_argnums=0)(first.load())

    def draw() -> TrainState:
        return begin(first.init())

    return jax.jit(draw, out_shardings=shardings)()


def to_save(state: TrainState, best: Best | None) -> Tree:
    """What a checkpoint holds."""
    return {"state": state} if best is None else {"state": state, "best": best}


def real_tokens(rows: Batch) -> float:
    """Tokens of a host batch that are no padding: those that its masks mark."""
    return sum(x.sum() for x in jax.tree.leaves(rows) if x.dtype == bool)


def model_flops(loss: Callable[..., object], params: Params, batch: Batch, members: Member | None) -> float:
    """FLOPs of one step as the model asks for them: a backward pass costs two forward ones."""
    if members is None:
        return 3 * flops.forward(loss, params, batch)

    def each(params: Params, batch: Batch, member: Member) -> object:
        return loss(params, batch, member, jnp.int32(0))

    return 3 * flops.forward(jax.vmap(each), params, batch, members)


def due_steps(watched: Member | None, validations: int) -> Callable[[int], np.ndarray]:
    """step -> which of the watched members are to be validated after it, bool[M]."""
    if watched is None:
        return lambda step: np.zeros(1, bool)
    steps, early = hosts.fetch((watched.steps, watched.stop_early))
    every = np.maximum(steps // validations, 1)

    def due(step: int) -> np.ndarray:
        return early & (step < steps) & (((step + 1) % every == 0) | (step + 1 == steps))

    return due


def keep_best(
    validate: Callable[[Params, Tree], jax.Array] | None,
    apart: bool,
    best: Best,
    params: Params,
    due_M: jax.Array,
    held: Tree,
) -> Best:
    """The lowest validation loss so far and its parameters, looking only at members that are due."""
    assert validate is not None
    loss_M = jax.vmap(validate, in_axes=(0, 0 if apart else None))(params, held)
    better_M = due_M & (loss_M < best[0])
    return jnp.where(better_M, loss_M, best[0]), where_member(better_M, params, best[1])
