"""Products with weights, whose gradients copy the smaller operand.

A weight's gradient sums over rows, so one operand is read across. Where a library multiplies, as on CPUs, that one is
copied first, and the transposition rule of JAX picks the cotangent: for logits over a vocabulary V / D times as many
numbers as what was multiplied.
"""

from functools import partial
from typing import Any

import jax
from jax.lax import dot_general


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def product(x: jax.Array, w: jax.Array, axes: tuple[int, ...], dtype: Any = None) -> jax.Array:
    """x[rows..., in...] times w over w's `axes`, in the order of x's last ones; [rows..., out...], out w's other axes.

    Args:
      dtype: what sums are kept and returned in; None for that of x and w.
    """
    return multiply(x, w, axes, dtype)


def multiply(x, w, axes, dtype):
    summed = tuple(range(x.ndim - len(axes), x.ndim))
    return dot_general(x, w, ((summed, axes), ((), ())), preferred_element_type=dtype)


def forward(x, w, axes, dtype):
    return multiply(x, w, axes, dtype), (x, w)  # bare, so that remat's policies see the product


def backward(axes, dtype, x_and_w, g):
    x, w = x_and_w
    outs, rows = tuple(i for i in range(w.ndim) if i not in axes), tuple(range(x.ndim - len(axes)))
    dx = dot_general(g, w, ((tuple(range(len(rows), g.ndim)), outs), ((), ())), preferred_element_type=dtype)

    def copied(first, order):  # and the result, where its axes come out in another order than w's
        return first.size + (0 if order == tuple(range(w.ndim)) else w.size)

    ways = ((x, g, (*axes, *outs)), (g, x, (*outs, *axes)))
    first, second, order = min(ways, key=lambda way: copied(way[0], way[2]))
    dw = dot_general(first, second, ((rows, rows), ((), ())), preferred_element_type=dtype)
    return dx.astype(x.dtype), dw.transpose([order.index(i) for i in range(w.ndim)]).astype(w.dtype)


product.defvjp(forward, backward)


def of_dense(x: jax.Array, kernel: jax.Array, dimensions: Any, precision: None = None) -> jax.Array:
    """`product` as flax's `DenseGeneral` calls it: over the last axes of x, at JAX's own precision."""
    (summed, axes), batch = dimensions
    assert precision is None
    assert not any(batch)
    assert tuple(summed) == tuple(range(x.ndim - len(axes), x.ndim))
    return product(x, kernel, tuple(axes))


def for_dense() -> Any:
    """`of_dense`, as `DenseGeneral(dot_general_cls=)` asks for it."""
    return of_dense
