"""Ensembles beside the mean of their single RMs and beside the one that validation accuracy chooses: gain and cost."""

from collections.abc import Mapping
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
    """Where lines are compared: each at its own peak, or all at one d. Beyond its end a line is not known."""

    name: str  # peak, end, spread (where the spread of the RMs says stop), kl=2
    d: float | None = None  # None: each at its own peak

    def gold(self, found: Line) -> float:
        if self.d is None:
            return found.peak()[1]
        return float(found.at(self.d)) if self.d <= found.end + 1e-9 else np.nan


def table(evidence: Evidence, costs: Mapping[tuple, Cost], level: float) -> list[Row]:
    """A row for every ensemble and place. `gain` is its gold less the mean of its single RMs', `over_best` less that of
    the RM that validation accuracy chooses, `regret` its highest gold less that at this place; each with an interval
    over prompts and over `seeds` RM seeds: where that is 1, which seeds form the ensemble is not in it."""
    whole = evidence.whole
    every = [e for method in methods.names() for e in ensembles(whole, method)]
    return [row for e in every for row in rows_of(evidence, e, costs.get(rm_of(e.group.id)), level)]


def rows_of(evidence: Evidence, e: EnsembleCurve, cost: Cost | None, level: float) -> list[Row]:
    """The rows of one ensemble."""
    whole, found = evidence.whole, places(evidence.whole, e)
    mine, single, best = three_lines(whole, e)
    values_NPC = on_rows(evidence, e, found)
    out = []
    for p, place in enumerate(found):
        kl = (mine.peak()[0] if place.d is None else place.d) ** 2
        row: Row = {**e.group.id.cells(), "place": place.name, "kl": kl, "gold": place.gold(mine)}
        row |= {"singles": place.gold(single), "best": place.gold(best) if best else None}
        for name, values_N in zip(COMPARED, values_NPC[:, p].T, strict=True):
            row |= with_interval(name, values_N, evidence, level)
        row |= {"seeds": e.seeds, "members": e.members}
        out.append(row | (cost._asdict() if cost else {}))
    return out


def places(view: View, e: EnsembleCurve) -> list[Place]:
    mine, single = line(view, e), view.line(e.singles)
    out = [Place("peak"), Place("end", common_end(mine, single))]
    out += [Place(f"kl={kl:g}", kl**0.5) for kl in KLS if kl**0.5 <= common_end(mine, single)]
    return [*out, Place("spread", min(stop_d(e), mine.end))] if e.curve.spread is not None else out


def three_lines(view: View, e: EnsembleCurve) -> tuple[Line, Line, Line | None]:
    """The ensemble's, the single RMs' mean, and that of the RM that validation accuracy chooses, where it is known."""
    try:
        best = best_single(view, e)
    except Missing:
        best = None
    return line(view, e), view.line(e.singles), best


def on_rows(evidence: Evidence, e: EnsembleCurve, found: list[Place]) -> np.ndarray:
    """What is compared (`COMPARED`) at every place, f64[N, P, 3], on every row that intervals need; NaN where a line
    does not reach so far. Other rows repeat the first."""
    values = np.empty((len(evidence.resamples.share_NQ), len(found), len(COMPARED)))
    values[:] = compared(evidence.whole, e, found)
    for n in evidence.resamples.exact[1:]:
        values[n] = compared(evidence.view(int(n)), e, found)
    return values


def compared(view: View, e: EnsembleCurve, found: list[Place]) -> list[tuple[float, float, float]]:
    """(gain, over_best, regret) at every place."""
    mine, single, best = three_lines(view, e)
    top = mine.peak()[1]
    out = []
    for place in found:
        gold = place.gold(mine)
        over_best = gold - place.gold(best) if best else np.nan
        out.append((gold - place.gold(single), over_best, top - gold if place.d is not None else np.nan))
    return out


def with_interval(name: str, values_N: np.ndarray, evidence: Evidence, level: float) -> Row:
    """A smooth statistic and the ends of its interval, as cells; none where it is not known."""
    if not np.isfinite(values_N).all():
        return {}
    low, high = t_interval(float(values_N[0]), error(values_N, evidence.resamples), (1 - level) / 2)
    return {name: float(values_N[0]), f"{name}_low": low, f"{name}_high": high}
