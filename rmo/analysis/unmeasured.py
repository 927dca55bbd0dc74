"""What to expect of an RM that was not trained: its curve, its peak and where to stop, from the RMs that were.

All curves of one method against single RMs, over sizes and comparisons, become scores on the few shapes that they are
made of; `curve_law` says what the scores of another RM may be, and with the rest of some measured curve on top they are
its curve. What is predicted is what can be measured, on the same prompts: gold within the KL that all curves reach,
the mean over as many seeds as are asked for. `left_out` does the same for every size (and every number of comparisons)
without the RMs of that size, and compares.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import optimize

from rmo.analysis import sweeps
from rmo.analysis.curve import Curve, regrid
from rmo.analysis.curve_id import CurveId
from rmo.analysis.curve_law import LEAST_DF, Law, fit_law, places
from rmo.analysis.fitting import Group, group
from rmo.analysis.hierarchy import quantiles
from rmo.analysis.sweeps import Missing
from rmo.runtime.types import Row

LEAST = 3  # values of an axis that make a law along it: two make the line, and one shows what it misses
SHAPES = 3  # that curves are made of; the rest of a curve is noise
POINTS = 41  # of the grid of d
DRAWS = 4000
Axis = Literal["params", "comparisons"]
AXES: tuple[Axis, ...] = ("params", "comparisons")
NAMES = {"params": ("RM size", "sizes"), "comparisons": ("number of comparisons", "numbers of comparisons")}
LARGE = {"params": ("smallest RM", "largest RM"), "comparisons": ("fewest comparisons", "most comparisons")}


@dataclass(frozen=True)
class Sweep:
    """The curves of one method over RM sizes and comparisons, on one grid of d."""

    groups: list[Group]  # one per place
    d_K: np.ndarray  # f64[K], up to what all curves reach
    gold_CK: np.ndarray  # f64[C, K]
    of_C: np.ndarray  # i[C], which group each curve is of

    @classmethod
    def of(cls, groups: Sequence[Group]) -> "Sweep":
        curves = [c for g in groups for c in g.curves]
        d = np.linspace(0, min(c.d.max() for c in curves), POINTS)
        gold = np.array([regrid(d, c, c.gold) for c in curves])
        return cls(list(groups), d, gold, np.array([i for i, g in enumerate(groups) for _ in g.curves]))

    @property
    def id(self) -> CurveId:
        """What all have in common."""
        return replace(self.groups[0].id, rm_params=0, rm_comparisons=None)

    def values(self, axis: Axis) -> list[int]:
        """What was measured along an axis, smallest first; none where it is not known."""
        return sorted({int(getattr(g, axis) or 0) for g in self.groups} - {0})

    def keep(self, wanted: Callable[[Group], bool]) -> "Sweep":
        """Some of the groups, on the same grid."""
        kept = [i for i, g in enumerate(self.groups) if wanted(g)]
        rows = np.isin(self.of_C, kept)
        of = np.searchsorted(kept, self.of_C[rows])
        return Sweep([self.groups[i] for i in kept], self.d_K, self.gold_CK[rows], of)

    def mean_K(self, g: int) -> np.ndarray:
        """Gold of one group, over its seeds."""
        return self.gold_CK[self.of_C == g].mean(0)


def sweep_of(curves: Sequence[Curve], method: str) -> Sweep:
    """The curves that the method's main sweep is of, over all sizes and comparisons.

    Raises:
      Missing: there are none whose RM's size is known.
    """
    groups = [g for g in group(curves, method) if g.params and not g.id.against_gold]
    if not groups:
        raise Missing("no curve of an RM whose size is known (rm_params)")
    main = sweeps.main_family(groups, method)[0].id
    asked = {name: getattr(main, name) for name in ("policy_params", "rm_recipe", "rm_combined", "settings")}
    return Sweep.of([g for g in sweeps.plain(groups, method, **asked) if g.params])


@dataclass(frozen=True)
class Forecast:
    """Draws of the mean curve of `seeds` new RMs."""

    sweep: Sweep  # what it rests on
    params: int
    comparisons: int | None
    seeds: int
    gold_NK: np.ndarray  # f64[N, K] over the sweep's d

    @property
    def kl_K(self) -> np.ndarray:
        return self.sweep.d_K**2

    @property
    def middle_K(self) -> np.ndarray:
        """What is expected: the median, read by read."""
        return np.median(self.gold_NK, axis=0)

    @property
    def stop(self) -> int:
        """Where what is expected is highest: an index of the grid."""
        return int(self.middle_K.argmax())

    def at(self, kl: float, level: float) -> Row | None:
        """Gold at a KL; None beyond what was measured."""
        if kl > self.kl_K[-1] * (1 + 1e-9):
            return None
        at_N = np.array([np.interp(kl**0.5, self.sweep.d_K, curve) for curve in self.gold_NK])
        return {"kl": kl, "gold": float(np.median(at_N)), "interval": quantiles(at_N, level)}

    def row(self, level: float) -> Row:
        """Peak, its KL, where to stop and what that is expected to lose, each with its interval."""
        top_N, where_N = self.gold_NK.max(1), self.kl_K[self.gold_NK.argmax(1)]
        lost_N = top_N - self.gold_NK[:, self.stop]
        return {
            "rm_params": self.params, "rm_comparisons": self.comparisons, "seeds": self.seeds,
            "peak_gold": float(np.median(top_N)), "peak_gold_interval": quantiles(top_N, level),
            "peak_kl": float(np.median(where_N)), "peak_kl_interval": quantiles(where_N, level),
            "stop_kl": float(self.kl_K[self.stop]), "stop_at_end": self.stop == len(self.kl_K) - 1,
            "gold_at_stop": float(self.middle_K[self.stop]), "lost_at_stop": float(np.median(lost_N)),
            "lost_at_stop_interval": quantiles(lost_N, level), "range_kl": float(self.kl_K[-1]),
        }  # fmt: skip

    def band(self, level: float) -> dict[str, list[float]]:
        """The expected curve with its interval, for plots."""
        low, high = np.quantile(self.gold_NK, [(1 - level) / 2, (1 + level) / 2], axis=0)
        columns = {"kl": self.kl_K, "gold": self.middle_K, "low": low, "high": high}
        return {name: values.round(5).tolist() for name, values in columns.items()}


@dataclass(frozen=True)
class Fitted:
    """The law of a sweep's curves along some axes, and the shapes that its numbers are scores on."""

    sweep: Sweep
    axes: tuple[Axis, ...]
    law: Law
    shapes_JK: np.ndarray  # f64[J, K]
    rest_CK: np.ndarray  # f64[C, K], of the measured curves

    @classmethod
    def of(cls, sweep: Sweep, axes: Sequence[Axis]) -> "Fitted":
        """Raises:
        Missing: too few curves.
        """
        count, least = len(sweep.gold_CK), LEAST_DF + 1 + len(axes)
        if count < least:
            raise Missing(f"{count} curves: a forecast needs at least {least}, more seeds or more {NAMES[axes[0]][1]}")
        shapes_JK = np.linalg.svd(sweep.gold_CK, full_matrices=False)[2][:SHAPES]
        x_GD = np.log10([[float(getattr(g, axis)) for axis in axes] for g in sweep.groups])
        shapes_JK = uncorrelated(sweep.gold_CK @ shapes_JK.T, x_GD[sweep.of_C]) @ shapes_JK
        z_CJ = sweep.gold_CK @ shapes_JK.T
        law = fit_law(places(x_GD, sweep.of_C, z_CJ))
        return cls(sweep, tuple(axes), law, shapes_JK, sweep.gold_CK - z_CJ @ shapes_JK)

    def forecast(self, params: int, comparisons: int | None, seeds: int, seed: int = 0) -> Forecast:
        rng, asked = np.random.default_rng(seed), {"params": params, "comparisons": comparisons}
        place = np.log10([float(asked[axis] or 0) for axis in self.axes])
        draws = self.law.draws(place, seeds, DRAWS, rng)
        rest = self.rest_CK[rng.integers(len(self.rest_CK), size=(DRAWS, seeds))].mean(1)
        return Forecast(self.sweep, params, comparisons, seeds, draws @ self.shapes_JK + rest)


