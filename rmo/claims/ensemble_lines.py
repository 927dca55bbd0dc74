"""Ensembles of RMs beside the single RMs they are made of, as lines of gold that move with the seeds.

An ensemble is one curve, so that resampling curves says nothing of which seeds form it. Where a run holds it without
each of its seeds in turn (`config.with_each_left_out`), the jackknife does: a weighting of the seeds moves the ensemble
by what each seed contributes, (S - 1) times the difference that leaving it out makes (Efron and Tibshirani 1993, 11).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from rmo.analysis.curve import Curve
from rmo.analysis.curve_id import Settings
from rmo.analysis.fitting import Group
from rmo.analysis.spread import stop_at
from rmo.analysis.sweeps import Missing
from rmo.claims.evidence import Line, View, mean_curves
from rmo.config.ensembles import WITHOUT

LABEL = re.compile(r"(?P<name>.+): (?P<how>\S+) of (?P<members>\d+)(?: in (?P<sizes>\d+) sizes)?")
LEAST = 3  # seeds that a jackknife takes


@dataclass(frozen=True)
class EnsembleCurve:
    """One combined reward's curve, and the single RMs' of its (largest) size; of one method and its settings."""

    group: Group
    singles: Group
    name: str
    how: str
    members: int
    sizes: int
    left_out: dict[int, Group] = field(default_factory=dict)  # without each seed, by that seed

    @property
    def curve(self) -> Curve:
        return self.group.curves[0]

    @property
    def seeds(self) -> int:
        """RM seeds that its interval rests on."""
        return len(self.left_out) if len(self.left_out) >= LEAST else 1

    @property
    def noisy(self) -> bool:
        return self.group.id.rm_recipe.number("flip") > 0

    @property
    def clean(self) -> bool:
        """Whether its RMs were trained as in the paper."""
        return self.group.id.rm_recipe == Settings()


def ensembles(view: View, method: str) -> list[EnsembleCurve]:
    """Every ensemble that a method optimised against, where single RMs of its size were too."""
    groups = view.evidence.groups[method]
    by_id = {g.id: g for g in groups}
    found: list[EnsembleCurve] = []
    for g in groups:
        label, singles = LABEL.fullmatch(g.id.rm_combined), by_id.get(replace(g.id, rm_combined=""))
        if label and singles:
            sizes = int(label["sizes"] or 1)
            found.append(EnsembleCurve(g, singles, label["name"], label["how"], int(label["members"]), sizes))
    out = []
    for e in found:
        if WITHOUT not in e.name:
            same = [x for x in found if x.singles is e.singles and x.name.startswith(e.name + WITHOUT)]
            out.append(replace(e, left_out={int(x.name.rpartition(WITHOUT)[2]): x.group for x in same}))
    return out


def chosen(view: View, method: str, hows: tuple[str, ...], noisy: bool | None = None) -> list[EnsembleCurve]:
    """Ensembles of the seeds of one size, combined in one of these ways, of RMs with noisy labels or trained as in the
    paper (None: of both).

    Raises:
      Missing: there are none.
    """
    out = [e for e in ensembles(view, method) if e.sizes == 1 and e.how in hows and (e.noisy or e.clean)]
    out = [e for e in out if noisy is None or e.noisy == noisy]
    if not out:
        labels = {None: "", True: " trained on noisy labels", False: " trained as in the paper"}[noisy]
        raise Missing(f"no {method} against several RMs{labels}, combined by {' or '.join(hows)}")
    return out


def line(view: View, e: EnsembleCurve) -> Line:
    """The ensemble's line here, moved as the seeds are weighted where it is known without each of them."""
    if e.seeds < LEAST:
        return view.line(e.group)
    key = id(e.group)
    if key not in view.lines:
        view.weights(e.singles)  # whose seeds the interval rests on
        tables = view.evidence.tables
        end = min(float(tables[id(g)].d[-1]) for g in (e.group, *e.left_out.values()))
        d = tables[key].d[tables[key].d <= end + 1e-9]

        def on_grid(g: Group) -> np.ndarray:
            own, rows = tables[id(g)].d, view.evidence.mean_curves(g, view.n)
            return np.stack([np.interp(d, own, row) for row in rows])

        without = {seed: on_grid(g) for seed, g in e.left_out.items()}
        whole = line(view.evidence.whole, e) if view.n else None
        view.lines[key] = as_line(d, moved(on_grid(e.group), without, seed_weights(view, e.singles)), whole)
    return view.lines[key]


