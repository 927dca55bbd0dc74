"""Overlays for the page: plotly's figures that answer to a pointer, with plotly's own script inside the page."""

import html
import textwrap
from typing import Any

import numpy as np

from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import Group
from rmo.methods.method import find
from rmo.report.figures.style import Overlay, kl_ticks, mean_curve, row_of, score_range

SCALE = ["#4f6bed", "#1fa187", "#e07b00"]  # from the smallest to the largest; to be seen on white and on black
GREY = "#888"
SHOWN = 300  # characters of a text that the pointer is told
BUTTONS = {"√KL": True, "KL": False}  # whether the axis is KL's root
LINES = "line: gold, dots: of its seeds, dashed: proxy, thin: fit, band: its interval"
BAR = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}


def rounded(x: Any) -> list[float]:
    """Four digits are more than anybody sees, and half the bytes."""
    return [float(f"{v:.4g}") for v in np.asarray(x, float)]


def div(o: Overlay, figure_name: str, texts: dict[tuple, str]) -> str:
    """An overlay as HTML; its id is `<figure_name>-plot`. `texts` is what was written at the points, by `point_key`."""
    import plotly.graph_objects as go
    from plotly.colors import sample_colorscale

    figure, kls = go.Figure(), []

    def add(kl, y, name: str, texts: list[str] | None = None, **how: Any) -> None:
        """x goes in as the root of KL, which a button changes."""
        kls.append(np.asarray(kl, float))
        name, said = html.escape(name).replace("%{", "% {"), {"hoverinfo": "skip"}  # plotly reads both
        if texts:
            said = {"text": texts, "hovertemplate": f"<b>{name}</b><br>%{{text}}<extra></extra>"}
        how = {"mode": "lines", "showlegend": False, **said, **how}
        figure.add_scatter(x=rounded(np.sqrt(kls[-1])), y=rounded(y), name=name, legendgroup=name, **how)

    places = np.linspace(0, 1, len(o.groups)) if len(o.groups) > 1 else np.zeros(1)
    for group, colour in zip(o.groups, map(str, sample_colorscale(SCALE, places.tolist())), strict=True):
        up, name = o.lift(group), o.label(group)
        if row := row_of(o.summary, group):
            kl = row["band"]["kl"]
            fitted, low, high = (np.array(row["band"][n], float) + up for n in ("fit", "low", "high"))
            faint = colour.replace("rgb", "rgba").replace(")", ", 0.12)")
            outline = np.concatenate([low, high[::-1]])
            add([*kl, *kl[::-1]], outline, name, fill="toself", fillcolor=faint, line={"width": 0})
            add(kl, fitted, name, line={"color": colour, "width": 1, "dash": "dashdot"})
        kl, gold = mean_curve(group, "gold")
        seeds = f", mean of {len(group.curves)} seeds" if len(group.curves) > 1 else ""
        known = all(np.isfinite(c.proxy).all() for c in group.curves)
        proxy = mean_curve(group, "proxy")[1] if known else np.full_like(gold, np.nan)
        texts_G = [told(*point) + seeds for point in zip(kl, gold + up, proxy + up, strict=True)]
        add(kl, gold + up, name, texts_G, line={"color": colour, "width": 2.2}, showlegend=True)
        if known:
            add(kl, proxy + up, name, texts_G, line={"color": colour, "width": 1.4, "dash": "dash"})
        points = [p for i in range(len(group.curves)) for p in seed_points(group, i, up, texts)]
        kl, gold, said = zip(*points, strict=True)
        add(kl, gold, name, list(said), mode="markers", marker={"color": colour, "size": 5, "opacity": 0.45})

    low, high = score_range(o)
    reach = max(float(c.kl.max()) for g in o.groups for c in g.curves)
    buttons = []
    for label, root in BUTTONS.items():
        xs = [rounded(np.sqrt(kl) if root else kl) for kl in kls]
        axis = {f"xaxis.{key}": value for key, value in kl_axis(reach, root).items()}
        buttons.append({"label": label, "method": "update", "args": [{"x": xs}, axis]})
    figure.update_layout(
        template="none", height=480, margin={"l": 50, "r": 10, "t": 40, "b": 40}, hovermode="closest",
        hoverlabel={"bgcolor": "#2b2f36", "font": {"color": "#fff", "size": 12}},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"family": "system-ui, sans-serif"},
        xaxis={"title": {"standoff": 6}, "zeroline": False, "gridcolor": GREY},
        yaxis={"title": {"text": o.unit}, "range": [low, high], "zerolinecolor": GREY, "gridcolor": GREY},
        legend={"orientation": "h", "y": -0.2, "title": {"text": f"{o.title} ({LINES})", "side": "top"}},
        updatemenus=[{
            "type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom",
            "pad": {"t": 0, "r": 0}, "buttons": buttons,
        }],
    )  # fmt: skip
    figure.update_layout({key.replace(".", "_"): value for key, value in buttons[0]["args"][1].items()})
    made = figure.to_html(
        full_html=False, include_plotlyjs=False, include_mathjax=False, div_id=f"{figure_name}-plot", config=BAR
    )
    return f"<div class=plot>{made}</div>"


def kl_axis(reach: float, root: bool) -> dict[str, Any]:
    """Settings of an axis of KL in nats up to `reach`, on a square-root scale or as it is."""
    ticks, place = kl_ticks(reach), np.sqrt if root else np.asarray
    return {
        "tickvals": rounded(place(ticks)), "ticktext": [f"{t:g}" for t in ticks], "range": [0.0, float(place(reach))],
        "title.text": "KL, nats (square-root scale)" if root else "KL, nats",
    }  # fmt: skip


def told(kl: float, gold: float, proxy: float) -> str:
    """What the pointer is told of a point: means over prompts."""
    return f"KL {kl:.3g} nats, means:<br>gold {gold:.3f}" + (f", proxy {proxy:.3f}" if np.isfinite(proxy) else "")


def point_key(id: CurveId, step_or_n: float) -> tuple[CurveId, int]:
    """What identifies one point of one seed's curve."""
    return id, int(step_or_n)


def seed_points(group: Group, i: int, up: float, texts: dict[tuple, str]) -> list[tuple[float, float, str]]:
    """(KL, gold, what the pointer is told) of one seed's points."""
    c, out = group.curves[i], []
    axis = find(group.method).axis
    for kl, gold, proxy, at in zip(c.kl, c.gold + up, c.proxy + up, c.step_or_n, strict=True):
        seed = i if c.id.seed is None else c.id.seed
        said = [told(kl, gold, proxy), f"seed {seed}"]
        if np.isfinite(at):
            said = [f"{axis} {at:,.0f}", *said]
            text = texts.get(point_key(c.id, at), "")
            said += ["one response to the first prompt:"] if text else []
            said += [f"<i>{html.escape(line)}</i>" for line in textwrap.wrap(textwrap.shorten(text, SHOWN), 48)]
        out.append((float(kl), float(gold), "<br>".join(said)))
    return out
