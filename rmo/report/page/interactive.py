"""Overlays for the page: plotly's figures that answer to a pointer, with plotly's own script inside the page."""

import html
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import Group
from rmo.methods.method import find
from rmo.report.figures.style import (
    Overlay,
    band,
    has_proxy,
    kl_ticks,
    largest_kl,
    mean_curve,
    row_of,
    score_range,
)
from rmo.runtime.types import Json, Row

SCALE = ["#4f6bed", "#1fa187", "#e07b00"]  # from the smallest to the largest; to be seen on white and on black
GREY = "#888"
SHOWN = 300  # characters of a text that a tooltip shows
LINES = "line: gold, dots: of its seeds, dashed: proxy, thin: fit, band: its interval"
BAR = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}
BUTTONS = {
    "type": "buttons",
    "direction": "right",
    "x": 0,
    "xanchor": "left",
    "y": 1.01,
    "yanchor": "bottom",
    "pad": {"t": 0, "r": 0},
}
LAYOUT = {
    "template": {},
    "height": 480,
    "margin": {"l": 50, "r": 10, "t": 40, "b": 40},
    "hovermode": "closest",
    "hoverlabel": {"bgcolor": "#2b2f36", "font": {"color": "#fff", "size": 12}},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, sans-serif"},
}
Point = tuple[CurveId, float]
Responses = Mapping[Point, str]  # what was written at the points of curves, by `point_key`


def div(o: Overlay, figure_name: str, responses: Responses) -> str:
    """An overlay as HTML; its id is `<figure_name>-plot`."""
    from plotly.colors import sample_colorscale

    plot = Plot()
    places = np.linspace(0, 1, len(o.groups)) if len(o.groups) > 1 else np.zeros(1)
    for group, colour in zip(o.groups, map(str, sample_colorscale(SCALE, places.tolist())), strict=True):
        add_fit(plot, o, group, colour)
        add_curve(plot, o, group, colour)
        add_seeds(plot, o, group, colour, responses)
    return f"<div class=plot>{plot.html(o, f'{figure_name}-plot')}</div>"


class Plot:
    """A plotly figure against KL whose buttons choose between KL's root and KL."""

    def __init__(self) -> None:
        # As plotly.js takes them: its Python classes check every value, which takes longer than all else.
        self.traces: list[Row] = []
        self.kls: list[np.ndarray] = []  # of every trace

    def add(self, kl: Iterable[float], y: Iterable[float], name: str, texts: Sequence[str] = (), **how: Json) -> None:
        """One trace; `texts` are the tooltips of its points, `how` plotly's own settings."""
        self.kls.append(np.maximum(np.asarray(kl, float), 0.0))  # rounding may have made the first -1e-10
        name = literal(name)
        tooltip: Row = {"hoverinfo": "skip"}
        if texts:
            tooltip = {"text": list(texts), "hovertemplate": f"<b>{name}</b><br>%{{text}}<extra></extra>"}
        settings = {"mode": "lines", "showlegend": False, **tooltip, **how}
        x = rounded(np.sqrt(self.kls[-1]))
        self.traces.append({"type": "scatter", "x": x, "y": rounded(y), "name": name, "legendgroup": name, **settings})

    def layout(self, o: Overlay) -> Row:
        """Axes, legend and buttons."""
        reach = largest_kl(o.groups)
        buttons = [self.button("√KL", reach, root=True), self.button("KL", reach, root=False)]
        legend = {"text": f"{o.title} ({LINES})", "side": "top"}
        y_axis = {"title": {"text": o.unit}, "range": list(score_range(o)), "zerolinecolor": GREY, "gridcolor": GREY}
        x_axis = kl_axis(reach, root=True)
        title = {"standoff": 6, "text": x_axis.pop("title.text")}
        return {
            **LAYOUT,
            "xaxis": {**x_axis, "title": title, "zeroline": False, "gridcolor": GREY},
            "yaxis": y_axis,
            "legend": {"orientation": "h", "y": -0.2, "title": legend},
            "updatemenus": [{**BUTTONS, "buttons": buttons}],
        }

    def button(self, label: str, reach: float, root: bool) -> Row:
        """What a press changes: every trace's x, and the axis."""
        xs = [rounded(np.sqrt(kl) if root else kl) for kl in self.kls]
        axis = {f"xaxis.{key}": value for key, value in kl_axis(reach, root).items()}
        return {"label": label, "method": "update", "args": [{"x": xs}, axis]}

    def html(self, o: Overlay, name: str) -> str:
        from plotly.io import to_html

        figure = {"data": self.traces, "layout": self.layout(o)}
        return to_html(
            figure,
            config=BAR,
            div_id=name,
            include_plotlyjs=False,
            include_mathjax=False,
            full_html=False,
            validate=False,
        )