def uncorrelated(z_CJ: np.ndarray, x_CD: np.ndarray) -> np.ndarray:
    """The rotation f64[J, J] of scores after which what a plane over the places leaves of them is uncorrelated: a law
    takes them one by one."""
    plane = np.hstack([np.ones((len(x_CD), 1)), x_CD])
    left = z_CJ - plane @ np.linalg.lstsq(plane, z_CJ, rcond=None)[0]
    return np.linalg.eigh(left.T @ left)[1].T


def telling(sweep: Sweep, params: int, comparisons: int | None) -> tuple[Sweep, tuple[Axis, ...]]:
    """(the part of a sweep that says something of such an RM, the axes that a law goes along).

    Raises:
      Missing: too few sizes or numbers of comparisons; says how many are needed.
    """
    asked: dict[Axis, int | None] = {"params": params, "comparisons": comparisons}
    used: tuple[Axis, ...] = ()
    measured, at = len(sweep.values("params")), f" at {comparisons:,} comparisons" if comparisons else ""
    for axis in AXES:
        sweep, varied = along(sweep, axis, asked[axis])
        used = (*used, axis) if varied else used
    if not used:
        raise Missing(f"{measured} RM size{'s' * (measured != 1)} measured{at}: a forecast needs at least {LEAST}")
    return sweep, used


