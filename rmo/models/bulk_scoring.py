"""Raw scores and log-probabilities of more texts than one program takes at once."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rmo.models import scoring
from rmo.models.sampling import response_stats
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.runtime import hosts, sharding

_score = jax.jit(scoring.score, static_argnames="rm")


@partial(jax.jit, static_argnames=("lm", "prompt"))
def _logp(lm: LanguageModel, params: Params, tokens_BT: jax.Array, mask_BT: jax.Array, prompt: int) -> jax.Array:
    tokens_BT, mask_BT = sharding.split(tokens_BT), sharding.split(mask_BT)
    both = [(x[:, :prompt], x[:, prompt:]) for x in (tokens_BT, mask_BT)]
    (prompts, tokens), (prompt_mask, mask) = both
    return jnp.sum(response_stats(lm, params, prompts, prompt_mask, tokens, mask)["logps"] * mask, axis=1)


def score_all(rm: RewardModel, params: Params, tokens_BT: np.ndarray, mask_BT: np.ndarray, chunk: int) -> np.ndarray:
    """Raw scores f32[B] of host arrays, `chunk` at a time."""
    return in_chunks(lambda rows: _score(rm, params, tokens_BT[rows], mask_BT[rows]), len(tokens_BT), chunk)


def response_logps(
    lm: LanguageModel, params: Params, tokens_BT: np.ndarray, mask_BT: np.ndarray, prompt: int, chunk: int
) -> np.ndarray:
    """Log-probabilities f32[B], nats, of whole responses to their prompts of `prompt` tokens; host arrays, `chunk` at a
    time."""
    return in_chunks(lambda rows: _logp(lm, params, tokens_BT[rows], mask_BT[rows], prompt), len(tokens_BT), chunk)


def in_chunks(of_rows: Callable[[np.ndarray], jax.Array], size: int, chunk: int) -> np.ndarray:
    """What a program says of rows 0 to `size`, in equal chunks; the last is filled with copies, so that one compilation
    serves."""
    out, chunk = [], min(chunk, size)
    for start in range(0, size, chunk):
        rows = np.minimum(np.arange(start, start + chunk), size - 1)
        out.append(hosts.fetch(of_rows(rows))[: size - start])
    return np.concatenate(out)
