"""Ensembles beside the mean of their single RMs and beside the one that validation accuracy chooses: gain and cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rmo.analysis.bootstrap import error, t_interval
from rmo.analysis.curve_id import COLUMNS as ID
from rmo.analysis.curve_id import CurveId
from rmo.analysis.sweeps import Missing
from rmo.claims.ensemble_lines import EnsembleCurve, best_single, common_end, ensembles, line, stop_d
from rmo.claims.evidence import Evidence, Line, View
from rmo.methods import method as methods
from rmo.runtime.types import Row

KLS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # nats at which gold is compared, where all reach them


class Cost(NamedTuple):
    """What the RMs of an ensemble cost; of a single RM divide by what they are many times."""

    labels: int  # that all of them were trained on, each counted once
    trained: int  # parameters, without embeddings, of all RMs that are trained
    run: int  # and of those that are run to score a text


def rm_of(id: CurveId) -> tuple:
    """What identifies the reward of a curve, whatever optimised against it."""
    return id.rm_params, id.rm_comparisons, id.rm_recipe, id.rm_combined


COMPARED = ("gain", "over_best", "regret")
COLUMNS = [
    *ID, "place", "kl", "gold", "singles", "best",
    *(f"{name}{end}" for name in COMPARED for end in ("", "_low", "_high")), "seeds", "members", *Cost._fields,
]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where lines are compared: each at its own peak, or all at one d."""

    name: str  # peak, end, spread (where the spread of the RMs says stop), kl=2
    d: float | None = None  # None: each at its own peak

    def gold(self, found: Line) -> float:
        return found.peak()[1] if self.d is None else float(found.at(self.d))

    def reached(self, found: Line) -> bool:
        return self.d is None or self.d <= found.end + 1e-9


def table(evidence: Evidence, costs: Mapping[tuple, Cost], level: float) -> list[Row]:
    """A row for every ensemble and place. `gain` is its gold less the mean of its single RMs', `over_best` less that of
    the RM that validation accuracy chooses, `regret` its highest gold less that at this place; each with an interval
    over prompts and over `seeds` RM seeds: where that is 1, which seeds form the ensemble is not in it."""
    return [
        row_at(evidence, e, place, costs.get(rm_of(e.group.id)), level)
        for method in methods.names()
        for e in ensembles(evidence.whole, method)
        for place in places(evidence.whole, e)
    ]


def places(view: View, e: EnsembleCurve) -> list[Place]:
    mine, single = line(view, e), view.line(e.singles)
    out = [Place("peak"), Place("end", common_end(mine, single))]
    out += [Place(f"kl={kl:g}", kl**0.5) for kl in KLS if kl**0.5 <= common_end(mine, single)]
    return [*out, Place("spread", min(stop_d(e), mine.end))] if e.curve.spread is not None else out


def row_at(evidence: Evidence, e: EnsembleCurve, place: Place, cost: Cost | None, level: float) -> Row:
    """One row."""
    whole = evidence.whole
    mine, single = line(whole, e), whole.line(e.singles)
    best = known_best(whole, e)
    kl = (mine.peak()[0] if place.d is None else place.d) ** 2
    row: Row = {**e.group.id.cells(), "place": place.name, "kl": kl, "gold": place.gold(mine)}
    row |= {"singles": place.gold(single) if place.reached(single) else None}
    row |= {"best": place.gold(best) if best and place.reached(best) else None}
    for name, statistic in statistics(e, place, single, best).items():
        row |= with_interval(name, evidence, statistic, level)
    row |= {"seeds": e.seeds, "members": e.members}
    return row | (cost._asdict() if cost else {})


def known_best(view: View, e: EnsembleCurve) -> Line | None:
    try:
        return best_single(view, e)
    except Missing:
        return None


def statistics(e: EnsembleCurve, place: Place, single: Line, best: Line | None) -> dict[str, Callable[[View], float]]:
    """What is compared at a place, as functions of a resample."""

    def gain(view: View) -> float:
        return place.gold(line(view, e)) - place.gold(view.line(e.singles))

    def over_best(view: View) -> float:
        return place.gold(line(view, e)) - place.gold(best_single(view, e))

    def regret(view: View) -> float:
        mine = line(view, e)
        return mine.peak()[1] - place.gold(mine)

    out: dict[str, Callable[[View], float]] = {"gain": gain} if place.reached(single) else {}
    out |= {"over_best": over_best} if best and place.reached(best) else {}
    return out | ({"regret": regret} if place.d is not None else {})


def with_interval(name: str, evidence: Evidence, statistic: Callable[[View], float], level: float) -> Row:
    """A smooth statistic and the ends of its interval, as cells."""
    r = evidence.resamples
    values_N = np.full(len(r.share_NQ), statistic(evidence.whole))
    for n in r.exact[1:]:
        values_N[n] = statistic(evidence.view(int(n)))
    low, high = t_interval(float(values_N[0]), error(values_N, r), (1 - level) / 2)
    return {name: float(values_N[0]), f"{name}_low": low, f"{name}_high": high}
