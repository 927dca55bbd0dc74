"""Uncertainty of anything computed from curves: one hierarchical resampling of prompts and RM seeds for all of them.

Prompts are shared by all curves, so a draw resamples them once. Seeds are resampled per RM: every curve of that RM and
seed (best-of-n, PPO, every penalty, every policy) goes in or out together, so that comparisons stay paired. Never n:
points along a curve rest on the same samples.

S seeds are few, and a bootstrap of few is too narrow twice: S - 1 of S are drawn, which gives their mean its squared
standard error (not (S-1)/S of it), and the distances of the percentiles from the bootstrap's median are stretched by
t/z with Satterthwaite's degrees of freedom, taken from a delete-one jackknife over prompts and over each RM's seeds
(after Hesterberg 2015, section 5.5, who takes further percentiles instead; three seeds have none). Distances are laid
off from the estimate, so a bootstrap that is biased against it is not stretched in its bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rmo.analysis.curve import Curve, CurveError


@dataclass(frozen=True)
class Resamples:
    """N weightings of the data. Row 0 is the data as they are, then `draws` bootstrap rows, then the jackknife's."""

    share_NQ: np.ndarray  # weight of every prompt; rows sum to 1
    weight_NC: np.ndarray  # weight of every curve
    draws: int
    blocks: tuple[slice, ...]  # rows that leave out one unit each: prompts, then the seeds of each RM

    def row(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        return self.share_NQ[n], self.weight_NC[n]


def prompts_of(curves: Sequence[Curve]) -> int:
    """How many prompts the curves share; 1 where none has scores per prompt.

    Raises:
      CurveError: they rest on different numbers of prompts.
    """
    counts = {c.gold_KQ.shape[1] for c in curves if c.gold_KQ is not None}
    if len(counts) > 1:
        raise CurveError(f"curves rest on {sorted(counts)} prompts: the bootstrap over prompts needs the same ones")
    return counts.pop() if counts else 1


def resample(curves: Sequence[Curve], draws: int, seed: int = 0) -> Resamples:
    """The weightings for these curves; the same for the same list."""
    rng, q = np.random.default_rng(seed), prompts_of(curves)
    units: dict[tuple, dict[object, list[int]]] = {}
    for c, curve in enumerate(curves):
        units.setdefault(curve.id.rm, {}).setdefault(curve.id.seed, []).append(c)
    share = [np.full((1, q), 1 / q), rng.multinomial(q, np.full(q, 1 / q), size=draws) / q]
    weight = [np.ones((1, len(curves))), np.ones((draws, len(curves)))]
    for members in units.values():
        size = len(members)
        counts = rng.multinomial(max(size - 1, 1), np.full(size, 1 / size), size=draws)
        for column, where in zip(counts.T, members.values(), strict=True):
            weight[1][:, where] = column[:, None]
    blocks, start = [], 1 + draws
    if q > 1:
        share.append((1 - np.eye(q)) / (q - 1))
        weight.append(np.ones((q, len(curves))))
        blocks.append(slice(start, start := start + q))
    for members in units.values():
        if len(members) > 1:
            without = np.ones((len(members), len(curves)))
            for i, where in enumerate(members.values()):
                without[i, where] = 0
            share.append(np.full((len(members), q), 1 / q))
            weight.append(without)
            blocks.append(slice(start, start := start + len(members)))
    return Resamples(np.concatenate(share), np.concatenate(weight), draws, tuple(blocks))


def degrees_of_freedom(values_N: np.ndarray, r: Resamples) -> float:
    """Satterthwaite's, from the jackknife variance of each block; infinite where nothing varies."""
    variances, each = [], []
    for block in r.blocks:
        left_out = values_N[block]
        if not np.isfinite(left_out).all():
            return float(min(b.stop - b.start for b in r.blocks) - 1)
        size = len(left_out)
        v = (size - 1) / size * float(np.sum((left_out - left_out.mean()) ** 2))
        variances.append(v)
        each.append(v**2 / (size - 1))
    return sum(variances) ** 2 / sum(each) if sum(each) > 1e-300 else np.inf


def interval(values_N: np.ndarray, r: Resamples, level: float = 0.95) -> list[float]:
    """[low, high] of a statistic evaluated on every row; the estimate, row 0, lies inside."""
    values_N = np.asarray(values_N, np.float64)
    tail, boot = (1 - level) / 2, values_N[1 : 1 + r.draws]
    df = degrees_of_freedom(values_N, r)
    spread = float(stats.t.ppf(1 - tail, df) / stats.norm.ppf(1 - tail)) if np.isfinite(df) else 1.0
    low, middle, high = (float(np.quantile(boot, q, method="nearest")) for q in (tail, 0.5, 1 - tail))
    if len(np.unique(boot)) == 2:  # two seeds without prompts: the median would be one of them
        middle = (low + high) / 2
    if not np.isfinite([values_N[0], middle]).all():
        return [low, high]
    return [float(values_N[0] + spread * (edge - middle)) if np.isfinite(edge) else edge for edge in (low, high)]


def below_zero(values_N: np.ndarray, r: Resamples) -> float:
    """The probability that a statistic, about linear in the data, is negative: Student's t of its bootstrap error."""
    error, df = float(values_N[1 : 1 + r.draws].std()), degrees_of_freedom(values_N, r)
    return float(stats.t.cdf(-values_N[0] / error, df)) if error > 0 else float(values_N[0] < 0)
