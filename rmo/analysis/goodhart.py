"""Gold as a function of the proxy's quantile: what best-of-n's curve is made of, and how much of its bend is extremal.

Let u be a response's quantile by the proxy among the initial policy's responses to its prompt, and m(u) gold's mean
there. The best of n has the density n u^{n-1}, so that at every n

    gold(n) = integral of m(u) n u^{n-1} du

exactly, whatever the proxy is (Khalaf et al. 2025, section 3). A pool shows m at the ranks of its draws: the i-th
smallest of N has a quantile of law Beta(i, N - i + 1), and best-of-n's unbiased weights over ranks give the same
integral of the mean of m under that law (`at_ranks`), to the last digit.

So a curve bends because m does. Where m is straight in the proxy's score, gold rises with the proxy by one slope, the
share of the proxy's variance that is gold's (regressional Goodhart, Gao et al. 2022, appendix A), and never falls while
the proxy rises. What remains of m is how gold fails where the proxy is high: extremal Goodhart. `split` gives both.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import betainc, digamma, gammaln

from rmo.methods.best_of_n import sort_by_proxy
from rmo.methods.pool_diagnostics import slope_within

PANELS = np.concatenate([[0.0], 2.0 ** np.arange(-4, 7)])  # in -n log u
Quantile = Callable[[np.ndarray], np.ndarray]  # of u, elementwise


def gold_of(m: Quantile, n: float) -> float:
    """Integral of m(u) n u^{n-1} du, to about 1e-13 for smooth m."""
    x, weight = np.polynomial.legendre.leggauss(32)
    middle, half = (PANELS[1:] + PANELS[:-1]) / 2, np.diff(PANELS) / 2
    t_PX = middle[:, None] + half[:, None] * x  # u = e^{-t/n}: the density of t is e^{-t}
    return float(np.sum(half[:, None] * weight * np.exp(-t_PX) * m(np.exp(-t_PX / n))))


def at_ranks(m: Quantile, draws: int) -> np.ndarray:
    """Mean of m at the i-th smallest of N draws' quantile, f64[N]: under Beta(i, N - i + 1)."""
    x, weight = np.polynomial.legendre.leggauss(draws // 2 + 64)  # exact for polynomials of twice the degree
    u = (x + 1) / 2
    i = np.arange(1, draws + 1)[:, None]
    log_choose = gammaln(draws + 1) - gammaln(i) - gammaln(draws - i + 1)
    density_NX = np.exp(log_choose + (i - 1) * np.log(u) + (draws - i) * np.log1p(-u))
    return density_NX @ (weight / 2 * m(u))


def best_of(n: float, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """(chance of the i-th smallest of N draws to be the best of n, its derivative with respect to n), f64[N] each, for
    real n from 1 to N.

    At whole n the chance is best-of-n's unbiased one, C(i-1, n-1) / C(N, n). Its sums over ranks, C(i, n) / C(N, n),
    are continued between whole n by gamma functions; there is no chance below rank n - 1.

    Raises:
      ValueError: n is not within 1..N.
    """
    if not 1 <= n <= draws:
        raise ValueError(f"n is {n:g}: best-of-n needs 1 <= n <= {draws} draws")
    i = np.arange(1, draws + 1, dtype=np.float64)
    seen = i > n - 1 + 1e-12
    room = np.where(seen, i - n + 1, 1.0)
    log_sum = gammaln(i + 1) - gammaln(room) + gammaln(draws - n + 1) - gammaln(draws + 1)
    sums = np.where(seen, np.exp(log_sum), 0.0)
    turns = np.where(seen, sums * (digamma(room) - digamma(draws - n + 1)), 0.0)
    return np.diff(sums, prepend=0.0), np.diff(turns, prepend=0.0)


def by_rank(proxy_QN: np.ndarray, *tables: np.ndarray) -> tuple[np.ndarray, ...]:
    """Means over prompts of the proxy and of other tables at the proxy's ranks, lowest first: f64[N] each. Draws that
    the proxy cannot tell apart share their mean."""
    return tuple(table.mean(axis=0) for table in sort_by_proxy(proxy_QN, *tables))


class Split(NamedTuple):
    """Gold above the initial policy's by the proxy's rank, f64[N], and along best-of-n, f64[K], in two parts."""

    slope: float  # of gold on the proxy within prompts: the regressional share
    gold_N: np.ndarray  # m at the ranks
    straight_N: np.ndarray  # slope times the proxy
    gold_K: np.ndarray  # best-of-n's
    regressional_K: np.ndarray  # slope times best-of-n's proxy
    extremal_K: np.ndarray  # the rest: what m bends away from the straight line


def split(proxy_QN: np.ndarray, gold_QN: np.ndarray, ns: np.ndarray) -> Split:
    """Best-of-n's gold at these n in what a straight m gives and what its bend adds; they sum to it exactly."""
    proxy_N, gold_N = (x - x.mean() for x in by_rank(proxy_QN, gold_QN))
    slope = slope_within(proxy_QN, gold_QN)
    weights_KN = np.stack([best_of(float(n), len(gold_N))[0] for n in ns])
    gold_K, regressional_K = weights_KN @ gold_N, weights_KN @ (slope * proxy_N)
    return Split(slope, gold_N, slope * proxy_N, gold_K, regressional_K, gold_K - regressional_K)


def share_above(u: float, n: float) -> float:
    """The chance that the best of n lies above the quantile u: where in m gold(n) is read."""
    return float(1 - betainc(n, 1, u))
