"""One trunk, two models: `LanguageModel` (trunk + unembedding) and `RewardModel` (trunk + one scalar per token).

Policy and reference are the first; gold, proxy and critic are the second. The cache is an argument and a return
value: a model reads any number of past `KVCache` segments and returns the keys and values of the tokens it was given,
so prefill, decoding and draws that share one prompt's prefix are the same call (see sample.py).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rmo import config

Params = Any  # a pytree of arrays


class KVCache(NamedTuple):
    """Keys and values of S tokens, and which of them exist. Owned by the caller, never by the model."""

    k: jax.Array  # [L, B, S, Hkv, D/H]
    v: jax.Array  # [L, B, S, Hkv, D/H]
    mask: jax.Array  # bool[B, S]


def rotate(x_BTHK: jax.Array, positions_BT: jax.Array) -> jax.Array:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864), halves convention, base 10,000, in float32."""
    half = x_BTHK.shape[-1] // 2
    frequencies = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions_BT[:, :, None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    left, right = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(x_BTHK.dtype)


def read_segment(equation: str, x: jax.Array, segment: jax.Array) -> jax.Array:
    """einsum of x with one segment of keys or values; a segment of one row is shared by every row of x.

    Shared, it is one matmul over one array: draws from one prompt never copy the prompt's cache.
    """
    if segment.shape[0] == 1 and x.shape[0] > 1:
        equation, segment = equation.replace("bsgk", "sgk"), segment[0]
    return jnp.einsum(equation, x, segment, preferred_element_type=jnp.float32)


class Block(nn.Module):
    """Pre-norm attention and MLP. `past` holds this layer's (k, v) of every segment, `allowed` the attention mask.

    `dropout` is the rate on the output of both; None leaves it, and its random numbers, out of the program.
    """

    shape: config.Model
    gain: float = 1.0

    @nn.compact
    def __call__(self, x_BTD, past, allowed_BTS, positions_BT, dropout):
        c, dtype = self.shape, jnp.dtype(self.shape.dtype)
        heads, kv_heads, head = c.heads, c.kv_heads or c.heads, c.width // c.heads
        kernel = nn.initializers.variance_scaling(self.gain**2, "fan_in", "truncated_normal")
        out = nn.initializers.variance_scaling(self.gain**2 / (2 * c.layers), "fan_in", "truncated_normal")

        def dense(features, name, init=kernel, axis: int | tuple[int, ...] = -1):
            return nn.DenseGeneral(features, axis=axis, use_bias=False, dtype=dtype, kernel_init=init, name=name)

        def drop(h_BTD):
            if dropout is None:
                return h_BTD
            keep_BTD = jax.random.bernoulli(self.make_rng("dropout"), 1 - dropout, h_BTD.shape)
            return jnp.where(keep_BTD, h_BTD / (1 - dropout), 0).astype(h_BTD.dtype)

        h_BTD = nn.RMSNorm(dtype=dtype, name="norm_attention")(x_BTD)
        q_BTHK = dense((heads, head), "query")(h_BTD)
        k_BTHK = dense((kv_heads, head), "key")(h_BTD)
        v_BTHK = dense((kv_heads, head), "value")(h_BTD)
        if c.positions == "rotary":
            q_BTHK, k_BTHK = rotate(q_BTHK, positions_BT), rotate(k_BTHK, positions_BT)

        segments = [*past, (k_BTHK, v_BTHK)]
        q_BTGHK = q_BTHK.reshape(*q_BTHK.shape[:2], kv_heads, heads // kv_heads, head) / head**0.5
        scores = [read_segment("btghk,bsgk->bghts", q_BTGHK, k) for k, _ in segments]
        scores_BGHTS = jnp.concatenate(scores, axis=-1)
        scores_BGHTS = jnp.where(allowed_BTS[:, None, None], scores_BGHTS, -1e30)
        weights_BGHTS = jax.nn.softmax(scores_BGHTS, axis=-1).astype(dtype)
        ends = np.cumsum([k.shape[1] for k, _ in segments])[:-1]
        parts = jnp.split(weights_BGHTS, ends, axis=-1)
        mixed = [read_segment("bghts,bsgk->btghk", part, v) for part, (_, v) in zip(parts, segments, strict=True)]
        mixed_BTHK = sum(mixed[1:], mixed[0]).reshape(q_BTHK.shape).astype(dtype)
        x_BTD = x_BTD + drop(dense(c.width, "out", out, axis=(-2, -1))(mixed_BTHK))

        h_BTD = nn.RMSNorm(dtype=dtype, name="norm_mlp")(x_BTD)
        activate = {"gelu": jax.nn.gelu, "relu": jax.nn.relu}[c.activation]
        h_BTF = activate(dense(c.mlp * c.width, "up")(h_BTD))
        x_BTD = x_BTD + drop(dense(c.width, "down", out)(h_BTF))
        return x_BTD, (k_BTHK, v_BTHK)


class Transformer(nn.Module):
    """Embeds tokens and runs the blocks as one scan over stacked layers.

    Positions count existing tokens (mask), so pads, on whichever side, change nothing.
    """

    shape: config.Model
    vocab: int
    length: int
    gain: float = 1.0

    def setup(self):
        c = self.shape
        init = nn.initializers.normal(c.width**-0.5)
        self.embed = nn.Embed(self.vocab, c.width, dtype=jnp.dtype(c.dtype), embedding_init=init)
        if c.positions == "learned":
            self.embed_position = nn.Embed(self.length, c.width, dtype=jnp.dtype(c.dtype), embedding_init=init)
        self.blocks = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),  # type: ignore[arg-type]
            length=c.layers,
        )(c, self.gain)
        self.norm = nn.RMSNorm(dtype=jnp.dtype(c.dtype))

    def __call__(
        self, tokens_BT: jax.Array, mask_BT: jax.Array, past: tuple[KVCache, ...] = (), read: slice = slice(None),
        dropout: jax.Array | None = None,
    ) -> tuple[jax.Array, KVCache]:  # fmt: skip
        """Hidden states f[B, T', D] at the positions `read`, and the keys and values of all T tokens.

        `mask_BT` says which tokens exist; `past` are segments that all come before tokens_BT.
        """
        mask_BT = mask_BT.astype(bool)
        before_B = sum((jnp.sum(p.mask, axis=1) for p in past), jnp.zeros((1,), jnp.int32))
        positions_BT = jnp.maximum(before_B[:, None] + jnp.cumsum(mask_BT, axis=1) - 1, 0)
        causal_TT = jnp.tril(jnp.ones((tokens_BT.shape[1],) * 2, bool))
        own_BTT = causal_TT[None] & mask_BT[:, None, :]
        shape = own_BTT.shape[:2]
        allowed_BTS = jnp.concatenate(
            [*(jnp.broadcast_to(p.mask[:, None], (*shape, p.mask.shape[1])) for p in past), own_BTT], axis=-1
        )
        x_BTD = self.embed(tokens_BT)
        if self.shape.positions == "learned":
            x_BTD = x_BTD + self.embed_position(positions_BT)
        x_BTD, (k, v) = self.blocks(x_BTD, tuple((p.k, p.v) for p in past), allowed_BTS, positions_BT, dropout)
        return self.norm(x_BTD[:, read]), KVCache(k, v, mask_BT)

    def unembed(self, x_BTD: jax.Array) -> jax.Array:
        """Logits f32[B, T, V] through the tied embedding."""
        table_VD = self.embed.embedding.astype(x_BTD.dtype)
        return jnp.einsum("btd,vd->btv", x_BTD, table_VD, preferred_element_type=jnp.float32)


