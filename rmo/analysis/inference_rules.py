"""Rules that choose how hard to optimise at inference, each judged on prompts that it did not see.

The prompts of a table are parted: on every other one, whose gold is known, a rule chooses its parameter; on the rest
its gold is read, and its regret: how much more the best parameter of the same family would have given there. The rules
are HedgeTune (`hedge_tune.py`) for best-of-n, best-of-Poisson, soft best-of-n and inference-time pessimism; best-of-n
at the peak of the paper's form fitted to its curve, at the lower end of that peak's interval (conservative), and at
the largest n.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rmo.analysis.bootstrap import interval, resample
from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import Family as Fits
from rmo.analysis.fitting import Group
from rmo.analysis.forms import peak
from rmo.analysis.goodhart import best_of
from rmo.analysis.hedge_tune import LOOKED_AT, Family, hedge, regret
from rmo.methods import best_of_n, best_of_poisson, pessimism, soft_best_of_n, tilt
from rmo.runtime.types import Row

COLUMNS = ["method", "rule", "parameter", "chosen", "gold", "regret", "regret_low", "regret_high", "found", "why"]
LEAST_PROMPTS = 4  # two to choose on, two to judge on
EDGE = 20.0  # draws that must count at the end of a tilt's range, or an eighth of them


def halves(prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the prompts that a rule chooses on, and of those that it is judged on."""
    return np.arange(0, prompts, 2), np.arange(1, prompts, 2)


def rules(
    proxy_QN: np.ndarray,
    gold_QN: np.ndarray,
    max_n: int,
    methods: Sequence[str],
    bootstrap: int = 1000,
    level: float = 0.95,
) -> list[Row]:
    """One row of COLUMNS for every rule of these methods (keys of FAMILIES); gold in its own unit, above the initial
    policy's on the judging prompts.

    Raises:
      ValueError: there are fewer than 4 prompts.
    """
    if len(gold_QN) < LEAST_PROMPTS:
        raise ValueError(f"{len(gold_QN)} prompts: choosing on half of them and judging on the rest needs 4 at least")
    train, judged = halves(len(gold_QN))
    out = []
    for name in methods:
        make = FAMILIES[name]
        learn, test = (make(proxy_QN[rows], gold_QN[rows], proxy_QN, max_n) for rows in (train, judged))
        found = hedge(learn)
        chosen = [("HedgeTune", found.parameter, found.found, found.why)]
        if name == "best_of_n":
            chosen += from_fit(proxy_QN[train], gold_QN[train], max_n, bootstrap, level)
            chosen.append(("largest n", float(max_n), "", "no hedge"))
        start_Q = gold_QN[judged].mean(axis=1)
        table_PQ = np.stack([test.at(float(x))[0] for x in test.places])
        for rule, parameter, how, why in chosen:
            read = regret(table_PQ - start_Q, test.at(parameter)[0] - start_Q, bootstrap, level)
            out.append(
                {
                    "method": name, "rule": rule, "parameter": learn.parameter, "chosen": parameter, "gold": read.gold,
                    "regret": read.regret, "regret_low": read.low, "regret_high": read.high, "found": how, "why": why,
                }
            )  # fmt: skip
    return out


def from_fit(
    proxy_QN: np.ndarray, gold_QN: np.ndarray, max_n: int, bootstrap: int, level: float
) -> list[tuple[str, float, str, str]]:
    """(rule, n, how it was found, why) of the fitted peak and of the lower end of its interval."""
    form, ns = best_of_n.METHOD.form, best_of_n.grid(max_n, LOOKED_AT)
    tables = best_of_n.best_of_n(proxy_QN, gold_QN, ns)
    proxy_KQ, gold_KQ = (table_KQ - table_KQ[:1] for table_KQ in tables)
    curve = from_prompts(CurveId(best_of_n.METHOD.name), ns, spent(ns), proxy_KQ, gold_KQ)
    resamples = resample([curve], bootstrap)
    alpha_N, beta_N = Fits([Group(curve.id, (curve,))], form, shared_alpha=False).on(resamples)[:, 0].T
    kl_N = peak(form, alpha_N, beta_N)[0] ** 2
    low = interval(kl_N, resamples, level, (0.0, np.inf))[0]
    out = []
    for rule, kl in (("fitted peak", float(kl_N[0])), ("lower end of fitted peak", low)):
        found = "root" if kl < spent(np.array([max_n]))[0] else "end"
        why = f"at KL {kl:.3g}" if np.isfinite(kl) else "the fit never turns"
        out.append((rule, float(n_at(kl, max_n)), found, why))
    return out


