"""Figures of what other RM sizes say of one that was left out."""

import itertools

import numpy as np
from matplotlib.axes import Axes

from rmo.analysis.sweeps import Missing
from rmo.report.figures.beyond import METHOD_COLOURS
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.style import Colour, Figure, panels
from rmo.runtime.types import Row


@drawing
def left_out_sizes(f: Files) -> Figure:
    """Predicted and measured peak of RM sizes that were left out.

    For every RM size of the main sweep, the highest gold within the measured range of KL (line) and what the law of the
    other sizes predicts of it, with its interval (circles). Open circles are the smallest and the largest RM, to which
    the law is extrapolated; an arrow says that an interval goes on beyond the picture."""
    colour_of = dict(zip(f.methods(), itertools.cycle(METHOD_COLOURS), strict=False))
    found = {method: f.summary.get(method.name, {}).get("left_out", []) for method in f.methods()}
    found = {method: rows for method, rows in found.items() if rows}
    if not found:
        raise Missing("fewer than four RM sizes to leave one out of")
    figure, axes = panels(len(found), 4.6, 3.9)
    every = [row for rows in found.values() for row in rows]
    points = [row[name] for row in every for name in ("measured_gold", "predicted_gold")]
    tops = [row["gold_interval"][1] for row in every]
    low, high = min(0.0, *points), max(1.1 * max(points), float(np.quantile(tops, 0.75)))
    for axis, (method, rows) in zip(axes, found.items(), strict=True):
        draw_left_out(axis, rows, colour_of[method], high)
        axis.set_ylim(low, high)
        axis.set_xscale("log")
        axis.set_xlabel("RM parameters")
        axis.set_title(method.title, loc="left", fontsize=10)
    axes[0].set_ylabel("highest gold (gold standard deviations)")
    axes[0].legend(fontsize=8, loc="upper left")
    return figure


def draw_left_out(axis: Axes, rows: list[Row], colour: Colour, high: float) -> None:
    """One method's sizes, up to `high`."""
    sizes = [row["rm_params"] for row in rows]
    axis.plot(sizes, [row["measured_gold"] for row in rows], ".-", color="0.35", lw=1, label="measured")
    for i, row in enumerate(rows):
        y, (below, above) = row["predicted_gold"], row["gold_interval"]
        axis.errorbar(
            row["rm_params"], y, [[max(y - below, 0)], [max(min(above, high) - y, 0)]], fmt="o", ms=5, lw=0.9,
            capsize=2 if above <= high else 0, color=colour, mfc="white" if row["extrapolated"] else colour,
            label="" if i else "predicted from the other sizes",
        )  # fmt: skip
        if above > high:
            axis.plot(row["rm_params"], high, "^", color=colour, ms=5, clip_on=False)