class LanguageModel(nn.Module):
    """`apply({"params": params}, tokens_BT, mask_BT, past, read) -> (logits f32[B, T', V], KVCache)`."""

    shape: config.Model
    vocab: int
    length: int

    def setup(self):
        self.trunk = Transformer(self.shape, self.vocab, self.length)

    def __call__(self, tokens_BT, mask_BT, past=(), read=slice(None)):
        hidden_BTD, cache = self.trunk(tokens_BT, mask_BT, past, read)
        return self.trunk.unembed(hidden_BTD), cache


class RewardModel(nn.Module):
    """`apply({"params": params}, tokens_BT, mask_BT, read) -> values f32[B, T']`: one scalar per token.

    Head: N(0, 1/(D+1)) weights, zero bias (Stiennon et al. 2020, with the root that Huang et al. 2024 point out).
    """

    shape: config.Model
    vocab: int
    length: int
    gain: float = 1.0

    def setup(self):
        self.trunk = Transformer(self.shape, self.vocab, self.length, self.gain)
        self.head = nn.Dense(
            1, dtype=jnp.float32, kernel_init=nn.initializers.normal((self.shape.width + 1) ** -0.5), name="head"
        )

    def __call__(self, tokens_BT, mask_BT, read=slice(None), dropout=None):
        hidden_BTD, _ = self.trunk(tokens_BT, mask_BT, (), read, dropout)
        return self.head(hidden_BTD.astype(jnp.float32))[..., 0]


def logits(
    lm: LanguageModel, params: Params, tokens_BT, mask_BT, past: tuple[KVCache, ...] = (), read: slice = slice(None)
) -> tuple[jax.Array, KVCache]:
    """(logits f32[B, T', V] at the positions `read`, keys and values of all T tokens)."""
    return lm.apply({"params": params}, tokens_BT, mask_BT, past, read)  # type: ignore[return-value]


def values(
    rm: RewardModel, params: Params, tokens_BT, mask_BT, read: slice = slice(None),
    dropout: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:  # fmt: skip
    """One scalar per token, f32[B, T'] at the positions `read`. `dropout` is (rate, key), for training only."""
    rate, rngs = (None, None) if dropout is None else (dropout[0], {"dropout": dropout[1]})
    return rm.apply({"params": params}, tokens_BT, mask_BT, read, rate, rngs=rngs)  # type: ignore[return-value]


def init(module: LanguageModel | RewardModel, key: jax.Array) -> Params:
    """Fresh parameters."""
    tokens = jnp.zeros((1, module.length), jnp.int32)
    return module.init(key, tokens, jnp.ones_like(tokens, dtype=bool))["params"]


def count(params: Params) -> dict[str, int]:
    """Parameter counts: `total`, and `non_embedding`, which leaves out token and position tables."""
    total = embedding = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        total += leaf.size
        embedding += leaf.size * any("embed" in str(getattr(entry, "key", "")) for entry in path)
    return {"total": total, "non_embedding": total - embedding}