def forecast(sweep: Sweep, params: int, comparisons: int | None = None, seeds: int = 1, seed: int = 0) -> Forecast:
    """The curve to expect of RMs of this size and comparisons (None: the most that were measured).

    Raises:
      Missing: too few sizes or numbers of comparisons, or too few curves; says how many are needed.
    """
    comparisons = comparisons or max(sweep.values("comparisons"), default=None)
    return Fitted.of(*telling(sweep, params, comparisons)).forecast(params, comparisons, seeds, seed)


def along(sweep: Sweep, axis: Axis, value: int | None) -> tuple[Sweep, bool]:
    """(the part of a sweep that says something of a value of this axis, whether the law goes along it). An axis with
    too few values is not gone along: what was measured at this very value remains.

    Raises:
      Missing: too few values, and this is none of them.
    """
    found = sweep.values(axis)
    if len(found) >= LEAST:
        return sweep.keep(lambda g: bool(getattr(g, axis))), True
    if value is None or value in found:
        return (sweep.keep(lambda g: getattr(g, axis) == value) if found else sweep), False
    one, several = NAMES[axis]
    there = " and ".join(f"{x:,}" for x in found) or "none that is known"
    raise Missing(
        f"{len(found)} {several if len(found) != 1 else one} measured ({there}): a forecast of {value:,} needs at "
        f"least {LEAST}; give one that was measured, or run more"
    )


def extrapolated(sweep: Sweep, params: int, comparisons: int | None) -> list[str]:
    """In words, how a place lies outside of what was measured; nothing where it lies inside."""
    out = []
    wanted: dict[Axis, int | None] = {"params": params, "comparisons": comparisons}
    for axis, value in wanted.items():
        found = sweep.values(axis)
        if value and found and not found[0] <= value <= found[-1]:
            above = value > found[-1]
            times = value / found[-1] if above else found[0] / value
            side = f"{'above' if above else 'below'} the {LARGE[axis][above]} measured ({found[-1 if above else 0]:,})"
            out.append(f"extrapolated by a factor of {times:.3g} {side}")
    there = [[g.params, g.comparisons or 0] for g in sweep.groups]
    if not out and comparisons and all(c for _, c in there) and not inside(there, [params, comparisons]):
        out.append("extrapolated: such a size and such a number of comparisons were measured, but not together")
    return out


