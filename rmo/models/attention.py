"""Attention of queries to segments of keys: written out, or by the device's own kernel where shapes allow; rotation.

The kernels never hold the [T, S] weights: the flash kernel that JAX ships for TPUs, cuDNN's on GPUs. They serve whole
sequences (training and scoring); decoding, where T is 1 and keys lie in several segments, is written out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from rmo.config.model import Model
from rmo.runtime import sharding

BLOCK = 128  # the TPU kernel's tiles: shorter sequences, and other multiples, are written out


def cap(x: jax.Array, limit: float) -> jax.Array:
    """x held softly within +-limit; 0 means no limit."""
    return limit * jnp.tanh(x / limit) if limit else x


def frequencies(c: Model) -> np.ndarray:
    """Radians per position of each rotated pair, f32[rotary_width / 2] (Su et al. 2021, arXiv 2104.09864).

    With `rotary_scaling`, wavelengths beyond the original context over the low frequency factor are stretched by
    `factor`, those below it over the high one are left, and between them it goes over smoothly (Llama 3.1).
    """
    half = c.rotary_width // 2
    out = np.float32(c.rotary_base) ** (-np.arange(half, dtype=np.float32) / np.float32(half))
    if not c.rotary_scaling:
        return out
    factor, low, high, context = c.rotary_scaling
    turns = context * out / (2 * np.pi)  # in the original context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (out * (smooth + (1 - smooth) / factor)).astype(np.float32)


def rotate(x_BTHK: jax.Array, positions_BT: jax.Array, c: Model) -> jax.Array:
    """Rotary position embedding, halves convention, in float32; what lies beyond `rotary_width` stays as it is."""
    angles = positions_BT[:, :, None, None].astype(jnp.float32) * frequencies(c)[None, None, None, :]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    turned, rest = x_BTHK[..., : c.rotary_width].astype(jnp.float32), x_BTHK[..., c.rotary_width :]
    left, right = jnp.split(turned, 2, axis=-1)
    turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(x_BTHK.dtype)
    return jnp.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned


def kernels_serve(length: int, causal: bool, limit: float) -> bool:
    """Whether a device's kernel may read sequences of this length: plain causal attention, in whole tiles."""
    return causal and not limit and length % BLOCK == 0


