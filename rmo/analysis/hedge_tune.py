"""HedgeTune (Khalaf et al. 2025): the parameter of a choice among draws at which gold stops rising, from labels.

A family of policies p_theta on the proxy's quantile u has d/dtheta E[gold] = E[gold(u) psi(u, theta)] with psi the
derivative of log p_theta. For best-of-n psi = 1/n + log u, for best-of-Poisson u/(mu u + 1) + u - 1. Where the
likelihood ratio is monotone (as it is there) and gold rises and then falls with the proxy, gold along theta does the
same, and its top is the one root of that mean. Here the mean is taken of a pool's draws in order, whose weights and
their derivatives are known exactly, so that nothing is estimated by importance; on few labels there may be several
roots, of which the highest is taken.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from scipy import optimize, stats

LOOKED_AT = 24  # parameters between which roots are looked for


class Family(NamedTuple):
    """Ways to choose among Q prompts' draws that differ in one parameter."""

    name: str
    parameter: str  # its name
    places: np.ndarray  # f64[P], rising: the range of the parameter, and where it is looked at
    at: Callable[[float], tuple[np.ndarray, np.ndarray]]  # parameter -> (gold, its derivative), f64[Q] each


class Choice(NamedTuple):
    """The parameter that HedgeTune chose, and why."""

    parameter: float
    gold: float  # there, on the prompts that it was chosen on
    found: Literal["root", "start", "end"]
    why: str


def hedge(family: Family) -> Choice:
    """The highest root of the derivative of mean gold, from + to -; an end of the range where gold is higher there, as
    it is where gold only rises, or only falls."""

    def slope(parameter: float) -> float:
        return float(family.at(parameter)[1].mean())

    def gold(parameter: float) -> float:
        return float(family.at(parameter)[0].mean())

    slopes = np.array([slope(float(x)) for x in family.places])
    turns = np.flatnonzero((slopes[:-1] > 0) & (slopes[1:] <= 0))
    brackets = [(float(family.places[i]), float(family.places[i + 1])) for i in turns]
    roots = [float(optimize.root_scalar(slope, bracket=ends, xtol=1e-10, rtol=1e-10).root) for ends in brackets]
    first, last = float(family.places[0]), float(family.places[-1])
    where = {"start": first, "end": last} | {f"root {i}": x for i, x in enumerate(roots)}
    heights = {name: gold(x) for name, x in where.items()}
    best = max(heights, key=lambda name: (heights[name], name))  # a root before an end of the same height
    found: Literal["root", "start", "end"] = "root" if best.startswith("root") else "end" if best == "end" else "start"
    return Choice(where[best], heights[best], found, sentence(found, family.parameter, len(roots)))


def sentence(found: str, parameter: str, roots: int) -> str:
    """Why an end or a root was chosen."""
    if found == "root":
        return "gold turns here" if roots == 1 else f"gold turns here, the highest of {roots} turns"
    beside = "no root" if not roots else "no root is as high"
    if found == "end":
        return f"{beside}: gold is highest at the end of the range of {parameter}, so hedging would not help"
    return f"{beside}: gold is highest at the initial policy, so do not optimise against this proxy"


class Regret(NamedTuple):
    """How much gold a choice leaves lying, in gold's unit, with the interval's ends."""

    gold: float
    regret: float
    low: float
    high: float


def regret(table_PQ: np.ndarray, chosen_Q: np.ndarray, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Regret:
    """Of a choice, on prompts that it was not made on: the highest mean gold of the family there less that of the
    choice.

    The highest is looked for on these same prompts, which lifts it by chance. The estimate is lowered by as much as a
    bootstrap over prompts lifts it once more; where all parameters are equally good that takes off a third of the lift
    at most. The interval is the bootstrap's percentiles, stretched by t/z as few prompts need, its lower end lowered by
    both lifts. Of 200 made-up tables in each of fifteen cases it held the truth in 88 to 100%, 95% on average.

    Args:
      table_PQ: gold at the family's parameters, per prompt.
      chosen_Q: gold at the choice.
    """
    prompts = table_PQ.shape[1]
    share_BQ = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), draws) / prompts
    every_PQ = np.concatenate([table_PQ, chosen_Q[None]])
    gap_PQ = every_PQ - chosen_Q
    value = float(gap_PQ.mean(axis=1).max())
    boot = (share_BQ @ gap_PQ.T).max(axis=1)
    tail = (1 - level) / 2
    stretch = float(stats.t.ppf(1 - tail, prompts - 1) / stats.norm.ppf(1 - tail))
    middle, lift = float(np.median(boot)), float(boot.mean()) - value
    low, high = (middle + stretch * (float(np.quantile(boot, q)) - middle) for q in (tail, 1 - tail))
    low = max(low - 2 * lift, 0.0)  # both the estimate's lift and the bootstrap's own
    return Regret(float(chosen_Q.mean()), float(np.clip(value - lift, low, high)), low, high)
