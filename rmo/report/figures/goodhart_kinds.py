"""Kinds of Goodhart that are made on purpose: a mark that goes with gold in the comparisons, a backdoor."""

import itertools
from dataclasses import replace

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.analysis.sweeps import Missing
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.report.figures.beyond import METHOD_COLOURS, mean_along
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.regularisers import draw
from rmo.report.figures.style import Figure, colours, largest_kl, line_kind, mean_curve, panels, size, sqrt_axis

KL = "KL from the initial policy, nats (square-root scale)"


@drawing
def causal_goodhart(f: Files) -> Figure:
    """Causal Goodhart.

    Best-of-n against RMs whose comparisons were selected so that a mark which does nothing for gold goes with what gold
    prefers (dashed), and against RMs on as many comparisons as they come (solid), by RM size, means over seeds. Left:
    gold. Right: the proxy."""
    there = {g.id: g for g in f.all(BEST_OF_N)}
    marked = [g for g in there.values() if set(g.id.rm_recipe) == {"confounded"} and not g.id.rm_combined]
    pairs = [(there.get(replace(g.id, rm_recipe=Settings())), g) for g in marked]
    pairs = sorted([(plain, g) for plain, g in pairs if plain], key=lambda pair: pair[1].params)
    if not pairs:
        raise Missing("no RMs of confounded comparisons beside those of as many that are not")
    figure, axes = panels(2, 5.0, 3.9)
    for axis, score in zip(axes, ("gold", "proxy"), strict=True):
        for (plain, g), colour in zip(pairs, colours(len(pairs)), strict=True):
            axis.plot(*mean_curve(plain, score), color=colour, lw=1.5, label=size(g.params))
            axis.plot(*mean_curve(g, score), "--", color=colour, lw=1.5)
        axis.axhline(0, color="0.6", lw=0.8)
        sqrt_axis(axis, largest_kl([g for pair in pairs for g in pair]))
        axis.set_xlabel(KL)
        axis.set_ylabel(f"{score} (gold standard deviations)")
    handles, _ = axes[0].get_legend_handles_labels()
    axes[0].legend(handles=[*handles, line_kind("as they come"), line_kind("confounded", ls="--")], fontsize=8)
    return figure


@drawing
def adversarial_goodhart(f: Files) -> Figure:
    """Adversarial Goodhart.

    PPO against an RM with a backdoor, which pays for a few tokens that the initial policy hardly ever writes, beside
    PPO against the same RM as it is (black); means over seeds. Left: gold (solid) and the RM's own score, without the
    bonus (dashed). Right: share of episodes that hold those tokens."""
    there = {g.id: g for g in f.all(PPO) if not g.id.rm_combined}
    without = {g.id: there.get(replace(g.id, settings=Settings())) for g in there.values()}
    bought = [g for g in there.values() if set(g.id.settings) == {"backdoor"} and without[g.id]]
    plain = list({found.id: found for g in bought if (found := without[g.id])}.values())
    if not plain:
        raise Missing("no PPO against an RM with a backdoor, beside one without")
    figure, (left, right) = panels(2, 5.0, 3.9)
    for g in plain:
        draw(left, g, "0.1", f"{size(g.params)}, as it is")
    for g, colour in zip(bought, itertools.cycle(METHOD_COLOURS), strict=False):
        draw(left, g, colour, f"{size(g.params)}, bonus {g.id.settings.number('backdoor'):g}")
        rows = f.health(PPO).of(g.id)
        rows = [row for row in rows if np.isfinite(row["triggered"])]  # the first read of older runs
        if rows:
            right.plot(*mean_along(rows, lambda row: row["triggered"]), color=colour, lw=1.5)
    left.axhline(0, color="0.6", lw=0.8)
    left.set_ylabel("RM score (gold standard deviations)")
    left.legend(fontsize=8)
    right.set_ylim(0, 1.02)
    right.set_ylabel("share of episodes that hold the trigger")
    for axis in (left, right):
        sqrt_axis(axis, largest_kl([*plain, *bought]))
        axis.set_xlabel(KL)
    return figure
