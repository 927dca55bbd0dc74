"""The mesh and how arrays lie on it. The same code runs on one CPU core and on a pod: only the mesh changes.

Between slices of a multi-slice run, whose network is slow, parameters are copied and only gradients are summed.

Parameters have two layouts. At rest, and where they are trained, they are split over both axes: `data` is FSDP,
`model` is tensor parallelism. Gathered, for decoding, they are split over `model` alone, so that no step of a loop
fetches them; a larger `model` axis is for models that do not fit so. Batches are split over `data`.
"""

import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jax.tree_util import KeyPath

from rmo.runtime.types import Tree

SMALL = 2**16  # arrays below this many elements are replicated: gathering them costs more than holding them
# Axes of a projection, counted from the right, so that stacked layers and members may come before them. The residual
# stream is over `data`; heads, hidden units and vocabulary over `model`, so that a block needs one sum per projection
# back to the stream (Shoeybi et al. 2019).
RULES: dict[str, tuple[str | None, ...]] = {
    "query": ("data", "model", None), "key": ("data", "model", None), "value": ("data", "model", None),
    "out": ("model", None, "data"), "up": ("data", "model"), "gate": ("data", "model"), "down": ("model", "data"),
    "embed": ("model", "data"), "embed_position": ("model", "data"), "unembed": ("model", "data"),
}  # fmt: skip


def make_mesh(data: int = 0, model: int = 1, slices: int = 0) -> Mesh:
    """A `(data, model)` mesh over all devices; data=0 takes what is left. Where devices are of several TPU slices, or
    as many are asked for, a first axis `slice` goes over those."""
    slices = slices or len({slice_of(device) for device in jax.devices()})
    data = data or jax.device_count() // model // slices
    # Auto axes: linen's Embed fails under the Explicit default.
    if slices == 1:
        return jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    devices = np.array(sorted(jax.devices(), key=lambda device: (slice_of(device), device.id)))
    return Mesh(devices.reshape(slices, data, model), ("slice", "data", "model"), axis_types=(AxisType.Auto,) * 3)


def slice_of(device: object) -> int:
    """Which TPU slice a device is of; 0 for devices that know no slices."""
    return getattr(device, "slice_index", 0)


def row_axes(sizes: dict[str, int], rows: int) -> tuple[str, ...] | None:
    """The axes that as many rows of a batch are split over; None where they do not divide."""
    axes = tuple(name for name in ("slice", "data") if name in sizes)
    return axes if axes and rows % math.prod(sizes[name] for name in axes) == 0 else None


def spec(path: KeyPath, shape: tuple[int, ...], sizes: dict[str, int], gathered: bool = False) -> PartitionSpec:
    """Where one leaf of a state lies, by the name of its projection; what has no rule is replicated."""
    names = "/".join(str(getattr(key, "key", getattr(key, "name", ""))) for key in path).split("/")
    rule = next((RULES[name] for name in reversed(names) if name in RULES), ())
    if not rule or names[-1] == "bias" or len(shape) < len(rule) or np.prod(shape, dtype=np.int64) < SMALL:
        return PartitionSpec()

    def split_over(axis: str | None, size: int) -> str | None:
        if axis is None or (gathered and axis == "data") or size % sizes[axis]:
            return None
        return axis

    before = len(shape) - len(rule)
    return PartitionSpec(*[None] * before, *map(split_over, rule, shape[before:]))


def ruled(path: KeyPath) -> bool:
    """Whether a leaf is a projection or a table: models use those in the type of their activations."""
    names = {str(getattr(key, "key", "")) for key in path}
    return bool(names & RULES.keys()) and "bias" not in names


def shardings_of(tree: Tree, mesh: Mesh) -> Tree:
    """Shardings of a whole train state, or of parameters, at rest."""
    sizes = dict(mesh.shape)

    def place(path: KeyPath, leaf: jax.Array) -> NamedSharding:
        return NamedSharding(mesh, spec(path, np.shape(leaf), sizes))

    return jax.tree_util.tree_map_with_path(place, tree)


def put_batch(batch: Tree, mesh: Mesh, axis: int = 0) -> Tree:
    """Host arrays, alike in all processes, onto the mesh: `axis` split over `data` where it divides, else replicated.
    Each process puts only the rows of its own devices."""

    def put(x: np.ndarray) -> jax.Array:
        split = row_axes(dict(mesh.shape), x.shape[axis]) if x.ndim > axis else None
        at = NamedSharding(mesh, PartitionSpec(*[None] * axis, split) if split else PartitionSpec())
        if at.is_fully_addressable:
            return jax.device_put(x, at)
        return jax.make_array_from_callback(x.shape, at, lambda index: x[index])

    return jax.tree.map(put, batch)


def place(tree: Tree, shardings: Tree) -> Tree:
    """Arrays of the host or of one device, alike in all processes, onto the mesh; those that lie right stay."""

    def put(x: jax.Array, at: Sharding) -> jax.Array:
        if jax.dtypes.issubdtype(jax.typeof(x).dtype, jax.dtypes.prng_key):  # device_put has no keys across processes
            return jax.jit(lambda x: x, out_shardings=at)(x)
        return jax.device_put(x, at)

    return jax.tree.map(put, tree, shardings)


# Inside programs, on the mesh that `jax.set_mesh` made the current one; without one these do nothing.


def divides(rows: int) -> bool:
    """Whether as many rows of a batch can be split."""
    return row_axes(dict(jax.sharding.get_abstract_mesh().shape), rows) is not None


def tensor_parallel() -> bool:
    """Whether layers are split over devices."""
    return dict(jax.sharding.get_abstract_mesh().shape).get("model", 1) > 1


def split(x: jax.Array, axis: int = 0) -> jax.Array:
    """x with `axis` over `data` (and `slice`), where it divides."""
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    axes = row_axes(sizes, x.shape[axis])
    if not axes or max(sizes[name] for name in axes) == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*[None] * axis, axes))


def copied(x: jax.Array) -> jax.Array:
    """x whole on every device."""
    if max(dict(jax.sharding.get_abstract_mesh().shape).values(), default=1) == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec())


def at_rest(tree: Tree) -> Tree:
    """A state as it lies between steps."""
    return _constrain(tree, False)


def gathered(params: Tree, dtype: str) -> Tree:
    """Parameters for decoding: fetched once, and projections and tables in the type that they are used in."""

    def cast(path: KeyPath, x: jax.Array) -> jax.Array:
        return x.astype(jnp.dtype(dtype)) if ruled(path) else x

    return _constrain(jax.tree_util.tree_map_with_path(cast, params), True)


def _constrain(tree: Tree, gathered: bool) -> Tree:
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    if not sizes or max(sizes.values()) == 1:
        return tree

    def hold(path: KeyPath, x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, spec(path, x.shape, sizes, gathered))

    return jax.tree_util.tree_map_with_path(hold, tree)


def compilation_cache(directory: Path) -> None:
    """Keep compiled programs on disk, so that a resumed or repeated run does not compile again; where
    JAX_COMPILATION_CACHE_DIR says, if it does."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
