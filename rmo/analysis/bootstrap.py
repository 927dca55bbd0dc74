"""Uncertainty of anything computed from curves: one set of weightings of prompts and RM seeds for all of them.

Prompts are shared by all curves. A seed's label is shared by all RMs: it decides which comparisons are chosen, their
noise and their order, whatever the RM's size, so labels and prompts are two crossed factors (Owen 2007). Every curve
of a label (best-of-n, PPO, every penalty, every policy) goes in or out together, so that comparisons stay paired.
Never n: points along a curve rest on the same samples.

Smooth statistics get t intervals. Each jackknife row moves the data by one unit's share of the error, so that the sum
over rows of (T_row - T)^2 estimates a part of the variance of T:
- seeds: the larger of two estimates, with its own degrees of freedom. By label (S - 1 of them) it is right whatever a
  label does to several RMs at once; by RM and label, pooled over RMs, it is right where RMs' seeds are independent and
  not too small where T compares RMs, as what a label does to all of them cancels. The larger one covers in both cases
  (tests/analysis/test_bootstrap.py): the smaller, picked by chance, would not.
- prompts, less the interaction of prompts and labels: that is read noise, which the seeds' scatter already contains.
Degrees of freedom of the sum are Satterthwaite's. `bias` removes what noise adds to a square.

A statistic that is not smooth, infinite on some resample, or rests on curves without prompts has a percentile
bootstrap. S seeds are few, and a bootstrap of few is too narrow twice: S - 1 of S are drawn, and the distances of the
percentiles from the bootstrap's median are stretched by t/z (after Hesterberg 2015, section 5.5). Distances are laid
off from the estimate, so a bootstrap that is biased against it is not stretched in its bias.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from rmo.analysis.curve import Curve, CurveError
from rmo.analysis.curve_id import CurveId

Bounds = tuple[float, float]
EVERYWHERE: Bounds = (-np.inf, np.inf)
MAX_BLOCKS = 24  # of prompts in the jackknife: more cost time and gain no degrees of freedom that matter


@dataclass(frozen=True)
class Resamples:
    """N weightings of the data: row 0 is the data as they are, then `draws` bootstrap rows, then the jackknife's."""

    share_NQ: np.ndarray  # weight of every prompt; rows sum to 1
    weight_NC: np.ndarray  # weight of every curve
    draws: int
    labels: slice  # a row for each of S seed labels, in all RMs at once; none with one label
    rms: tuple[slice, ...]  # for each RM with several seeds, a row for each
    prompts: slice  # a row for each of B blocks of prompts; none with one prompt
    both: slice  # S times B rows: a label and a block at once

    def row(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        return self.share_NQ[n], self.weight_NC[n]

    @property
    def exact(self) -> np.ndarray:
        """Row 0 and the jackknife's: all that a smooth statistic must be evaluated on, i[...]."""
        return np.array([0, *range(1 + self.draws, len(self.share_NQ))])


class Error(NamedTuple):
    """The sampling variance of a statistic in its two parts, each with its degrees of freedom."""

    seeds: float
    seeds_df: float
    prompts: float
    prompts_df: float

    @property
    def variance(self) -> float:
        return self.seeds + self.prompts

    @property
    def df(self) -> float:
        """Satterthwaite's; infinite where nothing varies."""
        spent = self.seeds**2 / self.seeds_df + self.prompts**2 / self.prompts_df
        return self.variance**2 / spent if spent > 1e-300 else np.inf

    def margin(self, tail: float) -> float:
        """How far the end of an interval lies from the estimate, `tail` being the probability beyond it; never nearer
        than by the seeds alone, which Satterthwaite's degrees of freedom allow where few seeds happen to agree."""
        alone = float(stats.t.ppf(1 - tail, self.seeds_df)) * self.seeds**0.5
        return max(float(stats.t.ppf(1 - tail, self.df)) * self.variance**0.5, alone)

    def with_more(self, seeds: float = 1.0, prompts: float = 1.0) -> "Error":
        """What it would be with so many times the seeds and the prompts."""
        more = (1 + self.seeds_df) * seeds - 1, (1 + self.prompts_df) * prompts - 1
        return Error(self.seeds / seeds, more[0], self.prompts / prompts, more[1])


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
    rng, q, count = np.random.default_rng(seed), prompts_of(curves), len(curves)
    share = [np.full((1, q), 1 / q), rng.multinomial(q, np.full(q, 1 / q), size=draws) / q]
    weight = [np.ones((1, count)), drawn_seeds(curves, draws, rng)]
    labels_SC = moved_seeds(curves)
    prompts_BQ = moved_prompts(q)
    slices, start = [], 1 + draws

    def add(share_NQ: np.ndarray, weight_NC: np.ndarray) -> slice:
        """One more stretch of rows: every weighting of seeds with every one of prompts."""
        nonlocal start
        share.append(np.tile(share_NQ, (len(weight_NC), 1)))
        weight.append(np.repeat(weight_NC, len(share_NQ), axis=0))
        start += len(share_NQ) * len(weight_NC)
        return slice(start - len(share_NQ) * len(weight_NC), start)

    still_Q, still_C = share[0], weight[0]
    labels = add(still_Q, labels_SC)
    for members in by_rm(curves).values():
        if len(members) > 1:
            mine_C = np.zeros(count, bool)
            mine_C[[c for columns in members.values() for c in columns]] = True
            rows = [s for s, label in enumerate(labels_of(curves)) if label in members]
            slices.append(add(still_Q, np.where(mine_C, labels_SC[rows], 1.0)))
    prompts, both = add(prompts_BQ, still_C), add(prompts_BQ, labels_SC)
    return Resamples(np.concatenate(share), np.concatenate(weight), draws, labels, tuple(slices), prompts, both)


def labels_of(curves: Sequence[Curve]) -> list[int | None]:
    """The seed labels, in order of appearance; none where there is one."""
    labels = list(dict.fromkeys(c.id.seed for c in curves))
    return labels if len(labels) > 1 else []


def by_rm(curves: Sequence[Curve]) -> dict[tuple, dict[object, list[int]]]:
    """RM -> seed label -> which of the curves."""
    out: dict[tuple, dict[object, list[int]]] = {}
    for c, curve in enumerate(curves):
        out.setdefault(curve.id.rm, {}).setdefault(curve.id.seed, []).append(c)
    return out


def drawn_seeds(curves: Sequence[Curve], draws: int, rng: np.random.Generator) -> np.ndarray:
    """S - 1 of S seeds for every draw, f64[draws, C]: the same for all RMs that have the same labels."""
    weight = np.ones((draws, len(curves)))
    counts: dict[tuple, np.ndarray] = {}
    for members in by_rm(curves).values():
        labels, size = tuple(sorted(members, key=str)), len(members)
        if labels not in counts:
            counts[labels] = rng.multinomial(max(size - 1, 1), np.full(size, 1 / size), size=draws)
        for column, label in zip(counts[labels].T, labels, strict=True):
            weight[:, members[label]] = column[:, None]
    return weight


def moved_seeds(curves: Sequence[Curve]) -> np.ndarray:
    """Weights that move the mean of every group of curves by one label's share of its error, f64[S, C].

    Of S seeds of a group the one weighs 1 - sqrt((S-1)/S), each other 1 + 1/sqrt(S(S-1)): the squares of the mean's S
    moves add up to the squared standard error. Their sum stays S. A group without the label stays as it is.
    """
    groups: dict[CurveId, dict[int | None, list[int]]] = {}
    for c, curve in enumerate(curves):
        groups.setdefault(curve.id.group, {}).setdefault(curve.id.seed, []).append(c)
    labels = labels_of(curves)
    out = np.ones((len(labels), len(curves)))
    for members in groups.values():
        size, every = len(members), [c for columns in members.values() for c in columns]
        if size > 1:
            for label, columns in members.items():
                row = out[labels.index(label)]
                row[every] = 1 + (size * (size - 1)) ** -0.5
                row[columns] = 1 - ((size - 1) / size) ** 0.5
    return out


def moved_prompts(q: int) -> np.ndarray:
    """The same for B blocks of prompts, as shares f64[B, Q]; none with one prompt."""
    size = min(q, MAX_BLOCKS)
    if size == 1:
        return np.zeros((0, q))
    mine = np.arange(q) % size == np.arange(size)[:, None]
    weight = np.where(mine, 1 - ((size - 1) / size) ** 0.5, 1 + (size * (size - 1)) ** -0.5)
    return weight / weight.sum(axis=1, keepdims=True)


def spread(move: np.ndarray) -> tuple[float, float]:
    """(variance, degrees of freedom) from how far each unit moves a statistic; units that do not move it, because it
    does not rest on them, are not counted."""
    moved = move[np.abs(move) > 1e-12 * np.abs(move).max(initial=0)]
    if len(moved) < 2:
        return 0.0, 1.0
    return float(np.sum((moved - moved.mean()) ** 2)), len(moved) - 1.0


def error(values_N: np.ndarray, r: Resamples) -> Error:
    """The variance of a smooth statistic from its values on the rows `r.exact`; other rows are not looked at."""
    move = np.asarray(values_N, np.float64) - values_N[0]
    together, own = spread(move[r.labels]), [spread(move[rows]) for rows in r.rms]
    apart = sum(variance for variance, _ in own)
    pooled = sum(variance**2 / df for variance, df in own)
    seeds, df = max(together, (apart, apart**2 / pooled if pooled > 0 else 1.0))
    prompts, prompts_df = spread(move[r.prompts])
    return Error(seeds, df, max(prompts - float(np.sum(interaction(move, r) ** 2)), 0.0), prompts_df)


def interaction(move_N: np.ndarray, r: Resamples) -> np.ndarray:
    """How far a label and a block of prompts together move a statistic beyond what each does, f64[S, B]."""
    labels, prompts = move_N[r.labels], move_N[r.prompts]
    return move_N[r.both].reshape(len(labels), len(prompts)) - labels[:, None] - prompts


def bias(values_N: np.ndarray, r: Resamples) -> float:
    """What noise adds to a statistic, to second order: exactly the mean's squared error where it is a mean's square."""
    move = np.asarray(values_N, np.float64) - values_N[0]
    return float(move[r.labels].sum() + move[r.prompts].sum() - interaction(move, r).sum())


class Scale(NamedTuple):
    """A transformation of a statistic's range to the whole line, in which its interval is laid off."""

    to: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray | float], np.ndarray | float]
    slope: Callable[[float], float]


