"""What a proxy's correlation with gold guarantees of gold, whatever the policy (Laidlaw et al. 2024)."""

from typing import NamedTuple

import numpy as np


class Guarantee(NamedTuple):
    """Both sides of the bound; gains over the start are in standard deviations of each reward over the start."""

    correlation: float  # r, of proxy and gold over the start
    chi2: float  # of the policy from the start
    proxy_gain: float
    gold_gain: float
    least: float  # (proxy_gain - sqrt((1 - r^2) chi2)) / r, which gold's gain never lies below

    @property
    def holds(self) -> bool:
        """Whether the bound holds, up to rounding."""
        return self.gold_gain >= self.least - 1e-9 * max(1.0, abs(self.least))


def guarantee(weights_QN: np.ndarray, proxy_QN: np.ndarray, gold_QN: np.ndarray) -> Guarantee:
    """The bound for a policy that is weights on a pool's draws, each prompt's of sum 1; the start has equal weights.

    With g = w - 1, whose mean is 0, proxy = r gold + sqrt(1 - r^2) z in standard units, z uncorrelated with gold, and
    Cauchy-Schwarz for E[g z]: E[g proxy] <= r E[g gold] + sqrt(1 - r^2) sqrt(chi2). On the draws it holds exactly.

    Raises:
      ValueError: a prompt's weights do not sum to 1, a reward does not vary, or they do not correlate positively.
    """
    if not np.allclose(weights_QN.sum(axis=1), 1):
        raise ValueError("weights of a prompt's draws must sum to 1")
    excess = weights_QN * weights_QN.shape[1] - 1
    proxy, gold = (x.astype(np.float64) - x.mean(dtype=np.float64) for x in (proxy_QN, gold_QN))
    spread = float(proxy.std()), float(gold.std())
    if min(spread) <= 0:
        raise ValueError("a reward is the same for all draws: nothing correlates with it")
    r = min(float(np.mean(proxy * gold)) / (spread[0] * spread[1]), 1.0)
    if r <= 0:
        raise ValueError(f"proxy and gold correlate {r:.2g}: the bound is about proxies that correlate positively")
    chi2 = float(np.mean(excess**2))
    proxy_gain, gold_gain = float(np.mean(excess * proxy)) / spread[0], float(np.mean(excess * gold)) / spread[1]
    return Guarantee(r, chi2, proxy_gain, gold_gain, (proxy_gain - ((1 - r**2) * chi2) ** 0.5) / r)
