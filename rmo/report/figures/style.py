"""What every figure is made of: axes, colours, labels, and curves of gold and proxy against KL."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from rmo.analysis import fitting
from rmo.analysis.curve import Curve, common_d, regrid
from rmo.analysis.curve_id import CurveId
from rmo.methods.method import Method, find
from rmo.runtime.files import Row

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small files, and people can search and copy it
    "svg.hashsalt": "rmo",  # the same data give the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Overlay:
    """Gold and proxy of several groups against KL, with fits: `draw_overlay` draws it on paper, `interactive.div` on
    the page."""

    groups: Sequence[fitting.Group]
    summary: dict[str, Any]  # coefficients.json
    label: Callable[[fitting.Group], str]
    title: str  # of the legend
    starts: dict[int | None, float] | None = None  # lifts each policy's curves to where it starts
    mark_peak: bool = False  # with an asterisk
    unit: str = "RM score (gold standard deviations)"

    def lift(self, g: fitting.Group) -> float:
        return (self.starts or {}).get(g.policy, 0.0)


def svg(picture: Figure | Overlay) -> str:
    """The picture as SVG text, byte for byte the same for the same data."""
    figure, buffer = draw_overlay(picture) if isinstance(picture, Overlay) else picture, io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def panels(columns: int = 1, width: float = 6.4, height: float = 4.0) -> tuple[Figure, list[Axes]]:
    """A figure of one row."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * columns, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def colours(count: int) -> list[Any]:
    """From the smallest (dark) to the largest."""
    return [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.0, 0.85, max(count, 1))]


def kl_ticks(kl_max: float) -> list[float]:
    """KL in nats, about evenly spaced in its root."""
    return [t for t in (0, 0.25, 1, 2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 200) if t <= kl_max]


def sqrt_axis(axis: Axes, kl_max: float) -> None:
    """x is KL in nats on a square-root scale, so equal steps are equal sqrt(KL)."""
    axis.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    ticks = kl_ticks(kl_max)
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.set_xlim(0, kl_max)


def log_axis(axis: Axes, label: str = "RM parameters") -> None:
    """x on a log scale, labelled at decades."""
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(label)


def size(params: int) -> str:
    """801 -> 801, 24769 -> 25k."""
    return f"{params / 1e6:.3g}M" if params >= 1e6 else f"{params / 1e3:.3g}k" if params >= 1e3 else str(params)


def label_by(attribute: str) -> Callable[[fitting.Group], str]:
    """What a legend says of a group when it differs from the others in one thing."""
    return {
        "params": lambda g: size(g.params) if g.params else "all",
        "comparisons": lambda g: f"{g.comparisons or 0:,}",
        "policy": lambda g: size(g.policy or 0),
        "kl_coef": lambda g: f"{g.id.settings.number('kl_coef'):g}",
    }[attribute]


def mean_curve(group: fitting.Group, name: str) -> tuple[np.ndarray, np.ndarray]:
    """KL and the mean over seeds of one column, where `curve.common_d` says."""
    d = common_d(group.curves)
    return d**2, np.mean([regrid(d, c, getattr(c, name)) for c in group.curves], axis=0)


def row_of(summary: dict[str, Any], g: fitting.Group) -> dict[str, Any] | None:
    """The row of coefficients.json that describes a group."""
    rows = summary.get(g.method, {}).get("groups", [])
    return next((row for row in rows if CurveId.of_cells({**row, "method": g.method}) == g.id), None)


