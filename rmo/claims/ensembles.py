"""H30 to H39: several reward models as one (Coste et al. 2023, Eisenstein et al. 2023, Rame et al. 2024).

Regions were written down before any run was looked at. Gains are at the largest n (or KL) that both reach: an ensemble
is bought against what happens there, and a place does not have to be chosen by gold.
"""

import numpy as np

from rmo.analysis.sweeps import Missing
from rmo.claims.claim import INF, SMALL, claim
from rmo.claims.ensemble_lines import (
    EnsembleCurve,
    best_single,
    chosen,
    common_end,
    ensembles,
    line,
    regret,
)
from rmo.claims.evidence import View
from rmo.claims.kinds import GREATEST
from rmo.claims.kinds import LEAST as LEAST_OF
from rmo.methods.paper import BEST_OF_N, PPO

CONSERVATIVE = ("worst_case", "uncertainty_penalised")  # Coste et al.'s two that look at the least sure
OF_SCORES = ("mean", *CONSERVATIVE)
WARM = ("weight_averaged",)
HALF = SMALL / 2  # gold sd: the least gain that is worth several times the labels and the computing


def gain(view: View, e: EnsembleCurve) -> float:
    """Gold at the largest d that both reach, the ensemble's less the mean of its single RMs'."""
    mine, single = line(view, e), view.line(e.singles)
    end = common_end(mine, single)
    return float(mine.at(end) - single.at(end))


def mean_gain(view: View, found: list[EnsembleCurve]) -> float:
    return float(np.mean([gain(view, e) for e in found]))


def where_singles_fall(view: View, found: list[EnsembleCurve], what: str) -> list[EnsembleCurve]:
    """Those beside which the single RMs' mean gold falls by more than a small effect, on the data as they are."""
    out = [e for e in found if view.evidence.whole.line(e.singles).fall() > SMALL]
    if not out:
        raise Missing(f"no single RMs that {what} beside an ensemble of them")
    return out


@claim("H30", (-INF, SMALL), "ensembles", GREATEST)
def h30(view: View) -> list[float]:
    """Worst case and uncertainty-penalised best-of-n do not overoptimise where single RMs do (Coste et al. 2023).

    Fall of gold from its peak at the largest n, the greatest of the ensembles whose single RMs fall by more than 0.2
    on average."""
    found = where_singles_fall(view, chosen(view, BEST_OF_N, CONSERVATIVE), "fall under best-of-n")
    return [line(view, e).fall() for e in found]


# Coste et al. report up to 75% more gold under noise; here only that the gain is worth its price.


@claim("H31", (HALF, INF), "ensembles")
def h31(view: View) -> float:
    """With noisy labels an ensemble gains over its single RMs (Coste et al. 2023).

    Best-of-n at the largest n, ensemble less mean of the singles, mean over RM sizes of mean, worst case and
    uncertainty-penalised."""
    return mean_gain(view, chosen(view, BEST_OF_N, OF_SCORES, noisy=True))


# Without noise they report less than half of that: the sign.


@claim("H32", (0, INF), "ensembles")
def h32(view: View) -> float:
    """Without noise an ensemble gains over its single RMs too (Coste et al. 2023).

    As with noise, of RMs trained as in the paper."""
    return mean_gain(view, chosen(view, BEST_OF_N, OF_SCORES, noisy=False))


# "At least equal" is non-inferiority: not worse by what would be worth a price.


@claim("H33", (-HALF, INF), "ensembles")
def h33(view: View) -> float:
    """Averaged weights are at least as good as the RMs that they are the average of (Rame et al. 2024).

    Best-of-n at the largest n, weight-averaged less mean of the singles, mean over RM sizes and recipes."""
    return mean_gain(view, chosen(view, BEST_OF_N, WARM))


@claim("H34", (SMALL, INF), "ensembles")
def h34(view: View) -> float:
    """With noisy labels the mean of several RMs still overoptimises (Coste et al. 2023).

    Best-of-n: fall of gold from its peak at the largest n, mean over RM sizes."""
    return float(np.mean([line(view, e).fall() for e in chosen(view, BEST_OF_N, ("mean",), noisy=True)]))


@claim("H35", (0, INF), "ensembles")
def h35(view: View) -> float:
    """The mean of several RMs is better than the one that validation accuracy would choose.

    Best-of-n at the largest n, mean ensemble less that RM, mean over RM sizes and recipes."""
    out = []
    for e in chosen(view, BEST_OF_N, ("mean",)):
        mine, best = line(view, e), best_single(view, e)
        end = common_end(mine, best)
        out.append(float(mine.at(end) - best.at(end)))
    return float(np.mean(out))


@claim("H36", (0, INF), "ensembles", LEAST_OF)
def h36(view: View) -> list[float]:
    """Worst case and uncertainty-penalised RL overoptimise less than single RMs (Coste et al. 2023).

    PPO: fall of gold from its peak at the largest KL that both reach, mean of the singles less ensemble, the least,
    where the singles fall by more than 0.2."""
    out = []
    for e in where_singles_fall(view, chosen(view, PPO, CONSERVATIVE), "fall under PPO"):
        mine, single = line(view, e), view.line(e.singles)
        end = common_end(mine, single)
        out.append(single.fall(end) - mine.fall(end))
    return out


# Their members differ in pretraining, ours in size and in the language model each starts from.


@claim("H37", (0, INF), "ensembles")
def h37(view: View) -> float:
    """RMs that differ more make a better ensemble (Eisenstein et al. 2023).

    Best-of-n at the largest n, ensemble over sizes less ensemble over the seeds of its largest size, combined alike,
    mean over such pairs."""
    every = ensembles(view, BEST_OF_N)
    pairs = [
        (a, b) for a in every for b in every
        if a.sizes > 1 and b.sizes == 1 and a.how == b.how and a.singles is b.singles
    ]  # fmt: skip
    if not pairs:
        raise Missing("no ensemble over RM sizes beside one over the seeds of its largest, combined alike")
    out = []
    for a, b in pairs:
        mine, other = line(view, a), line(view, b)
        end = common_end(mine, other)
        out.append(float(mine.at(end) - other.at(end)))
    return float(np.mean(out))


# A rule without gold may cost less than a small effect. Where it stops is read on the data as they are.


@claim("H38", (-INF, SMALL), "ensembles")
def h38(view: View) -> float:
    """The spread of several RMs says when to stop best-of-n, without gold.

    The curve's highest gold less gold where the variance over RMs has doubled, mean over ensembles."""
    return float(np.mean([regret(view, e) for e in chosen(view, BEST_OF_N, OF_SCORES)]))


@claim("H39", (-INF, SMALL), "ensembles")
def h39(view: View) -> float:
    """The spread of several RMs says when to stop RL, without gold.

    As for best-of-n, of PPO."""
    return float(np.mean([regret(view, e) for e in chosen(view, PPO, OF_SCORES)]))
