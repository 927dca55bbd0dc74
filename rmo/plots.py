"""Figures, drawn from curves and coefficients; each function returns a matplotlib Figure."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from rmo import fit
from rmo.curve import METHODS, Curve

METHOD_NAMES = {"bon": "best-of-n", "ppo": "RL (PPO)"}
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


def svg(figure: Figure) -> str:
    """The figure as SVG text, byte for byte the same for the same data."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _axes(columns: int, width: float = 5.6, height: float = 3.9) -> tuple[Figure, list[Axes]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * columns, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def colours(count: int) -> list[Any]:
    """From the smallest RM (dark) to the largest."""
    return [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.0, 0.85, max(count, 1))]


def sqrt_axis(axis: Axes, kl_max: float) -> None:
    """x is KL in nats on a square-root scale, so equal steps are equal sqrt(KL)."""
    axis.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    ticks = [t for t in (0, 0.25, 1, 2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 200) if t <= kl_max]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.set_xlim(0, kl_max)


def log_axis(axis: Axes) -> None:
    """x is RM parameters on a log scale, labelled at decades."""
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("proxy parameters")


def size(params: int) -> str:
    """801 -> 801, 24769 -> 25k."""
    return f"{params / 1e6:.3g}M" if params >= 1e6 else f"{params / 1e3:.3g}k" if params >= 1e3 else str(params)


def short_label(group: fit.Group, groups: Sequence[fit.Group]) -> str:
    """The RM's size where that tells the groups apart, else the whole label."""
    alone = group.params and [g.params for g in groups].count(group.params) == 1
    return size(group.params) if alone else group.label


def _mean_curve(group: fit.Group, name: str) -> tuple[np.ndarray, np.ndarray]:
    """KL and mean over seeds on the first seed's grid where all seeds share it, else on a common grid of d."""
    if all(np.array_equal(c.kl, group.curves[0].kl) for c in group.curves):
        return group.curves[0].kl, np.mean([getattr(c, name) for c in group.curves], axis=0)
    d = np.linspace(0, min(c.d.max() for c in group.curves), 60)
    return d**2, np.mean([np.interp(d, c.d, getattr(c, name)) for c in group.curves], axis=0)


def curves(all_curves: Sequence[Curve], summary: dict[str, Any], method: str) -> Figure:
    """Gold (solid, with every seed's points) and proxy (dashed) against KL, fits with bands (paper Fig. 1)."""
    groups = fit.group(all_curves, method)
    figure, (axis,) = _axes(1, 7.4, 4.4)
    top = max(c.kl.max() for g in groups for c in g.curves)
    fitted = {row["group"]: row for row in summary.get(method, {}).get("groups", [])}
    for group, colour in zip(groups, colours(len(groups)), strict=True):
        kl, gold = _mean_curve(group, "gold")
        for curve in group.curves:
            axis.plot(curve.kl, curve.gold, ".", ms=3, color=colour, alpha=0.45)
        axis.plot(kl, gold, color=colour, lw=1.6, label=short_label(group, groups))
        if all(np.isfinite(c.proxy).all() for c in group.curves):
            axis.plot(*_mean_curve(group, "proxy"), "--", color=colour, lw=1)
        band = fitted.get(group.label, {}).get("band")
        if band:
            axis.plot(band["kl"], band["fit"], color=colour, lw=0.8, ls=":")
            axis.fill_between(band["kl"], band["low"], band["high"], color=colour, alpha=0.12, lw=0)
    axis.axhline(0, color="0.6", lw=0.8)
    sqrt_axis(axis, top)
    low = min(np.min(c.gold) for g in groups for c in g.curves)
    highs = [
        max(np.nanmax(c.gold), np.nanmax(c.proxy) if np.isfinite(c.proxy).any() else -9)
        for g in groups
        for c in g.curves
    ]
    axis.set_ylim(low - 0.15, max(highs) + 0.15)
    axis.set_xlabel(f"KL({METHOD_NAMES[method]} policy || initial policy), nats, square-root scale")
    axis.set_ylabel("RM score (gold standard deviations)")
    axis.set_title(f"{METHOD_NAMES[method]}: gold solid, proxy dashed, fit dotted", loc="left", fontsize=10)
    axis.legend(title="proxy parameters", ncols=2, fontsize=8)
    return figure


