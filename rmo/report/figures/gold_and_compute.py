"""Gold at its peak against compute, with the front of what no other way beats at as little."""

import itertools
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from rmo.report.figures.style import Figure, panels
from rmo.runtime.types import Row

MARKERS = "osD^vP*Xhd<>"


def picture(rows: Sequence[Row]) -> Figure:
    """Rows of `report.hedges.rows_of`; against the KL of the peak where nobody's seconds are known."""
    known = any(row["seconds"] for row in rows)
    shown = [row for row in rows if row["gold"] and (row["seconds"] or not known)]
    figure, (axis,) = panels(1, 8.6, max(3.6, 0.24 * len(shown) + 0.8))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    marker_of = dict(zip(methods, itertools.cycle(MARKERS), strict=False))
    for row, colour in zip(shown, itertools.cycle(matplotlib.colormaps["tab20"].colors), strict=False):  # type: ignore[attr-defined]
        x, gold = (row["seconds"] if known else row["kl"])["value"], row["gold"]
        ends = gold["interval"] or [gold["value"]] * 2
        error = [[max(gold["value"] - ends[0], 0)], [max(ends[1] - gold["value"], 0)]]
        axis.errorbar(
            x,
            gold["value"],
            error,
            fmt=marker_of[row["method"]],
            ms=6,
            lw=0.9,
            capsize=2,
            color=colour,
            label=row["label"],
        )
    line = sorted((row["seconds"]["value"], row["gold"]["value"]) for row in shown if known and row["on_front"])
    if line:
        axis.step(*zip(*line, strict=True), where="post", color="0.4", lw=1, ls="--", label="not beaten at as little")
        axis.set_xscale("log")
        for ticks in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            ticks(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    limits(axis, shown)
    axis.set_xlabel("device-seconds of one curve" if known else "KL at the peak, nats")
    axis.set_ylabel("gold at its peak (standard deviations)")
    figure.legend(loc="outside right upper", fontsize=7)
    return figure


def limits(axis: Axes, rows: Sequence[Row]) -> None:
    """Intervals of two seeds can be so wide that they hide all differences: they go on past the edge."""
    values = [row["gold"]["value"] for row in rows]
    room = 1.0 * (max(values) - min(values)) + 0.1
    ends = [end for row in rows for end in row["gold"]["interval"] or []] + values
    axis.set_ylim(max(min(ends), min(values) - room) - 0.05, min(max(ends), max(values) + room) + 0.05)
