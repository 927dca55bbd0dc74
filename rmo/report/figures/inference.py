"""Figures of hedges at inference: methods that choose among a pool's draws, rules that choose how hard, and why."""

import itertools
from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.methods.method import find
from rmo.methods.paper import BEST_OF_N
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.style import (
    colours,
    largest_kl,
    legend,
    line_kind,
    log_axis,
    mean_curve,
    panels,
    size,
    sqrt_axis,
)
from rmo.runtime.types import Row

HEDGES = ("soft_best_of_n", "best_of_poisson", "pessimism", "pessimism_n")
COLOURS = matplotlib.color_sequences["tab10"]


def smallest(f: Files) -> list[Group]:
    """Best-of-n and every hedge against best-of-n's smallest RM, one group for each setting."""
    if not any(f.all(name) for name in HEDGES):
        raise Missing("no hedges at inference (settings of soft best-of-n and others in `methods`)")
    main = f.sizes(BEST_OF_N)[0]
    return [main, *(g for name in HEDGES for g in f.all(name) if g.id.same_rm == main.id.same_rm)]


@drawing
def inference_methods(f: Files) -> Figure:
    """Ways to choose among draws, at equal KL.

    For the smallest RM, means over seeds, best-of-n and its hedges, which train nothing. Left: gold (solid) and proxy
    (dashed) against KL, a dot where a curve ends. Right: gold less best-of-n's at the same KL, as far as both go. KL of
    best-of-n and best-of-Poisson is a bound; temperature and beta are in units of the proxy's score."""
    groups = smallest(f)
    figure, (left, right) = panels(2, 5.2, 4.2)
    handles = []
    base_kl, base_gold = mean_curve(groups[0], "gold")
    for group, colour in zip(groups, itertools.cycle(COLOURS), strict=False):
        kl, gold = mean_curve(group, "gold")
        left.plot(kl, gold, color=colour, lw=1.6)
        left.plot(kl[-1:], gold[-1:], "o", color=colour, ms=4)
        left.plot(*mean_curve(group, "proxy"), "--", color=colour, lw=0.9)
        shared = kl <= base_kl[-1]
        beside = np.interp(np.sqrt(kl[shared]), np.sqrt(base_kl), base_gold)
        right.plot(kl[shared], gold[shared] - beside, color=colour, lw=1.4)
        setting = f", {group.id.settings}" if group.id.settings else ""
        handles.append(Line2D([], [], color=colour, lw=1.6, label=find(group.method).title + setting))
    for axis in (left, right):
        axis.axhline(0, color="0.6", lw=0.8)
        sqrt_axis(axis, largest_kl(groups))
        axis.set_xlabel("KL from the initial policy, nats (square-root scale)")
    left.set_ylabel("RM score (gold standard deviations)")
    left.set_title(f"RM of {size(groups[0].params)} parameters", loc="left", fontsize=10)
    right.set_title("gold less best-of-n's at equal KL", loc="left", fontsize=10)
    kinds = [line_kind("gold"), line_kind("proxy", lw=0.9, ls="--")]
    figure.legend(handles=[*handles, *kinds], loc="outside lower center", ncols=3, fontsize=7.5)
    return figure


def tables_of(f: Files, name: str) -> Iterator[tuple[CurveId, list[Row]]]:
    """(identity, rows of its points) of every curve of a hedge against the RMs of best-of-n's main sweep."""
    wanted = {g.id.same_rm for g in f.sizes(BEST_OF_N)}
    found: dict[CurveId, list[Row]] = {}
    for row in f.health(name):
        id = CurveId.of_cells({**row, "method": name})
        if id.group.same_rm in wanted and "gold_even" in row:
            found.setdefault(id, []).append(row)
    yield from found.items()


def both_ways(rows: list[Row]) -> tuple[float, float]:
    """(regret of the point that is best on one half of the prompts, regret of the last point), means over which half
    chooses and which judges."""
    even, odd = (np.array([row[name] for row in rows]) for name in ("gold_even", "gold_odd"))
    chosen = (even.max() - even[odd.argmax()] + odd.max() - odd[even.argmax()]) / 2
    return float(chosen), float(even.max() - even[-1] + odd.max() - odd[-1]) / 2


@drawing
def hedged_regret(f: Files) -> Figure:
    """What a hedge that is chosen on other prompts leaves lying.

    For every hedge and RM size, means over seeds and settings: highest gold on one half of the prompts less gold there
    at the parameter that is best on the other half (solid), and less gold at the end of the range, without a hedge
    (dashed). The highest is looked for on the judging prompts, which lifts both by chance."""
    figure, (axis,) = panels(1, 5.6, 4.0)
    for name, colour in zip(HEDGES, COLOURS[1:], strict=False):
        found: dict[int, list[tuple[float, float]]] = {}
        for id, rows in tables_of(f, name):
            found.setdefault(id.rm_params, []).append(both_ways(rows))
        if not found:
            continue
        params = sorted(found)
        chosen, end = np.array([np.mean(found[p], axis=0) for p in params]).T
        axis.plot(params, chosen, "o-", color=colour, ms=4, lw=1.4, label=find(name).title)
        axis.plot(params, end, "o--", color=colour, ms=3, lw=0.9)
    if not axis.lines:
        raise Missing("no hedges at inference (settings of soft best-of-n and others in `methods`)")
    log_axis(axis)
    axis.axhline(0, color="0.6", lw=0.8)
    axis.set_ylabel("regret (gold standard deviations)")
    axis.legend(fontsize=8, title="solid: chosen on other prompts")
    return figure


@drawing
def regressional(f: Files) -> Figure:
    """Gold, and what a straight line in the proxy would give.

    Best-of-Poisson by RM size, means over seeds: gold (solid) and the slope of gold on the proxy among the initial
    policy's responses, times the proxy's gain (dashed). Regressional Goodhart is the dashed line, which never falls;
    what is missing below it bends away where the proxy is high (extremal Goodhart)."""
    by_size: dict[int, list[list[Row]]] = {}
    for id, rows in tables_of(f, "best_of_poisson"):
        by_size.setdefault(id.rm_params, []).append(rows)
    if not by_size:
        raise Missing("no best-of-Poisson (its settings in `methods`)")
    figure, (axis,) = panels(1, 6.0, 4.2)
    for params, colour in zip(sorted(by_size), colours(len(by_size)), strict=True):
        kl, gold, straight = (
            np.mean([[row[name] for row in rows] for rows in by_size[params]], axis=0)
            for name in ("kl", "gold", "regressional")
        )
        axis.plot(kl, gold - gold[0], color=colour, lw=1.6, label=size(params))
        axis.plot(kl, straight, "--", color=colour, lw=0.9)
    axis.axhline(0, color="0.6", lw=0.8)
    sqrt_axis(axis, max(row["kl"] for every in by_size.values() for rows in every for row in rows))
    axis.set_xlabel(find("best_of_poisson").kl_axis)
    axis.set_ylabel("gold (standard deviations)")
    legend(axis, "RM parameters")
    return figure
