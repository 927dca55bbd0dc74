"""The mesh and how arrays lie on it. The same code runs on one CPU core and on a pod: only the mesh changes."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

SMALL = 2**16  # arrays below this many elements are replicated: gathering them costs more than holding them


def make_mesh(data: int = 0, model: int = 1) -> Mesh:
    """A `(data, model)` mesh over all devices; data=0 takes what is left."""
    data = data or jax.device_count() // model
    # Auto axes: linen's Embed fails under the Explicit default.
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def shardings_of(tree: Any, mesh: Mesh) -> Any:
    """Shardings by rule over shapes: the largest axis that divides goes to `data` (FSDP), the next to `model`."""

    def rule(leaf) -> NamedSharding:
        spec: list[str | None] = [None] * len(leaf.shape)
        if np.prod(leaf.shape, dtype=np.int64) >= SMALL:
            for name in ("data", "model"):
                free = [i for i, size in enumerate(leaf.shape) if spec[i] is None and size % mesh.shape[name] == 0]
                if free and mesh.shape[name] > 1:
                    spec[max(free, key=lambda i: leaf.shape[i])] = name
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(rule, tree)


def put_batch(batch: Any, mesh: Mesh, axis: int = 0) -> Any:
    """Host arrays onto the mesh, `axis` split over `data` where it divides, else replicated."""

    def put(x):
        split = x.ndim > axis and x.shape[axis] % mesh.shape["data"] == 0
        spec = PartitionSpec(*([None] * axis), "data") if split else PartitionSpec()
        return jax.device_put(x, NamedSharding(mesh, spec))

    return jax.tree.map(put, batch)


def compilation_cache(directory: Any) -> None:
    """Keep compiled programs on disk, so that a resumed or repeated run does not compile again."""
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
