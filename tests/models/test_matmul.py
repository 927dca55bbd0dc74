"""Products' and softmax's own gradients against what JAX derives, and which operand is copied."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.models import transformer
from rmo.models.attention import softmax
from rmo.models.matmul import product
from rmo.runtime import flops

# (x, w, w's summed axes, the same as an einsum)
FORMS = {
    "up": ((2, 3, 4), (4, 10), (0,), "btd,df->btf"),
    "down": ((2, 3, 10), (10, 4), (0,), "btf,fd->btd"),
    "heads": ((2, 3, 4), (4, 2, 5), (0,), "btd,dhk->bthk"),
    "out": ((2, 3, 2, 5), (2, 5, 4), (0, 1), "bthk,hkd->btd"),
    "table": ((2, 3, 4), (40, 4), (1,), "btd,vd->btv"),
}


def both(form: str, kind=jnp.float32, sums=None) -> tuple[jax.Array, jax.Array, Any, Any]:
    """(x, w, our product, the einsum) of a form."""
    x_shape, w_shape, axes, equation = FORMS[form]
    x, w = (jax.random.normal(jax.random.key(i), s).astype(kind) for i, s in enumerate((x_shape, w_shape)))
    plain = lambda x, w: jnp.einsum(equation, x, w, preferred_element_type=sums)
    return x, w, lambda x, w: product(x, w, axes, sums), plain


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("many", [False, True])
def test_gradients_are_those_of_the_product(form, many):
    x, w, ours, plain = both(form)
    grads = []
    for fn in (ours, plain):
        loss = lambda x, w, fn=fn: jnp.sum(jnp.sin(fn(x, w)))
        grad = jax.grad(loss, argnums=(0, 1))
        if many:  # members of a sweep, each with weights of its own
            grads.append(jax.vmap(grad)(jnp.stack([x, 2 * x]), jnp.stack([w, w + 1])))
        else:
            grads.append(grad(x, w))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), *grads)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision(form):
    x, w, ours, plain = both(form, jnp.bfloat16)
    found, expected = (jax.grad(lambda x, w, f=f: jnp.sum(f(x, w) ** 2), argnums=(0, 1))(x, w) for f in (ours, plain))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=3e-2, atol=3e-2)


def test_sums_are_kept_as_asked_and_gradients_have_the_operands_types():
    x, w, ours, plain = both("table", jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(ours(x, w), plain(x, w))
    assert ours(x, w).dtype == jnp.float32
    found, expected = (jax.grad(lambda x, w, f=f: jnp.sum(f(x, w) ** 2), argnums=(0, 1))(x, w) for f in (ours, plain))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=2e-2, atol=1e-2)


def read_across(fn, *args) -> list[int]:
    """Sizes of first operands that are summed over their first axis, which a library copies."""
    eqns = jax.make_jaxpr(jax.grad(lambda *a: jnp.sum(fn(*a)), argnums=1))(*args).jaxpr.eqns
    dots = [e for e in eqns if e.primitive.name == "dot_general"]
    return [e.invars[0].aval.size for e in dots if 0 in e.params["dimension_numbers"][0][0]]


@pytest.mark.parametrize("form", FORMS)
def test_the_smaller_operand_is_copied(form):
    x, w, ours, plain = both(form)
    x = jnp.concatenate([x] * 50)  # rows are what there are many of
    result = jnp.asarray(ours(x, w))
    assert read_across(ours, x, w) == [min(x.size, result.size)]
    if form in ("up", "table"):  # what the own gradient is for
        assert read_across(plain, x, w) == [max(x.size, result.size)]


def test_softmax_gradient():
    scores = jax.random.normal(jax.random.key(0), (3, 4, 5)).at[:, :2, 3:].set(-1e30)
    values = jax.random.normal(jax.random.key(1), (5,))
    ours, plain = (
        jax.grad(lambda s, f=f: jnp.sum((f(s) @ values) ** 2))(scores) for f in (softmax, lambda s: jax.nn.softmax(s))
    )
    np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(plain).max()) > 0.1
    assert not np.any(ours[:, :2, 3:])


def test_remat_keeps_the_products():
    """Under the policy "dots" the backward pass multiplies by no weight again; under "full" it does all of it again."""
    cost = {}
    tokens = jnp.ones((2, 4), jnp.int32)
    for remat in ("none", "dots", "full"):
        rm = transformer.RewardModel(config.Model(width=16, layers=2, heads=2, remat=remat), vocab=11, length=4)
        params = transformer.init(rm, jax.random.key(0))
        loss = lambda p, rm=rm: jnp.sum(transformer.values(rm, p, tokens, tokens == 1))
        cost[remat] = flops.forward(jax.grad(loss), params) / flops.forward(loss, params)
    assert cost["none"] < cost["dots"] < cost["none"] + 0.1  # attention has no weights, and is made again
    assert cost["full"] > cost["none"] + 0.5
