"""One trunk, two models: `LanguageModel` (trunk + unembedding) and `RewardModel` (trunk + one scalar per token).

Policy and reference are the first; gold, proxy and critic are the second. The cache is an argument and a return
value: a model reads any number of past `KVCache` segments and returns the keys and values of the tokens it was given,
so prefill, decoding and draws that share one prompt's prefix are the same call (see sample.py). A decoding loop writes
each token into the last segment (`at`), which then comes back.
"""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from rmo import config
from rmo.models.attention import attend, cap, rotate
from rmo.models.matmul import for_dense, product
from rmo.runtime import sharding

Params = Any  # a pytree of arrays
Layered = Any  # one array with an axis of layers, or a tuple of one array per layer
UNROLLED = 2**27  # most weights of a model that decodes with its layers separate: see `separate_layers`
WRITTEN_OUT = 2**24  # most of one whose scan is written out: else a CPU copies what the backward pass needs of a layer
PIECE = 2**26  # logits that exist at once when only something of each token is wanted


class KVCache(NamedTuple):
    """Keys and values of S tokens, and which of them exist. Owned by the caller, never by the model.

    Heads come before tokens, as matrix products read them: else a CPU turns the whole cache around at every token.
    """

    k: Layered  # f[L, B, Hkv, S, D/H], or L arrays: see `separate_layers`
    v: Layered  # the same
    mask: jax.Array  # bool[B, S]


class Sight(NamedTuple):
    """Where tokens are, and which keys (S of all segments and of the tokens themselves) they may see."""

    positions_BT: jax.Array  # i32[B, T], counting tokens that exist
    allowed_BTS: jax.Array  # bool[B, T, S]
    near_BTS: jax.Array | None = None  # bool[B, T, S], within the window; None where no layer has one
    windowed_L: jax.Array | None = None  # bool[L], which layers have one


def rounded(x: jax.Array) -> jax.Array:
    """x with no more digits than its type has; XLA keeps float32 where it sees what a bfloat16 is computed from."""
    if x.dtype == jnp.float32:
        return x
    kind = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(x, kind.nexp, kind.nmant)


class OffsetNorm(nn.Module):
    """RMSNorm that multiplies by 1 + scale, so that scales near 0 keep their digits (Gemma)."""

    epsilon: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return (x * (1 + scale).reshape((1,) * (x.ndim - 1) + (-1,))).astype(self.dtype)


def make_norm(c: config.Model, name: str | None = None) -> nn.Module:
    """The normalisation that `c.norm` names."""
    dtype = jnp.dtype(c.dtype)
    if c.norm == "layer":
        return nn.LayerNorm(epsilon=c.norm_eps, dtype=dtype, use_fast_variance=False, name=name)
    if c.norm == "rms_offset":
        return OffsetNorm(c.norm_eps, dtype, name=name)
    return nn.RMSNorm(epsilon=c.norm_eps, dtype=dtype, name=name)


def gelu_exact(x: jax.Array) -> jax.Array:
    """GELU without the tanh approximation."""
    return nn.gelu(x, approximate=False)


REMAT = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}
ACTIVATIONS = {"gelu": nn.gelu, "gelu_exact": gelu_exact, "relu": nn.relu, "silu": nn.silu}


