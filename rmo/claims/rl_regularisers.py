"""H10 to H19: RL otherwise optimised, regularised, averaged with its start, or stopped without gold.

Regions were written down before any run was looked at. What only changes how far a policy gets lies on the unpenalised
run's curve of gold over KL (as the paper says of the KL penalty, C19): a rule for stopping, within a small effect.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from rmo.analysis.blind_stopping import where_gain_fades, where_others_peaked
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.claims.claim import INF, SMALL, claim
from rmo.claims.evidence import Line, View
from rmo.claims.kinds import SIZE
from rmo.methods.paper import PPO

Pairs = list[tuple[Group, Group]]  # (PPO as it stands, the other), all else equal


def regularised(view: View, setting: str) -> Pairs:
    """For every coefficient of a regulariser."""
    there = {g.id: g for g in view.evidence.groups[PPO]}
    mine = [g for g in there.values() if setting in g.id.settings]
    return paired(there, [(replace(g.id, settings=g.id.settings.without(setting)), g) for g in mine], setting)


def by_method(view: View, method: str) -> Pairs:
    """For every group of a method that shares PPO's settings."""
    there = {g.id: g for g in view.evidence.groups[PPO]}
    mine = view.evidence.groups.get(method, [])
    same = [(replace(g.id, method=PPO, settings=g.id.settings.without("responses")), g) for g in mine]
    return paired(there, same, method)


def paired(there: dict, wanted: Sequence[tuple], what: str) -> Pairs:
    pairs = [(there[id], g) for id, g in wanted if id in there and not (g.id.rm_combined or g.id.rm_recipe)]
    if not pairs:
        raise Missing(f"no {what} runs beside PPO without it, against one RM")
    return pairs


def thirds(view: View, pairs: Pairs) -> list[float]:
    """Gold of the second less the first at equal d, mean over pairs, in thirds of the range that both reach."""
    out = []
    for first, second in pairs:
        a, b = view.line(first), view.line(second)
        d = np.linspace(0.1, 1, 24) * min(a.end, b.end)
        out.append((b.at(d) - a.at(d)).reshape(3, 8).mean(axis=1))
    return np.mean(out, axis=0).tolist()


def gained(view: View, pairs: Pairs, score: Callable[[Line], float]) -> float:
    """Mean over pairs of the second's score less the first's."""
    return float(np.mean([score(view.line(second)) - score(view.line(first)) for first, second in pairs]))


def last_gold(line: Line) -> float:
    """Over the last tenth of the range of d."""
    return float(line.at(np.linspace(0.9, 1, 8) * line.end).mean())


def highest(line: Line) -> float:
    return line.peak()[1]


# The same within a small effect, in every third of the range, so that differences do not cancel. Ahmadian et al. and
# Shao et al. compare rewards, not gold at equal KL; that what estimates the gradient is no matter there is our reading.


@claim("H10", (-INF, SMALL), "regularisers", SIZE)
def h10(view: View) -> list[float]:
    """At a given KL RLOO is as good as PPO.

    Gold of RLOO - of PPO at equal KL, mean over RMs; the largest of the thirds of the range of d."""
    return thirds(view, by_method(view, "rloo"))


@claim("H11", (-INF, SMALL), "regularisers", SIZE)
def h11(view: View) -> list[float]:
    """At a given KL GRPO is as good as PPO.

    Gold of GRPO - of PPO at equal KL, mean over RMs; the largest of the thirds of the range of d."""
    return thirds(view, by_method(view, "grpo"))


@claim("H12", (-INF, SMALL), "regularisers", SIZE)
def h12(view: View) -> list[float]:
    """At a given KL gold does not depend on a chi-squared penalty.

    Gold with - without it at equal KL, mean over coefficients and RMs; the largest of the thirds of the range of d."""
    return thirds(view, regularised(view, "chi2_coef"))


@claim("H13", (-INF, SMALL), "regularisers", SIZE)
def h13(view: View) -> list[float]:
    """At a given KL gold does not depend on a length penalty.

    Gold with - without it at equal KL, mean over coefficients and RMs; the largest of the thirds of the range of d."""
    return thirds(view, regularised(view, "length_coef"))


@claim("H14", (-INF, SMALL), "regularisers", SIZE)
def h14(view: View) -> list[float]:
    """At a given KL gold does not depend on whether rewards are bounded.

    Gold with a sigmoid - without at equal KL, mean over RMs; the largest of the thirds of the range of d."""
    return thirds(view, regularised(view, "bounded"))


# It prevents reward hacking, say Laidlaw et al. of their penalty: what is left of gold where a run ends must be larger
# by more than a small effect.


@claim("H15", (SMALL, INF), "regularisers")
def h15(view: View) -> float:
    """A chi-squared penalty keeps gold that is lost without it (Laidlaw et al. 2024).

    Gold at the end of the run with - without it, mean over coefficients and RMs."""
    return gained(view, regularised(view, "chi2_coef"), last_gold)


# Fu et al. say which way it goes, not how far; so do Rame et al. of averaging.


@claim("H16", (0, INF), "regularisers")
def h16(view: View) -> float:
    """Bounded rewards reach more gold (Fu et al. 2025).

    Peak with a sigmoid - without, mean over RMs."""
    return gained(view, regularised(view, "bounded"), highest)


@claim("H17", (0, INF), "regularisers")
def h17(view: View) -> float:
    """Averages of the start's weights and the optimised policy's have more gold at a given KL than PPO's on its way
    (Rame et al. 2024, WARP).

    Gold of averages - of PPO at equal KL, mean over the range of d and RMs."""
    return float(np.mean(thirds(view, by_method(view, "weight_average"))))


# A rule is as good as gold where it loses less than a small effect. Rules stop where they do on the data as they are: a
# statistic that jumps between resamples has no t interval, and what varies is what gold is worth there.


def regret(view: View, g: Group, stop: float) -> float:
    """Best gold on a group's curve less gold at d = `stop`."""
    line = view.line(g)
    return line.peak()[1] - float(line.at(stop))


def fading_stop(view: View, g: Group) -> float:
    """d at which the proxy's gain has fallen to half."""
    line = view.evidence.whole.line(g)
    return where_gain_fades(line.d, line.proxy)


def others_stop(view: View, g: Group, groups: Sequence[Group]) -> float:
    """The median d of the other RM sizes' peaks."""
    whole = view.evidence.whole
    return where_others_peaked(whole.line(g).end, [whole.line(o).peak()[0] for o in groups if o is not g])


@claim("H18", (-INF, SMALL), "stopping_without_gold")
def h18(view: View) -> float:
    """RL that stops where its proxy gains half of what it gained per d at first loses little gold.

    Best gold on the curve - gold at the stop, mean over RM sizes."""
    return float(np.mean([regret(view, g, fading_stop(view, g)) for g in view.sizes(PPO, 1)]))


@claim("H19", (-INF, SMALL), "stopping_without_gold")
def h19(view: View) -> float:
    """RL that stops at the KL where other RM sizes peaked loses little gold.

    Best gold on the curve - gold at the median d of the other sizes' peaks, mean over RM sizes."""
    groups = view.sizes(PPO, 2)
    return float(np.mean([regret(view, g, others_stop(view, g, groups)) for g in groups]))
