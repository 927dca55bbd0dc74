"""Chi-squared tilts of the pool: the most proxy at a given chi-squared from the start, and what gold it guarantees.

Of all weights on a prompt's N draws at one chi2 from equal ones, those with the highest mean score r are proportional
to max(0, 1 + lambda (r - nu)), nu such that they sum to 1: the optimum of E[r] less a chi-squared penalty, as Huang et
al. (2025) use it. Draws far behind get no weight at all, where an exponential tilt (tilt.py) gives the best nearly all
of it. At every point stands the least gold that Laidlaw, Singhal and Dragan (2024) guarantee by the proxy's correlation
with gold on the pool (analysis/correlated_proxy.py), beside what there is.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from rmo.analysis.correlated_proxy import guarantee
from rmo.config import Experiment, MethodSettings
from rmo.methods.bench import Arm, Bench, Record
from rmo.methods.method import Diagnostic, Job, Method, Need, on_pools, one_entry, register
from rmo.methods.pessimism import chi_squared_weights
from rmo.methods.tilt import STEEPEST, kl_of


@dataclass(frozen=True)
class ChiSquaredTilt(MethodSettings):
    """Weights of the pool that are linear in the score, above a threshold."""

    points: int = 24
    """Points of the curve, about evenly spaced in sqrt(KL)."""
    least_draws: float = 20.0
    """The curve ends where so few draws count, as that of `tilt` does."""


def linear(scores_QN: np.ndarray, strength: float) -> np.ndarray:
    """Weights f64[Q, N] of every prompt's draws, max(0, 1 + strength (score - nu)) / N; rows sum to 1. They are
    those of `pessimism`, which comes to them from another side."""
    return chi_squared_weights(scores_QN, strength)


def strengths(scores_QN: np.ndarray, points: int, least_draws: float) -> np.ndarray:
    """Strengths f64[K] from 0 on whose mean KL over prompts is about evenly spaced in its root, up to where
    `least_draws` count, or as far as the scores tell draws apart."""
    largest, unit = np.log(scores_QN.shape[1] / least_draws), 1 / max(float(scores_QN.std()), 1e-300)
    tried, kl = [0.0], [0.0]
    while kl[-1] < largest and tried[-1] < STEEPEST * unit:
        tried.append(max(tried[-1] * 1.25, unit / 100))
        kl.append(float(kl_of(linear(scores_QN, tried[-1])).mean()))
    roots = np.sqrt(np.maximum.accumulate(kl))
    return np.interp(np.linspace(0, min(np.sqrt(largest), roots[-1]), points), roots, tried)


jobs = partial(on_pools, kind=ChiSquaredTilt)


def check(e: Experiment, need: Need) -> None:
    """There is one, and its curve has a length."""
    found = [settings for settings in e.methods if isinstance(settings, ChiSquaredTilt)]
    one_entry(e, ChiSquaredTilt, need, "their curves would be the same, give one")
    for c in found:
        few = (
            f"ChiSquaredTilt.least_draws is {c.least_draws:g}: it must be less than the {e.bon.draws} draws (bon.draws)"
        )
        need(0 < c.least_draws < e.bon.draws, few)
        need(c.points >= 4, f"ChiSquaredTilt.points is {c.points}: a curve needs at least 4")


def run(bench: Bench, job: Job) -> Record:
    """Tilts of the pool by every reward."""
    c, pool = job.settings, bench.pool()
    assert isinstance(c, ChiSquaredTilt)
    steps_MK = np.stack([strengths(proxy_QN, c.points, c.least_draws) for proxy_QN in pool.proxy_MQN])
    found: dict[str, list[np.ndarray]] = {}
    for proxy_QN, steps_K in zip(pool.proxy_MQN, steps_MK, strict=True):
        for name, value in along(proxy_QN, pool.gold_QN, steps_K).items():
            found.setdefault(name, []).append(value)
    arrays = {name: np.stack(values) for name, values in found.items()}
    kl, proxy, gold = (arrays.pop(name) for name in ("kl", "proxy", "gold"))
    return Record([Arm(m) for m in range(len(steps_MK))], steps_MK, kl, proxy, gold, diagnostics=arrays)


def along(proxy_QN: np.ndarray, gold_QN: np.ndarray, steps_K: np.ndarray) -> dict[str, np.ndarray]:
    """What every strength gives: `kl` f64[K], means per prompt of `proxy` and `gold` f64[K, Q], and `chi2`, `gold_gain`
    and `least_gold` f64[K] (analysis/correlated_proxy.py); NaN where the proxy does not correlate with gold."""
    found: dict[str, list] = {}
    for strength in steps_K:
        weights_QN = linear(proxy_QN, float(strength))
        try:
            sure = guarantee(weights_QN, proxy_QN, gold_QN)
            chi2, gold_gain, least_gold = sure.chi2, sure.gold_gain, sure.least
        except ValueError:
            chi2 = gold_gain = least_gold = np.nan
        row = {
            "kl": kl_of(weights_QN).mean(),
            "proxy": (weights_QN * proxy_QN).sum(axis=1),
            "gold": (weights_QN * gold_QN).sum(axis=1),
            "chi2": chi2,
            "gold_gain": gold_gain,
            "least_gold": least_gold,
        }
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


METHOD = register(
    Method(
        name="chi2_tilt",
        title="chi-squared tilt of the pool",
        short="chi2 tilt",
        axis="strength",
        kl="exact",
        kl_axis="KL distance between tilted and equally weighted draws, nats (square-root scale)",
        form="d(a - b d)",
        jobs=jobs,
        run=run,
        check=check,
        diagnostics=(
            Diagnostic("chi2", "chi-squared from the start"),
            Diagnostic("gold_gain", "gold's gain, its sd on the pool", drawn=True),
            Diagnostic("least_gold", "the least that the correlation allows", drawn=True),
        ),
        less_memory="on the host lower bon.draws or bon.prompts",
        rank=7,
    )
)
