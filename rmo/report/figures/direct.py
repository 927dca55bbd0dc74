"""Figures of direct alignment: gold against KL by loss and beta beside other methods, and what training shows of it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.methods.direct.door import METHOD
from rmo.methods.method import find
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.style import (
    Overlay,
    colours,
    draw_fit,
    largest_kl,
    line_kind,
    mean_curve,
    panels,
    size,
    sqrt_axis,
)

BESIDE = ((PPO, "--"), (BEST_OF_N, ":"))
MARKERS = {"dpo": "o", "ipo": "s", "slic": "^"}


def by_loss(f: Files) -> dict[str, list[Group]]:
    """Every loss's groups, smallest beta first, on the most comparisons with clean labels."""
    plain = [g for g in f.all(METHOD.name) if not g.id.rm_recipe]
    if not plain:
        raise Missing("no policies aligned without an RM")
    most, out = max(g.comparisons or 0 for g in plain), {}
    for g in sorted(plain, key=beta_of):
        if g.comparisons == most:
            out.setdefault(str(g.id.settings["loss"]), []).append(g)
    return out


def beta_of(g: Group) -> float:
    return g.id.settings.number("beta")


def beta_label(g: Group) -> str:
    return f"{beta_of(g):g}"


@drawing
def direct_alignment(f: Files) -> Figure:
    """Gold without a reward model.

    Gold against KL along DPO, IPO and SLiC on the run's own comparisons, by beta (means over seeds, dots: seeds, thin:
    the form that PPO is fitted with); grey: PPO and best-of-n against the largest RM of the main sweep."""
    losses = by_loss(f)
    others = beside(f)
    figure, axes = panels(len(losses), 4.4, 3.6)
    shown = [g for groups in losses.values() for g in groups]
    top = largest_kl([*shown, *(g for g, _ in others)])
    for axis, (loss, groups) in zip(axes, losses.items(), strict=True):
        for g, line in others:
            kl, gold = mean_curve(g, "gold")
            axis.plot(kl, gold, line, color="0.5", lw=1.3)
        overlay = Overlay(groups, f.summary, beta_label, "beta")
        for g, colour in zip(groups, colours(len(groups)), strict=True):
            for curve in g.curves:
                axis.plot(curve.kl, curve.gold, ".", ms=3, color=colour, alpha=0.35)
            axis.plot(*mean_curve(g, "gold"), color=colour, lw=1.6, label=beta_label(g))
            draw_fit(axis, overlay, g, colour)
        axis.axhline(0, color="0.6", lw=0.8)
        axis.set_title(loss.upper().replace("SLIC", "SLiC"), loc="left", fontsize=10)
        axis.set_xlabel("KL, nats (square-root scale)")
        sqrt_axis(axis, top)
    axes[0].set_ylabel("gold, sd above the initial policy")
    within(axes, [g for g, _ in others] + shown)
    labels = [f"{find(g.method).short}, RM of {size(g.params)}" for g, _ in others]
    kinds = [line_kind(label, lw=1.3, ls=line) for label, (_, line) in zip(labels, others, strict=True)]
    handles = axes[0].get_legend_handles_labels()[0]
    axes[0].legend(handles=[*handles, *kinds], title="beta", fontsize=8)
    return figure


def beside(f: Files) -> list[tuple[Group, str]]:
    """(group against the largest RM of the main sweep, line style) of the methods that a run has beside this one."""
    there = {method.name for method in f.methods()}
    return [(f.sizes(name)[-1], line) for name, line in BESIDE if name in there]


def within(axes: list[Axes], groups: list[Group]) -> None:
    """All panels show the same range of gold: that of the mean curves; bands of fits may go beyond."""
    gold = np.concatenate([mean_curve(g, "gold")[1] for g in groups])
    for axis in axes:
        axis.set_ylim(gold.min() - 0.15, gold.max() + 0.15)


@drawing
def direct_training(f: Files) -> Figure:
    """What training shows of it.

    Left: gold at its peak (filled) and at the end (open) by beta. Middle: gold along the updates, smallest beta of each
    loss. Right: the implicit reward's accuracy on held-out comparisons against gold, along every path, its end marked:
    what a validation set says beside what the policy is worth."""
    losses = by_loss(f)
    figure, axes = panels(3, 4.4, 3.6)
    for (loss, groups), colour in zip(losses.items(), ("C0", "C1", "C2"), strict=False):
        marker, betas = MARKERS[loss], [beta_of(g) for g in groups]
        golds = [mean_curve(g, "gold")[1] for g in groups]
        axes[0].plot(betas, [gold.max() for gold in golds], marker + "-", color=colour, label=loss)
        axes[0].plot(betas, [gold[-1] for gold in golds], marker + ":", color=colour, mfc="none")
        for i, curve in enumerate(groups[0].curves):
            label = f"{loss}, beta {beta_label(groups[0])}" if i == 0 else None
            axes[1].plot(curve.step_or_n, curve.gold, color=colour, lw=1.2, label=label)
        for g in groups:
            for curve in g.curves:
                rows = f.health(METHOD.name).of(curve.id)
                accuracy, gold = ([row[name] for row in rows] for name in ("held_accuracy", "gold"))
                axes[2].plot(accuracy, gold, color=colour, lw=0.6, alpha=0.5)
                axes[2].plot(accuracy[-1:], gold[-1:], marker, ms=4, color=colour)
    every = sorted({beta_of(g) for groups in losses.values() for g in groups})
    axes[0].set_xscale("log")
    axes[0].set_xticks(every, [f"{beta:g}" for beta in every])
    axes[0].minorticks_off()
    axes[0].set_xlabel("beta")
    axes[0].set_ylabel("gold, sd above the initial policy")
    axes[1].set_xlabel("update")
    axes[2].set_xlabel("implicit reward's accuracy, held-out pairs")
    for axis in axes[:2]:
        axis.axhline(0, color="0.6", lw=0.8)
        axis.legend(fontsize=8)
    return figure
