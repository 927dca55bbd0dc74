"""RLHF in rounds: gold along its KL by the number of rounds, and by what RMs learn from and where policies start."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.methods.paper import PPO, ROUNDS
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.style import Colour, colours, largest_kl, line_kind, mean_curve, panels, row_of, size, sqrt_axis
from rmo.runtime.types import Row


@drawing
def iterated(f: Files) -> Figure:
    """Gold along rounds of RLHF.

    Mean gold over seeds against total KL; circles are the ends of rounds, at which an RM is trained, on pairs of the
    policy that are labelled then where nothing else is said. Left: by the number of rounds, with RMs of the latest
    comparisons and policies that go on; dashed, in the colour of as many rounds, without new labels: RMs trained anew
    on the first comparisons, reweighted or all alike; dotted, what the paper predicts from the fit of one round
    (section 4.3). Right: most rounds, by what RMs learn from (the latest comparisons, all so far, or the first again)
    and where policies start (the latest policy or the initial one)."""
    several = [g for g in f.all(ROUNDS) if count(g) > 1]
    if not several:
        raise Missing("no runs of several rounds, with RMs trained anew in between")
    first = several[0].id  # one RM: the smallest
    same_rm = [g for g in several if g.id.same_rm == first.same_rm]
    plain = sorted((g for g in same_rm if set(g.id.settings) - {"kl"} == {"rounds"}), key=count)
    again = sorted((g for g in same_rm if on_first_labels(g)), key=lambda g: (count(g), str(g.id.settings)))
    most = max(map(count, same_rm))
    ways = [g for g in same_rm if count(g) == most]
    once = [g for g in [*f.all(PPO), *f.all(ROUNDS)] if is_one_round(g, first)][:1]
    figure, (left, right) = panels(2, 5.2, 3.9)
    numbers = [*once, *plain, *again]
    ks = sorted(set(map(count, numbers)))
    of_k = dict(zip(ks, colours(len(ks)), strict=True))
    names = {g.id.settings.without("rounds", "kl"): None for g in again}  # in order, each once
    dashes = dict(zip(names, DASHES * len(names), strict=False))
    styles = [dashes.get(g.id.settings.without("rounds", "kl"), SOLID) for g in numbers]
    draw_all(left, f, numbers, [in_rounds(g) for g in numbers], [of_k[count(g)] for g in numbers], styles)
    fit = row_of(f.summary, once[0]) if once else None
    if fit:
        for g in plain:
            draw_predicted(left, fit, count(g), largest_kl([g]) ** 0.5, of_k[count(g)])
    draw_all(right, f, ways, [way(g.id) for g in ways], colours(len(ways)), [SOLID] * len(ways))
    left.set_ylabel("gold (gold standard deviations)")
    left.set_title(f"RM of {size(first.rm_params)} parameters", loc="left", fontsize=10)
    right.set_title(f"{most} rounds", loc="left", fontsize=10)
    if fit:
        handles, _ = left.get_legend_handles_labels()
        left.legend(handles=[*handles, line_kind("the paper's prediction", lw=1, ls=":")], fontsize=8)
    return figure


def count(g: Group) -> int:
    """How many rounds."""
    return int(g.id.settings.number("rounds", 1))


def is_one_round(g: Group, other: CurveId) -> bool:
    """Whether a group is the RM of another's first round, optimised in one."""
    alone = not g.id.settings if g.method == PPO else set(g.id.settings) - {"kl"} == {"rounds"} and count(g) == 1
    return alone and g.id.same_rm == other.same_rm


def on_first_labels(g: Group) -> bool:
    """Whether RMs are trained anew on the first round's comparisons, for policies that go on."""
    return g.id.settings.get("data") == "reweighted" and "start" not in g.id.settings


DATA = {
    "latest": "latest comparisons",
    "concatenated": "all comparisons",
    "reweighted": "first comparisons, reweighted",
}
Style = str | tuple[float, Sequence[float]]
SOLID = "-"
# Dotted is what the paper predicts.
DASHES: tuple[Style, ...] = ("--", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (2, 1)))


def learned(id: CurveId) -> tuple[str, str]:
    """(what RMs of later rounds learn from, what else is set about that), in words."""
    rest = id.settings.without("rounds", "data", "start", "kl")
    if id.settings.get("data") == "reweighted" and not id.settings.number("flatten", 1):
        return "first comparisons, all alike", str(rest.without("flatten"))
    return DATA[str(id.settings.get("data", "latest"))], str(rest)


def in_rounds(g: Group) -> str:
    """How many rounds, and, where these label nothing, what their RMs learn from."""
    rounds = f"{count(g)} round{'s' if count(g) > 1 else ''}"
    return ", ".join(filter(None, [rounds, *(learned(g.id) if on_first_labels(g) else ())]))


def way(id: CurveId) -> str:
    """What tells the ways of going on apart, in words."""
    data, rest = learned(id)
    start = "from the initial policy" if id.settings.get("start") == "initial" else "going on"
    return ", ".join(filter(None, [data, start, rest]))


def draw_all(
    axis: Axes,
    f: Files,
    groups: Sequence[Group],
    labels: Sequence[str],
    shades: Sequence[Colour],
    styles: Sequence[Style],
) -> None:
    """Gold of some groups, the ends of their rounds marked."""
    for g, label, colour, style in zip(groups, labels, shades, styles, strict=True):
        kl, gold = mean_curve(g, "gold")
        axis.plot(kl, gold, color=colour, lw=1.6, ls=style, label=label)
        ends = round_ends(f.health(ROUNDS).of(g.id))
        axis.plot(ends, np.interp(ends, kl, gold), "o", color=colour, ms=5, mfc="white")
    axis.axhline(0, color="0.6", lw=0.8)
    sqrt_axis(axis, largest_kl(groups))
    axis.set_xlabel("KL from the initial policy, nats (square-root scale)")
    axis.legend(fontsize=8)


def round_ends(rows: Sequence[Row]) -> np.ndarray:
    """KL at the last point of every round, means over seeds, f64[k]."""
    last: dict[float, dict[object, float]] = {}
    for row in rows:
        last.setdefault(row["round"], {})[row["seed"]] = row["kl"]
    return np.array([np.mean(list(last[r].values())) for r in sorted(last)])


def draw_predicted(axis: Axes, fit: Row, k: int, end: float, colour: Colour) -> None:
    """What k rounds of equal d give if each gains what the first did, up to d = `end`."""
    d = np.linspace(0, end, 200)
    gold = predicted(fit["alpha"], fit["beta"], k, end, d)
    axis.plot(d**2, gold, ":", color=colour, lw=1)


def predicted(alpha: float, beta: float, k: int, end: float, d: np.ndarray) -> np.ndarray:
    """Gold at d along k rounds that each spend end/k and gain d(alpha - beta log d) with it, f64[K]; at the end that is
    end (alpha - beta log end) + beta end log k (paper section 4.3)."""

    def one(d: np.ndarray) -> np.ndarray:
        return d * (alpha - beta * np.log(np.where(d > 0, d, 1.0)))

    each = end / k
    done = np.minimum(np.floor(d / each + 1e-9), k - 1)
    return done * one(np.asarray(each)) + one(np.maximum(d - done * each, 0.0))