def spent(ns: np.ndarray) -> np.ndarray:
    """Best-of-n's KL, log n - (n-1)/n, nats."""
    return np.log(ns) - (ns - 1) / ns


def n_at(kl: float, max_n: int) -> int:
    """The largest n up to max_n that spends no more KL."""
    ns = np.arange(1, max_n + 1)
    return int(ns[spent(ns) <= kl].max(initial=1))


# Families: of a table's own prompts; `every_QN` are the proxy's scores of all prompts, which fix the range.


def by_best_of_n(proxy_QN: np.ndarray, gold_QN: np.ndarray, every_QN: np.ndarray, max_n: int) -> Family:
    """Over n, which need not be whole."""
    sorted_QN = best_of_n.sort_by_proxy(proxy_QN, gold_QN)[1]

    def at(n: float) -> tuple[np.ndarray, np.ndarray]:
        weights_N, slopes_N = best_of(n, gold_QN.shape[1])
        return sorted_QN @ weights_N, sorted_QN @ slopes_N

    return Family("best_of_n", "n", np.geomspace(1, max_n, LOOKED_AT), at)


def by_best_of_poisson(proxy_QN: np.ndarray, gold_QN: np.ndarray, every_QN: np.ndarray, max_n: int) -> Family:
    """Over mu."""
    draws = gold_QN.shape[1]
    sorted_QN = best_of_n.sort_by_proxy(proxy_QN, gold_QN)[1]

    def at(mu: float) -> tuple[np.ndarray, np.ndarray]:
        return (
            sorted_QN @ best_of_poisson.weights(mu, draws),
            sorted_QN @ best_of_poisson.slopes(mu, draws),
        )

    end = min(max_n, best_of_poisson.largest_n(draws))
    return Family("best_of_poisson", "mu", np.geomspace(1, end, LOOKED_AT) - 1, at)


def by_soft_best_of_n(proxy_QN: np.ndarray, gold_QN: np.ndarray, every_QN: np.ndarray, max_n: int) -> Family:
    """Over 1/T at the largest n, from 0, the initial policy, to where it is best-of-n."""
    unit = max(float(every_QN.std()), np.finfo(np.float64).tiny)

    def at(coldness: float) -> tuple[np.ndarray, np.ndarray]:
        def one(rows: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
            return soft_best_of_n.gold_and_slope(*rows, max_n, coldness)

        with ThreadPoolExecutor() as pool:
            found = list(pool.map(one, zip(proxy_QN, gold_QN, strict=True)))
        gold, slope = np.array(found).T
        return gold, slope

    places = np.concatenate([[0.0], np.geomspace(0.1, 30, LOOKED_AT - 1) / unit])
    return Family("soft_best_of_n", f"1/T at n = {max_n}", places, at)


def by_pessimism(proxy_QN: np.ndarray, gold_QN: np.ndarray, every_QN: np.ndarray, max_n: int) -> Family:
    """Over 1/beta."""
    least = min(EDGE, gold_QN.shape[1] / 8)
    places = tilt.coefficients(every_QN, LOOKED_AT, least, pessimism.chi_squared_weights)
    return Family("pessimism", "1/beta", places, lambda x: pessimism.gold_and_slope(proxy_QN, gold_QN, x))


FAMILIES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], Family]] = {
    "best_of_n": by_best_of_n,
    "best_of_poisson": by_best_of_poisson,
    "soft_best_of_n": by_soft_best_of_n,
    "pessimism": by_pessimism,
}
