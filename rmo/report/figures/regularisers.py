"""RL regularised, estimated or averaged otherwise, beside PPO as it stands; and stopping it without gold."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes

from rmo.analysis.blind_stopping import where_moved
from rmo.analysis.curve_id import CurveId, Settings
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.claims.evidence import Evidence, View
from rmo.claims.kinds import ALONE, Estimate, estimate
from rmo.claims.rl_regularisers import fading_stop, others_stop, regret
from rmo.methods.method import find
from rmo.methods.paper import PPO
from rmo.report.figures.beyond import METHOD_COLOURS, mean_along
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.style import Figure, largest_kl, line_kind, log_axis, mean_curve, panels, size, sqrt_axis

REGULARISERS = ("kl_coef", "chi2_coef", "length_coef", "bounded")
SHARE_METHODS = ("rloo", "grpo", "weight_average")  # that are compared with PPO at equal KL


@drawing
def regularisers(f: Files) -> Figure:
    """Regularisers of RL.

    Gold (solid) and proxy (dashed) against KL, means over seeds, beside PPO as it stands (black), for the RM size with
    the most of them. Left: PPO with another reward or penalty. Right: other estimators of the gradient, and averages of
    the optimised weights with the start's."""
    plain, ours, theirs = beside_ppo(f)
    shown = [(title, groups) for title, groups in (("PPO with", ours), ("PPO and", theirs)) if groups]
    figure, axes = panels(len(shown), 5.4, 4.0)
    for axis, (title, groups) in zip(axes, shown, strict=True):
        draw(axis, plain, "0.1", "as it stands" if groups is ours else find(PPO).short)
        for g, colour in zip(groups, itertools.cycle(METHOD_COLOURS), strict=False):
            name = [] if groups is ours else [find(g.method).short]
            draw(axis, g, colour, " ".join([*name, str(g.id.settings)]).strip())
        axis.axhline(0, color="0.6", lw=0.8)
        sqrt_axis(axis, largest_kl([plain, *groups]))
        axis.set_xlabel("KL from the initial policy, nats (square-root scale)")
        axis.set_title(f"{title} ...; RM of {size(plain.params)} parameters", loc="left", fontsize=10)
        handles, _ = axis.get_legend_handles_labels()
        axis.legend(handles=[*handles, line_kind("gold"), line_kind("proxy", lw=1, ls="--")], fontsize=7)
    axes[0].set_ylabel("RM score (gold standard deviations)")
    return figure


def draw(axis: Axes, g: Group, colour: object, label: str) -> None:
    """Mean gold and proxy of one group."""
    axis.plot(*mean_curve(g, "gold"), color=colour, lw=1.5, label=label)
    axis.plot(*mean_curve(g, "proxy"), "--", color=colour, lw=0.9)


def beside_ppo(f: Files) -> tuple[Group, list[Group], list[Group]]:
    """(PPO as it stands, PPO regularised, other methods) against the RM with the most of the latter two."""
    found: list[tuple[Group, list[Group], list[Group]]] = []
    same: dict[CurveId, list[Group]] = defaultdict(list)  # by what PPO as it stands is called there
    for method in (PPO, *SHARE_METHODS):
        for g in f.all(method):
            same[replace(g.id, method=PPO, settings=Settings())].append(g)
    for plain in f.groups(PPO):
        beside = [g for g in same[plain.id] if g.id.method == PPO]
        ours = [g for g in beside if len(g.id.settings) == 1 and set(g.id.settings) <= set(REGULARISERS)]
        theirs = [g for g in same[plain.id] if g.id.method != PPO]
        beyond_kl = [g for g in ours if "kl_coef" not in g.id.settings]
        if beyond_kl or theirs:
            found.append((plain, ours, theirs))
    if not found:
        raise Missing("no RL with a regulariser, or by another method that shares PPO's rollouts, beside PPO itself")
    return max(found, key=lambda row: len(row[1]) + len(row[2]))


@drawing
def stopping_without_gold(f: Files) -> Figure:
    """Stopping without gold.

    PPO stopped by rules that never see its gold: where the proxy gains half of what it gained per d at first; where
    other RM sizes peaked; where entropy has halved; where length has moved by a quarter. Left: KL of each stop by RM
    size, beside the peak. Right: gold lost against the best on the curve, mean over RM sizes, with its interval over
    seeds and prompts."""
    swept = [c for g in f.sizes(PPO) for c in g.curves]
    evidence = Evidence(swept, draws=0)  # resampling others would change nothing
    groups = evidence.sizes(PPO)
    stops = {name: {id(g): rule(g) for g in groups} for name, rule in rules(f, evidence, groups).items()}
    figure, (left, right) = panels(2, 5.0, 3.9)
    peaks = [evidence.whole.line(g).peak()[0] ** 2 for g in groups]
    left.plot([g.params for g in groups], peaks, "k*-", ms=8, lw=0.8, label="highest gold")
    level = f.experiment.get("fits", {}).get("level", 0.95)
    for row, ((name, of_group), colour) in enumerate(zip(stops.items(), METHOD_COLOURS, strict=False)):
        kl = [of_group[id(g)] ** 2 for g in groups]
        left.plot([g.params for g in groups], kl, "o-", color=colour, lw=1, ms=4, label=name)
        found = mean_regret(evidence, groups, of_group)
        low, high = found.interval(level)
        right.plot([low, high], [row, row], color=colour, lw=1.5)
        right.plot(found.number, row, "o", color=colour)
    log_axis(left)
    left.set_ylabel("KL at the stop, nats")
    left.legend(fontsize=8)
    right.axvline(0, color="0.6", lw=0.8)
    right.set_yticks(range(len(stops)), list(stops))
    right.set_xlabel("gold lost (gold standard deviations)")
    return figure


def rules(f: Files, evidence: Evidence, groups: Sequence[Group]) -> dict[str, Callable[[Group], float]]:
    """d at which each rule stops a group's runs, by what the rule goes by."""
    whole = evidence.whole

    def moved(name: str, by: float) -> Callable[[Group], float]:
        def stop(g: Group) -> float:
            kl, shown = mean_along(f.health(PPO).of(g.id), lambda row: row[name])
            end = whole.line(g).end
            return min(where_moved(np.sqrt(kl), shown, by), end) if shown[0] else end

        return stop

    found: dict[str, Callable[[Group], float]] = {"proxy's gain": lambda g: fading_stop(whole, g)}
    if len(groups) > 1:
        found["others' peaks"] = lambda g: others_stop(whole, g, groups)
    there = f.health(PPO)
    for name, by in (("entropy", 0.5), ("length", 0.25)):
        if there and name in there[0] and all(there.of(g.id) for g in groups):
            found[name] = moved(name, by)
    return found


def mean_regret(evidence: Evidence, groups: Sequence[Group], stops: dict[int, float]) -> Estimate:
    """Gold that a rule loses, mean over groups, with its error over seeds and prompts."""

    def on(view: View) -> float:
        return float(np.mean([regret(view, g, stops[id(g)]) for g in groups]))

    values = np.full((len(evidence.resamples.share_NQ), 1), np.nan)
    for n in evidence.resamples.exact:
        values[n] = on(evidence.view(int(n)))
    return estimate(ALONE, values, evidence.resamples)
