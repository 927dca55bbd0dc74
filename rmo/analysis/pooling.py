"""Worlds as replicates: one statistic over several worlds, with what worlds differ by beyond their own errors.

Of statement j, world w says y_jw with the standard error e_jw. The pooled statistic is the mean over K worlds, all of
equal weight: standard errors of a few seeds are too rough to weigh by. What the worlds scatter by, s_j^2, holds errors
and differences of worlds alike; s_j^2 / K is the mean's variance whatever the worlds' differences, and Student's t with
K - 1 degrees of freedom its interval, that of Hartung and Knapp (2001) at equal weights. For three worlds t is 4.3: the
interval is wider than one world's own. It is never narrower than errors alone make it, however well worlds agree.

So a second interval draws the ratio r_j = s_j^2 / mean of e_jw^2, one where worlds do not differ, to what it is for the
other statements of the run, as much as they agree on it: the moderated t of Smyth (2004, Stat. Appl. Genet. Mol. Biol.
3, article 3), in which ratios scatter about a common one as if that was known from d0 more degrees of freedom. d0 and
the common ratio come from the logarithms of all r_j. d0 is at most `BORROWED`, since statements rest on the same
curves, and the common ratio at least one. A statement whose ratio lies beyond the quantile `UNUSUAL` of what those two
allow is left alone. Of the first kind of interval 95 of 100 cover for every statement, of the second over all the
statements of a run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

BORROWED = 4.0  # most degrees of freedom that other statements lend
UNUSUAL = 0.9  # quantile of the ratios that the common one allows; beyond it a statement borrows nothing
LEAST_TO_BORROW = 10  # statements
MOST = 1000  # worlds; what needs more is not decided by worlds


class Common(NamedTuple):
    """What all statements say of how much more than their errors worlds scatter."""

    ratio: float
    df: float  # degrees of freedom that this is worth; 0: nothing is borrowed


class Pooled(NamedTuple):
    """One statistic over K worlds."""

    mean: float
    low: float
    high: float
    error: float  # standard error of the mean
    df: float
    within: float  # standard error of one world's statistic, root mean square
    between: float  # standard deviation of worlds beyond that


def standard_error(interval: Sequence[float], df: float, level: float) -> float:
    """Of an interval that is that of Student's t."""
    return float((interval[1] - interval[0]) / 2 / stats.t.ppf((1 + level) / 2, df))


def ratio(values_W: np.ndarray, errors_W: np.ndarray) -> float:
    """Variance over worlds as a multiple of what their own errors make."""
    within = float(np.mean(np.square(errors_W)))
    return float(values_W.var(ddof=1)) / within if within > 0 else np.inf


def common(ratios_J: np.ndarray, worlds: int) -> Common:
    """From the ratios of all statements that `worlds` worlds gave a statistic for."""
    ratios = ratios_J[np.isfinite(ratios_J) & (ratios_J > 0)]
    if worlds < 2 or len(ratios) < LEAST_TO_BORROW:
        return Common(1.0, 0.0)
    half = (worlds - 1) / 2
    logs = np.log(ratios) - special.digamma(half) + np.log(half)
    spread = float(logs.var(ddof=1) - special.polygamma(1, half))

    def excess(log_half_df: float) -> float:
        return float(special.polygamma(1, np.exp(log_half_df))) - spread

    df = 2 * np.exp(optimize.brentq(excess, -5, 15)) if spread > 1e-6 and excess(-5) > 0 else np.inf  # type: ignore
    shift = special.digamma(df / 2) - np.log(df / 2) if np.isfinite(df) else 0.0
    return Common(max(float(np.exp(logs.mean() + shift)), 1.0), float(min(df, BORROWED)))


def pool(values_W: np.ndarray, errors_W: np.ndarray, shared: Common, level: float) -> Pooled:
    """One statement's statistic over W >= 2 worlds."""
    worlds, within = len(values_W), float(np.mean(np.square(errors_W)) ** 0.5)
    scatter, df = float(values_W.var(ddof=1)), worlds - 1.0
    between = max(scatter - within**2, 0.0) ** 0.5
    if shared.df and within > 0 and scatter / within**2 < shared.ratio * stats.f.ppf(UNUSUAL, df, shared.df):
        own = (shared.df * shared.ratio + df * scatter / within**2) / (shared.df + df)
        scatter, df = max(own, 1.0) * within**2, df + shared.df
    mean, error = float(values_W.mean()), (scatter / worlds) ** 0.5
    least = float(stats.norm.ppf((1 + level) / 2)) * within / worlds**0.5
    half = max(float(stats.t.ppf((1 + level) / 2, df)) * error, least)
    return Pooled(mean, mean - half, mean + half, error, df, within, between)


def worlds_to_decide(p: Pooled, distance: float, worlds: int, level: float) -> int | None:
    """How many worlds in all would put the interval clear of a threshold that the mean is `distance` from, if nothing
    else changed; None where `MOST` would not."""
    one = p.error * worlds**0.5
    for count in range(worlds, MOST + 1):
        df = p.df + count - worlds
        if float(stats.t.ppf((1 + level) / 2, df)) * one / count**0.5 < distance:
            return count
    return None


def seeds_to_decide(p: Pooled, distance: float, worlds: int, seeds: int, level: float) -> int | None:
    """How many seeds in each of these worlds would, if a world's own variance falls as one over their number and worlds
    differ as they do; None where no number would."""
    reach = distance / float(stats.t.ppf((1 + level) / 2, p.df))
    left = reach**2 * worlds - max(p.error**2 * worlds - p.within**2, 0.0)
    if left <= 0 or p.within <= 0:
        return None
    needed = int(np.ceil(seeds * p.within**2 / left))
    return max(needed, seeds) if needed <= MOST * seeds else None