def draw_overlay(o: Overlay) -> Figure:
    """Gold (solid; dots are seeds) and proxy (dashed) against KL, with the fits (thin, banded)."""
    figure, (axis,) = panels(1, 7.2, 4.3)
    for group, colour in zip(o.groups, colours(len(o.groups)), strict=True):
        up = o.lift(group)
        kl, gold = mean_curve(group, "gold")
        for curve in group.curves:
            axis.plot(curve.kl, curve.gold + up, ".", ms=3, color=colour, alpha=0.35)
        axis.plot(kl, gold + up, color=colour, lw=1.6, label=o.label(group))
        if o.mark_peak:
            axis.plot(kl[gold.argmax()], gold.max() + up, "*", ms=10, color=colour)
        if all(np.isfinite(c.proxy).all() for c in group.curves):
            x, proxy = mean_curve(group, "proxy")
            axis.plot(x, proxy + up, "--", color=colour, lw=1)
        row = row_of(o.summary, group)
        if row:
            fitted, low, high = (np.array(row["band"][n], float) + up for n in ("fit", "low", "high"))
            axis.plot(row["band"]["kl"], fitted, color=colour, lw=0.7, ls="-.")
            axis.fill_between(row["band"]["kl"], low, high, color=colour, alpha=0.1, lw=0)
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set_ylim(*score_range(o))
    sqrt_axis(axis, max(c.kl.max() for g in o.groups for c in g.curves))
    axis.set_xlabel(find(o.groups[0].method).kl_axis)
    axis.set_ylabel(o.unit)
    style = [
        Line2D([], [], color="0.3", lw=1.6, label="gold"), Line2D([], [], color="0.3", lw=1, ls="--", label="proxy"),
        Line2D([], [], color="0.3", lw=0.7, ls="-.", label="fit to gold"),
    ]  # fmt: skip
    handles, _ = axis.get_legend_handles_labels()
    axis.legend(handles=[*handles, *style], title=o.title, ncols=2, fontsize=8)
    return figure


def score_range(o: Overlay) -> tuple[float, float]:
    """What the axis shows: the mean curves and the seeds' gold; bands may go beyond."""
    values = [c.gold for g in o.groups for c in g.curves]
    values += [c.proxy for g in o.groups for c in g.curves if np.isfinite(c.proxy).all()]
    ups = [0.0, *map(o.lift, o.groups)]
    low, high = float(min(v.min() for v in values)), float(max(v.max() for v in values))
    return low + min(ups) - 0.1, high + max(ups) + 0.1


def curves(all_curves: Sequence[Curve], summary: dict[str, Any], method: str, unit: str) -> Overlay:
    """Every curve of a method, one colour per group: what `rmo fit` draws."""
    groups = fitting.group(all_curves, method)
    return Overlay(groups, summary, lambda g: g.label(groups), find(method).title, unit=unit)


def diagnostics(method: Method, rows: Sequence[Row]) -> Figure:
    """KL along the optimisation, what the method says of its own health, and its KL efficiency, for some curves."""
    shown = [("kl", "KL from the initial policy, nats")]
    shown += [(d.name, d.title) for d in method.diagnostics if d.drawn]
    shown += [("kl_efficiency", "proxy gain / best-of-n's at equal KL")]
    columns = min(3, len(shown))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4 * columns, 3 * -(-len(shown) // columns)), layout="constrained")
        axes = figure.subplots(-(-len(shown) // columns), columns, squeeze=False).ravel()
    sizes = sorted({row["rm_params"] for row in rows})
    for axis, (name, title) in zip(axes, shown, strict=False):
        x_name = "step" if name == "kl" else "kl"
        for params, colour in zip(sizes, colours(len(sizes)), strict=True):
            for i, seed in enumerate(sorted({row["seed"] for row in rows})):
                part = [r for r in rows if (r["seed"], r["rm_params"]) == (seed, params) and np.isfinite(r[name])]
                x, y = [r[x_name] for r in part], [r[name] for r in part]
                axis.plot(x, y, color=colour, lw=1, label=size(int(params)) if i == 0 else None)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel(f"{method.short} {method.axis}" if name == "kl" else "KL, nats")
        if name != "kl":
            sqrt_axis(axis, max(row["kl"] for row in rows))
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    axes[0].legend(title="RM parameters", fontsize=8)
    return figure
