"""One score function, however many RMs are behind it: what best-of-n, PPO and every other method optimise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from rmo.models import scoring
from rmo.models.reader import IDS, Reader
from rmo.models.transformer import Params, RewardModel
from rmo.rewards import combination
from rmo.rewards.calibration import Calibration


class RewardParams(NamedTuple):
    """The arrays of one reward. Of several RMs, `params` and `each` have a leading axis K; of RMs of several shapes
    they are tuples of such, one per shape."""

    params: Params
    calibration: Calibration  # of the one score
    each: Calibration | tuple[Calibration, ...] | None = None  # of every RM's own, before they are combined


@dataclass(frozen=True)
class Reward:
    """What is static: the module, how it reads, how several become one (empty: there is one RM)."""

    rm: RewardModel
    reader: Reader = IDS
    how: str = ""
    coefficient: float = 0.0

    def __call__(self, p: RewardParams, tokens_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
        """Calibrated scores f32[B] of sequences, as the policy wrote them."""
        return self.of_read(p, *self.reader(tokens_BT, mask_BT))

    @property
    def readers(self) -> tuple[Reader, ...]:
        """One per shape of RM."""
        return (self.reader,)

    def of_read(self, p: RewardParams, tokens_BS: jax.Array, mask_BS: jax.Array) -> jax.Array:
        """The same of sequences that the reader has read."""
        return self.of_members(p, self.members(p, tokens_BS, mask_BS))

    def members(self, p: RewardParams, tokens_BS: jax.Array, mask_BS: jax.Array) -> jax.Array:
        """What the one score is made of, f32[K, B]: calibrated scores of every RM, or the raw ones of a single RM."""
        if not self.how:
            return scoring.score(self.rm, p.params, tokens_BS, mask_BS)[None]
        assert isinstance(p.each, Calibration)
        return of_one_shape(self.rm, p.params, p.each, tokens_BS, mask_BS)

    def of_members(self, p: RewardParams, scores_KB: jax.Array) -> jax.Array:
        """The one score, f32[B]."""
        return p.calibration(combine(self.how, scores_KB, self.coefficient) if self.how else scores_KB[0])


def of_one_shape(
    rm: RewardModel, params_K: Params, each_K: Calibration, tokens_BS: jax.Array, mask_BS: jax.Array
) -> jax.Array:
    """Calibrated scores f32[K, B] of K reward models of one shape."""

    def one(params: Params, calibration: Calibration) -> jax.Array:
        return calibration(scoring.score(rm, params, tokens_BS, mask_BS))

    return jax.vmap(one)(params_K, each_K)


def combine_tables(how: str, scores_K: np.ndarray, coefficient: float) -> np.ndarray:
    """As `combine`, of tables on the host: in their own precision."""
    return np.asarray(of_scores(how)(scores_K, coefficient))


def combine(how: str, scores_K: jax.Array, coefficient: float) -> jax.Array:
    """One score f[...] from K calibrated ones f[K, ...]."""
    return of_scores(how)(scores_K, coefficient)


def of_scores(how: str) -> Callable[..., Any]:
    """The function of a combination by name.

    Raises:
      ValueError: it combines parameters.
    """
    found = combination.find(how).scores
    if found is None:
        raise ValueError(f"{how} combines parameters, not scores")
    return found
