"""The paper's figures, one function each, named after it and drawn from a run directory's files alone.

A function takes `Files` and returns a matplotlib Figure or an `Overlay`, or raises `Missing` with what the run lacks.
Captions say in our words what the paper's figure shows; `run_report.py` puts our reading, the verdicts, beside them.
"""

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmo.analysis.curve_id import CurveId, Settings
from rmo.analysis.fitting import Family, Group
from rmo.analysis.sweeps import Missing
from rmo.methods.method import find
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.report.figures.drawing import Files, drawing, simple
from rmo.report.figures.style import (
    GREEK,
    Overlay,
    colours,
    legend,
    line_kind,
    log_axis,
    mean_curve,
    panels,
    row_of,
    size,
)

FEW = 1000  # n at which the paper reads best-of-n in its Figures 5 and 21
BOXES = {
    "initial policy\n(SFT)": (0.08, 0.7),
    "pairs of\nresponses": (0.3, 0.7),
    "gold RM\nlabels them": (0.53, 0.7),
    "proxy RMs,\nmany sizes": (0.76, 0.7),
    "best-of-n or PPO\nagainst a proxy": (0.53, 0.15),
    "gold RM reads\nthe result": (0.85, 0.15),
}  # of Figure 2, by their place
ARROWS = ((0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (4, 5))  # from box to box


# Main text.


@drawing
def fig1a(f: Files) -> Overlay:
    """Figure 1a: RM size, best-of-n.

    Proxy (dashed) and gold (solid) score of the best of n against KL, one colour per RM size, with d(a - b d)
    fitted to gold. In the paper gold peaks between 4 and 10 nats for small RMs and still rises for the largest."""
    return simple(f, f.sizes(BEST_OF_N), "params", "RM parameters")


@drawing
def fig1b(f: Files) -> Overlay:
    """Figure 1b: RM size, RL.

    The same for PPO without a KL penalty, with d(a - b log d), one a for all RM sizes. In the paper gold peaks
    between 15 and 40 nats."""
    return simple(f, f.sizes(PPO), "params", "RM parameters")


@drawing
def fig2(f: Files) -> Figure:
    """Figure 2: the set-up.

    Instead of people, a gold RM labels pairs of the policy's samples (or what gold learned from does); proxies learn
    from the labels; the policy is optimised against a proxy while gold is read."""
    figure, (axis,) = panels(1, 8.6, 2.6)
    axis.axis("off")
    style = {"boxstyle": "round,pad=0.5", "fc": "#eef3f8", "ec": "0.4"}
    labeller = f.experiment.get("comparisons", {}).get("labelled_by", "gold")
    words = {"gold RM\nlabels them": "annotator\nlabels them"} if labeller != "gold" else {}
    boxes = [
        axis.text(x, y, words.get(text, text), ha="center", va="center", bbox=style, fontsize=10).get_bbox_patch()
        for text, (x, y) in BOXES.items()
    ]
    places = list(BOXES.values())
    for start, end in ARROWS:
        arrow = {"arrowstyle": "->", "color": "0.3", "patchA": boxes[start], "patchB": boxes[end]}
        axis.annotate("", xy=places[end], xytext=places[start], arrowprops={**arrow, "shrinkA": 3, "shrinkB": 3})
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.05, 0.95)
    return figure


def coefficient(f: Files, method: str, name: str) -> Figure:
    """A coefficient (alpha or beta) of the main sweep against RM size, of gold with intervals and of the proxy."""
    groups, m = [g for g in f.sizes(method) if row_of(f.summary, g)], find(method)
    if not groups:
        raise Missing(f"no {method} curve with enough points to be fitted")
    rows = [row for row in (row_of(f.summary, g) for g in groups) if row]
    figure, (axis,) = panels(1, 4.6, 3.6)
    x = np.array([row["rm_params"] for row in rows], float)
    y = np.array([row[name] for row in rows])
    low, high = np.array([row[f"{name}_interval"] for row in rows], float).T.reshape(2, -1)
    bars = [np.maximum(y - low, 0), np.maximum(high - y, 0)]
    axis.errorbar(x, y, bars, fmt="o", ms=4, lw=1, capsize=2, color="C0", label="gold")
    trend = f.summary[method]["trends"].get(name)
    if trend:
        axis.plot(x, trend["at_1"] + trend["per_decade"] * np.log10(x), lw=0.9, color="C0")
    proxies = Family(groups, m.form, m.shared_alpha, f.summary[method]["min_d"], score="proxy").best()
    proxy = proxies[:, 0 if name == "alpha" else 1]
    axis.plot([g.params for g in groups], proxy, "s--", ms=3, lw=0.9, color="C1", label="proxy")
    log_axis(axis)
    axis.set_ylabel(f"{GREEK[name]} of {m.title}")
    axis.legend(fontsize=8)
    return figure


