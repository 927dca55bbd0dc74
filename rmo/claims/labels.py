"""What labels buy, H50 to H53: active choice, prompts, noise, at as many labels. Best-of-n, highest gold of the curve.

The papers say which way each goes, not how far, so every region is a sign.
"""

from dataclasses import replace

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.claims.claim import INF, claim
from rmo.claims.evidence import View
from rmo.methods.paper import BEST_OF_N


def gained(view: View, pairs: list[tuple[Group, Group]]) -> float:
    """Mean over pairs of the second's peak less the first's, in gold sd."""
    return float(np.mean([view.line(second).peak()[1] - view.line(first).peak()[1] for first, second in pairs]))


def trained_with(view: View, key: str, value: str | None = None) -> list[Group]:
    """Groups of single RMs whose recipe has this key alone, with this value if one is given."""
    found = [g for g in view.evidence.groups[BEST_OF_N] if set(g.id.rm_recipe) == {key} and not g.id.rm_combined]
    return [g for g in found if value in (None, g.id.rm_recipe[key])]


def beside(view: View, groups: list[Group], recipe: Settings, what: str) -> list[tuple[Group, Group]]:
    """(RM of the same size on as many labels with this recipe, group) of every group that has such a one."""
    there = {g.id: g for g in view.evidence.groups[BEST_OF_N]}
    same = [(there.get(replace(g.id, rm_recipe=recipe)), g) for g in groups]
    pairs = [(other, g) for other, g in same if other]
    if not pairs:
        raise Missing(f"no RMs {what}")
    return pairs


@claim("H50", (0, INF), "labels")
def h50(view: View) -> float:
    """At as many labels, half of them spent where the RM is unsure give more gold than all at random.

    Peak gained by a choice, in gold sd, mean over choices and RM sizes."""
    return gained(view, beside(view, trained_with(view, "choice"), Settings(), "whose comparisons were chosen"))


@claim("H51", (0, INF), "labels")
def h51(view: View) -> float:
    """Pairs that seeds disagree about teach more than those that an RM itself is unsure about.

    Peak with disagreement less peak with uncertainty, in gold sd, mean over RM sizes."""
    mine = trained_with(view, "choice", "disagreement")
    return gained(view, beside(view, mine, Settings(choice="uncertain"), "with both choices"))


@claim("H52", (0, INF), "labels")
def h52(view: View) -> float:
    """As many labels teach more on more prompts.

    Peak with the most less peak with the fewest prompts, in gold sd, mean over RM sizes."""
    found: dict[tuple, list[Group]] = {}
    for g in sorted(trained_with(view, "prompts"), key=lambda g: g.id.rm_recipe.number("prompts")):
        found.setdefault((g.params, g.comparisons, g.id.policy_params), []).append(g)
    pairs = [(groups[0], groups[-1]) for groups in found.values() if len(groups) > 1]
    if not pairs:
        raise Missing("no RMs of as many comparisons from few and from many prompts")
    return gained(view, pairs)


@claim("H53", (0, INF), "labels")
def h53(view: View) -> float:
    """Flipped labels cost gold (Coste et al. 2023, section 4; Rame et al. 2024, section 5).

    Peak with clean labels less peak with flipped ones, as many, in gold sd, mean over RM sizes."""
    return -gained(view, beside(view, trained_with(view, "flip"), Settings(), "with flipped labels"))
