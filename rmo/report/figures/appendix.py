"""Figures 10 to 26, of the paper's appendix; paper.py says how they are made."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rmo.analysis import sweeps
from rmo.analysis.fitting import Family, Group, low_part
from rmo.analysis.forms import FORMS
from rmo.analysis.sweeps import Missing
from rmo.claims.rm_data import BETTER
from rmo.methods.method import find
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.report.figures.drawing import Files, drawing, simple
from rmo.report.figures.paper import FEW, at_n, chance, penalised, per_policy
from rmo.report.figures.style import (
    GREEK,
    LABELS,
    Overlay,
    colours,
    largest_kl,
    legend,
    log_axis,
    mean_curve,
    panels,
    row_of,
    size,
    sqrt_axis,
)


def top(g: Group) -> float:
    """Highest point of the mean gold curve."""
    return float(mean_curve(g, "gold")[1].max())


@drawing
def fig10(f: Files) -> Figure:
    """Figure 10: highest gold by RM size and comparisons.

    The maximum of best-of-n's mean gold curve for every combination."""
    groups = f.groups(BEST_OF_N)
    counts = sorted({g.comparisons for g in groups if g.comparisons})
    if len(counts) < 2:
        raise Missing("one number of comparisons only")
    figure, (axis,) = panels(1, 6, 4)
    for count, colour in zip(counts, colours(len(counts)), strict=True):
        part = [g for g in groups if g.comparisons == count]
        axis.plot([g.params for g in part], [top(g) for g in part], "o-", ms=4, lw=1, color=colour, label=f"{count:,}")
    log_axis(axis)
    axis.set_ylabel("highest gold, best-of-n")
    legend(axis, "comparisons")
    return figure


@drawing
def fig11(f: Files) -> Figure:
    """Figure 11: validation loss by RM size.

    Validation loss with all comparisons, the smallest RMs included, which the paper found near chance and left out
    elsewhere (open)."""
    swept, full = {g.params for g in f.sizes(BEST_OF_N)}, f.sizes(BEST_OF_N)[0].comparisons
    rows = [r for r in f.reward_models if not r["rm_recipe"] and r["rm_comparisons"] == full]
    figure, (axis,) = panels(1, 5.4, 3.8)
    for r in rows:
        fill = "C0" if r["rm_params"] in swept else "none"
        axis.plot(r["rm_params"], r["validation_loss"], "o", ms=4, color="C0", mfc=fill)
    sizes = sorted({r["rm_params"] for r in rows})
    axis.plot(sizes, [np.mean(f.loss(p, full)) for p in sizes], lw=1, color="C0")
    chance(axis)
    log_axis(axis)
    return figure


@drawing
def fig12(f: Files) -> Figure:
    """Figure 12: predicted and measured peak.

    The highest best-of-n gold by the closed form a²/4b (line, band) and as measured (points). Open: the fitted peak
    lies beyond the data."""
    figure, (axis,) = panels(1, 5.4, 3.8)
    groups = f.sizes(BEST_OF_N)
    rows = [row_of(f.summary, g) or {} for g in groups]
    known = [(g, r) for g, r in zip(groups, rows, strict=True) if r.get("peak_gold") is not None]
    if not known:
        raise Missing("no best-of-n fit that turns")
    x = [g.params for g, _ in known]
    axis.plot(x, [r["peak_gold"] for _, r in known], "-", color="C1", lw=1, label="predicted, a²/4b")
    ends = [[np.nan if v is None else v for v in r["peak_gold_interval"]] for _, r in known]
    axis.fill_between(x, [e[0] for e in ends], [e[1] for e in ends], color="C1", alpha=0.15, lw=0)
    for g, r in known:
        inside = r["peak_kl"] < largest_kl([g])
        axis.plot(g.params, top(g), "o", color="C0", mfc="C0" if inside else "none", ms=5)
    axis.plot([], [], "o", color="C0", label="measured")
    axis.set_ylim(0, 1.6 * max(top(g) for g in groups))
    log_axis(axis)
    axis.set_ylabel("highest gold, best-of-n")
    axis.legend(fontsize=8)
    return figure