class Block(nn.Module):
    """Attention and MLP. `past` holds this layer's (k, v) of every segment, `allowed` the attention mask, `near` which
    keys lie within the window and `windowed` whether this layer has one (both None where no layer has). With `at` the
    keys and values of the one token given are written there in the last segment, and that segment is returned.

    `dropout` is the rate on the output of both; None leaves it, and its random numbers, out of the program.
    """

    shape: config.Model
    gain: float = 1.0

    def dense(self, features, name: str, bias: bool, out: bool = False, axis: int | tuple[int, ...] = -1):
        """A projection; those back to the residual stream start smaller."""
        gain2 = self.gain**2 / (2 * self.shape.layers) if out else self.gain**2
        init = nn.initializers.variance_scaling(gain2, "fan_in", "truncated_normal")
        dtype = jnp.dtype(self.shape.dtype)
        return nn.DenseGeneral(
            features, axis=axis, use_bias=bias, dtype=dtype, kernel_init=init, dot_general_cls=for_dense, name=name
        )

    @nn.compact
    def __call__(self, x_BTD, past, allowed_BTS, positions_BT, dropout, near_BTS=None, windowed=None, at=None):
        c = self.shape

        def drop(h_BTD):
            if dropout is None:
                return h_BTD
            keep_BTD = jax.random.bernoulli(self.make_rng("dropout"), 1 - dropout, h_BTD.shape)
            return jnp.where(keep_BTD, h_BTD / (1 - dropout), 0).astype(h_BTD.dtype)

        if near_BTS is not None and windowed is not None:
            allowed_BTS = allowed_BTS & (near_BTS | ~windowed)
        attended_BTD, kv = self.attend(make_norm(c, "norm_attention")(x_BTD), past, allowed_BTS, positions_BT, at)
        if c.post_norm:
            attended_BTD = make_norm(c, "norm_attention_out")(attended_BTD)
        middle_BTD = x_BTD + drop(attended_BTD)

        h_BTD = make_norm(c, "norm_mlp")(x_BTD if c.parallel else middle_BTD)
        bias = c.bias == "all"
        first = self.dense(c.hidden_width, "gate" if c.gated else "up", bias)
        h_BTF = ACTIVATIONS[c.activation](first(h_BTD))
        if c.gated:
            h_BTF = h_BTF * self.dense(c.hidden_width, "up", bias)(h_BTD)
        h_BTD = self.dense(c.width, "down", bias, out=True)(h_BTF)
        if c.post_norm:
            h_BTD = make_norm(c, "norm_mlp_out")(h_BTD)
        # GSPMD might as well split the stream where parameters are split; a batch is split by its rows.
        return sharding.split(rounded(middle_BTD + drop(h_BTD))), kv

    def attend(self, h_BTD, past, allowed_BTS, positions_BT, at):
        """Attention to every segment and to the tokens themselves: (output [B, T, D], the last segment)."""
        c, bias = self.shape, self.shape.bias != "none"
        heads, kv_heads, head = c.heads, c.kv_heads or c.heads, c.head_width
        if self.has_variable("params", "qkv"):  # see `separate_layers`
            all_BTHK = self.dense((heads + 2 * kv_heads, head), "qkv", bias)(h_BTD)
            q_BTHK, k_BTHK, v_BTHK = jnp.split(all_BTHK, (heads, heads + kv_heads), axis=2)
        else:
            q_BTHK = self.dense((heads, head), "query", bias)(h_BTD)
            k_BTHK = self.dense((kv_heads, head), "key", bias)(h_BTD)
            v_BTHK = self.dense((kv_heads, head), "value", bias)(h_BTD)
        if c.qk_norm:
            q_BTHK, k_BTHK = make_norm(c, "norm_query")(q_BTHK), make_norm(c, "norm_key")(k_BTHK)
        if c.positions == "rotary":
            q_BTHK, k_BTHK = rotate(q_BTHK, positions_BT, c), rotate(k_BTHK, positions_BT, c)

        divisor, causal = (c.query_scale or head) ** 0.5, not (past or c.window)
        last = jnp.swapaxes(k_BTHK, 1, 2), jnp.swapaxes(v_BTHK, 1, 2)
        if at is not None:  # written before it is read, so that XLA need not keep the segment as it was
            put = jax.lax.dynamic_update_slice_in_dim
            last = put(past[-1][0], last[0], at, 2), put(past[-1][1], last[1], at, 2)
            past = past[:-1]
        mixed_BTHK = attend(q_BTHK, [*past, last], allowed_BTS, divisor, c.attention_cap, causal)
        bias_out = c.bias in ("attention", "all")
        return self.dense(c.width, "out", bias_out, out=True, axis=(-2, -1))(mixed_BTHK), last


