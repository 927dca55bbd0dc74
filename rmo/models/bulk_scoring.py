"""Raw scores of more texts than one program takes at once."""

import jax
import numpy as np

from rmo.models import scoring
from rmo.models.transformer import Params, RewardModel
from rmo.runtime import hosts

_score = jax.jit(scoring.score, static_argnames="rm")


def score_all(rm: RewardModel, params: Params, tokens_BT: np.ndarray, mask_BT: np.ndarray, chunk: int) -> np.ndarray:
    """Raw scores f32[B] of host arrays, in equal chunks; the last is filled with copies, so one compilation serves."""
    size, out = len(tokens_BT), []
    chunk = min(chunk, size)
    for start in range(0, size, chunk):
        rows = np.minimum(np.arange(start, start + chunk), size - 1)
        out.append(hosts.fetch(_score(rm, params, tokens_BT[rows], mask_BT[rows]))[: size - start])
    return np.concatenate(out)
