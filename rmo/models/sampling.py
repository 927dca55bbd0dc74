"""Sampling: prefill the prompt once, decode with an explicit cache, draw n continuations from one shared prefix.

Sampling is always from the whole distribution (no top-k, no top-p): anything else makes a KL meaningless. Every
sequence has its own key, folded with the token index, so a draw does not depend on its batch.
"""

from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmo.models import metrics
from rmo.models.transformer import KVCache, LanguageModel, Params, hidden, logits, read_out, separate_layers, unembed
from rmo.runtime import sharding

AT_ONCE = 1024  # tokens that are drawn from at once; larger vocabularies are drawn from in two steps


class Sampled(NamedTuple):
    """Responses, right-padded. EOS counts as a token; a response without one ran out of room."""

    tokens: jax.Array  # i32[B, R], pad where mask is unset
    logps: jax.Array  # f32[B, R], log-probability under the distribution sampled from, 0 where mask is unset
    mask: jax.Array  # bool[B, R], up to and including EOS


# Decoding before token t: t, the logits f32[B, V] of that token, the cache of the responses, which rows go on, and what
# is written.
Carry = tuple[jax.Array, jax.Array, KVCache, jax.Array, Sampled]


def decode(
    lm: LanguageModel,
    params: Params,
    prefix: KVCache,
    logits_BV: jax.Array,
    keys_B: jax.Array,
    length: int,
    eos: int | tuple[int, ...],
    pad: int = 0,
    temperature: float | jax.Array = 1.0,
) -> Sampled:
    """Continue `prefix` (B rows, or 1 row shared by all B keys) until every row has ended or R tokens are written.

    `logits_BV` are those of the first response token; any id of `eos` ends a row.
    """
    batch = keys_B.shape[0]
    layers, _, heads, _, head = prefix.k.shape
    empty = jnp.zeros((layers, batch, heads, length, head), prefix.k.dtype)
    unwritten = KVCache(empty, empty, jnp.zeros((batch, length), bool))
    blocks, (prefix, cache) = separate_layers(lm, params, prefix, unwritten)
    nothing = Sampled(
        jnp.full((batch, length), pad, jnp.int32),
        jnp.zeros((batch, length), jnp.float32),
        jnp.zeros((batch, length), bool),
    )
    logits_BV = jnp.broadcast_to(logits_BV, (batch, logits_BV.shape[-1]))
    start = (jnp.int32(0), logits_BV, cache, jnp.ones((batch,), bool), nothing)

    def unfinished(carry: Carry) -> jax.Array:
        t, _, _, alive_B, _ = carry
        return (t < length) & jnp.any(alive_B)

    def step(carry: Carry) -> Carry:
        t, logits_BV, cache, alive_B, out = carry
        logits_BV = logits_BV / temperature
        token_B, logp_B = choose(logits_BV, jax.vmap(jax.random.fold_in, (0, None))(keys_B, t))
        token_B, logp_B = jnp.where(alive_B, token_B, pad).astype(jnp.int32), logp_B * alive_B
        out = Sampled(out.tokens.at[:, t].set(token_B), out.logps.at[:, t].set(logp_B), out.mask.at[:, t].set(alive_B))
        past = (prefix, cache)
        logits_B1V, cache = logits(lm, params, token_B[:, None], alive_B[:, None], past, at=t, layers=blocks)
        return t + 1, logits_B1V[:, 0], cache, alive_B & ~ends(token_B, eos), out

    with jax.named_scope("decode"):
        return jax.lax.while_loop(unfinished, step, start)[-1]


def ends(token_B: jax.Array, eos: int | tuple[int, ...]) -> jax.Array:
    """Which tokens end a response, bool[B]."""
    ids = eos if isinstance(eos, tuple) else (eos,)
    return reduce(jnp.logical_or, [token_B == i for i in ids], jnp.zeros(token_B.shape, bool))


