"""FLOPs and bytes of a program's matrix multiplications, counted from its jaxpr, and what devices can do at most."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from rmo.runtime.types import Tree

Jaxpr = Any  # a program as JAX writes it down: jax.extend.core.Jaxpr, whose values have shapes
Equation = Any  # one line of it: jax.extend.core.JaxprEqn

# bf16 FLOP/s of one device as JAX names it (Google Cloud's and NVIDIA's data sheets, dense).
PEAKS = {
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5": 459e12, "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12, "NVIDIA H100 PCIe": 756e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12,
}  # fmt: skip


def peak(kind: str) -> float:
    """bf16 FLOP/s of a device of this kind; 0 where it is not known."""
    alike = [name for name in PEAKS if kind.startswith(name)]
    return PEAKS[max(alike, key=len)] if alike else 0.0


def memory_in_use() -> int:
    """Most bytes that the first local device ever held; 0 where it does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def forward(fn: Callable[..., Tree], *args: Tree, loop: int = 1) -> float:
    """FLOPs of fn(*args), arrays or shapes; a loop of unknown length is taken to run `loop` times."""
    return matmuls(jax.make_jaxpr(fn)(*args).jaxpr, loop)[0]


def inner(eqn: Equation) -> list[Jaxpr]:
    """Jaxprs inside one equation."""
    found = []
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                found.append(item)
            elif hasattr(item, "jaxpr") and hasattr(item.jaxpr, "eqns"):
                found.append(item.jaxpr)
    return found


def kernels(eqn: Equation) -> tuple[list[Jaxpr], list[Jaxpr]]:
    """(branches with a kernel of the device's own, branches without) of one equation: where both are there, the
    compiler takes one (see attention.py)."""
    own, written_out = [], []
    for branch in eqn.params.get("branches", ()):
        has_kernel = any("pallas" in str(sub.primitive) for sub in every(branch.jaxpr))
        (own if has_kernel else written_out).append(branch.jaxpr)
    return own, written_out


def every(jaxpr: Jaxpr) -> Iterator[Equation]:
    """Equations of a program and of what it calls."""
    for eqn in jaxpr.eqns:
        yield eqn
        for part in inner(eqn):
            yield from every(part)


def matmuls(jaxpr: Jaxpr, response: int) -> tuple[float, float]:
    """(FLOPs, bytes of operands and results) of every matrix multiplication, over all devices; a loop of unknown length
    is a decode loop, of `response` steps."""
    flops = size = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            contract = eqn.params["dimension_numbers"][0][0]
            a, b, out = eqn.invars[0].aval, eqn.invars[1].aval, eqn.outvars[0].aval
            flops += 2.0 * math.prod(out.shape) * math.prod(a.shape[i] for i in contract)
            size += sum(float(math.prod(x.shape)) * x.dtype.itemsize for x in (a, b, out))
        own, written_out = kernels(eqn)
        if own and written_out:  # as many FLOPs, but nothing except operands and results goes through memory
            flops += matmuls(written_out[0], response)[0]
            size += sum(float(math.prod(v.aval.shape)) * v.aval.dtype.itemsize for v in (*eqn.invars, *eqn.outvars))
            continue
        times = {"scan": eqn.params.get("length", 1), "while": response}.get(eqn.primitive.name, 1)
        for part in inner(eqn):
            more = matmuls(part, response)
            flops, size = flops + times * more[0], size + times * more[1]
    return flops, size


def largest(jaxpr: Jaxpr) -> tuple[int, str]:
    """(bytes, type and shape) of the largest float32 array that a program makes, over all devices."""
    best = (0, "")
    for eqn in jaxpr.eqns:
        for var in eqn.outvars:
            aval = var.aval
            if getattr(aval, "dtype", None) == np.float32:
                best = max(best, (math.prod(aval.shape) * 4, f"f32{list(aval.shape)}"))
        own, written_out = kernels(eqn)
        for part in own if own and written_out else inner(eqn):
            best = max(best, largest(part))
    return best
