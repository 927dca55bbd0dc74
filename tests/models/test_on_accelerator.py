"""What only a GPU or TPU has: its own kernel for attention, and programs that agree with the CPU's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.models import transformer
from rmo.models.attention import attend, written_out
from rmo.models.sampling import response_stats, sample

pytestmark = [
    pytest.mark.accelerator,
    pytest.mark.skipif(jax.default_backend() == "cpu", reason="JAX sees no accelerator"),
]


def queries(heads: int, groups: int, length: int = 256, width: int = 64):
    """(q, segments, allowed, real) of three left-padded sequences, the last of pads alone but for one token."""
    q, k, v = (
        jax.random.normal(jax.random.key(i), (3, count, length, width), jnp.bfloat16)
        for i, count in enumerate((heads, groups, groups))
    )
    real_BT = jnp.arange(length)[None] >= jnp.array([0, 100, length - 1])[:, None]
    causal_TS = jnp.tril(jnp.ones((length, length), bool))
    return q.swapaxes(1, 2), [(k, v)], causal_TS[None] & real_BT[:, None] & real_BT[:, :, None], real_BT


@pytest.mark.parametrize("groups", [4, 1])
def test_the_kernel_gives_what_is_written_out_and_its_gradient(groups):
    """In bfloat16, whose rounding is 2^-8 of a number."""
    q, segments, allowed, real_BT = queries(4, groups)

    def loss(fn, q, segments):
        out = fn(q, segments).astype(jnp.float32) * real_BT[:, :, None, None]
        return jnp.sum(jnp.sin(out)), out

    kernel = lambda q, segments: attend(q, segments, allowed, 8.0, 0.0, True)
    plain = lambda q, segments: written_out(q, segments, allowed, 8.0, 0.0)
    program = jax.jit(jax.value_and_grad(loss, argnums=(1, 2), has_aux=True), static_argnums=0)
    ((_, found), found_grads), ((_, expected), expected_grads) = (program(fn, q, segments) for fn in (kernel, plain))
    names = program.lower(kernel, q, segments).compile().as_text()
    assert "cudnn" in names or "tpu_custom_call" in names  # the kernel ran
    np.testing.assert_allclose(found, expected, atol=2e-2)
    for a, b in zip(jax.tree.leaves(found_grads), jax.tree.leaves(expected_grads), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.isfinite(a).all()
        assert np.linalg.norm(a - b) < 1e-2 * np.linalg.norm(b)


def on(device, fn, *args):
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        return jax.tree.map(np.asarray, jax.jit(fn)(*jax.device_put(args, device)))


def test_samples_and_their_logps_are_the_cpus():
    """In float32 with exact products: the same keys draw the same tokens, and every log-probability agrees."""
    shape = config.Model(width=64, layers=3, heads=4, kv_heads=2)
    module = transformer.LanguageModel(shape, 31, 8 + 24)
    params = transformer.init(module, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (32, 8), 3, 31)
    mask = jnp.arange(8)[None] >= (jnp.arange(32) % 4)[:, None]
    draw = lambda params, tokens, mask: sample(
        module, params, tokens, mask, jax.random.split(jax.random.key(2), 32), 24, 2
    )
    read = lambda params, tokens, mask, out: response_stats(module, params, tokens, mask, out.tokens, out.mask)
    cpu, own = jax.devices("cpu")[0], jax.devices()[0]
    expected, found = (on(device, draw, params, tokens, mask) for device in (cpu, own))
    same = (expected.tokens == found.tokens).all(axis=1)
    assert same.mean() > 0.9  # a draw between two near-equal words may go either way
    logps = [on(device, read, params, tokens, mask, expected)["logps"] * expected.mask for device in (cpu, own)]
    np.testing.assert_allclose(*logps, atol=2e-5)
