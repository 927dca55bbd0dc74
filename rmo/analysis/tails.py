"""How heavy the tail of a proxy's error is: Hill plots, and what a tail does to best-of-n (Kwa et al. 2024).

Let a proxy be gold plus an independent error. Conditioning on a high proxy, as best-of-n does, raises gold without end
where the error's tail is lighter than gold's, and gives the initial policy's mean of gold back where it is heavy, as
the highest proxies are then errors (Kwa et al. 2024, arXiv:2407.14503). Hill's estimate is the mean excess of log x
of the k largest values over the next: 1/alpha of a tail x^-alpha; of a light one, such as a normal's, it falls toward 0
as k becomes small. Values are measured from their median, so that neither their zero nor their unit matters.
"""

from typing import NamedTuple

import numpy as np

LEAST = 10  # of the largest values: fewer say nothing


class Hill(NamedTuple):
    """Hill's estimate at K numbers of largest values."""

    k: np.ndarray  # i64[K]
    estimate: np.ndarray  # f64[K], about 1/alpha: 0 is light, 0.5 has no variance any more
    error: np.ndarray  # f64[K], its standard error where values are independent, estimate / sqrt(k)


def hill(x: np.ndarray, points: int = 32) -> Hill:
    """Of the upper tail of values f64[...], above their median, for k from 10 to a tenth of them, on a log grid.

    Raises:
      ValueError: there are fewer than 100 values, or they do not vary above their median.
    """
    x = np.asarray(x, np.float64).ravel()
    if len(x) < 10 * LEAST:
        raise ValueError(f"{len(x)} values: a tail needs at least {10 * LEAST}")
    falling = np.sort(x - np.median(x))[::-1][: len(x) // 10 + 1]
    if falling[-1] <= 0:
        raise ValueError("more than 4 in 10 values are the median itself: they have no tail")
    k = np.unique(np.round(np.geomspace(LEAST, len(falling) - 1, points)).astype(int))
    logs = np.log(falling)
    estimate = np.cumsum(logs)[k - 1] / k - logs[k]
    return Hill(k, estimate, estimate / np.sqrt(k))


def proxy_error(proxy_QN: np.ndarray, gold_QN: np.ndarray) -> np.ndarray:
    """What the proxy has beyond gold, f64[Q, N]: the residual of its regression on gold within prompts, each prompt's
    mean taken out. Where gold is noise to the proxy it is the proxy itself."""
    proxy_QN, gold_QN = (x - x.mean(axis=1, keepdims=True) for x in (proxy_QN, gold_QN))
    square = float(np.sum(gold_QN**2))
    return proxy_QN - (float(np.sum(proxy_QN * gold_QN)) / square if square > 0 else 0.0) * gold_QN