def choose(logits_BV: jax.Array, keys_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A token from softmax(logits) and its log-probability, i32[B] and f32[B], each row by its own key.

    In a large vocabulary first a group of tokens is drawn by its total probability, then one of the group by its own
    share: the same distribution, for two random numbers a row in place of V.
    """
    batch, vocab = logits_BV.shape
    if vocab <= AT_ONCE:
        token_B = jax.vmap(jax.random.categorical)(keys_B, logits_BV)
        return token_B, metrics.token_logps(logits_BV[:, None], token_B[:, None])[:, 0]
    size = group_size(vocab)
    padded = jnp.pad(logits_BV, ((0, 0), (0, -vocab % size)), constant_values=-jnp.inf)
    logits_BNG = padded.reshape(batch, -1, size)
    mass_BN = jax.nn.logsumexp(logits_BNG, axis=-1)
    uniform_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys_B)
    group_B = inverse(mass_BN, uniform_B2[:, 0])
    logits_BG = jnp.take_along_axis(logits_BNG, group_B[:, None, None], axis=1)[:, 0]
    within_B = inverse(logits_BG, uniform_B2[:, 1])
    logit_B = jnp.take_along_axis(logits_BG, within_B[:, None], axis=1)[:, 0]
    return group_B * size + within_B, logit_B - jax.nn.logsumexp(mass_BN, axis=-1)


def inverse(logits_BN: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """The inverse of softmax's distribution function at numbers below 1, i32[B]; never an entry without a share."""
    up_to_BN = jnp.cumsum(jax.nn.softmax(logits_BN, axis=-1), axis=-1)
    return jnp.sum(up_to_BN <= uniform_B[:, None] * up_to_BN[:, -1:], axis=-1, dtype=jnp.int32)


def group_size(vocab: int) -> int:
    """Tokens of a group. Where it can be, groups end where devices do that split the vocabulary (it is the same on any
    number of devices), so that no device needs another's logits; else the last group is filled up."""
    parts = min(128, vocab & -vocab)  # the power of two that divides V
    even = [n for n in range(1, vocab) if vocab % n == 0 and vocab // n % parts == 0]
    best = min(even, key=lambda n: n + vocab // n, default=vocab)
    return best if best + vocab // best <= 4 * vocab**0.5 else 256


def sample(
    lm: LanguageModel,
    params: Params,
    prompts_BP: jax.Array,
    prompt_mask_BP: jax.Array,
    keys_B: jax.Array,
    length: int,
    eos: int | tuple[int, ...],
    temperature: float | jax.Array = 1.0,
) -> Sampled:
    """One response of at most R=`length` tokens to each prompt (left-padded)."""
    params = sharding.gathered(params, lm.shape.dtype)
    prompts_BP, prompt_mask_BP, keys_B = (sharding.split(x) for x in (prompts_BP, prompt_mask_BP, keys_B))
    logits_B1V, prefix = logits(lm, params, prompts_BP, prompt_mask_BP, (), slice(-1, None))
    return decode(lm, params, prefix, logits_B1V[:, 0], keys_B, length, eos, temperature=temperature)


@partial(jax.jit, static_argnames=("lm", "draws", "length", "eos", "chunk"))
def sample_n(
    lm: LanguageModel,
    params: Params,
    prompt_P: jax.Array,
    prompt_mask_P: jax.Array,
    key: jax.Array,
    draws: int,
    length: int,
    eos: int,
    chunk: int,
) -> Sampled:
    """N=`draws` responses to one prompt: one prefill, its cache shared by all draws, `chunk` draws at a time.

    Draw j uses fold_in(key, j), so the first N draws are the same whatever N and chunk are.
    """
    params = sharding.gathered(params, lm.shape.dtype)
    logits_11V, prefix = logits(lm, params, prompt_P[None], prompt_mask_P[None], (), slice(-1, None))
    keys_N = jax.vmap(lambda j: jax.random.fold_in(key, j))(jnp.arange(draws))

    def some(keys_B: jax.Array) -> Sampled:
        return decode(lm, params, prefix, logits_11V[:, 0], sharding.split(keys_B), length, eos)

    out = jax.lax.map(some, keys_N.reshape(-1, chunk))
    return jax.tree.map(lambda x: x.reshape(draws, *x.shape[2:]), out)


def join(prompts_BP, prompt_mask_BP, tokens_BR, mask_BR) -> tuple[jax.Array, jax.Array]:
    """(tokens, mask) [B, T]: every sequence is [prompt P | response R]."""
    return jnp.concatenate([prompts_BP, tokens_BR], axis=1), jnp.concatenate([prompt_mask_BP, mask_BR], axis=1)


def response_stats(
    lm: LanguageModel, params: Params, prompts_BP, prompt_mask_BP, tokens_BR, mask_BR, reference: Params = None
) -> dict[str, jax.Array]:
    """Of every response token, teacher-forced, f32[B, R]: `logps` and `entropy`; with a `reference` also its
    `ref_logps` and `kl`, the exact KL of the next token from it. What is not used costs nothing under jit.
    """
    tokens_BT, mask_BT = join(prompts_BP, prompt_mask_BP, tokens_BR, mask_BR)
    read = slice(prompts_BP.shape[1] - 1, -1)

    def stats(logits_BrV: jax.Array, tokens_Br: jax.Array, *ref_hidden_BrD: jax.Array) -> dict[str, jax.Array]:
        out = {"logps": metrics.token_logps(logits_BrV, tokens_Br), "entropy": metrics.token_entropy(logits_BrV)}
        if ref_hidden_BrD:
            ref_logits_BrV = unembed(lm, reference, ref_hidden_BrD[0])
            out["ref_logps"] = metrics.token_logps(ref_logits_BrV, tokens_Br)
            out["kl"] = metrics.token_kl(logits_BrV, ref_logits_BrV)
        return out

    others = () if reference is None else (hidden(lm, reference, tokens_BT, mask_BT, read),)
    return read_out(lm, params, hidden(lm, params, tokens_BT, mask_BT, read), stats, tokens_BR, *others)
