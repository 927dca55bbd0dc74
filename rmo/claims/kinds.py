"""How what a claim measures becomes one number with an interval: some claims are a number, some hold of every part.

Each kind turns the values of a statistic's parts on the jackknife's rows into a number and the ends of its interval,
without the bias that noise gives to squares, absolute values and maxima.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rmo.analysis.bootstrap import EVERYWHERE, Bounds, Error, Resamples, bias, error, t_interval

Parts = tuple[list[float], list[Error]]  # estimates and their errors
FLOOR = 0.05  # gold sd: a forecast error below it counts as none, so that a ratio of two has no singularity


@dataclass(frozen=True)
class Kind:
    """`reduce` estimates parts with errors, `number` makes one of them, `ends` its interval from theirs."""

    name: str
    reduce: Callable[[np.ndarray, Resamples], Parts]
    number: Callable[[Sequence[float]], float]
    ends: Callable[[Sequence[float], Sequence[Error], float, Bounds], tuple[float, float]]


def as_they_are(values_NP: np.ndarray, r: Resamples) -> Parts:
    """Every part by itself."""
    return values_NP[0].tolist(), [error(values_N, r) for values_N in values_NP.T]


def without_noise(values_NP: np.ndarray, r: Resamples) -> Parts:
    """Mean squares, less what noise adds to them. Near zero their error is of second order: twice the square of the
    bias is the variance of one squared normal error, and more than that of a mean of several."""
    values, errors = as_they_are(values_NP, r)
    added = [bias(values_N, r) for values_N in values_NP.T]
    return (
        [value - noise for value, noise in zip(values, added, strict=True)],
        [e._replace(seeds=e.seeds + 2 * noise**2) for e, noise in zip(errors, added, strict=True)],
    )


def both_ends(
    parts: Sequence[float], errors: Sequence[Error], tails: tuple[float, float], bounds: Bounds
) -> tuple[np.ndarray, np.ndarray]:
    """Every part's interval, with other probabilities beyond its low and its high end."""
    low = [t_interval(x, e, tails[0], bounds)[0] for x, e in zip(parts, errors, strict=True)]
    high = [t_interval(x, e, tails[1], bounds)[1] for x, e in zip(parts, errors, strict=True)]
    return np.array(low), np.array(high)


def only(parts: Sequence[float]) -> float:
    (x,) = parts
    return float(x)


def ends_of_one(parts: Sequence[float], errors: Sequence[Error], tail: float, bounds: Bounds) -> tuple[float, float]:
    return t_interval(only(parts), errors[0], tail, bounds)


def ends_of_least(parts: Sequence[float], errors: Sequence[Error], tail: float, bounds: Bounds) -> tuple[float, float]:
    """The lowest low end misses only if the least part's does (intersection-union); any high end may (Bonferroni)."""
    low, high = both_ends(parts, errors, (tail, tail / len(parts)), bounds)
    return float(low.min()), float(high.min())


def ends_of_greatest(
    parts: Sequence[float], errors: Sequence[Error], tail: float, bounds: Bounds
) -> tuple[float, float]:
    low, high = both_ends(parts, errors, (tail / len(parts), tail), bounds)
    return float(low.max()), float(high.max())


def ends_of_size(parts: Sequence[float], errors: Sequence[Error], tail: float, bounds: Bounds) -> tuple[float, float]:
    """Two one-sided tests of every part: all intervals lie within a bound, or one lies beyond it (Bonferroni)."""
    low, high = both_ends(parts, errors, (tail, tail), bounds)
    divided = tail / len(parts)
    surely_low, surely_high = both_ends(parts, errors, (divided, divided), bounds)
    least = np.maximum(np.maximum(surely_low, -surely_high), 0.0)
    return float(least.max()), float(np.maximum(np.abs(low), np.abs(high)).max())


def ends_of_root(parts: Sequence[float], errors: Sequence[Error], tail: float, bounds: Bounds) -> tuple[float, float]:
    low, high = ends_of_one(parts, errors, tail, bounds)
    return max(low, 0.0) ** 0.5, max(high, 0.0) ** 0.5


def log_root(square: float) -> float:
    """log of a root mean square, errors below `FLOOR` counted as none."""
    return 0.5 * float(np.log(max(square, 0.0) + FLOOR**2))


def log_ratio(parts: Sequence[float]) -> float:
    return log_root(parts[0]) - log_root(parts[1])


def ends_of_log_ratio(
    parts: Sequence[float], errors: Sequence[Error], tail: float, bounds: Bounds
) -> tuple[float, float]:
    """From the two logarithms' own intervals, which are not symmetric near zero (MOVER; Zou and Donner 2008)."""
    low, high = both_ends(parts, errors, (tail, tail), bounds)
    down = [log_root(x) - log_root(end) for x, end in zip(parts, low, strict=True)]
    up = [log_root(end) - log_root(x) for x, end in zip(parts, high, strict=True)]
    middle = log_ratio(parts)
    return middle - float(np.hypot(down[0], up[1])), middle + float(np.hypot(up[0], down[1]))


def root(parts: Sequence[float]) -> float:
    return max(only(parts), 0.0) ** 0.5


def size(parts: Sequence[float]) -> float:
    return max(abs(x) for x in parts)


ALONE = Kind("a number", as_they_are, only, ends_of_one)
LEAST = Kind("the least of several", as_they_are, min, ends_of_least)
GREATEST = Kind("the greatest of several", as_they_are, max, ends_of_greatest)
SIZE = Kind("the largest size of several", as_they_are, size, ends_of_size)
ROOT = Kind("the root of a square, noise removed", without_noise, root, ends_of_root)
LOG_RATIO = Kind("the log ratio of two roots, noise removed", without_noise, log_ratio, ends_of_log_ratio)
KINDS = (ALONE, LEAST, GREATEST, SIZE, ROOT, LOG_RATIO)


@dataclass(frozen=True)
class Estimate:
    """A statistic of one kind with what its interval is made of."""

    kind: Kind
    parts: Sequence[float]
    errors: Sequence[Error]
    bounds: Bounds = EVERYWHERE  # of every part

    @property
    def number(self) -> float:
        return float(self.kind.number(self.parts))

    def interval(self, level: float = 0.95, seeds: float = 1.0, prompts: float = 1.0) -> tuple[float, float]:
        """Of the data as they are, or what it would be with so many times the seeds and prompts."""
        errors = [e.with_more(seeds, prompts) for e in self.errors]
        return self.kind.ends(self.parts, errors, (1 - level) / 2, self.bounds)


def estimate(kind: Kind, values_NP: np.ndarray, r: Resamples, bounds: Bounds = EVERYWHERE) -> Estimate:
    """From the values of the parts on the rows `r.exact`; others are not looked at."""
    return Estimate(kind, *kind.reduce(values_NP, r), bounds)