@drawing
def fig3a(f: Files) -> Figure:
    """Figure 3a: alpha of best-of-n.

    The coefficient α against RM parameters, for gold and proxy; bars are intervals, the line is linear in log size.
    In the paper it rises by about 0.065 per decade."""
    return coefficient(f, BEST_OF_N, "alpha")


@drawing
def fig3b(f: Files) -> Figure:
    """Figure 3b: beta of best-of-n.

    The coefficient β against RM parameters. In the paper gold's falls by about 0.011 per decade."""
    return coefficient(f, BEST_OF_N, "beta")


@drawing
def fig3c(f: Files) -> Figure:
    """Figure 3c: beta of RL.

    The coefficient β against RM parameters with one α for all. In the paper gold's falls by about 0.021 per
    decade."""
    return coefficient(f, PPO, "beta")


@drawing
def fig4a(f: Files) -> Overlay:
    """Figure 4a: comparisons, best-of-n.

    One small RM trained on different numbers of comparisons: more data, better gold."""
    return simple(f, f.data(BEST_OF_N, f.data_rm(PPO)), "comparisons", "comparisons")


@drawing
def fig4b(f: Files) -> Overlay:
    """Figure 4b: comparisons, RL.

    The same under PPO."""
    return simple(f, f.data(PPO, f.data_rm(PPO)), "comparisons", "comparisons")


def at_n(g: Group, n: int = FEW) -> float:
    """Mean gold over seeds at the n of the curve nearest to `n`."""
    return float(np.mean([c.gold[np.argmin(np.abs(np.log(c.step_or_n / n)))] for c in g.curves]))


@drawing
def fig5(f: Files) -> Figure:
    """Figure 5: validation loss and robustness.

    Validation loss of an RM against best-of-n's gold at n = 1,000 (the nearest that was measured), means over
    seeds. The paper sees weak evidence that equal loss means equal gold whatever the size."""
    groups = f.groups(BEST_OF_N)
    sizes = sorted({g.params for g in groups})
    figure, (axis,) = panels(1, 6, 4)
    for params, colour in zip(sizes, colours(len(sizes)), strict=True):
        part = sorted((g for g in groups if g.params == params), key=lambda g: g.comparisons or 0)
        part = [g for g in part if f.loss(g.params, g.comparisons)]
        x = [np.mean(f.loss(g.params, g.comparisons)) for g in part]
        axis.plot(x, [at_n(g) for g in part], "o-", ms=4, lw=0.8, color=colour, label=size(params))
    axis.invert_xaxis()
    axis.axvline(np.log(2), color="0.5", lw=0.8, ls="--")
    axis.set_xlabel("RM validation loss, nats (dashed: chance; better to the right)")
    axis.set_ylabel(f"gold at n = {FEW:,}")
    legend(axis, "RM parameters")
    return figure


