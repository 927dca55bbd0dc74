"""Figures that the paper does not have: all methods at once, tighter KL, RMs along the path, noise, regularisation."""

import itertools
from collections.abc import Callable, Sequence
from operator import itemgetter

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rmo.analysis.curve import forward
from rmo.analysis.curve_id import CurveId, Settings
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.methods.method import Method, find
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.methods.tilt import METHOD as TILT
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.style import (
    Colour,
    colours,
    has_proxy,
    largest_kl,
    legend,
    line_kind,
    mean_curve,
    panels,
    size,
    sqrt_axis,
)
from rmo.runtime.types import Row

METHOD_COLOURS = [to_rgba(colour) for colour in matplotlib.color_sequences["tab10"]]  # in the order of the methods


@drawing
def every_method(f: Files) -> Figure:
    """Every method on the same axes.

    Gold (solid) and proxy (dashed) against KL, means over seeds, for the smallest and the largest RM of the main sweep
    that several methods were run against. A method whose KL is an upper bound may have spent less than is drawn."""
    shared, colour_of = shared_rms(f), dict(zip(f.methods(), itertools.cycle(METHOD_COLOURS), strict=False))
    ends = [shared[0], shared[-1]] if len(shared) > 1 else shared
    figure, axes = panels(len(ends), 5.2, 3.9)
    for axis, groups in zip(axes, ends, strict=True):
        for method, group in groups.items():
            draw_method(axis, group, colour_of[method])
        axis.axhline(0, color="0.6", lw=0.8)
        sqrt_axis(axis, largest_kl(list(groups.values())))
        axis.set_xlabel("KL from the initial policy, nats (square-root scale)")
        axis.set_title(f"RM of {size(next(iter(groups.values())).params)} parameters", loc="left", fontsize=10)
    axes[0].set_ylabel("RM score (gold standard deviations)")
    shown = [method for method in f.methods() if any(method in groups for groups in ends)]
    handles = [Line2D([], [], color=colour_of[method], lw=1.6, label=method_label(method)) for method in shown]
    kinds = [line_kind("gold"), line_kind("proxy", lw=1, ls="--")]
    figure.legend(handles=[*handles, *kinds], loc="outside lower center", ncols=4, fontsize=8)
    return figure


def shared_rms(f: Files) -> list[dict[Method, Group]]:
    """For every RM of the main sweeps that several methods were run against, smallest first: each one's group."""
    found: dict[CurveId, dict[Method, Group]] = {}
    for method in f.methods():
        for group in f.sizes(method.name):
            found.setdefault(group.id.same_rm, {})[method] = group
    if len(f.methods()) < 2:
        raise Missing("one method only")
    shared = [id for id, groups in found.items() if len(groups) > 1]
    if not shared:
        raise Missing("no RM that several methods were run against")
    return [found[id] for id in sorted(shared, key=rm_size)]


def rm_size(id: CurveId) -> int:
    return id.rm_params


def draw_method(axis: Axes, group: Group, colour: Colour) -> None:
    """Mean gold and, where it is known, mean proxy of one group."""
    kl, gold = mean_curve(group, "gold")
    axis.plot(kl, gold, color=colour, lw=1.6)
    if has_proxy(group):
        kl, proxy = mean_curve(group, "proxy")
        axis.plot(kl, proxy, "--", color=colour, lw=1)


def method_label(method: Method) -> str:
    return f"{method.title}, KL is an upper bound" if method.kl == "bound" else method.title


@drawing
def beirami(f: Files) -> Figure:
    """Best-of-n's KL, tighter.

    The estimate of Beirami et al. (2024) from the probabilities of the selected responses against the bound log n -
    (n-1)/n, by RM size. Where responses are unlikely to repeat, the two agree."""
    groups = f.sizes(BEST_OF_N)
    given_by = [[c.kl_given for c in g.curves if c.kl_given is not None] for g in groups]
    if not all(given_by):
        raise Missing("no log-probabilities of the winners")
    figure, axes = panels(2, 4.6, 3.6)
    for g, estimates, colour in zip(groups, given_by, colours(len(groups)), strict=True):
        given = np.mean(estimates, axis=0)
        axes[0].plot(g.curves[0].kl, given, color=colour, lw=1.2, label=size(g.params))
        axes[1].plot(g.curves[0].kl, g.curves[0].kl - given, color=colour, lw=1.2)
    top = groups[0].curves[0].kl.max()
    axes[0].plot([0, top], [0, top], ":", color="0.5", lw=1)
    axes[0].set_ylabel("KL from the winners, nats")
    axes[1].set_ylabel("bound - estimate, nats")
    low, high = axes[1].get_ylim()
    axes[1].set_ylim(min(low, -0.01), max(high, 0.01))  # rounding errors are not a difference
    for axis in axes:
        axis.set_xlabel("bound log n - (n-1)/n, nats")
    legend(axes[0], "RM parameters")
    return figure


