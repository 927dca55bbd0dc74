"""What every figure is made of: axes, colours, labels, and curves of gold and proxy against KL."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rmo.analysis import fitting
from rmo.analysis.curve import Curve, common_d, regrid
from rmo.analysis.curve_id import CurveId
from rmo.methods.method import Method, find
from rmo.runtime.files import Row

Colour = tuple[float, float, float, float]  # red, green, blue, opacity
GREEK = {"alpha": "α", "beta": "β"}  # the coefficients of every form
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small files, and people can search and copy it
    "svg.hashsalt": "rmo",  # the same data give the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}


@dataclass(frozen=True)
class Overlay:
    """Gold and proxy of several groups against KL, with fits: `draw_overlay` draws it on paper, `interactive.div` on
    the page."""

    groups: Sequence[fitting.Group]
    summary: Row  # coefficients.json
    label: Callable[[fitting.Group], str]
    title: str  # of the legend
    starts: dict[int | None, float] | None = None  # lifts each policy's curves to where it starts
    mark_peak: bool = False  # with an asterisk
    unit: str = "RM score (gold standard deviations)"

    def lift(self, g: fitting.Group) -> float:
        return (self.starts or {}).get(g.policy, 0.0)


def svg(picture: Figure | Overlay) -> str:
    """The picture as SVG text, byte for byte the same for the same data."""
    figure = draw_overlay(picture) if isinstance(picture, Overlay) else picture
    buffer = io.StringIO()
    for text in figure.findobj(Text):
        if "$" in text.get_text() and "\\mathdefault" not in text.get_text():  # a name, and no formula of matplotlib's
            text.set_parse_math(False)  # type: ignore[attr-defined]
    with matplotlib.rc_context(STYLE):
        lay_out(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def lay_out(figure: Figure) -> None:
    """Place everything once: saving does it at every pass, and looks for the best corner of every legend in each."""
    FigureCanvasSVG(figure)  # by whose widths of texts it is drawn
    figure.set_dpi(72)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    for axis in figure.axes:
        found = axis.get_legend()
        if found is not None and (room := found.get_bbox_to_anchor()).width and room.height:
            corner = found.get_window_extent()
            found.set_loc(((corner.x0 - room.x0) / room.width, (corner.y0 - room.y0) / room.height))


def panels(columns: int = 1, width: float = 6.4, height: float = 4.0, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row; `width` and `height` are of one of them, in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
    return figure, list(axes)


def colours(count: int) -> list[Colour]:
    """From the smallest (dark) to the largest."""
    return [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.0, 0.85, max(count, 1))]


def kl_ticks(kl_max: float) -> list[float]:
    """KL in nats, about evenly spaced in its root."""
    return [t for t in (0, 0.25, 1, 2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 200) if t <= kl_max]


def sqrt_axis(axis: Axes, kl_max: float) -> None:
    """x is KL in nats on a square-root scale, so equal steps are equal sqrt(KL)."""

    def root(x: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(x, 0))

    axis.set_xscale("function", functions=(root, np.square))
    ticks = kl_ticks(kl_max)
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.set_xlim(0, 1.01 * kl_max)  # the last point is seen whole


def log_axis(axis: Axes, label: str = "RM parameters") -> None:
    """x on a log scale, labelled at 1 and 3 of every decade."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(tick_label))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(label)


def tick_label(x: float, place: int) -> str:
    return size(round(x))


def size(params: int) -> str:
    """A large number with three digits: 801 -> 801, 24769 -> 24.8k, 1.2e6 -> 1.2M."""
    if params >= 1e6:
        return f"{params / 1e6:.3g}M"
    if params >= 1e3:
        return f"{params / 1e3:.3g}k"
    return str(params)


def by_params(g: fitting.Group) -> str:
    return size(g.params) if g.params else "all"


def by_comparisons(g: fitting.Group) -> str:
    return f"{g.comparisons or 0:,}"


def by_policy(g: fitting.Group) -> str:
    return size(g.policy or 0)


def by_penalty(g: fitting.Group) -> str:
    return f"{g.id.settings.number('kl_coef'):g}"


# What a legend says of groups that differ in one thing.
LABELS: dict[str, Callable[[fitting.Group], str]] = {
    "params": by_params,
    "comparisons": by_comparisons,
    "policy": by_policy,
    "kl_coef": by_penalty,
}


def mean_curve(group: fitting.Group, name: str) -> tuple[np.ndarray, np.ndarray]:
    """KL f64[G] and the mean over seeds f64[G] of one column (gold or proxy), on the grid of `curve.common_d`."""
    d = common_d(group.curves)
    return d**2, np.mean([regrid(d, c, getattr(c, name)) for c in group.curves], axis=0)


def has_proxy(group: fitting.Group) -> bool:
    """Whether the proxy's score is known at every point."""
    return all(np.isfinite(c.proxy).all() for c in group.curves)


def largest_kl(groups: Sequence[fitting.Group]) -> float:
    """Of any curve, nats: how far an axis must reach."""
    return max(float(c.kl.max()) for g in groups for c in g.curves)


def row_of(summary: Row, g: fitting.Group) -> Row | None:
    """The row of coefficients.json that describes a group; None where it was not fitted."""
    rows = summary.get(g.method, {}).get("groups", [])
    alike = (row for row in rows if (row.get("rm_params") or 0) == g.params)  # cheap, and few are left
    return next((row for row in alike if CurveId.of_cells({**row, "method": g.method}) == g.id), None)