def coefficients(summary: dict[str, Any]) -> Figure:
    """alpha and beta against RM size for both methods, with intervals and log-linear trends (paper Fig. 3)."""
    panels = [(m, name) for m in METHODS if m in summary for name in ("alpha", "beta")]
    figure, axes = _axes(max(len(panels), 1), 3.4, 3.2)
    for axis, (method, name) in zip(axes, panels, strict=False):
        rows = [row for row in summary[method]["groups"] if row["rm_params"]]
        x = np.array([row["rm_params"] for row in rows], float)
        y = np.array([row[name] for row in rows])
        low, high = np.array([row[f"{name}_interval"] for row in rows]).T.reshape(2, -1)
        axis.errorbar(x, y, [np.maximum(y - low, 0), np.maximum(high - y, 0)], fmt="o", ms=4, lw=1, capsize=2)
        trend = summary[method]["trends"].get(name)
        if trend:
            axis.plot(x, trend["at_1"] + trend["per_decade"] * np.log10(x), lw=0.9, color="C1")
        log_axis(axis)
        shared = " (shared)" if name == "alpha" and summary[method]["shared_alpha"] else ""
        axis.set_title(f"{'αβ'[name == 'beta']}, {METHOD_NAMES[method]}{shared}", loc="left", fontsize=10)
    return figure


def reward_models(infos: Sequence[dict[str, Any]]) -> Figure:
    """Validation loss and accuracy of the proxies against their size (paper Figs. 6 and 11)."""
    figure, axes = _axes(2, 4.2, 3.2)
    counts = sorted({info["comparisons"] for info in infos})
    for count, colour in zip(counts, colours(len(counts)), strict=True):
        chosen = sorted((i for i in infos if i["comparisons"] == count), key=lambda i: i["params"]["non_embedding"])
        x = [i["params"]["non_embedding"] for i in chosen]
        for axis, key in zip(axes, ("validation_loss", "validation_accuracy"), strict=True):
            axis.plot(x, [np.mean(i[key]) for i in chosen], "-", color=colour, lw=1.2, label=f"{count:,} comparisons")
            for i, params in zip(chosen, x, strict=True):
                axis.plot([params] * len(i[key]), i[key], ".", color=colour, ms=5)
    axes[0].axhline(np.log(2), color="0.5", lw=0.8, ls="--")
    axes[0].set_title("validation loss, nats (dashed: chance)", loc="left", fontsize=10)
    axes[1].set_title("validation accuracy", loc="left", fontsize=10)
    for axis in axes:
        log_axis(axis)
    axes[0].legend(fontsize=8)
    return figure


def proxy_against_gold(all_curves: Sequence[Curve]) -> Figure:
    """Gold score against proxy score along each curve, both methods (paper Fig. 8)."""
    figure, axes = _axes(2, 4.4, 3.6)
    for axis, method in zip(axes, METHODS, strict=True):
        groups = fit.group(all_curves, method)
        for group, colour in zip(groups, colours(len(groups)), strict=True):
            for i, curve in enumerate(group.curves):
                axis.plot(
                    curve.proxy, curve.gold, color=colour, lw=1, label=short_label(group, groups) if i == 0 else None
                )
        high = axis.get_ylim()[1]
        axis.plot([0, high], [0, high], color="0.6", lw=0.8, ls="--")
        axis.set_title(METHOD_NAMES[method], loc="left", fontsize=10)
        axis.set_xlabel("proxy score")
        axis.set_ylabel("gold score")
    axes[0].legend(title="proxy parameters", fontsize=8)
    return figure


def ppo_diagnostics(reads: dict[str, list[dict[str, float]]]) -> Figure:
    """KL, entropy, length, explained variance, clip fraction and KL efficiency along training, per proxy and seed."""
    panels = [
        ("kl", "KL from the initial policy, nats (exact)"), ("entropy", "entropy per token, nats"),
        ("length", "response length, tokens"), ("train_explained_variance", "critic's explained variance"),
        ("train_clip_fraction", "share of ratios clipped"), ("kl_efficiency", "proxy gain / best-of-n's at equal KL"),
    ]  # fmt: skip
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 6), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
    for axis, (name, title) in zip(axes, panels, strict=True):
        x_name = "step" if name == "kl" else "kl"
        for (label, rows), colour in zip(reads.items(), colours(len(reads)), strict=True):
            for seed in sorted({row["seed"] for row in rows}):
                part = [row for row in rows if row["seed"] == seed and np.isfinite(row[name])]
                axis.plot(
                    [r[x_name] for r in part],
                    [r[name] for r in part],
                    color=colour,
                    lw=1,
                    label=label if seed == 0 else None,
                )
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("PPO iteration" if name == "kl" else "KL, nats")
        if name != "kl":
            sqrt_axis(axis, max(row["kl"] for rows in reads.values() for row in rows))
    axes[0].legend(title="proxy", fontsize=8)
    return figure