def scale_of(bounds: Bounds) -> Scale:
    """Logit where a range has two ends, a logarithm where it has one."""
    low, high = bounds
    if np.isfinite(low) and np.isfinite(high):
        width = high - low
        return Scale(
            lambda x: np.log((x - low) / (high - x)),
            lambda z: low + width / (1 + np.exp(-z)),
            lambda x: width / ((x - low) * (high - x)),
        )
    if np.isfinite(low):
        return Scale(lambda x: np.log(x - low), lambda z: low + np.exp(z), lambda x: 1 / (x - low))
    if np.isfinite(high):
        return Scale(lambda x: -np.log(high - x), lambda z: high - np.exp(-z), lambda x: 1 / (high - x))
    return Scale(lambda x: x, lambda z: z, lambda x: 1.0)


def t_interval(value: float, e: Error, tail: float, bounds: Bounds = EVERYWHERE) -> tuple[float, float]:
    """[low, high] of a smooth statistic, with the probability `tail` beyond each end; within its bounds."""
    if not bounds[0] < value < bounds[1]:  # an estimate on the edge of its range, which no transformation reaches
        return (max(value - e.margin(tail), bounds[0]), min(value + e.margin(tail), bounds[1]))
    scale = scale_of(bounds)
    middle, margin = float(scale.to(np.array(value))), e.margin(tail) * scale.slope(value)
    with np.errstate(over="ignore"):
        return float(scale.back(middle - margin)), float(scale.back(middle + margin))