class Transformer(nn.Module):
    """Embeds tokens and runs the blocks as one scan over stacked layers.

    Positions count existing tokens (mask), so pads, on whichever side, change nothing. Between blocks the stream is
    rounded to its type, however they are compiled: decoding has to draw from the distribution that is scored.
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
        block = Block if c.remat == "none" else nn.remat(Block, prevent_cse=False, policy=REMAT[c.remat])
        self.blocks = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast, 0),  # type: ignore[arg-type]
            length=c.layers,
            unroll=c.layers if c.weights <= WRITTEN_OUT else 1,
        )(c, self.gain)
        self.norm = make_norm(c)

    def __call__(
        self,
        tokens_BT: jax.Array,
        mask_BT: jax.Array,
        past: tuple[KVCache, ...] = (),
        read: slice = slice(None),
        dropout: jax.Array | None = None,
        at: jax.Array | None = None,
        layers: tuple[Params, ...] = (),
    ) -> tuple[jax.Array, KVCache]:
        """Hidden states f[B, T', D] at the positions `read`, and the keys and values of all T tokens.

        `mask_BT` says which tokens exist; `past` are segments that all come before tokens_BT. With `at`, the keys and
        values of the one token are put there in the last segment, which comes back. `layers` are the parameters of the
        blocks one by one, and segments then hold one array per layer: see `separate_layers`.
        """
        if self.shape.positions == "learned" and not past and tokens_BT.shape[1] > self.length:
            raise ValueError(f"{tokens_BT.shape[1]} tokens: this model has learned positions for {self.length}")
        mask_BT = mask_BT.astype(bool)
        written_BS = None
        if layers:  # the token is in the last segment when that is read
            assert at is not None
            written_BS = jax.lax.dynamic_update_slice_in_dim(past[-1].mask, mask_BT, at, 1)
        sight = sight_of(self.shape, mask_BT, past, written_BS)
        x_BTD = self.embedded(tokens_BT, sight.positions_BT)
        if written_BS is not None:
            x_BTD, keys, values = self.through_separate(x_BTD, layers, past, sight, dropout, at)
            return self.read_out(x_BTD[:, read]), KVCache(keys, values, written_BS)
        past_kv = tuple((p.k, p.v) for p in past)
        x_BTD, (keys, values) = self.blocks(
            x_BTD, past_kv, sight.allowed_BTS, sight.positions_BT, dropout, sight.near_BTS, sight.windowed_L
        )
        cache = KVCache(keys, values, mask_BT)
        if at is not None:
            cache = put_token(past[-1], cache, at)
        return self.read_out(x_BTD[:, read]), cache

    def read_out(self, x_BTD: jax.Array) -> jax.Array:
        """What a head reads of the residual stream. The norm's parameters exist where they are not used too, so that
        trunks can be exchanged."""
        normed_BTD = self.norm(x_BTD)
        return x_BTD if self.shape.pooling == "unnormed" else normed_BTD

    def embedded(self, tokens_BT: jax.Array, positions_BT: jax.Array) -> jax.Array:
        """What the first block reads, f[B, T, D]."""
        x_BTD = sharding.split(self.embed(tokens_BT))
        if self.shape.embed_scale:
            x_BTD = x_BTD * jnp.asarray(self.shape.width**0.5, x_BTD.dtype)
        if self.shape.positions == "learned":
            x_BTD = x_BTD + self.embed_position(positions_BT)
        return rounded(x_BTD)

    def through_separate(
        self,
        x_BTD: jax.Array,
        layers: tuple[Params, ...],
        past: tuple[KVCache, ...],
        sight: Sight,
        dropout: jax.Array | None,
        at: jax.Array | None,
    ) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """(stream after the last block, keys, values of the last segment), block after block, an array per layer."""
        block = Block(self.shape, self.gain, parent=None)
        keys, values = [], []
        for i, params in enumerate(layers):
            past_kv = tuple((p.k[i], p.v[i]) for p in past)
            windowed = None if sight.windowed_L is None else sight.windowed_L[i]
            given = (past_kv, sight.allowed_BTS, sight.positions_BT, dropout, sight.near_BTS, windowed, at)
            x_BTD, (k, v) = block.apply({"params": params}, x_BTD, *given)
            keys.append(k)
            values.append(v)
        return x_BTD, tuple(keys), tuple(values)


def sight_of(c: config.Model, mask_BT: jax.Array, past: tuple[KVCache, ...], written_BS: jax.Array | None) -> Sight:
    """Where tokens are that come after `past`, and what they see. `written_BS`, if given, is the mask of the last
    segment with the one token in it: the token sees itself there."""
    before_B = sum((jnp.sum(p.mask, axis=1) for p in past), jnp.zeros((1,), jnp.int32))
    positions_BT = jnp.maximum(before_B[:, None] + jnp.cumsum(mask_BT, axis=1) - 1, 0)
    exists = [p.mask for p in past]
    if written_BS is not None:
        exists[-1] = written_BS
    seen = [mask_BS[:, None] for mask_BS in exists]
    if written_BS is None:
        causal_TT = jnp.tril(jnp.ones((mask_BT.shape[1],) * 2, bool))
        exists.append(mask_BT)
        seen.append(causal_TT[None] & mask_BT[:, None])
    wide = [jnp.broadcast_to(mask, (*mask_BT.shape, mask.shape[-1])) for mask in seen]
    allowed_BTS = jnp.concatenate(wide, axis=-1)
    if not c.window:
        return Sight(positions_BT, allowed_BTS)
    keys_BS = key_positions(exists, mask_BT.shape[0])
    near_BTS = positions_BT[:, :, None] - keys_BS[:, None] < c.window
    return Sight(positions_BT, allowed_BTS, near_BTS, jnp.arange(c.layers) % 2 == 0)


def put_token(segment: KVCache, token: KVCache, at: jax.Array) -> KVCache:
    """The segment with one token of every row at that place; layers are stacked."""
    put = jax.lax.dynamic_update_slice_in_dim
    return KVCache(put(segment.k, token.k, at, 3), put(segment.v, token.v, at, 3), put(segment.mask, token.mask, at, 1))


def key_positions(masks: list[jax.Array], rows: int) -> jax.Array:
    """Positions i32[B, S] of the tokens of all segments, one after the other."""
    before, out = jnp.zeros((1, 1), jnp.int32), []
    for mask_BS in masks:
        out.append(before + jnp.cumsum(mask_BS, axis=1) - 1)
        before = before + jnp.sum(mask_BS, axis=1, keepdims=True)
    return jnp.concatenate([jnp.broadcast_to(x, (rows, x.shape[1])) for x in out], axis=1)


class LanguageModel(nn.Module):
    """`apply({"params": params}, tokens_BT, mask_BT, past, read, at, layers) -> (logits f32[B, T', V], KVCache)`."""

    shape: config.Model
    vocab: int
    length: int

    def setup(self):
        self.trunk = Transformer(self.shape, self.vocab, self.length)
        if not self.shape.tied:
            init = nn.initializers.normal(self.shape.width**-0.5)
            self.unembedding = self.param("unembed", init, (self.vocab, self.shape.width), jnp.float32)

    def __call__(self, tokens_BT, mask_BT, past=(), read=slice(None), at=None, layers=()):
        hidden_BTD, cache = self.trunk(tokens_BT, mask_BT, past, read, at=at, layers=layers)
        return self.unembed(hidden_BTD), cache

    def hidden(self, tokens_BT, mask_BT, read=slice(None)):
        """What `unembed` reads, f[B, T', D]."""
        return self.trunk(tokens_BT, mask_BT, (), read)[0]

    def unembed(self, hidden_BTD):
        """Logits f32[B, T, V]."""
        table_VD = (self.trunk.embed.embedding if self.shape.tied else self.unembedding).astype(hidden_BTD.dtype)
        return cap(product(hidden_BTD, table_VD, (1,), jnp.float32), self.shape.logit_cap)


class RewardModel(nn.Module):
    """`apply({"params": params}, tokens_BT, mask_BT, read, dropout, past) -> (values f32[B, T'], KVCache)`: one scalar
    per token.

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

    def __call__(self, tokens_BT, mask_BT, read=slice(None), dropout=None, past=()):
        hidden_BTD, cache = self.trunk(tokens_BT, mask_BT, past, read, dropout)
        return self.head(hidden_BTD.astype(jnp.float32))[..., 0], cache


def logits(
    lm: LanguageModel,
    params: Params,
    tokens_BT,
    mask_BT,
    past: tuple[KVCache, ...] = (),
    read: slice = slice(None),
    at: jax.Array | None = None,
    layers: tuple[Params, ...] = (),
) -> tuple[jax.Array, KVCache]:
    """(logits f32[B, T', V] at the positions `read`, keys and values of all T tokens).

    With `at`, T is 1 and the last segment comes back with the token at that place.
    """
    return lm.apply({"params": params}, tokens_BT, mask_BT, past, read, at, layers)  # type: ignore[return-value]


def separate_layers(
    lm: LanguageModel, params: Params, *caches: KVCache
) -> tuple[tuple[Params, ...], tuple[KVCache, ...]]:
    """(parameters block by block, caches with one array per layer), once before a loop of single tokens; of a large
    model ((), the caches as they are).

    A scan over stacked layers copies each layer's parameters and cache at every token, where matrix products are a
    library's, which is as much traffic again as reading them. Large models keep the scan: TPUs, which are what they
    run on, fuse that copy, and a program of all their layers takes minutes to compile. Queries, keys and values come
    from one product, unless layers are split over devices, by heads.
    """
    c = lm.shape
    if c.weights > UNROLLED:
        return (), caches
    blocks = params["trunk"]["blocks"]
    if not sharding.tensor_parallel():
        blocks = with_one_product(blocks)
    layers = tuple(jax.tree.map(operator.itemgetter(i), blocks) for i in range(c.layers))
    return layers, tuple(KVCache(tuple(x.k), tuple(x.v), x.mask) for x in caches)


def with_one_product(blocks: Params) -> Params:
    """Parameters of stacked blocks, their queries, keys and values made by one projection, `qkv`."""
    parts = ("query", "key", "value")
    rest = {name: x for name, x in blocks.items() if name not in parts}

    def joined(*x: jax.Array) -> jax.Array:
        return jnp.concatenate(x, axis=-2)  # kernels [L, D, H, K], biases [L, H, K]

    return {**rest, "qkv": jax.tree.map(joined, *(blocks[name] for name in parts))}


def hidden(lm: LanguageModel, params: Params, tokens_BT, mask_BT, read: slice = slice(None)) -> jax.Array:
    """What `unembed` reads, f[B, T', D]."""
    return lm.apply({"params": params}, tokens_BT, mask_BT, read, method=LanguageModel.hidden)  # type: ignore[return-value]


def unembed(lm: LanguageModel, params: Params, hidden_BTD: jax.Array) -> jax.Array:
    """Logits f32[B, T, V]."""
    return lm.apply({"params": params}, hidden_BTD, method=LanguageModel.unembed)  # type: ignore[return-value]


def read_out(
    lm: LanguageModel,
    params: Params,
    hidden_BTD: jax.Array,
    fn: Callable[..., dict[str, jax.Array]],
    *others_BT: jax.Array,
) -> dict[str, jax.Array]:
    """fn(logits_BtV, *others_Bt) of hidden states, over all T tokens: [B, T] by name.

    Where B x T x V is more than PIECE numbers it is done a few tokens at a time, again in the backward pass, so that
    the logits of a whole batch never exist.
    """
    batch, length = hidden_BTD.shape[:2]
    step = max(1, PIECE // (batch * lm.vocab))
    if step >= length:
        return fn(unembed(lm, params, hidden_BTD), *others_BT)
    step = max(n for n in range(1, step + 1) if length % n == 0)

    def in_steps(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(batch, length // step, step, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def one(part: tuple[jax.Array, tuple[jax.Array, ...]]) -> dict[str, jax.Array]:
        hidden_BtD, others_Bt = part
        return fn(unembed(lm, params, hidden_BtD), *others_Bt)

    out = jax.lax.map(one, (in_steps(hidden_BTD), jax.tree.map(in_steps, others_BT)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(batch, length), out)


def values(
    rm: RewardModel,
    params: Params,
    tokens_BT,
    mask_BT,
    read: slice = slice(None),
    dropout: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """One scalar per token, f32[B, T'] at the positions `read`. `dropout` is (rate, key), for training only."""
    rate, rngs = (None, None) if dropout is None else (dropout[0], {"dropout": dropout[1]})
    return rm.apply({"params": params}, tokens_BT, mask_BT, read, rate, rngs=rngs)[0]


def values_after(
    rm: RewardModel, params: Params, tokens_BT, mask_BT, past: tuple[KVCache, ...] = ()
) -> tuple[jax.Array, KVCache]:
    """(one scalar per token f32[B, T], their keys and values), of tokens that come after those of `past`."""
    return rm.apply({"params": params}, tokens_BT, mask_BT, past=past)  # type: ignore[return-value]


@partial(jax.jit, static_argnums=0)
def init(module: LanguageModel | RewardModel, key: jax.Array) -> Params:
    """Fresh parameters, in one program, without the forward pass that only names them."""
    tokens = jnp.zeros((1, 1), jnp.int32)  # no parameter's shape depends on how many there are
    return module.init(key, tokens, jnp.ones_like(tokens, dtype=bool))["params"]


def count(params: Params) -> dict[str, int]:
    """Parameter counts: `total`, and `non_embedding`, which leaves out token and position tables."""
    total = embedding = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        total += leaf.size
        embedding += leaf.size * any("embed" in str(getattr(entry, "key", "")) for entry in path)
    return {"total": total, "non_embedding": total - embedding}