@drawing
def fig6(f: Files) -> Figure:
    """Figure 6: validation loss and comparisons.

    Validation loss against training comparisons by RM size. In the paper it is near chance below about 2,000
    comparisons at every size."""
    counts: dict[int, set[int]] = {}
    for row in f.plain_rms():
        counts.setdefault(row["rm_params"], set()).add(row["rm_comparisons"])
    sizes = sorted(params for params, found in counts.items() if len(found) > 1)
    if not sizes:
        raise Missing("one number of comparisons only")
    figure, (axis,) = panels(1, 6, 4)
    for params, colour in zip(sizes, colours(len(sizes)), strict=True):
        x = sorted(counts[params])
        losses = [f.loss(params, count) for count in x]
        axis.plot(x, [np.mean(seeds) for seeds in losses], "-", color=colour, lw=1.2, label=size(int(params)))
        every = [(count, loss) for count, seeds in zip(x, losses, strict=True) for loss in seeds]
        axis.plot(*zip(*every, strict=True), ".", ms=4, color=colour, alpha=0.5)
    chance(axis)
    log_axis(axis, "training comparisons")
    legend(axis, "RM parameters")
    return figure


def chance(axis: Axes) -> None:
    """Mark the loss of an RM that knows nothing."""
    axis.axhline(np.log(2), color="0.5", lw=0.8, ls="--")
    axis.set_ylabel("RM validation loss, nats (dashed: chance)")


def per_policy(f: Files, method: str, starts: dict[int | None, float] | None, params: int | None = None) -> Overlay:
    """Every policy against one RM size, by default the smallest that several policies met."""
    rm = f.two_policy_rms(method)[0] if params is None else params
    return simple(f, f.both_policies(method, rm), "policy", "policy parameters", starts=starts, mark_peak=method == PPO)


@drawing
def fig7a(f: Files) -> Overlay:
    """Figure 7a: policy size, best-of-n.

    Two initial policies against the same small RM, each from where it starts."""
    return per_policy(f, BEST_OF_N, f.starts)


@drawing
def fig7b(f: Files) -> Overlay:
    """Figure 7b: policy size, RL.

    The same under PPO; asterisks mark the highest gold. In the paper the larger policy starts higher, gains less
    and peaks at almost the same KL."""
    return per_policy(f, PPO, f.starts)


@drawing
def fig8(f: Files) -> Figure:
    """Figure 8: gold against proxy.

    Gold against proxy score along best-of-n (solid) and RL (dashed), by RM size. In the paper RL first has the
    larger gap and then peaks at a higher gold score."""
    figure, (axis,) = panels(1, 6.4, 4.6)
    sweeps = {method: f.sizes(method) for method in (BEST_OF_N, PPO)}
    styles = {BEST_OF_N: "-", PPO: "--"}
    shown = sorted({g.params for groups in sweeps.values() for g in groups})
    colour_of = dict(zip(shown, colours(len(shown)), strict=True))
    for method, groups in sweeps.items():
        for g in groups:
            proxy, gold = mean_curve(g, "proxy")[1], mean_curve(g, "gold")[1]
            axis.plot(proxy, gold, styles[method], color=colour_of[g.params], lw=1.2)
    high = axis.get_xlim()[1]
    axis.plot([0, high], [0, high], color="0.6", lw=0.8, ls=":")
    for params, colour in colour_of.items():
        axis.plot([], [], color=colour, lw=1.2, label=size(params))
    axis.set_xlabel("proxy score")
    axis.set_ylabel("gold score (dotted: equal to proxy)")
    kinds = [line_kind(find(method).title, lw=1.2, ls=styles[method]) for method in sweeps]
    legend(axis, "RM parameters", kinds)
    return figure


def penalised(f: Files) -> list[Group]:
    """Groups of PPO against one plain RM that differ in the KL penalty, the smallest first."""
    everything = {g.id: g for g in f.all(PPO) if set(g.id.settings) <= {"kl_coef"}}
    marked = [id for id in everything if id.settings and not (id.rm_recipe or id.rm_combined)]
    if not marked:
        raise Missing("no KL penalties")
    wanted = replace(marked[0], settings=Settings())
    same = [id for id in everything if replace(id, settings=Settings()) == wanted]
    return [everything[id] for id in sorted(same, key=penalty)]


def penalty(id: CurveId) -> float:
    return id.settings.number("kl_coef")


@drawing
def fig9(f: Files) -> Overlay:
    """Figure 9: KL penalty.

    PPO with several KL penalties against one RM. In the paper gold at a given KL does not depend on the penalty,
    which acts like stopping early, while the proxy is higher."""
    return simple(f, penalised(f), "kl_coef", "KL penalty")