def inside(points: Sequence[Sequence[float]], place: Sequence[float]) -> bool:
    """Whether a place lies in the convex hull of others, on a log scale."""
    at, target = np.log(np.array(points, np.float64)), np.log(np.array(place, np.float64))
    equal, sums = np.vstack([at.T, np.ones(len(at))]), np.append(target, 1.0)
    found = optimize.linprog(np.zeros(len(at)), A_eq=equal, b_eq=sums, bounds=(0, 1))
    return bool(found.status == 0)


def left_out(sweep: Sweep, axis: Axis, level: float) -> list[Row]:
    """A row per group: what the law says of it once all RMs with its value of this axis are left out, beside what was
    measured; none where too few values would remain."""
    out, values = [], sweep.values(axis)
    if len(values) <= LEAST:
        return []
    for value in values:
        rest = sweep.keep(lambda g, value=value: getattr(g, axis) != value)
        fitted: dict[tuple[CurveId, ...], Fitted] = {}
        for i, g in enumerate(sweep.groups):
            if getattr(g, axis) != value:
                continue
            try:
                part, axes = telling(rest, g.params, g.comparisons)
                key = tuple(other.id for other in part.groups)
                fitted[key] = fitted.get(key) or Fitted.of(part, axes)
            except Missing:
                continue
            found = fitted[key].forecast(g.params, g.comparisons, len(g.curves))
            edge = value in (values[0], values[-1])
            out.append({"left_out": axis, "extrapolated": edge, **compared(found, sweep.mean_K(i), level)})
    return out


def compared(found: Forecast, gold_K: np.ndarray, level: float) -> Row:
    """A forecast beside a measured curve on the same grid."""
    row, band = found.row(level), np.quantile(found.gold_NK, [(1 - level) / 2, (1 + level) / 2], axis=0)
    top, kl = float(gold_K.max()), float(found.kl_K[gold_K.argmax()])

    def within(value: float, interval: Sequence[float]) -> bool:
        return interval[0] - 1e-9 <= value <= interval[1] + 1e-9

    return {
        **row, "measured_gold": top, "measured_kl": kl,
        "relative_error": abs(row["peak_gold"] - top) / top if top > 0 else None,
        "gold_inside": within(top, row["peak_gold_interval"]), "kl_inside": within(kl, row["peak_kl_interval"]),
        "curve_inside": float(np.mean((band[0] - 1e-9 <= gold_K) & (gold_K <= band[1] + 1e-9))),
        "regret": top - float(gold_K[found.stop]),
    }  # fmt: skip


def checked(rows: Sequence[Row]) -> Row | None:
    """How well left-out RMs were predicted: errors of the highest gold as shares of it, of those between others and of
    all, how many lie in their intervals, what stopping where the forecast says would have lost. None without rows."""
    errors = {name: [r["relative_error"] for r in rows if r["relative_error"] is not None and wanted(r)]
              for name, wanted in (("all", lambda r: True), ("between", lambda r: not r["extrapolated"]))}  # fmt: skip
    if not errors["all"]:
        return None
    regrets = [r["regret"] for r in rows]
    return {
        "rows": len(rows), "gold_inside": sum(r["gold_inside"] for r in rows),
        "kl_inside": sum(r["kl_inside"] for r in rows),
        "curve_inside": float(np.mean([r["curve_inside"] for r in rows])),
        "median_error": float(np.median(errors["all"])), "worst_error": max(errors["all"]),
        "median_error_between": float(np.median(errors["between"])) if errors["between"] else None,
        "worst_error_between": max(errors["between"], default=None),
        "median_regret": float(np.median(regrets)), "worst_regret": max(regrets),
    }  # fmt: skip