def attend(
    q_BTHK: jax.Array,
    segments: list[tuple[jax.Array, jax.Array]],
    allowed_BTS: jax.Array,
    divisor: float,
    limit: float,
    causal: bool,
) -> jax.Array:
    """Mixed values [B, T, H, K] of every segment (k, v) [B or 1, G, S, K]; G divides H, S sums to that of the mask.

    Args:
      divisor: of the scores, the square root of K by custom.
      limit: scores are held within it softly; 0 for none.
      causal: `allowed` is nothing but "earlier, and real": what the kernels know.
    """
    if len(segments) == 1 and kernels_serve(q_BTHK.shape[1], causal, limit):
        groups = segments[0][0].shape[1]
        k, v = (jnp.repeat(jnp.swapaxes(x, 1, 2), q_BTHK.shape[2] // groups, axis=2) for x in segments[0])
        real_BT = jnp.diagonal(allowed_BTS, axis1=1, axis2=2)
        if on_gpu(q_BTHK):
            own = jnp.eye(q_BTHK.shape[1], dtype=bool)  # a pad may see itself: a row without any key is not defined
            mask = (allowed_BTS | own[None])[:, None]
            return jax.nn.dot_product_attention(q_BTHK, k, v, mask=mask, scale=1 / divisor, implementation="cudnn")
        return jax.lax.platform_dependent(
            q_BTHK,
            k,
            v,
            real_BT,
            tpu=lambda q, k, v, real: flash(q, k, v, real, 1 / divisor),
            default=lambda q, k, v, _: written_out(q, segments, allowed_BTS, divisor, limit),
        )
    return written_out(q_BTHK, segments, allowed_BTS, divisor, limit)


def on_gpu(q_BTHK: jax.Array) -> bool:
    """Whether cuDNN's kernel can be had: half precision, a head width that it has, Ampere or later."""
    if jax.default_backend() != "gpu" or q_BTHK.dtype == jnp.float32 or q_BTHK.shape[-1] % 8 or q_BTHK.shape[-1] > 128:
        return False
    return float(jax.devices()[0].compute_capability) >= 8.0


def flash(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, real_BT: jax.Array, scale: float) -> jax.Array:
    """The TPU kernel, on each device's own rows and heads; what does not divide, all do."""
    from jax.experimental.pallas.ops.tpu import flash_attention as kernel

    def one(q: jax.Array, k: jax.Array, v: jax.Array, real: jax.Array) -> jax.Array:
        ids = real.astype(jnp.int32)  # pads are a text of their own: what is real does not see them
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        segments = kernel.SegmentIds(ids, ids)
        out = kernel.flash_attention(q, k, v, segment_ids=segments, causal=True, sm_scale=scale)
        return out.transpose(0, 2, 1, 3)

    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    if not sizes:
        return one(q_BTHK, k_BTHK, v_BTHK, real_BT)
    row = sharding.row_axes(sizes, q_BTHK.shape[0])
    head = "model" if q_BTHK.shape[2] % sizes["model"] == 0 else None
    rows, heads = PartitionSpec(row), PartitionSpec(row, None, head)
    return jax.shard_map(one, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False)(
        q_BTHK, k_BTHK, v_BTHK, real_BT
    )


def written_out(
    q_BTHK: jax.Array,
    segments: list[tuple[jax.Array, jax.Array]],
    allowed_BTS: jax.Array,
    divisor: float,
    limit: float,
) -> jax.Array:
    """`attend` without a kernel: scores in float32, one softmax over all segments."""
    kv_heads, dtype = segments[0][0].shape[1], q_BTHK.dtype
    batch, length, heads, head = q_BTHK.shape
    q_BTGHK = q_BTHK.reshape(batch, length, kv_heads, heads // kv_heads, head) / divisor
    scores = [read_segment("btghk,bgsk->bghts", q_BTGHK, k) for k, _ in segments]
    scores_BGHTS = cap(jnp.concatenate(scores, axis=-1), limit)
    scores_BGHTS = jnp.where(allowed_BTS[:, None, None], scores_BGHTS, -1e30)
    weights_BGHTS = softmax(scores_BGHTS).astype(dtype)
    ends = np.cumsum([k.shape[2] for k, _ in segments])[:-1]
    parts = jnp.split(weights_BGHTS, ends, axis=-1)
    mixed = [read_segment("bghts,bgsk->bghtk", part, v) for part, (_, v) in zip(parts, segments, strict=True)]
    return jnp.moveaxis(sum(mixed[1:], mixed[0]), 3, 1).reshape(q_BTHK.shape).astype(dtype)


@jax.custom_vjp
def softmax(x: jax.Array) -> jax.Array:
    """Over the last axis. JAX's own gradient divides by the sum of exponentials once more, and XLA's CPU library fuses
    that with the product that made the cotangent, which then takes longer than both apart."""
    return jax.nn.softmax(x, axis=-1)


def softmax_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    out = jax.nn.softmax(x, axis=-1)
    return out, out


def softmax_backward(out: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    # Written as a product it measured faster than as a sum; "highest" keeps it float32 on every device.
    return (out * (g - jnp.einsum("...s,...s->...", out, g, precision="highest")[..., None]),)


softmax.defvjp(softmax_forward, softmax_backward)


def read_segment(equation: str, x: jax.Array, segment: jax.Array) -> jax.Array:
    """einsum of x with one segment of keys or values, to bg...; a segment of one row is shared by every row of x.

    Shared, it is one matmul over one array: draws from one prompt never copy the prompt's cache.
    """
    if segment.shape[0] == 1 and x.shape[0] > 1:
        equation = equation.replace("bgsk->bg", "gsk->gb")
        return jnp.swapaxes(jnp.einsum(equation, x, segment[0], preferred_element_type=jnp.float32), 0, 1)
    return jnp.einsum(equation, x, segment, preferred_element_type=jnp.float32)