@drawing
def fig13(f: Files) -> Figure:
    """Figure 13: epochs against unique data.

    Several epochs on few comparisons beside one epoch on them and one on as many unique ones: validation loss and
    highest gold (dots: RM sizes; bars: means). The paper's losses: 0.686, 0.684 and 0.655."""
    columns = epochs_and_data(f)
    if len(columns) < 3:
        raise Missing("no RMs trained for several epochs beside one epoch on more data")
    figure, axes = panels(2, 4.6, 3.6)
    for axis, which, label in zip(axes, (0, 1), ("validation loss, nats", "highest gold, best-of-n"), strict=True):
        for i, points in enumerate(columns.values()):
            y = [p[which] for p in points]
            axis.bar(i, np.mean(y), color="C0", alpha=0.35)
            axis.plot([i] * len(y), y, ".", color="C0")
        axis.set_xticks(range(len(columns)), list(columns), fontsize=8)
        axis.set_ylabel(label)
    losses = [loss for points in columns.values() for loss, _ in points]
    axes[0].set_ylim(min(losses) - 0.02, max(max(losses), np.log(2)) + 0.01)
    axes[0].axhline(np.log(2), color="0.5", lw=0.8, ls="--")
    return figure


def epochs_and_data(f: Files) -> dict[str, list[tuple[float, float]]]:
    """{how RMs were trained: (validation loss, highest gold) of every RM size}"""
    columns: dict[str, list[tuple[float, float]]] = {}
    for epochs, several, once, unique in sweeps.repeated(f.all(BEST_OF_N), BEST_OF_N):
        few = several.comparisons or 0
        for count, times, group in ((few, 1, once), (few, epochs, several), (few * epochs, 1, unique)):
            if group is not None:
                loss = float(np.mean(f.loss(group.params, group.comparisons, recipe=group.id.rm_recipe)))
                name = f"{times} epoch{'s' if times > 1 else ''} on {count:,}"
                columns.setdefault(name, []).append((loss, top(group)))
    return columns


def kl_by_step(groups: Sequence[Group], by: str, title: str) -> Figure:
    figure, (axis,) = panels(1, 6, 4)
    for g, colour in zip(groups, colours(len(groups)), strict=True):
        for i, c in enumerate(g.curves):
            axis.plot(c.step_or_n, c.kl, color=colour, lw=1, label=LABELS[by](g) if i == 0 else None)
    axis.set_xlabel("RL step (PPO iteration)")
    axis.set_ylabel("KL from the initial policy, nats")
    legend(axis, title)
    return figure


@drawing
def fig14(f: Files) -> Figure:
    """Figure 14: KL by step and penalty.

    KL of the policy along training for several KL penalties: about monotone, and levelling off at high
    penalties."""
    return kl_by_step(penalised(f), "kl_coef", "KL penalty")


@drawing
def fig15(f: Files) -> Figure:
    """Figure 15: KL by step and policy size.

    KL along training by policy size, one small RM. In the paper the larger policy has less KL at equal steps."""
    return kl_by_step(f.both_policies(PPO, f.two_policy_rms(PPO)[0]), "policy", "policy parameters")


@drawing
def fig16(f: Files) -> Figure:
    """Figure 16: KL by step and RM size.

    KL along training by RM size."""
    return kl_by_step(f.sizes(PPO), "params", "RM parameters")


def coefficient_by_data(f: Files, name: str) -> Figure:
    groups = f.groups(BEST_OF_N)
    rows = [row for row in (row_of(f.summary, g) for g in groups) if row]
    counts = sorted({row["rm_comparisons"] for row in rows})
    if len(counts) < 3:
        raise Missing("fewer than 3 numbers of comparisons")
    figure, (axis,) = panels(1, 4.6, 3.6)
    for row in rows:
        axis.plot(row["rm_comparisons"], row[name], ".", ms=4, color="0.6")
    axis.plot(counts, [np.mean([r[name] for r in rows if r["rm_comparisons"] == c]) for c in counts], "o-", ms=4, lw=1)
    log_axis(axis, "training comparisons")
    axis.set_ylabel(f"{GREEK[name]} of best-of-n, gold")
    return figure


