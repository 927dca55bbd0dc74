"""From per-token values to one raw score per sequence: that of the last real token, or the sum or mean of all."""

from functools import partial

import jax
import jax.numpy as jnp

from rmo.models.attention import kernels_serve
from rmo.models.transformer import KVCache, Params, RewardModel, values, values_after
from rmo.runtime import sharding


def last_token(mask_BT: jax.Array) -> jax.Array:
    """Index i32[B] of the last real token, by the mask and never by a token's id."""
    return mask_BT.shape[1] - 1 - jnp.argmax(mask_BT[:, ::-1].astype(jnp.int32), axis=1)


def at_last_token(values_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Each row's value at its last real token, f32[B]."""
    return jnp.take_along_axis(values_BT, last_token(mask_BT)[:, None], axis=1)[:, 0]


def over_real_tokens(values_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Sum of each row's values, f32[B]."""
    return jnp.sum(jnp.where(mask_BT, values_BT, 0), axis=1)


def pooled(
    rm: RewardModel, values_BT: jax.Array, mask_BT: jax.Array, before: tuple[jax.Array, jax.Array] | None = None
) -> jax.Array:
    """One score f32[B] of each row's values, as `rm.shape.pooling` says. `before` are values and mask [1, P] of tokens
    that come before all rows."""
    if rm.shape.pooling in ("sum", "mean"):
        total_B, count_B = over_real_tokens(values_BT, mask_BT), jnp.sum(mask_BT, axis=1)
        if before is not None:
            total_B, count_B = over_real_tokens(*before) + total_B, jnp.sum(before[1]) + count_B
        return total_B / (rm.length**0.5 if rm.shape.pooling == "sum" else jnp.maximum(count_B, 1))
    last_B = at_last_token(values_BT, mask_BT)
    return last_B if before is None else jnp.where(jnp.any(mask_BT, axis=1), last_B, at_last_token(*before))


def score(
    rm: RewardModel, params: Params, tokens_BT: jax.Array, mask_BT: jax.Array,
    dropout: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:  # fmt: skip
    """Raw score f32[B] of each sequence. `dropout` is (rate, key), for training."""
    tokens_BT, mask_BT = sharding.split(tokens_BT), sharding.split(mask_BT)
    values_BT = values(rm, params, tokens_BT, mask_BT, dropout=dropout)
    return pooled(rm, values_BT, mask_BT)


@partial(jax.jit, static_argnames=("rm", "chunk"))
def score_n(
    rm: RewardModel, params: Params, prompt_P, prompt_mask_P, tokens_NR: jax.Array, mask_NR: jax.Array, chunk: int
) -> jax.Array:
    """Raw scores f32[N] of N responses to one prompt, `chunk` at a time (chunk must divide N).

    The prompt is read once and shared by all responses, unless a device's attention kernel may read whole sequences:
    those read no segments.

    Raises:
      ValueError: prompt and response are longer than the RM has learned positions.
    """
    length, whole = prompt_P.shape[0], prompt_P.shape[0] + tokens_NR.shape[1]
    if rm.shape.positions == "learned" and whole > rm.length:
        raise ValueError(f"{whole} tokens: this model has learned positions for {rm.length}")
    past: tuple[KVCache, ...] = ()
    before: tuple[jax.Array, jax.Array] | None = None
    shared = length > 0 and not kernels_serve(whole, not rm.shape.window, rm.shape.attention_cap)
    if shared:
        prompt_1P, prompt_mask_1P = prompt_P[None], prompt_mask_P[None]
        prompt_values_1P, prefix = values_after(rm, params, prompt_1P, prompt_mask_1P)
        past, before = (prefix,), (prompt_values_1P, prompt_mask_1P)

    def one(block):
        tokens, mask = (sharding.split(x) for x in block)
        if shared:
            values_BR, _ = values_after(rm, params, tokens, mask, past)
            return pooled(rm, values_BR, mask, before)
        rows = (tokens.shape[0], length)
        tokens_BT = jnp.concatenate([jnp.broadcast_to(prompt_P[None], rows), tokens], axis=1)
        mask_BT = jnp.concatenate([jnp.broadcast_to(prompt_mask_P[None], rows), mask], axis=1)
        return score(rm, params, tokens_BT, mask_BT)

    blocks = jax.tree.map(lambda x: x.reshape(-1, chunk, x.shape[-1]), (tokens_NR, mask_NR))
    return jax.lax.map(one, blocks).reshape(-1)
