"""What methods that choose among a pool's draws report beside their curves.

Gold on every other prompt and on the rest, so that a choice made on one half can be judged on the other from tables
alone; and the part of gold that a straight line in the proxy gives (regressional Goodhart, Gao et al. 2022, appendix
A): the slope of gold on the proxy among the initial policy's responses to a prompt, times the proxy's gain.
"""

from collections.abc import Sequence

import numpy as np

from rmo.methods.bench import Arm, Pool
from rmo.methods.method import Diagnostic

DIAGNOSTICS = (
    Diagnostic("gold_even", "gold on every other prompt"),
    Diagnostic("gold_odd", "gold on the other prompts"),
    Diagnostic("regressional", "gold that the proxy's rise explains"),
)


def slope_within(proxy_QN: np.ndarray, gold_QN: np.ndarray) -> float:
    """The slope of gold on the proxy within prompts, pooled; 0 where the proxy does not vary."""
    within_QN, of_gold_QN = (x - x.mean(axis=1, keepdims=True) for x in (proxy_QN, gold_QN))
    square = float(np.sum(within_QN**2))
    return float(np.sum(within_QN * of_gold_QN)) / square if square > 0 else 0.0


def beside(pool: Pool, arms: Sequence[Arm], proxy_MKQ: np.ndarray, gold_MKQ: np.ndarray) -> dict[str, np.ndarray]:
    """The DIAGNOSTICS f64[M, K] of curves whose first point is the initial policy."""
    slope_R = [slope_within(proxy_QN, pool.gold_QN) for proxy_QN in pool.proxy_MQN]
    slope_M = np.array([slope_R[arm.reward] for arm in arms])
    gain_MK = (proxy_MKQ - proxy_MKQ[:, :1]).mean(axis=2)
    halves = gold_MKQ[:, :, ::2].mean(axis=2), gold_MKQ[:, :, 1::2].mean(axis=2)
    return {"gold_even": halves[0], "gold_odd": halves[1], "regressional": slope_M[:, None] * gain_MK}