def add_fit(plot: Plot, o: Overlay, group: Group, colour: str) -> None:
    """The fit to gold and its interval, where there is one."""
    row = row_of(o.summary, group)
    if row:
        kl, fitted, low, high = band(row, o.lift(group))
        faint = colour.replace("rgb", "rgba").replace(")", ", 0.12)")
        there, back = np.concatenate([kl, kl[::-1]]), np.concatenate([low, high[::-1]])
        plot.add(there, back, o.label(group), fill="toself", fillcolor=faint, line={"width": 0})
        plot.add(kl, fitted, o.label(group), line={"color": colour, "width": 1, "dash": "dashdot"})


def add_curve(plot: Plot, o: Overlay, group: Group, colour: str) -> None:
    """The means over seeds of gold and, where it is known, proxy."""
    up, name, known = o.lift(group), o.label(group), has_proxy(group)
    kl, gold = mean_curve(group, "gold")
    proxy = mean_curve(group, "proxy")[1] if known else np.full_like(gold, np.nan)
    seeds = f", mean of {len(group.curves)} seeds" if len(group.curves) > 1 else ""
    texts_G = [scores_text(*point) + seeds for point in zip(kl, gold + up, proxy + up, strict=True)]
    plot.add(kl, gold + up, name, texts_G, line={"color": colour, "width": 2.2}, showlegend=True)
    if known:
        plot.add(kl, proxy + up, name, texts_G, line={"color": colour, "width": 1.4, "dash": "dash"})


def add_seeds(plot: Plot, o: Overlay, group: Group, colour: str, responses: Responses) -> None:
    """Gold of every seed, as dots."""
    up = o.lift(group)
    points = [point for i in range(len(group.curves)) for point in seed_points(group, i, up, responses)]
    kl, gold, tooltips = zip(*points, strict=True)
    plot.add(kl, gold, o.label(group), tooltips, mode="markers", marker={"color": colour, "size": 5, "opacity": 0.45})


def literal(text: str) -> str:
    """A text that plotly shows as it is: it reads markup, `%{...}` and, between two $, formulas."""
    return html.escape(text).replace("%{", "% {").replace("$", "&#36;")


def rounded(x: Any) -> list[float]:
    """Four digits are more than anybody sees, and half the bytes."""
    return [float(f"{v:.4g}") for v in np.asarray(x, float)]


def kl_axis(reach: float, root: bool) -> Row:
    """Settings of an axis of KL in nats up to `reach`, on a square-root scale or as it is."""
    ticks, place = kl_ticks(reach), np.sqrt if root else np.asarray
    return {
        "tickvals": rounded(place(ticks)),
        "ticktext": [f"{t:g}" for t in ticks],
        "range": [0.0, float(place(1.01 * reach))],
        "title.text": "KL, nats (square-root scale)" if root else "KL, nats",
    }


def scores_text(kl: float, gold: float, proxy: float) -> str:
    """A point in a tooltip: its KL, and means over prompts."""
    text = f"KL {kl:.3g} nats, means:<br>gold {gold:.3f}"
    return f"{text}, proxy {proxy:.3f}" if np.isfinite(proxy) else text


def point_key(id: CurveId, step_or_n: float) -> Point:
    """What identifies one point of one seed's curve."""
    return id, float(step_or_n)


def seed_points(group: Group, i: int, up: float, responses: Responses) -> list[tuple[float, float, str]]:
    """(KL, gold, tooltip) of the points of one seed, lifted by `up`."""
    c, out = group.curves[i], []
    axis, seed = find(group.method).axis, i if c.id.seed is None else c.id.seed
    for kl, gold, proxy, at in zip(c.kl, c.gold + up, c.proxy + up, c.step_or_n, strict=True):
        lines = [scores_text(kl, gold, proxy), f"seed {seed}"]
        if np.isfinite(at):
            lines = [f"{axis} {at:,.0f}", *lines, *response_lines(responses.get(point_key(c.id, at), ""))]
        out.append((float(kl), float(gold), "<br>".join(lines)))
    return out


def response_lines(text: str) -> list[str]:
    """The start of a response, as lines of a tooltip; none where there is no text."""
    if not text:
        return []
    lines = textwrap.wrap(textwrap.shorten(text, SHOWN), 48)
    return ["one response to the first prompt:", *(f"<i>{literal(line)}</i>" for line in lines)]
