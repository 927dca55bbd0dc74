"""Products with weights, whose gradients copy the smaller operand.

A weight's gradient sums over rows, so one operand is read across. Where a library multiplies, as on CPUs, that one is
copied first, and the transposition rule of JAX picks the cotangent: for logits over a vocabulary V / D times as many
numbers as what was multiplied.
"""

from collections.abc import Callable
from functools import partial

import jax
from jax.lax import DotDimensionNumbers, dot_general
from jax.typing import DTypeLike


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def product(x: jax.Array, w: jax.Array, axes: tuple[int, ...], dtype: DTypeLike | None = None) -> jax.Array:
    """x[rows..., in...] times w over w's `axes`, in the order of x's last ones; [rows..., out...], out w's other axes.

    Args:
      dtype: what sums are kept and returned in; None for that of x and w.
    """
    return multiply(x, w, axes, dtype)


def multiply(x: jax.Array, w: jax.Array, axes: tuple[int, ...], dtype: DTypeLike | None) -> jax.Array:
    """`product`, with JAX's own gradient."""
    summed = tuple(range(x.ndim - len(axes), x.ndim))
    return dot_general(x, w, ((summed, axes), ((), ())), preferred_element_type=dtype)


def forward(
    x: jax.Array, w: jax.Array, axes: tuple[int, ...], dtype: DTypeLike | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """(the product, what its gradient needs), bare, so that remat's policies see the product."""
    return multiply(x, w, axes, dtype), (x, w)


def backward(
    axes: tuple[int, ...], dtype: DTypeLike | None, x_and_w: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients of x and of w, from g[rows..., out...]."""
    x, w = x_and_w
    outs = tuple(i for i in range(w.ndim) if i not in axes)
    rows = tuple(range(x.ndim - len(axes)))
    dx = dot_general(g, w, ((tuple(range(len(rows), g.ndim)), outs), ((), ())), preferred_element_type=dtype)

    def copied(first: jax.Array, order: tuple[int, ...]) -> int:
        """Numbers copied where `first` is read across: it and, where its axes come out in another order than w's, the
        result."""
        return first.size + (0 if order == tuple(range(w.ndim)) else w.size)

    first, second, order = x, g, (*axes, *outs)
    if copied(g, (*outs, *axes)) < copied(x, order):
        first, second, order = g, x, (*outs, *axes)
    dw = dot_general(first, second, ((rows, rows), ((), ())), preferred_element_type=dtype)
    return dx.astype(x.dtype), dw.transpose([order.index(i) for i in range(w.ndim)]).astype(w.dtype)


product.defvjp(forward, backward)


def of_dense(x: jax.Array, kernel: jax.Array, dimensions: DotDimensionNumbers, precision: None = None) -> jax.Array:
    """`product` as flax's `DenseGeneral` calls it: over the last axes of x, at JAX's own precision."""
    (summed, axes), batch = dimensions
    assert precision is None
    assert not any(batch)
    assert tuple(summed) == tuple(range(x.ndim - len(axes), x.ndim))
    return product(x, kernel, tuple(axes))


def for_dense() -> Callable[..., jax.Array]:
    """`of_dense`, as `DenseGeneral(dot_general_cls=)` asks for it."""
    return of_dense