@drawing
def along_the_path(f: Files) -> Figure:
    """The RM along the path.

    Pairs of the optimised policy's own samples, judged by the RM that it is optimised against: accuracy
    (agreement with gold; 0.5 is chance) and overconfidence (the probability it gives its choice less the one gold
    gives it; 0 is calibrated)."""
    sweeps = {method: f.sizes(method) for method in (BEST_OF_N, PPO)}
    figure, axes = panels(2, 5.0, 3.1, rows=2)
    places = iter(axes)
    for title, (judge, neutral) in JUDGED.items():
        for method, groups in sweeps.items():
            axis = next(places)
            for group, colour in zip(groups, colours(len(groups)), strict=True):
                kl, mean = mean_along(f.paths.of(group.id), judge)
                axis.plot(kl, mean, color=colour, lw=1.2, label=size(group.params))
            axis.set_title(f"{title}, {find(method).title}", loc="left", fontsize=10)
            axis.axhline(neutral, color="0.5", lw=0.8, ls="--")
            sqrt_axis(axis, largest_kl(groups))
            axis.set_xlabel("KL, nats (square-root scale)")
    for left, right in (axes[:2], axes[2:]):
        right.sharey(left)
        left.autoscale(axis="y")
    legend(axes[0], "RM parameters")
    return figure


@drawing
def gold_and_annotator(f: Files) -> Figure:
    """Gold and what it learned from.

    Gold (solid) and the annotator or judge (dashed), each in its standard deviations on the initial policy, along
    best-of-n and RL by RM size; black: against gold itself. Where the two part, gold was optimised beyond what it
    knows. Dotted: the proxy, as far as there is room."""
    figure, axes = panels(2, 5.2, 3.6)
    for axis, method in zip(axes, (BEST_OF_N, PPO), strict=True):
        groups = f.sizes(method)
        shown = list(zip(groups, colours(len(groups)), strict=True))
        shown += [(g, to_rgba("black")) for g in f.all(method) if g.id.against_gold]
        for group, colour in shown:
            rows = f.paths.of(group.id)
            if not rows or not np.isfinite([row.get("annotator", np.nan) for row in rows]).all():
                raise Missing("no annotator along the paths")
            kl, gold = mean_along(rows, itemgetter("gold"))
            axis.plot(kl, gold, color=colour, lw=1.3, label=size(group.params))
            axis.plot(*mean_along(rows, itemgetter("annotator")), "--", color=colour, lw=1.1)
        beside_proxies(axis, shown)
        axis.set_title(find(method).title, loc="left", fontsize=10)
        axis.axhline(0, color="0.6", lw=0.8)
        sqrt_axis(axis, largest_kl([group for group, _ in shown]))
        axis.set_xlabel("KL, nats (square-root scale)")
    axes[0].set_ylabel("standard deviations above the initial policy")
    learned_from = "judge" if f.experiment.get("world", {}).get("judge") else "annotator"
    kinds = [line_kind("gold", lw=1.3), line_kind(learned_from, lw=1.1, ls="--"), line_kind("proxy", lw=0.8, ls=":")]
    legend(axes[0], "RM parameters", kinds)
    return figure


def beside_proxies(axis: Axes, shown: Sequence[tuple[Group, Colour]]) -> None:
    """Adds the proxies' scores, which go on rising: room for them, at most half as much above what is drawn already."""
    low, high = axis.get_ylim()
    most = high + (high - low) / 2
    for group, colour in shown:
        if has_proxy(group) and not group.id.against_gold:
            d, proxy = mean_curve(group, "proxy")
            axis.plot(d, proxy, ":", color=colour, lw=0.8)
            high = max(high, min(float(np.nanmax(proxy)), most))
    axis.set_ylim(low, high)


