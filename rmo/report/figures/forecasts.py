"""Figures of what other RM sizes say of one that was left out."""

import itertools

import numpy as np

from rmo.analysis.sweeps import Missing
from rmo.report.figures.beyond import METHOD_COLOURS
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.style import Figure, panels, size


@drawing
def left_out_sizes(f: Files) -> Figure:
    """Predicted against measured peak of RM sizes that were left out.

    For every RM size of the main sweep, the highest gold within the measured range of KL as the law of the other sizes
    predicts it, with its interval, against the measured one. On the line they agree; open circles are the smallest and
    the largest RM, to which the law is extrapolated."""
    colour_of = dict(zip(f.methods(), itertools.cycle(METHOD_COLOURS), strict=False))
    found = {method: f.summary.get(method.name, {}).get("left_out", []) for method in f.methods()}
    found = {method: rows for method, rows in found.items() if rows}
    if not found:
        raise Missing("fewer than four RM sizes to leave one out of")
    figure, (axis,) = panels(1, 5.4, 4.4)
    for method, rows in found.items():
        for row in rows:
            x, y, (low, high) = row["measured_gold"], row["predicted_gold"], row["gold_interval"]
            open_circle = row["extrapolated"]
            axis.errorbar(
                x, y, [[max(y - low, 0)], [max(high - y, 0)]], fmt="o", ms=5, lw=0.9, capsize=2,
                color=colour_of[method], mfc="white" if open_circle else colour_of[method],
            )  # fmt: skip
            axis.annotate(size(row["rm_params"]), (x, y), (4, 3), textcoords="offset points", fontsize=7)
        axis.plot([], [], "o", color=colour_of[method], label=method.title)
    every = [row[name] for rows in found.values() for row in rows for name in ("measured_gold", "predicted_gold")]
    ends = [min(0.0, *every), 1.1 * max(every)]
    axis.plot(ends, ends, color="0.6", lw=0.8)
    tops = [row["gold_interval"][1] for rows in found.values() for row in rows]
    axis.set_ylim(ends[0], max(ends[1], float(np.quantile(tops, 0.9))))
    axis.set_xlabel("highest gold measured (gold standard deviations)")
    axis.set_ylabel("highest gold predicted from the other sizes")
    axis.legend(fontsize=8, loc="upper left")
    return figure
