"""Iterated RLHF, H40 to H45, after Wolf, Kirk and Musolesi (2025): what each further round buys, and which data and
which start serve best. H46 and H47: rounds without new labels, the first ones reweighted; what training anew does by
itself, since a second seed alone undoes exploits of the first, is a run that weighs all alike. The paper's prediction,
C22, is in policy.py; `ends` and `one_round` serve both.

At the end of round r of k, gold is compared at sqrt(KL) = r/k of the last, which is where that round was told to end.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.claims.claim import INF, SMALL, claim
from rmo.claims.evidence import View
from rmo.claims.kinds import LEAST
from rmo.methods.paper import PPO, ROUNDS


def several(view: View, least: int = 2, reweighted: bool = False) -> list[Group]:
    """Runs of at least so many rounds, against single RMs: those whose rounds label pairs, or those that reweight (not
    those whose weights are all alike)."""
    wanted = REWEIGHTED if reweighted else LABELLED
    found = [
        g
        for g in view.evidence.groups[ROUNDS]
        if count(g) >= least and not g.id.rm_combined and kind(g.id.settings) == wanted
    ]
    if not found:
        more = " on labels of the first round, reweighted" if reweighted else ""
        raise Missing(f"no runs of {least} or more rounds, with RMs trained anew in between{more}")
    return found


LABELLED, REWEIGHTED, ALIKE = "labelled", "reweighted", "weighed alike"


def kind(settings: Settings) -> str:
    """What RMs of later rounds learn from: new labels, the first ones reweighted, or these as they were."""
    if settings.get("data") != "reweighted":
        return LABELLED
    return REWEIGHTED if settings.number("flatten", 1) else ALIKE


def count(g: Group) -> int:
    """How many rounds."""
    return int(g.id.settings.number("rounds", 1))


def one_round(view: View, g: Group) -> Group:
    """The same RM optimised in one round: PPO as it stands, or a run of one round."""
    there = {other.id: other for method in (PPO, ROUNDS) for other in view.evidence.groups[method]}
    shorter = Settings({"rounds": 1, **{name: g.id.settings[name] for name in ("kl",) if name in g.id.settings}})
    for id in (replace(g.id, method=PPO, settings=Settings()), replace(g.id, settings=shorter)):
        if id in there:
            return there[id]
    raise Missing("no run of one round against an RM that several were run against")


def ends(g: Group, end: float) -> np.ndarray:
    """sqrt(KL) at which rounds 1 to k end, the last at `end`, f64[k]."""
    return np.arange(1, count(g) + 1) / count(g) * end


# The paper's alpha and beta are the same in every round, so that as much d buys as much gold in each: any fall counts.


@claim("H40", (-INF, 0), "iterated")
def h40(view: View) -> float:
    """Each round of RLHF buys less gold than the one before (Wolf et al. 2025, section 5).

    Slope over rounds of the gold gained in a round, gold sd per round, mean over runs."""
    out = []
    for g in several(view):
        line = view.line(g)
        gained = np.diff(line.at(np.append(0.0, ends(g, line.end))))
        out.append(np.polyfit(np.arange(len(gained)), gained, 1)[0])
    return float(np.mean(out))


# Which way, not how far, is said: a sign.


@claim("H41", (-INF, 0), "iterated")
def h41(view: View) -> float:
    """RMs that are trained anew keep the proxy nearer to gold (Wolf et al. 2025, section 5).

    Proxy less gold at the end of several rounds, by the last RM, less that of one round at the same KL, gold sd, mean
    over runs."""
    out = []
    for g in several(view):
        lines = view.line(one_round(view, g)), view.line(g)
        d = min(line.end for line in lines)
        once, again = (line.at(d, "proxy") - line.at(d) for line in lines)
        out.append(float(again - once))
    return float(np.mean(out))


# b d log k adds as much gold for every doubling of k: any fall counts.


@claim("H42", (-INF, 0), "iterated")
def h42(view: View) -> float:
    """Every doubling of the number of rounds buys less gold than the one before.

    Gold at the same KL per log of the number of rounds, last step less first, gold sd, mean over RMs and kinds of
    runs that were made with two or more numbers of rounds beside one."""
    kinds: dict[object, list[Group]] = {}
    for g in sorted(several(view), key=count):
        kinds.setdefault(replace(g.id, settings=g.id.settings.without("rounds")), []).append(g)
    out = []
    for groups in (found for found in kinds.values() if len(found) > 1):
        lines = [view.line(g) for g in (one_round(view, groups[0]), *groups)]
        d = min(line.end for line in lines)
        steps = np.diff(np.log([1, *map(count, groups)]))
        slopes = np.diff([float(line.at(d)) for line in lines]) / steps
        out.append(slopes[-1] - slopes[0])
    if not out:
        raise Missing("no runs of two numbers of rounds beside one")
    return float(np.mean(out))


def differing(view: View, *changes: tuple[str, str]) -> Iterator[tuple[Group, Group]]:
    """(run without these settings, run with them) of every run that has such a partner."""
    there = {g.id: g for g in several(view)}
    names = [name for name, _ in changes]
    for g in there.values():
        if all(g.id.settings.get(name) == value for name, value in changes):
            plain = there.get(replace(g.id, settings=g.id.settings.without(*names)))
            if plain:
                yield plain, g


def gain(view: View, pairs: Callable[[View], Iterator[tuple[Group, Group]]], what: str) -> float:
    """Mean over pairs of the second's gold less the first's at the end of both, gold sd."""
    out = []
    for first, second in pairs(view):
        a, b = view.line(first), view.line(second)
        d = min(a.end, b.end)
        out.append(float(b.at(d) - a.at(d)))
    if not out:
        raise Missing(f"no runs of several rounds {what}")
    return float(np.mean(out))


ALL_DATA, FRESH = ("data", "concatenated"), ("start", "initial")
# "At least as good": not lower by a small effect. The authors found a tenth of their unit, less than two errors of it.


@claim("H43", (-SMALL, INF), "iterated")
def h43(view: View) -> float:
    """RMs of all comparisons so far serve at least as well as RMs of the latest (Wolf et al. 2025, section 5).

    Gold at the end, all comparisons less the latest, gold sd, mean over runs that differ in nothing else."""
    return gain(view, lambda view: differing(view, ALL_DATA), "with all comparisons and with the latest")


# Theirs went on to gold below zero where a fresh start ended half a unit above it: a sign.


@claim("H44", (0, INF), "iterated")
def h44(view: View) -> float:
    """Rounds that start again from the initial policy end with more gold than rounds that go on (Wolf et al. 2025).

    Gold at the end at the same KL, initial less latest policy as start, gold sd, mean over runs that differ in nothing
    else."""
    return gain(view, lambda view: differing(view, FRESH), "from both starts")


# The best: no other is better by a small effect.


@claim("H45", (-SMALL, INF), "iterated", LEAST)
def h45(view: View) -> list[float]:
    """All comparisons and a fresh start are the best of the ways to go on (Wolf et al. 2025, section 5).

    Gold at the end with both less gold with one of them or with neither, gold sd; the least over those that were run,
    means over runs that differ in nothing else."""
    out = []
    for changes in ((ALL_DATA, FRESH), (ALL_DATA,), (FRESH,)):

        def best_and_other(view: View, changes: tuple[tuple[str, str], ...] = changes) -> Iterator[tuple[Group, Group]]:
            return ((a, b) for a, b in differing(view, *changes) if {ALL_DATA, FRESH} <= set(b.id.settings.items()))

        try:
            out.append(gain(view, best_and_other, ""))
        except Missing:
            continue
    if not out:
        raise Missing("no runs of several rounds with all comparisons and a fresh start beside others")
    return out


def beside(view: View, other: Callable[[Group], Group | None], what: str) -> float:
    """Mean over runs that reweight of their gold less that of another run at the end of both, gold sd."""
    pairs = [(found, g) for g in several(view, reweighted=True) if (found := other(g))]
    return gain(view, lambda view: iter(pairs), what)


# The same labels, rounds, heads and order of batches: the weights are all that differs, so that any gain counts.


@claim("H46", (0, INF), "iterated")
def h46(view: View) -> float:
    """Labels that are reweighted to where the policy is keep more gold than RMs that are only trained anew on them.

    Gold at the end at the same KL, several rounds with the first labels reweighted less as many with the same labels
    weighed alike (`flatten` 0), gold sd, mean over runs that differ in nothing else."""
    there = {g.id: g for g in view.evidence.groups[ROUNDS]}

    def weighed_alike(g: Group) -> Group | None:
        return there.get(replace(g.id, settings=Settings(g.id.settings.without("clip"), flatten=0)))

    return beside(view, weighed_alike, "with reweighted labels beside the same weighed alike")


# "As well as": not lower by a small effect. Weights cannot tell of texts that nobody labelled, so this may well fail.


@claim("H47", (-SMALL, INF), "iterated")
def h47(view: View) -> float:
    """Reweighting the first round's labels serves as well as labelling anew in every round, k times the labels.

    Gold at the end at the same KL, several rounds with the first labels reweighted less as many with RMs of the latest
    comparisons, gold sd, mean over runs that differ in nothing else."""
    there = {g.id: g for g in view.evidence.groups[ROUNDS]}

    def relabelled(g: Group) -> Group | None:
        return there.get(replace(g.id, settings=g.id.settings.without("data", "clip", "flatten")))

    return beside(view, relabelled, "with reweighted labels beside new ones")