@drawing
def efficiency(f: Files) -> Figure:
    """Efficiency against gold itself.

    Left: gold along each optimiser when gold is its own proxy, and the exponential tilt of the pool, the most that any
    policy can have at a KL, with the optimiser's share of it. Right: how much of the KL, and of the gain in gold, is
    response length, rates of words, and the rest. KL's parts are the least that such lengths and rates cost; gold's are
    what a linear model on the initial policy's texts expects. Shares of a KL below 0.3 are not shown."""
    optimisers = [name for name in (PPO, BEST_OF_N) if any(g.id.against_gold for g in f.all(name))]
    frontier = f.gold(TILT.name)
    if not optimisers:
        raise Missing("no optimiser against gold itself")
    figure, axes = panels(3, 4.4, 3.3, rows=len(optimisers))
    colour_of = dict(zip((TILT.name, *optimisers), ("0.2", *METHOD_COLOURS), strict=False))
    groups = {TILT.name: frontier, **{name: f.gold(name) for name in optimisers}}
    for name, group in groups.items():
        style = "--" if name == TILT.name else "-"
        kl, gold = mean_curve(group, "gold")
        axes[0].plot(kl, gold, style, color=colour_of[name], lw=1.5, label=find(name).title)
    for name, rows in f.efficiency.get("at", {}).get(TILT.name, {}).items():
        for row in rows if name in colour_of else ():
            axes[0].plot(row["kl"], row["gold"], "o", ms=4, color=colour_of[name])
            below = (row["kl"], row["gold"]), (4, -11)
            axes[0].annotate(f"{row['ratio']:.2f}", below[0], below[1], textcoords="offset points", fontsize=8)
    sqrt_axis(axes[0], largest_kl(list(groups.values())))
    axes[0].set_xlabel("KL from the initial policy, nats (square-root scale)")
    axes[0].set_ylabel("gold (numbers: share of the tilt's)")
    axes[0].legend(fontsize=8)
    for i, name in enumerate(optimisers):
        rows = [row for row in f.split.of(groups[name].id) if row["kl"] > 0.3]
        for axis, what in zip(axes[3 * i + 1 : 3 * i + 3], ("kl", "gold"), strict=True):
            draw_shares(axis, rows, what)
            axis.set_title(f"{find(name).title}: share of {'KL' if what == 'kl' else 'gold'}", loc="left", fontsize=10)
    for axis in axes[3::3]:
        axis.set_visible(False)
    axes[1].legend(fontsize=8)
    return figure


PART_COLOURS = {"length": "#7a9cc6", "words": "#e0a458", "rest": "#c9c9c9"}


def draw_shares(axis: Axes, rows: Sequence[Row], what: str) -> None:
    """Length, words and the rest as shares of the whole, stacked along KL; shares below 0 hang from 0."""
    if not rows:
        raise Missing("no record of lengths and words")
    top, bottom = np.zeros(1), np.zeros(1)
    for part, colour in PART_COLOURS.items():
        kl, share = mean_along(rows, lambda row, part=part: row[f"{what}_{part}"] / row[what])
        keep = kl >= 0.3
        above, under = np.maximum(share[keep], 0.0), np.minimum(share[keep], 0.0)
        axis.fill_between(kl[keep], top + 0 * above, top + above, color=colour, lw=0, label=part)
        axis.fill_between(kl[keep], bottom + 0 * under, bottom + under, color=colour, lw=0)
        top, bottom = top + above, bottom + under
    axis.axhline(0, color="0.6", lw=0.8)
    sqrt_axis(axis, max(row["kl"] for row in rows))
    axis.set_xlabel("KL, nats (square-root scale)")


def accuracy(row: Row) -> float:
    return row["accuracy"]


def overconfidence(row: Row) -> float:
    return row["confidence"] - row["support"]


# {title: (what it is of a row of paths.csv, its value for an RM that guesses or is calibrated)}
JUDGED: dict[str, tuple[Callable[[Row], float], float]] = {
    "accuracy": (accuracy, 0.5),
    "overconfidence": (overconfidence, 0.0),
}


def mean_along(rows: Sequence[Row], judge: Callable[[Row], float]) -> tuple[np.ndarray, np.ndarray]:
    """(KL, mean over seeds) on a grid of 24 points, even in sqrt(KL), over what every seed reaches."""
    curves = []
    for seed in sorted({row["seed"] for row in rows}):
        mine = [row for row in rows if row["seed"] == seed]
        d = np.sqrt(np.maximum([row["kl"] for row in mine], 0.0))
        values = np.array([judge(row) for row in mine])
        curves.append((d[forward(d)], values[forward(d)]))
    grid = np.linspace(0, min(d[-1] for d, _ in curves), 24)
    return grid**2, np.mean([np.interp(grid, d, values) for d, values in curves], axis=0)


