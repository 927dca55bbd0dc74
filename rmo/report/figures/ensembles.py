"""The figure of several reward models as one, beside the single ones."""

from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import Group
from rmo.analysis.spread import DOUBLED, stop_at
from rmo.analysis.sweeps import Missing
from rmo.config.ensembles import WITHOUT
from rmo.methods.method import find
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.style import Colour, Figure, largest_kl, line_kind, mean_curve, panels, size, sqrt_axis

COLOURS = [to_rgba(colour) for colour in matplotlib.color_sequences["tab10"]]
SINGLE: Colour = (0.45, 0.45, 0.45, 1.0)


class Panel(NamedTuple):
    """Single RMs of one size and recipe, and what is combined of them."""

    singles: Group
    combined: list[Group]

    @property
    def title(self) -> str:
        recipe = str(self.singles.id.rm_recipe)
        labels = f", {recipe}" if recipe else ""
        return f"{find(self.singles.method).short}, {size(self.singles.params)} parameters{labels}"


@drawing
def ensembles(f: Files) -> Figure:
    """Several reward models as one.

    Above, gold (solid) and proxy (dashed) against KL of ensembles and of the single RMs that they are made of (grey;
    thin lines are seeds), for the smallest RM that ensembles were made of, with and without noisy labels. An ensemble
    over sizes is drawn beside its largest RM. Below, the standard deviation over an ensemble's RMs of the score of what
    is selected or written, as a multiple of that on the initial policy's responses; above the dotted line the variance
    has doubled, which is where the rule without gold stops (circles)."""
    shown = shown_panels(f)
    names = list(dict.fromkeys(label(g) for panel in shown for g in panel.combined))
    colour_of = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    figure, axes = panels(len(shown), 4.4, 3.2, rows=2)
    for panel, above, below in zip(shown, axes[: len(shown)], axes[len(shown) :], strict=True):
        draw_gold(above, panel, colour_of)
        draw_spread(below, f, panel, colour_of)
    axes[0].set_ylabel("RM score (gold standard deviations)")
    axes[len(shown)].set_ylabel("spread, times the initial policy's")
    handles = [line_kind(name) for name in names]
    for handle, name in zip(handles, names, strict=True):
        handle.set_color(colour_of[name])
    kinds = [line_kind("single RMs", lw=1.6), line_kind("proxy", lw=1, ls="--")]
    kinds[0].set_color(SINGLE)
    figure.legend(handles=[*handles, *kinds], loc="outside lower center", ncols=4, fontsize=8)
    return figure


def label(g: Group) -> str:
    return g.id.rm_combined.partition(":")[0]


def shown_panels(f: Files) -> list[Panel]:
    """For each method, labels as they are and noisy ones, the smallest RM with ensembles; then ensembles over sizes."""
    out = []
    for method in (BEST_OF_N, PPO):
        groups = f.all(method)
        by_id = {g.id: g for g in groups}
        found: dict[CurveId, list[Group]] = {}
        for g in groups:
            single = CurveId(**{**vars(g.id), "rm_combined": ""})
            if g.id.rm_combined and single in by_id and WITHOUT not in label(g):
                found.setdefault(single, []).append(g)
        kinds: dict[tuple[str, bool], CurveId] = {}
        for id in sorted(found, key=lambda id: id.order):
            over_sizes = any(" sizes" in g.id.rm_combined for g in found[id])
            kinds.setdefault((str(id.rm_recipe), over_sizes), id)
        out += [Panel(by_id[id], found[id]) for id in kinds.values()]
    if not out:
        raise Missing("no ensembles of RMs")
    return out[:4]


def draw_gold(axis: Axes, panel: Panel, colour_of: dict[str, Colour]) -> None:
    for curve in panel.singles.curves:
        axis.plot(curve.kl, curve.gold, color=SINGLE, lw=0.5, alpha=0.6)
    for group, colour in ((panel.singles, SINGLE), *((g, colour_of[label(g)]) for g in panel.combined)):
        axis.plot(*mean_curve(group, "gold"), color=colour, lw=1.6)
        axis.plot(*mean_curve(group, "proxy"), "--", color=colour, lw=0.9)
    axis.axhline(0, color="0.6", lw=0.8)
    sqrt_axis(axis, largest_kl([panel.singles, *panel.combined]))
    axis.set_title(panel.title, loc="left", fontsize=10)


def draw_spread(axis: Axes, f: Files, panel: Panel, colour_of: dict[str, Colour]) -> None:
    for g in panel.combined:
        rows = [row for row in f.paths.of(g.id) if np.isfinite(row.get("spread", np.nan))]
        if not rows or not rows[0]["spread"] > 0:
            continue
        kl = np.array([row["kl"] for row in rows])
        spread = np.array([row["spread"] for row in rows]) / rows[0]["spread"]
        axis.plot(kl, spread, color=colour_of[label(g)], lw=1.4)
        if (k := stop_at(spread)) is not None:
            axis.plot(kl[k], spread[k], "o", ms=5, color=colour_of[label(g)], mfc="white")
    axis.axhline(DOUBLED, color="0.5", lw=0.8, ls=":")
    sqrt_axis(axis, largest_kl([panel.singles, *panel.combined]))
    axis.set_xlabel("KL, nats (square-root scale)")