def draw_overlay(o: Overlay) -> Figure:
    """Gold (solid; dots are seeds) and proxy (dashed) against KL, with the fits (thin, banded)."""
    figure, (axis,) = panels(1, 7.2, 4.3)
    for group, colour in zip(o.groups, colours(len(o.groups)), strict=True):
        draw_group(axis, o, group, colour)
        draw_fit(axis, o, group, colour)
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set_ylim(*score_range(o))
    sqrt_axis(axis, largest_kl(o.groups))
    axis.set_xlabel(find(o.groups[0].method).kl_axis)
    axis.set_ylabel(o.unit)
    kinds = [line_kind("gold"), line_kind("proxy", lw=1, ls="--"), line_kind("fit to gold", lw=0.7, ls="-.")]
    legend(axis, o.title, kinds, ncols=2)
    return figure


def draw_group(axis: Axes, o: Overlay, group: fitting.Group, colour: Colour) -> None:
    """One group's gold and, where it is known, proxy."""
    up = o.lift(group)
    kl, gold = mean_curve(group, "gold")
    for curve in group.curves:
        axis.plot(curve.kl, curve.gold + up, ".", ms=3, color=colour, alpha=0.35)
    axis.plot(kl, gold + up, color=colour, lw=1.6, label=o.label(group))
    if o.mark_peak:
        axis.plot(kl[gold.argmax()], gold.max() + up, "*", ms=10, color=colour)
    if has_proxy(group):
        x, proxy = mean_curve(group, "proxy")
        axis.plot(x, proxy + up, "--", color=colour, lw=1)


def draw_fit(axis: Axes, o: Overlay, group: fitting.Group, colour: Colour) -> None:
    """One group's fit to gold with its interval, where it was fitted."""
    row = row_of(o.summary, group)
    if row:
        kl, fitted, low, high = band(row, o.lift(group))
        axis.plot(kl, fitted, color=colour, lw=0.7, ls="-.")
        axis.fill_between(kl, low, high, color=colour, alpha=0.1, lw=0)


def band(row: Row, up: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(KL, fit, lower end, upper end) of a row of coefficients.json, lifted by `up`."""
    kl, fitted, low, high = (np.array(row["band"][name], float) for name in ("kl", "fit", "low", "high"))
    return kl, fitted + up, low + up, high + up


def line_kind(label: str, lw: float = 1.6, ls: str = "-") -> Line2D:
    """A grey line for a legend: what lines of this kind are, whatever their colour."""
    return Line2D([], [], color="0.3", lw=lw, ls=ls, label=label)


def legend(axis: Axes, title: str, kinds: Sequence[Line2D] = (), most: int = 10, **how: Any) -> None:
    """What the colours of an axis are, in order, and what kinds of lines there are. Of very many colours some are
    shown, evenly spaced, and the title says so: all of them would cover the curves."""
    handles, _ = axis.get_legend_handles_labels()
    if len(handles) > most + 2:
        title = f"{title} ({most} of {len(handles)})"
        handles = [handles[i] for i in np.linspace(0, len(handles) - 1, most).round().astype(int)]
    axis.legend(handles=[*handles, *kinds], title=title, fontsize=8, **how)


def score_range(o: Overlay) -> tuple[float, float]:
    """What the axis shows: the mean curves and the seeds' gold; bands may go beyond."""
    values = [c.gold for g in o.groups for c in g.curves]
    values += [c.proxy for g in o.groups for c in g.curves if np.isfinite(c.proxy).all()]
    ups = [0.0, *(o.lift(g) for g in o.groups)]
    low = min(float(v.min()) for v in values)
    high = max(float(v.max()) for v in values)
    return low + min(ups) - 0.1, high + max(ups) + 0.1


def curves(all_curves: Sequence[Curve], summary: Row, method: str, unit: str) -> Overlay:
    """Every curve of a method, one colour per group: what `rmo fit` draws."""
    groups = fitting.group(all_curves, method)

    def label(g: fitting.Group) -> str:
        return g.label(groups)

    return Overlay(groups, summary, label, find(method).title, unit=unit)


def diagnostics(method: Method, rows: Sequence[Row]) -> Figure:
    """KL along the optimisation, what the method says of its own health, and its KL efficiency, for some curves."""
    shown = [(d.name, d.title) for d in method.diagnostics if d.drawn]
    shown.append(("kl_efficiency", "proxy gain / best-of-n's at equal KL"))
    columns = min(3, 1 + len(shown))
    figure, axes = panels(columns, 4, 3, rows=-(-(1 + len(shown)) // columns))
    draw_diagnostic(axes[0], rows, "step", "kl")
    axes[0].set_title("KL from the initial policy, nats", loc="left", fontsize=10)
    axes[0].set_xlabel(f"{method.short} {method.axis}")
    legend(axes[0], "RM parameters")
    for axis, (name, title) in zip(axes[1:], shown, strict=False):
        draw_diagnostic(axis, rows, "kl", name)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("KL, nats (square-root scale)")
        sqrt_axis(axis, max(row["kl"] for row in rows))
    for axis in axes[1 + len(shown) :]:
        axis.set_visible(False)
    return figure


def draw_diagnostic(axis: Axes, rows: Sequence[Row], x: str, y: str) -> None:
    """One column of a method's table against another: a line per seed, a colour per RM size."""
    sizes = sorted({row["rm_params"] for row in rows})
    for params, colour in zip(sizes, colours(len(sizes)), strict=True):
        mine = [row for row in rows if row["rm_params"] == params and np.isfinite(row[y])]
        for i, seed in enumerate(sorted({row["seed"] for row in mine})):
            part = [row for row in mine if row["seed"] == seed]
            label = size(int(params)) if i == 0 else None
            axis.plot([row[x] for row in part], [row[y] for row in part], color=colour, lw=1, label=label)