def bars(f: Files, pairs: Sequence[tuple[str, Group]], title: str) -> Figure:
    """Validation loss and highest best-of-n gold per labelled group; dots are seeds, colours RM sizes."""
    sizes = sorted({g.params for _, g in pairs})
    labels = list(dict.fromkeys(label for label, _ in pairs))
    figure, axes = panels(2, 5.6, 3.8)
    for label, g in pairs:
        step = sizes.index(g.params)
        x = labels.index(label) + 0.8 * (step + 0.5) / len(sizes) - 0.4
        colour = colours(len(sizes))[step]
        losses = f.loss(g.params, g.comparisons, recipe=g.id.rm_recipe)
        peaks = [float(c.gold.max()) for c in g.curves]
        spot(axes[0], x, losses, float(np.mean(losses)), colour)
        spot(axes[1], x, peaks, float(mean_curve(g, "gold")[1].max()), colour)
    for axis, name in zip(axes, ("validation loss, nats", "highest gold, best-of-n"), strict=True):
        axis.set_xticks(range(len(labels)), labels, fontsize=7, rotation=12)
        axis.set_ylabel(name)
    axes[0].axhline(np.log(2), color="0.5", lw=0.8, ls="--")
    for params, colour in zip(sizes, colours(len(sizes)), strict=True):
        axes[1].plot([], [], "_", ms=12, mew=2, color=colour, label=size(params))
    axes[1].legend(title=title, fontsize=8)
    return figure


def spot(axis: Axes, x: float, seeds: Sequence[float], middle: float, colour: Colour) -> None:
    """Every seed's value as a dot, and their middle as a bar."""
    axis.plot([x] * len(seeds), seeds, ".", color=colour, alpha=0.6)
    axis.plot([x], [middle], "_", ms=14, mew=2, color=colour)


def trained_with(f: Files, setting: str) -> list[Group]:
    """Groups of best-of-n against single RMs whose recipe has a setting."""
    found = [g for g in f.all(BEST_OF_N) if setting in g.id.rm_recipe and not g.id.rm_combined]
    if not found:
        raise Missing(f"no RMs whose recipe sets {setting}")
    return found


@drawing
def label_noise(f: Files) -> Figure:
    """Label noise.

    Best-of-n against RMs trained on labels of which a share is flipped, beside clean ones: validation loss (on
    clean labels) and highest gold. Coste et al. (2023) needed 25% noise to see best-of-n overoptimise."""
    noisy = trained_with(f, "flip")
    pairs = []
    for g in noisy:
        clean = f.groups(BEST_OF_N, rm_params=g.params, rm_comparisons=g.comparisons)
        pairs += [("clean labels", c) for c in clean]
        pairs.append((str(g.id.rm_recipe), g))
    return bars(f, pairs, "RM parameters")


@drawing
def diversity(f: Files) -> Figure:
    """Diversity of the comparisons.

    As many comparisons from few prompts or from many."""
    found = trained_with(f, "prompts")
    return bars(f, [(f"{g.comparisons:,}, {g.id.rm_recipe}", g) for g in found], "RM parameters")


@drawing
def regularisation(f: Files) -> Figure:
    """Regularisation.

    RMs trained for several epochs on few comparisons, plainly and with weight decay, dropout, label smoothing or
    early stopping: validation loss and highest gold."""
    repeated = trained_with(f, "epochs")
    found = [g for g in repeated if len(g.id.rm_recipe) > 1]
    if not found:
        raise Missing("no RMs trained with regularisation")
    base = Settings(epochs=found[0].id.rm_recipe["epochs"])
    plain = [g for g in repeated if g.id.rm_recipe == base and g.params in {x.params for x in found}]
    pairs = [(str(g.id.rm_recipe.without("epochs")) or "plain", g) for g in [*plain, *found]]
    return bars(f, pairs, f"RM parameters; {base}")


@drawing
def rival_forms(f: Files) -> Figure:
    """Rival forms.

    Error of each form on the upper half of the KL range when fitted to the lower half, with intervals; the form of
    the paper is filled. Grey: the spread of what was to be predicted, the error of a constant that knew its
    mean."""
    fitted = {method.name: part for method in f.methods() if (part := f.summary[method.name])["groups"]}
    if not fitted:
        raise Missing("too few points to fit")
    figure, axes = panels(len(fitted), 5.4, 3.6)
    for axis, (method, part) in zip(axes, fitted.items(), strict=True):
        rows = sorted(part["extrapolation"].items(), key=held_out_error, reverse=True)
        if not any(row["scored"] for _, row in rows):
            raise Missing("too few points to extrapolate")
        for i, (form, row) in enumerate(rows):
            low, high = (np.nan if end is None else end for end in row["interval"])
            axis.plot([low, high], [i, i], color="C0", lw=1)
            axis.plot(row["held_out_rmse"], i, "o", color="C0", mfc="C0" if form == part["form"] else "white")
        axis.axvline(rows[0][1]["held_out_spread"], color="0.6", lw=1, ls="--")
        axis.set_yticks(range(len(rows)), [form for form, _ in rows])
        axis.set_xscale("log")
        axis.set_xlabel("held-out error, gold standard deviations")
        axis.set_title(find(method).title, loc="left", fontsize=10)
    return figure


def held_out_error(item: tuple[str, Row]) -> float:
    """For sorting forms; infinite where none of their curves could be scored."""
    return item[1]["held_out_rmse"] or np.inf
