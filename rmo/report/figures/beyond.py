"""Figures of what the paper leaves open: KL from the winners, RMs along the path, noise, data, regularisation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmo.analysis.curve import forward
from rmo.analysis.curve_id import Settings
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.methods.method import find
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.report.figures.drawing import Files, drawing, of_id
from rmo.report.figures.style import colours, mean_curve, panels, size, sqrt_axis


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
    axes[0].legend(title="RM parameters", fontsize=8)
    return figure


@drawing
def along_the_path(f: Files) -> Figure:
    """The RM along the path.

    Pairs of the optimised policy's own samples, judged by the same RM as it is optimised against: accuracy
    (agreement with gold; 0.5 is chance) and overconfidence (the probability it gives its choice less the one gold
    gives it; 0 is calibrated)."""
    figure, axes = panels(4, 3.5, 3.4)
    for m, method in enumerate((BEST_OF_N, PPO)):
        groups = f.sizes(method)
        for g, colour in zip(groups, colours(len(groups)), strict=True):
            rows = of_id(f.paths, g.id)
            for i, get in enumerate((lambda r: r["accuracy"], lambda r: r["confidence"] - r["support"])):
                axis = axes[2 * i + m]
                seeds = sorted({r["seed"] for r in rows})
                curves = [np.array([(max(r["kl"], 0.0) ** 0.5, get(r)) for r in rows if r["seed"] == s]) for s in seeds]
                curves = [c[forward(c[:, 0])] for c in curves]
                d = np.linspace(0, min(c[-1, 0] for c in curves), 24)
                mean = np.mean([np.interp(d, *c.T) for c in curves], axis=0)
                axis.plot(d**2, mean, color=colour, lw=1.2, label=size(g.params))
        for i, label in enumerate(("accuracy", "overconfidence")):
            axis = axes[2 * i + m]
            axis.set_title(f"{label}, {find(method).title}", loc="left", fontsize=10)
            axis.axhline((0.5, 0.0)[i], color="0.5", lw=0.8, ls="--")
            sqrt_axis(axis, max(c.kl.max() for g in groups for c in g.curves))
            axis.set_xlabel("KL, nats")
    axes[0].legend(fontsize=7)
    return figure


def bars(f: Files, pairs: Sequence[tuple[str, Group]], title: str) -> Figure:
    """Validation loss and highest best-of-n gold per labelled group; dots are seeds, colours RM sizes."""
    sizes = sorted({g.params for _, g in pairs})
    labels = list(dict.fromkeys(label for label, _ in pairs))
    figure, axes = panels(2, 5.6, 3.8)
    for (label, g), step in ((pair, sizes.index(pair[1].params)) for pair in pairs):
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


def spot(axis: Axes, x: float, seeds: Sequence[float], middle: float, colour: Any) -> None:
    axis.plot([x] * len(seeds), seeds, ".", color=colour, alpha=0.6)
    axis.plot([x], [middle], "_", ms=14, mew=2, color=colour)


def trained_with(f: Files, setting: str) -> list[Group]:
    """Groups of best-of-n against single RMs whose recipe has a setting."""
    found = [g for g in f.all(BEST_OF_N) if setting in g.id.rm_recipe and not g.id.rm_combined]
    if not found:
        raise Missing(f"no RMs with {setting}")
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
    figure, axes = panels(len(f.summary), 5.4, 3.6)
    for axis, (method, part) in zip(axes, f.summary.items(), strict=True):
        rows = sorted(part["extrapolation"].items(), key=lambda item: item[1]["held_out_rmse"] or np.inf, reverse=True)
        if not any(row["scored"] for _, row in rows):
            raise Missing("too few points to extrapolate")
        for i, (form, row) in enumerate(rows):
            low, high = (np.nan if v is None else v for v in row["interval"])
            axis.plot([low, high], [i, i], color="C0", lw=1)
            axis.plot(row["held_out_rmse"], i, "o", color="C0", mfc="C0" if form == part["form"] else "white")
        axis.axvline(rows[0][1]["held_out_spread"], color="0.6", lw=1, ls="--")
        axis.set_yticks(range(len(rows)), [form for form, _ in rows])
        axis.set_xscale("log")
        axis.set_xlabel("held-out error, gold standard deviations")
        axis.set_title(find(method).title, loc="left", fontsize=10)
    return figure