@drawing
def fig17(f: Files) -> Figure:
    """Figure 17: alpha by comparisons.

    The coefficient α of best-of-n against training comparisons, averaged over RM sizes (grey: each)."""
    return coefficient_by_data(f, "alpha")


@drawing
def fig18(f: Files) -> Figure:
    """Figure 18: beta by comparisons.

    The coefficient β of best-of-n against training comparisons, averaged over RM sizes (grey: each)."""
    return coefficient_by_data(f, "beta")


@drawing
def fig19(f: Files) -> Overlay:
    """Figure 19: comparisons, the largest RM, best-of-n.

    As Figure 4a for the largest RM."""
    return simple(f, f.data(BEST_OF_N, f.sizes(BEST_OF_N)[-1].params), "comparisons", "comparisons")


@drawing
def fig20(f: Files) -> Figure:
    """Figure 20: proxy scores are nearly linear in d.

    Best-of-n's proxy scores with straight lines through the origin: slightly concave in the paper."""
    groups = f.sizes(BEST_OF_N)
    figure, (axis,) = panels(1, 6, 4)
    for g, colour in zip(groups, colours(len(groups)), strict=True):
        kl, proxy = mean_curve(g, "proxy")
        d = np.sqrt(kl)
        axis.plot(kl, proxy, color=colour, lw=1.4, label=size(g.params))
        axis.plot(kl, d * (d @ proxy) / (d @ d), ":", color=colour, lw=1)
    sqrt_axis(axis, largest_kl(groups))
    axis.set_xlabel("KL, nats (square-root scale)")
    axis.set_ylabel("proxy score (dotted: linear fit)")
    legend(axis, "RM parameters")
    return figure


@drawing
def fig21(f: Files) -> Figure:
    """Figure 21: gold at one n by comparisons and RM size.

    Best-of-n's gold at n = 1,000 (the nearest measured). Dotted: the fewest comparisons at which validation loss, mean
    over RM sizes, is 0.01 nats below chance."""
    groups = f.groups(BEST_OF_N)
    counts = sorted({g.comparisons for g in groups if g.comparisons})
    if len(counts) < 2:
        raise Missing("one number of comparisons only")
    figure, (axis,) = panels(1, 6, 4)
    sizes = sorted({g.params for g in groups})
    for params, colour in zip(sizes, colours(len(sizes)), strict=True):
        part = sorted((g for g in groups if g.params == params), key=lambda g: g.comparisons or 0)
        x, y = [g.comparisons or 0 for g in part], [at_n(g) for g in part]
        axis.plot(x, y, "o-", ms=4, lw=1, color=colour, label=size(params))
    loss = {c: np.mean([np.mean(f.loss(g.params, c)) for g in groups if g.comparisons == c]) for c in counts}
    better = [c for c in counts if loss[c] < np.log(2) - BETTER]
    if better:
        axis.axvline(better[0], color="0.4", ls=":", lw=1)
    axis.axhline(0, color="0.6", lw=0.8)
    log_axis(axis, "training comparisons")
    axis.set_ylabel(f"gold at n = {FEW:,}")
    legend(axis, "RM parameters")
    return figure


@drawing
def fig22(f: Files) -> Overlay:
    """Figure 22: policy size, RL, a large RM.

    As Figure 7b for the largest RM that both policies met."""
    rms = f.two_policy_rms(PPO)
    if len(rms) < 2:
        raise Missing("one RM size only against both policies")
    return per_policy(f, PPO, f.starts, rms[-1])