def degrees_of_freedom(values_N: np.ndarray, r: Resamples) -> float:
    """Satterthwaite's; infinite where nothing varies."""
    if not np.isfinite(np.asarray(values_N)[r.exact]).all():
        sizes = [rows.stop - rows.start for rows in (r.labels, r.prompts) if rows.stop > rows.start]
        return float(min(sizes, default=2) - 1)
    return error(values_N, r).df


def interval(values_N: np.ndarray, r: Resamples, level: float = 0.95, bounds: Bounds = EVERYWHERE) -> list[float]:
    """[low, high] of a statistic evaluated on every row; the estimate, row 0, lies inside."""
    values_N = np.asarray(values_N, np.float64)
    if r.prompts.stop > r.prompts.start and np.isfinite(values_N).all():
        return list(t_interval(float(values_N[0]), error(values_N, r), (1 - level) / 2, bounds))
    return percentiles(values_N, r, level, bounds)


def percentiles(values_N: np.ndarray, r: Resamples, level: float = 0.95, bounds: Bounds = EVERYWHERE) -> list[float]:
    """The stretched percentile bootstrap: for what is not smooth."""
    scale = scale_of(bounds)
    with np.errstate(divide="ignore", invalid="ignore"):
        line_N = np.asarray(scale.to(np.asarray(values_N, np.float64)))
    tail, boot = (1 - level) / 2, line_N[1 : 1 + r.draws]
    df = degrees_of_freedom(line_N, r)
    stretch = float(stats.t.ppf(1 - tail, df) / stats.norm.ppf(1 - tail)) if np.isfinite(df) else 1.0
    low, middle, high = (float(np.quantile(boot, q, method="nearest")) for q in (tail, 0.5, 1 - tail))
    if len(np.unique(boot)) == 2:  # two seeds without prompts: the median would be one of them
        middle = (low + high) / 2
    ends = [low, high]
    if np.isfinite([line_N[0], middle]).all():
        ends = [float(line_N[0] + stretch * (edge - middle)) if np.isfinite(edge) else edge for edge in ends]
    return [float(scale.back(end)) for end in ends]


def below_zero(values_N: np.ndarray, r: Resamples) -> float:
    """The probability that a statistic, about linear in the data, is negative: Student's t of its error."""
    df, error_of = degrees_of_freedom(values_N, r), float(values_N[1 : 1 + r.draws].std())
    if r.prompts.stop > r.prompts.start and np.isfinite(values_N).all():
        error_of = error(values_N, r).variance ** 0.5
    return float(stats.t.cdf(-values_N[0] / error_of, df)) if error_of > 0 else float(values_N[0] < 0)
