"""What labels buy: best-of-n's highest gold against the number of comparisons, by how they were chosen and labelled."""

import numpy as np
from matplotlib.axes import Axes

from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.methods.paper import BEST_OF_N
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.style import Colour, Figure, colours, mean_curve, panels, size

KINDS = {"choice": "sv", "prompts": "<>", "flip": "x"}  # fields of a recipe that spend labels otherwise, their markers


@drawing
def labels(f: Files) -> Figure:
    """Where the next thousand labels buy most gold.

    Left: best-of-n's highest gold (mean over seeds) against the comparisons that were labelled, at random (line) or
    spent otherwise (marks). Right: gold gained per thousand further labels, between neighbouring points of a line."""
    every = [g for g in f.all(BEST_OF_N) if not g.id.rm_combined and not g.id.settings and not g.id.against_gold]
    others = [g for g in every if len(g.id.rm_recipe) == 1 and set(g.id.rm_recipe) <= set(KINDS)]
    plain = f.groups(BEST_OF_N)
    sizes = sorted({g.params for g in plain if sum(other.params == g.params for other in plain) > 1})
    if not sizes or not others:
        raise Missing("no RMs whose comparisons were chosen or labelled otherwise, beside several numbers of them")
    figure, (left, right) = panels(2, 5.0, 3.9)
    marks = marks_of(others)
    for params, colour in zip(sizes, colours(len(sizes)), strict=True):
        draw_size(left, right, [g for g in plain if g.params == params], size(params), colour)
        for g in others:
            if g.params == params:
                left.plot(g.comparisons or 0, highest(g), marks[str(g.id.rm_recipe)], color=colour, ms=6, mfc="none")
    for recipe, mark in marks.items():
        left.plot([], [], mark, color="0.3", mfc="none", label=recipe)
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xlabel("labels (comparisons)")
    left.set_ylabel("highest gold (gold standard deviations)")
    right.set_ylabel("gold gained per 1,000 more labels")
    right.axhline(0, color="0.6", lw=0.8)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=7, title="RM parameters")
    return figure


def highest(g: Group) -> float:
    """Of the mean curve over seeds."""
    return float(mean_curve(g, "gold")[1].max())


def marks_of(groups: list[Group]) -> dict[str, str]:
    """A mark for every recipe, by its field."""
    out: dict[str, str] = {}
    for recipe in sorted({str(g.id.rm_recipe) for g in groups}):
        of_field = KINDS[recipe.partition("=")[0]]
        used = [mark for mark in out.values() if mark in of_field]
        out[recipe] = of_field[len(used) % len(of_field)]
    return out


def draw_size(left: Axes, right: Axes, groups: list[Group], name: str, colour: Colour) -> None:
    """One RM size on random labels."""
    groups = sorted(groups, key=lambda g: g.comparisons or 0)
    labels, gold = np.array([g.comparisons or 0 for g in groups], float), np.array([highest(g) for g in groups])
    left.plot(labels, gold, ".-", color=colour, lw=1.2, label=name)
    right.plot(np.sqrt(labels[1:] * labels[:-1]), 1000 * np.diff(gold) / np.diff(labels), ".-", color=colour, lw=1.2)
