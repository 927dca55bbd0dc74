"""Where gold should be read next: the read that leaves least doubt of whether gold has turned.

What is asked is the sign of a number q: the fitted slope where the data end, or, where the fit counts for nothing, how
far smoothed gold has fallen. A read at KL x with noise variance v leaves of q's variance V what is not explained by it,
V - C^2 / (F + v), with F the variance of gold at x and C its covariance with q (Lindley 1956; MacKay 1992).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rmo.analysis.forms import FORMS, slope
from rmo.analysis.measured import Measured

TIMES = (1, 2, 4, 8, 16, 32)  # samples of the next read over those of a read so far
PLACES = 60  # at which it is tried


class NextRead(NamedTuple):
    """The read that would decide most."""

    kl: float
    times: int  # so many times the samples of a read so far
    removes: float  # the share of the variance of what is asked that it removes
    decides: bool  # whether that is enough, if the estimate stays where it is


def best_read(
    q: float, needed: float, variance: float, gold_P: np.ndarray, with_q_P: np.ndarray, kl_P: np.ndarray, noise: float
) -> NextRead | None:
    """The best of P places, with as few samples as decide; if none do, as few as do nearly what 32 times would.

    `q` decides if it is `needed` standard errors from 0. `gold_P` is the variance of gold at every place, `with_q_P`
    its covariance with q, `noise` the variance of a read.
    """
    if not (np.isfinite(q) and variance > 0 and noise > 0):
        return None
    found = []
    for times in TIMES:
        removed = np.minimum(with_q_P**2 / (gold_P + noise / times) / variance, 1.0)
        best = int(removed.argmax())
        left = (variance * (1 - removed[best])) ** 0.5
        found.append(NextRead(float(kl_P[best]), times, float(removed[best]), abs(q) > needed * left))
    deciding = [read for read in found if read.decides]
    return deciding[0] if deciding else next(r for r in found if r.removes >= 0.8 * found[-1].removes)


def for_fit(
    form: str, draws_N2: np.ndarray, estimate: Sequence[float], ends: tuple[float, float], reach: float, noise: float,
    needed: float,
) -> NextRead | None:  # fmt: skip
    """The read that decides most whether the fitted form has turned by KL `reach`, from draws (alpha, beta) f64[N, 2].

    Places lie between `ends`, in KL.
    """
    d = np.linspace(max(ends[0], 1e-6) ** 0.5, ends[1] ** 0.5, PLACES)
    gold_NP = draws_N2 @ FORMS[form].features(d, 0.0).T
    asked_N = slope(form, draws_N2[:, 0], draws_N2[:, 1], reach**0.5)
    apart = asked_N - asked_N.mean()
    with_q_P = apart @ (gold_NP - gold_NP.mean(axis=0)) / len(asked_N)
    q = float(slope(form, estimate[0], estimate[1], reach**0.5))
    return best_read(q, needed, float(asked_N.var()), gold_NP.var(axis=0), with_q_P, d**2, noise)


def for_measured(seen: Measured, needed: float) -> NextRead | None:
    """The checkpoint whose gold, read again, decides most whether smoothed gold has fallen from its top."""
    by, error = seen.difference(seen.top, len(seen.kl) - 1)
    c = seen.smooth.covariance
    noise = float(np.median(seen.raw_se) ** 2)
    return best_read(by, needed, error**2, np.diagonal(c), c[seen.top] - c[-1], seen.kl, noise)