@drawing
def fig23(f: Files) -> Overlay:
    """Figure 23: policy size, RL, from 0.

    Figure 7b with both policies starting from 0."""
    return per_policy(f, PPO, None)


@drawing
def fig24(f: Files) -> Figure:
    """Figure 24: gap between proxy and gold by policy size.

    RL: proxy minus gold against KL. In the paper the two policies' gaps are almost equal."""
    figure, (axis,) = panels(1, 6, 4)
    groups = f.both_policies(PPO, f.two_policy_rms(PPO)[0])
    for g, colour in zip(groups, colours(len(groups)), strict=True):
        (kl, proxy), (_, gold) = mean_curve(g, "proxy"), mean_curve(g, "gold")
        axis.plot(kl, proxy - gold, color=colour, lw=1.4, label=size(g.policy or 0))
    sqrt_axis(axis, largest_kl(groups))
    axis.set_xlabel("KL, nats (square-root scale)")
    axis.set_ylabel("proxy - gold")
    legend(axis, "policy parameters")
    return figure


@drawing
def fig25(f: Files) -> Figure:
    """Figure 25: share of clipped updates.

    Share of probability ratios that PPO clipped, along training, by KL penalty (by RM size where the run has no
    penalties)."""
    try:
        groups, by, title = penalised(f), "kl_coef", "KL penalty"
    except Missing:
        groups, by, title = f.sizes(PPO), "params", "RM parameters"
    figure, (axis,) = panels(1, 6, 4)
    for g, colour in zip(groups, colours(len(groups)), strict=True):
        for i, c in enumerate(g.curves):
            rows = [r for r in f.health(PPO).of(c.id) if np.isfinite(r["clip_fraction"])]
            steps, share = [r["step"] for r in rows], [r["clip_fraction"] for r in rows]
            axis.plot(steps, share, color=colour, lw=0.9, label=LABELS[by](g) if i == 0 else None)
    axis.set_xlabel("RL step (PPO iteration)")
    axis.set_ylabel("share of ratios clipped")
    highest = max(axis.get_ylim()[1], 0.01)
    axis.set_ylim(-0.03 * highest, highest)
    legend(axis, title)
    return figure


def extrapolation(f: Files, method: str, share: float = 0.6) -> Figure:
    """What claims C2c and C2d judge: the fit to all seeds below `share` of each RM's KL range (dotted), and beyond."""
    groups = [g for g in f.sizes(method) if row_of(f.summary, g)]
    if not groups:
        raise Missing(f"no {method} curve with enough points to be fitted")
    figure, (axis,) = panels(1, 6.4, 4.2)
    low_d, cuts = f.summary[method]["min_d"], low_part(groups, share)
    fits = Family(groups, find(method).form, False, low_d, cuts).best()
    for g, cut, coefficients, colour in zip(groups, cuts, fits, colours(len(groups)), strict=True):
        kl, gold = mean_curve(g, "gold")
        d = np.linspace(low_d, np.sqrt(kl.max()), 80)
        axis.plot(kl, gold, color=colour, lw=1.6, label=size(g.params))
        axis.plot(d**2, FORMS[find(method).form].features(d, 0.0) @ coefficients, "-.", color=colour, lw=0.9)
        axis.axvline(cut, color=colour, ls=":", lw=0.9)
    sqrt_axis(axis, largest_kl(groups))
    axis.set_xlabel("KL, nats (square-root scale)")
    axis.set_ylabel("gold (thin: fitted left of the dotted line)")
    legend(axis, "RM parameters")
    return figure


@drawing
def fig26a(f: Files) -> Figure:
    """Figure 26a: extrapolation, best-of-n.

    Each form fitted only left of the dotted line, 60% of the KL range, as in the paper."""
    return extrapolation(f, BEST_OF_N)


@drawing
def fig26b(f: Files) -> Figure:
    """Figure 26b: extrapolation, RL.

    The same for PPO (the paper does not say where its cut is)."""
    return extrapolation(f, PPO)
