"""The picture of a forecast: the expected curve with its band, beside the curves of the RMs that were measured."""

import numpy as np
from matplotlib.axes import Axes

from rmo.methods.method import find
from rmo.report.figures.style import Figure, colours, panels, size, sqrt_axis
from rmo.runtime.types import Row


def picture(found: Row, title: str) -> Figure:
    """One panel per method; `found` is what `report.forecast.forecasts` gives."""
    figure, axes = panels(len(found["methods"]), 5.0, 3.8)
    figure.suptitle(title, fontsize=10)
    for axis, row in zip(axes, found["methods"], strict=True):
        kl, band = np.array(row["band"]["kl"]), row["band"]
        sizes = row["rests_on"]["params"]
        colour_of = dict(zip(sizes, colours(len(sizes)), strict=True))
        near = [n for n in row["neighbours"] if alike(n, row)]
        for n in sorted(near, key=lambda n: n["rm_params"]):
            label = size(n["rm_params"]) + (
                "" if n["rm_comparisons"] == row["rm_comparisons"] else f", {n['rm_comparisons']:,}"
            )
            axis.plot(kl, n["gold"], lw=0.9, color=colour_of[n["rm_params"]], label=label)
        axis.fill_between(kl, band["low"], band["high"], color="tab:red", alpha=0.15, lw=0)
        axis.plot(kl, band["gold"], color="tab:red", lw=1.8, label="expected")
        axis.axvline(row["stop_kl"], color="tab:red", lw=0.9, ls=":")
        axis.annotate(
            f"stop at KL {row['stop_kl']:.3g}", (row["stop_kl"], 0.02), (-4, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="right", fontsize=8, color="tab:red",
        )  # fmt: skip
        sqrt_axis(axis, float(kl[-1]))
        clip(axis, band, near)
        axis.set_title(find(row["method"]).title, fontsize=9)
        axis.legend(fontsize=7, title="measured RMs", title_fontsize=7)
    axes[0].set_ylabel("gold (standard deviations)")
    return figure


def alike(neighbour: Row, row: Row) -> bool:
    """Whether a measured RM is drawn: of this number of comparisons, or of the nearest that was measured."""
    counts = row["rests_on"]["comparisons"]
    if not counts or not row["rm_comparisons"]:
        return True
    nearest = min(counts, key=lambda c: abs(np.log(c / row["rm_comparisons"])))
    return neighbour["rm_comparisons"] == nearest


def clip(axis: Axes, band: Row, near: list[Row]) -> None:
    """A band far wider than all curves would make them flat."""
    every = np.concatenate([band["gold"], *(n["gold"] for n in near)])
    room = 0.6 * float(np.ptp(every)) + 1e-6
    low, high = max(min(band["low"]), every.min() - room), min(max(band["high"]), every.max() + room)
    axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