def as_line(d: np.ndarray, rows_4G: np.ndarray, whole: Line | None) -> Line:
    gold, proxy, even, odd = rows_4G
    return Line(d, gold, proxy, (even, odd), float(d[-1]), whole)


def seed_weights(view: View, singles: Group) -> dict[int | None, float]:
    """How much each RM seed counts here, of mean 1."""
    weights = view.weights(singles) * len(singles.curves)
    return {c.id.seed: float(w) for c, w in zip(singles.curves, weights, strict=True)}


def moved(full: np.ndarray, without: Mapping[int, np.ndarray], weights: Mapping[int | None, float]) -> np.ndarray:
    """A statistic of all seeds under other weights of them, to first order: from its values without each seed."""
    count, total = len(without), sum(weights[seed] for seed in without)
    out = full
    for seed, value in without.items():
        weight = weights[seed] * count / total if total > 0 else 1.0
        out = out + (weight - 1) / count * (count - 1) * (full - value)
    return out


def best_single(view: View, e: EnsembleCurve) -> Line:
    """The single RM of its size with the highest validation accuracy, which needs no gold. With other weights of the
    seeds it moves by what choosing among the rest would change."""
    accuracy = accuracies(view, e.singles)
    seeds = sorted(accuracy, key=lambda seed: -accuracy[seed])
    t = view.evidence.tables[id(e.singles)]
    place = {c.id.seed: i for i, c in enumerate(e.singles.curves)}

    def of_seed(seed: int) -> np.ndarray:
        i = [place[seed]]
        alone = t._replace(gold=t.gold[i], proxy=t.proxy[i], columns=np.zeros(1, int))
        return mean_curves(alone, np.ones((1, 1)), view.share_Q[None])[:, 0]

    first, rest = of_seed(seeds[0]), of_seed(seeds[1]) if len(seeds) > 1 else None
    without = {seed: rest if seed == seeds[0] and rest is not None else first for seed in seeds}
    whole = best_single(view.evidence.whole, e) if view.n else None
    return as_line(t.d, moved(first, without, seed_weights(view, e.singles)), whole)


def accuracies(view: View, singles: Group) -> dict[int, float]:
    """Validation accuracy of every seed of one group's RM.

    Raises:
      Missing: it is not known of all.
    """
    id = singles.id
    rows = [
        row for row in view.evidence.reward_models
        if (row["rm_params"], row["rm_comparisons"]) == (id.rm_params, id.rm_comparisons)
        and Settings.parse(str(row["rm_recipe"])) == id.rm_recipe
    ]  # fmt: skip
    found = {int(row["seed"]): float(row["validation_accuracy"]) for row in rows}
    if any(c.id.seed not in found for c in singles.curves):
        raise Missing("no validation accuracy of every RM")
    return {c.id.seed: found[c.id.seed] for c in singles.curves if c.id.seed is not None}


def common_end(*lines: Line) -> float:
    return min(one.end for one in lines)


def stop_d(e: EnsembleCurve) -> float:
    """d at which the spread of its RMs says stop; the end of the curve where it never does.

    Raises:
      Missing: how far its RMs are apart is not known.
    """
    if e.curve.spread is None:
        raise Missing("no record of how far the RMs of an ensemble are apart")
    k = stop_at(e.curve.spread)
    return float(e.curve.d.max() if k is None else e.curve.d[k])


def regret(view: View, e: EnsembleCurve) -> float:
    """What stopping by the spread costs: the curve's best gold less gold where the rule stops."""
    found = line(view, e)
    return found.peak()[1] - float(found.at(min(stop_d(e), found.end)))
