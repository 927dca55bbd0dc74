"""From per-token values to one score per sequence, and the paper's recalibration of scores.

A reward is the RewardModel read at the last real token. Several RMs combine into one by name (Coste et al. 2023).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from rmo.models.attention import kernels_serve
from rmo.models.transformer import KVCache, Params, RewardModel, values, values_after
from rmo.runtime import hosts, sharding


class Calibration(NamedTuple):
    """score = (raw - shift) * scale. Kept beside the RM; with scale > 0 it never changes pairwise accuracy."""

    shift: float | jax.Array = 0.0
    scale: float | jax.Array = 1.0

    def __call__(self, raw):
        return (raw - self.shift) * self.scale


def last_token(mask_BT: jax.Array) -> jax.Array:
    """Index i32[B] of the last real token, by the mask and never by a token's id."""
    return mask_BT.shape[1] - 1 - jnp.argmax(mask_BT[:, ::-1].astype(jnp.int32), axis=1)


def at_last_token(values_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Each row's value at its last real token, f32[B]."""
    return jnp.take_along_axis(values_BT, last_token(mask_BT)[:, None], axis=1)[:, 0]


def score(
    rm: RewardModel, params: Params, tokens_BT: jax.Array, mask_BT: jax.Array,
    dropout: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:  # fmt: skip
    """Raw score f32[B] of each sequence: the value at its last real token. `dropout` is (rate, key), for training."""
    tokens_BT, mask_BT = sharding.split(tokens_BT), sharding.split(mask_BT)
    values_BT = values(rm, params, tokens_BT, mask_BT, dropout=dropout)
    return at_last_token(values_BT, mask_BT)


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
    silent: jax.Array | float = 0.0  # the score of a response without a token
    shared = length > 0 and not kernels_serve(whole, not rm.shape.window, rm.shape.attention_cap)
    if shared:
        prompt_1P, prompt_mask_1P = prompt_P[None], prompt_mask_P[None]
        prompt_values_1P, prefix = values_after(rm, params, prompt_1P, prompt_mask_1P)
        past, silent = (prefix,), at_last_token(prompt_values_1P, prompt_mask_1P)

    def one(block):
        tokens, mask = (sharding.split(x) for x in block)
        if shared:
            values_BR, _ = values_after(rm, params, tokens, mask, past)
            return jnp.where(jnp.any(mask, axis=1), at_last_token(values_BR, mask), silent)
        rows = (tokens.shape[0], length)
        tokens_BT = jnp.concatenate([jnp.broadcast_to(prompt_P[None], rows), tokens], axis=1)
        mask_BT = jnp.concatenate([jnp.broadcast_to(prompt_mask_P[None], rows), mask], axis=1)
        return score(rm, params, tokens_BT, mask_BT)

    blocks = jax.tree.map(lambda x: x.reshape(-1, chunk, x.shape[-1]), (tokens_NR, mask_NR))
    return jax.lax.map(one, blocks).reshape(-1)


_score = jax.jit(score, static_argnames="rm")


def score_all(rm: RewardModel, params: Params, tokens_BT: np.ndarray, mask_BT: np.ndarray, chunk: int) -> np.ndarray:
    """Raw scores f32[B] of host arrays, in equal chunks; the last is filled with copies, so one compilation serves."""
    size, out = len(tokens_BT), []
    chunk = min(chunk, size)
    for start in range(0, size, chunk):
        rows = np.minimum(np.arange(start, start + chunk), size - 1)
        out.append(hosts.fetch(_score(rm, params, tokens_BT[rows], mask_BT[rows]))[: size - start])
    return np.concatenate(out)


def combine(scores_MB: jax.Array, how: str = "mean", coefficient: float = 0.5) -> jax.Array:
    """One score f32[B] from M calibrated RMs (Coste et al. 2023, section 3).

    mean; wco, the worst case min_i; uwo, mean - coefficient * variance_i (population variance, everywhere).
    """
    if how == "mean":
        return jnp.mean(scores_MB, axis=0)
    if how == "wco":
        return jnp.min(scores_MB, axis=0)
    if how == "uwo":
        return jnp.mean(scores_MB, axis=0) - coefficient * jnp.var(scores_MB, axis=0)
    raise ValueError(f"unknown combination {how!r}: use mean, wco or uwo")


def soft_label_scale(gap_C: np.ndarray, gold_gap_C: np.ndarray) -> float:
    """The positive scale s that minimises CE(sigmoid(gold gap), sigmoid(s * proxy gap)) (paper section 2.2).

    Both gaps are preferred minus other. Gold is a network taught scores, not a logit: its standard deviation on the
    initial policy is taken as one logit, so that proxy and gold come out in the same unit. Convex in s, which is
    searched over 1e-4 to 1e4 of the proxy's own spread.
    """
    target = 1 / (1 + np.exp(-gold_gap_C.astype(np.float64)))
    spread = float(gap_C.std(dtype=np.float64)) or 1.0  # whatever unit the proxy has
    gap_C = gap_C.astype(np.float64) / spread

    def loss(log_s: float) -> float:
        logit = np.exp(log_s) * gap_C
        return float(np.mean(np.logaddexp(0, logit) - target * logit))

    found = optimize.minimize_scalar(loss, bounds=(np.log(1e-4), np.log(1e4)), method="bounded")
    return float(np.exp(found.x)) / spread
