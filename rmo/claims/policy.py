"""The paper's claims C11 to C24: policy size, RL against best-of-n, KL penalties, rounds, kinds of Goodhart."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from scipy import stats

from rmo.analysis.curve_id import Settings
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.claims.claim import INF, SMALL, claim
from rmo.claims.evidence import Line, View
from rmo.claims.kinds import LEAST, SIZE
from rmo.claims.rounds import ends, one_round, several
from rmo.methods.paper import BEST_OF_N, PPO


def both_sizes(view: View, method: str) -> list[tuple[Group, Group]]:
    """(smaller policy's group, larger's) for every RM that both policies were optimised against."""
    main = view.sizes(method, 1)[0]
    others = sorted({g.policy or 0 for g in view.evidence.groups[method] if not g.id.rm_combined} - {main.policy or 0})
    if not others:
        raise Missing("one initial policy only")
    out = []
    for g in view.sizes(method, 1):
        for other in view.all(method, policy_params=others[0], rm_params=g.params, rm_comparisons=g.comparisons):
            out.append((g, other) if (g.policy or 0) < (other.policy or 0) else (other, g))
    return out


def penalties(view: View, settings: Settings | None = None) -> list[tuple[Group, Group]]:
    """(without penalty, with) for every KL coefficient at one RM, under these other settings (by default none)."""
    other, out = settings or Settings(), []
    for g in view.evidence.groups[PPO]:
        single = not (g.id.rm_recipe or g.id.rm_combined)
        if single and g.id.settings.number("kl_coef") and g.id.settings.without("kl_coef") == other:
            same = {"rm_params": g.params, "rm_comparisons": g.comparisons, "policy_params": g.policy}
            out += [(free, g) for free in view.all(PPO, **same, settings=other)]
    if not out:
        raise Missing("no PPO runs with and without a KL penalty against one RM")
    return out


def at_equal_kl(
    view: View, pairs: Sequence[tuple[Group, Group]], score: Callable[[Line, np.ndarray], np.ndarray]
) -> float:
    """Mean over pairs and over the d that both reach of score(second) - score(first)."""
    out = []
    for first, second in pairs:
        a, b = view.line(first), view.line(second)
        d = np.linspace(min(0.3, 0.5 * min(a.end, b.end)), min(a.end, b.end), 24)
        out.append(float(np.mean(score(b, d) - score(a, d))))
    return float(np.mean(out))


# Policy size. RM seeds and prompts are all that varies: a verdict is about the two policies at hand.
ONE_SFT = "each policy size is one SFT seed: this is about these two policies"


def gain_of_larger(view: View, method: str) -> float:
    """Height of the peak, larger - smaller policy, mean over RMs."""
    pairs = [(view.line(small).peak()[1], view.line(large).peak()[1]) for small, large in both_sizes(view, method)]
    return float(np.mean([large - small for small, large in pairs]))


@claim("C11a", (-INF, 0), "fig7a", note=ONE_SFT)
def c11a(view: View) -> float:
    """A larger policy gains less from best-of-n.

    Peak above its own start, larger - smaller policy, mean over RMs."""
    return gain_of_larger(view, BEST_OF_N)


@claim("C11b", (-INF, 0), "fig7b", note=ONE_SFT)
def c11b(view: View) -> float:
    """A larger policy gains less from RL.

    Peak above its own start, larger - smaller policy, mean over RMs."""
    return gain_of_larger(view, PPO)


@claim("C11c", (0, INF), "fig7b", note=ONE_SFT)
def c11c(view: View) -> float:
    """A larger policy starts higher.

    Gold of the initial policies, larger - smaller."""
    small, large = both_sizes(view, BEST_OF_N)[0]
    view.used |= {id(g): g for g in (small, large)}
    return view.start(large.policy) - view.start(small.policy)


# Almost the same: within a factor of two in KL. Where a flat top is highest is noise; that gold is lower on both sides
# of it is not, and for a curve with one peak says the same.


@claim("C12", (0, INF), "fig7b", LEAST, note=ONE_SFT)
def c12(view: View) -> list[float]:
    """Both policies peak at almost the same KL.

    RL, larger policy: gold at the smaller policy's peak less gold at half and at twice that KL, the smaller of the two,
    mean over RMs where both peak within the data."""
    sides = []
    for pair in both_sizes(view, PPO):
        small, large = (view.line(g) for g in pair)
        if all(view.turned(g) for g in pair):
            d = small.place()
            top, near, far = large.at(np.array([d, d / 2**0.5, min(d * 2**0.5, large.end)])).tolist()
            sides.append([top - near, top - far])
    if not sides:
        raise Missing("no RM against which both policies peak within the measured range")
    return np.mean(sides, axis=0).tolist()


# Expected to be zero: within a small effect either way, in both parts of the range, so that differences do not cancel.


@claim("C13", (-INF, SMALL), "fig24", SIZE, note=ONE_SFT)
def c13(view: View) -> list[float]:
    """The gap between proxy and gold is almost the same for both policies.

    RL: difference of the gaps in gold sd, mean over RMs; the larger one of the third and the last quarter of d."""
    out = []
    for pair in both_sizes(view, PPO):
        lines = [view.line(g) for g in pair]
        d = np.linspace(0.5, 1, 8) * min(line.end for line in lines)
        small, large = (line.at(d, "proxy") - line.at(d) for line in lines)
        out.append((large - small).reshape(2, 4).mean(axis=1))
    return np.mean(out, axis=0).tolist()


@claim("C14", (-INF, 0), "fig15", note=ONE_SFT)
def c14(view: View) -> float:
    """A larger policy moves less KL in as many RL steps.

    Log of the ratio of KL, larger / smaller policy, mean over steps and RMs."""
    out = []
    for pair in both_sizes(view, PPO):
        runs = [view.steps(g) for g in pair]
        last = min(float(step[-1]) for run in runs for step, _, _ in run)
        at = np.linspace(last / 8, last, 8)
        logs = []
        for run in runs:
            weight = [w for _, _, w in run]
            kl = np.array([np.interp(at, step, kl) for step, kl, _ in run])
            logs.append(np.log(np.maximum(np.average(kl, axis=0, weights=weight), 1e-4)))
        out.append(float(np.mean(logs[1] - logs[0])))
    return float(np.mean(out))


# RL against best-of-n.


def same_rm(view: View) -> list[tuple[Group, Group]]:
    """(best-of-n, RL) at the same RM, by size."""
    bon = {g.params: g for g in view.sizes(BEST_OF_N, 1)}
    pairs = [(bon[g.params], g) for g in view.sizes(PPO, 1) if g.params in bon]
    if not pairs:
        raise Missing("no RM under both methods")
    return pairs


# Far more: at least twice as much. Where RL's own flat top is highest is noise; that gold still rises at twice
# best-of-n's KL is not, and for a curve with one peak says the same.


@claim("C15a", (0, INF), "fig1b")
def c15a(view: View) -> float:
    """RL needs far more KL than best-of-n to overoptimise.

    Smallest RM, RL: gold at 2.8 times less gold at 1.4 times the KL of best-of-n's peak."""
    bon, rl = same_rm(view)[0]
    far, line = 2 * 2**0.5, view.line(rl)
    if not view.turned(bon) or far * view.evidence.whole.line(bon).place() ** 2 > line.end**2:
        raise Missing(
            "no RM against which best-of-n peaks within the measured range and RL goes on to 2.8 times its KL"
        )
    d = view.line(bon).place()
    return float(line.at(d * far**0.5) - line.at(d * (far / 2) ** 0.5))


@claim("C15b", (float(np.log10(2)), INF), "fig8")
def c15b(view: View) -> float:
    """RL needs far more KL than best-of-n to optimise.

    Log10 of the ratio of KL at half of the proxy score that both reach, mean over RM sizes."""
    out = []
    for pair in same_rm(view):
        lines = [view.line(g) for g in pair]
        half = min(line.proxy.max() for line in lines) / 2
        d = [float(np.interp(half, np.maximum.accumulate(line.proxy), line.d)) for line in lines]
        out.append(2 * np.log10(max(d[1], 1e-3) / max(d[0], 1e-3)))
    return float(np.mean(out))


# The bound is the law where winners are improbable; where few responses win again and again it is loose (Beirami et
# al. 2024). The law holds where less than a twentieth of the bound is missing.


@claim("C16a", (-INF, 0.05), "beirami", bounds=(-INF, 1))
def c16a(view: View) -> float:
    """Best-of-n's KL grows with log n.

    Largest n: share of log n - (n-1)/n that KL from the winners' probabilities (Beirami et al.) lacks, mean over RM
    sizes."""
    found = [view.given(g) for g in view.sizes(BEST_OF_N, 1)]
    return float(np.mean([1 - given[-1] / bound[-1] for bound, given in found]))


@claim("C16b", (1.5, 2.5), "fig16")
def c16b(view: View) -> float:
    """RL's KL grows with the square of the step.

    Exponent of KL in steps above 0.1 nats, mean over RM sizes and seeds."""
    out, weights = [], []
    for g in view.sizes(PPO, 1):
        for step, kl, weight in view.steps(g):
            keep = (kl > 0.1) & (step > 0)
            if keep.sum() >= 3:
                out.append(np.polyfit(np.log(step[keep]), np.log(kl[keep]), 1)[0])
                weights.append(weight)
    if not out:
        raise Missing("no RL run with three points above 0.1 nats")
    return float(np.average(out, weights=weights)) if sum(weights) else float("nan")  # a resample may have none of them


@claim("C17a", (0, INF), "fig8")
def c17a(view: View) -> float:
    """At the same proxy score RL has lost more gold than best-of-n at first.

    Gold of best-of-n - gold of RL at half the proxy score that both reach, mean over RM sizes."""
    out = []
    for pair in same_rm(view):
        bon, rl = (view.line(g) for g in pair)
        half = min(bon.proxy.max(), rl.proxy.max()) / 2
        gold = [np.interp(half, np.maximum.accumulate(line.proxy), line.gold) for line in (bon, rl)]
        out.append(gold[0] - gold[1])
    return float(np.mean(out))


@claim("C17b", (0, INF), "fig8")
def c17b(view: View) -> float:
    """RL peaks at a higher gold score than best-of-n.

    Peak of RL - peak of best-of-n, mean over RM sizes where best-of-n peaks within the data."""
    pairs = [pair for pair in same_rm(view) if view.turned(pair[0])]
    if not pairs:
        raise Missing("no RM against which best-of-n peaks within the measured range")
    return float(np.mean([view.line(rl).peak()[1] - view.line(bon).peak()[1] for bon, rl in pairs]))


@claim("C18", (0.1, INF), "fig8", SIZE)
def c18(view: View) -> float:
    """KL does not compare optimisation across methods.

    Size of the mean difference of the methods' proxy scores at equal KL, over KL and RM sizes, as a share of their
    mean."""
    out = []
    for pair in same_rm(view):
        bon, rl = (view.line(g) for g in pair)
        d = np.linspace(0.5, 1, 8) * min(bon.end, rl.end)
        a, b = bon.at(d, "proxy"), rl.at(d, "proxy")
        out.append(float(np.mean(a - b)) / max(float(np.mean(a + b)) / 2, 1e-6))
    return float(np.mean(out))


# KL penalty.


def gaps(view: View, settings: Settings | None = None, coefs: set[float] | None = None) -> np.ndarray:
    """Gold with - without a KL penalty, mean over penalties, in three bands of d that all reach, f64[3]."""
    out = []
    for free, penalised in penalties(view, settings):
        if coefs is None or penalised.id.settings.number("kl_coef") in coefs:
            a, b = view.line(free), view.line(penalised)
            d = np.linspace(0.1, 1, 24) * min(a.end, b.end)
            out.append((b.at(d) - a.at(d)).reshape(3, 8).mean(axis=1))
    return np.mean(out, axis=0)


# Expected to be zero: within a small effect either way, in every third of the range, so that differences do not cancel.


@claim("C19", (-INF, SMALL), "fig9", SIZE)
def c19(view: View) -> list[float]:
    """At a given KL gold does not depend on the KL penalty.

    Gold with - without a penalty at equal KL, mean over penalties; the largest of the thirds of the range of d."""
    return gaps(view).tolist()


@claim("C20a", (0, INF), "fig9")
def c20a(view: View) -> float:
    """A KL penalty raises the proxy score at a given KL.

    Proxy with - without a penalty at equal KL, mean over KL and penalties."""
    return at_equal_kl(view, penalties(view), lambda line, d: line.at(d, "proxy"))


@claim("C20b", (0, INF), "fig9")
def c20b(view: View) -> float:
    """A KL penalty widens the gap between proxy and gold.

    Gap with - without a penalty at equal KL, mean over KL and penalties."""
    return at_equal_kl(view, penalties(view), lambda line, d: line.at(d, "proxy") - line.at(d))


# Sensitive: by more than a small effect.


@claim("C21", (SMALL, INF), "fig9", SIZE)
def c21(view: View) -> list[float]:
    """The effect of the penalty is sensitive to hyper-parameters.

    Change of what C19 measures under another learning rate; the largest of the thirds of the range of d."""
    rates = {
        g.id.settings.number("lr_scale")
        for g in view.evidence.groups[PPO]
        if set(g.id.settings) == {"kl_coef", "lr_scale"} and not g.id.rm_combined
    }
    if not rates:
        raise Missing("no KL penalty at another learning rate")
    other = Settings(lr_scale=min(rates))

    def coefs_of(settings: Settings | None) -> set[float]:
        return {g.id.settings.number("kl_coef") for _, g in penalties(view, settings)}

    coefs = coefs_of(other) & coefs_of(None)
    if not coefs:
        raise Missing("no KL penalty that was run at both learning rates")
    return (gaps(view, other, coefs) - gaps(view, None, coefs)).tolist()


# Iterated RLHF and kinds of Goodhart.


@claim("C22", (-0.5, 0.5), "iterated")
def c22(view: View) -> float:
    """k rounds of RLHF add b d log k to gold.

    Gold at the ends of rounds 2 to k less gold of one round at equal d, as a share of b d log r after r rounds, less 1;
    mean over rounds, k and RMs, with RMs of the latest comparisons and policies that go on."""
    out = []
    for g in several(view):
        if set(g.id.settings) - {"kl"} == {"rounds"}:
            once = one_round(view, g)
            if view.evidence.whole.fits([once])[0, 1] <= 0:
                continue  # gold of one round does not bend, so that nothing is predicted
            a, b = view.line(once), view.line(g)
            d = ends(g, min(a.end, b.end))[1:]
            expected = view.fits([once])[0, 1] * d * np.log(np.arange(2, len(d) + 2))
            out.append(float(np.mean(b.at(d) - a.at(d)) / max(float(np.mean(expected)), 1e-6)) - 1)
    if not out:
        raise Missing("no runs of several rounds that go on with RMs of the latest comparisons, beside one that bends")
    return float(np.mean(out))


@cache
def expected_best(n: float) -> float:
    """Mean of the largest of n standard normal draws: what best-of-n adds to its own score, in that score's sd."""
    x = np.linspace(-8, 8, 4001)
    return float(np.trapezoid(x * n * stats.norm.cdf(x) ** (n - 1) * stats.norm.pdf(x), x))


# A proxy's logit has no unit; its own sd has. Gold that followed the proxy entirely would gain as many of its sd, and
# with a correlation of 0.9 a tenth less: that much counts as regressional.


@claim("C23", (0.1, INF), "fig8")
def c23(view: View) -> float:
    """Regressional Goodhart: gold's linear term is below the proxy's.

    Best-of-n, least n above 1, mean over RM sizes: 1 - gold's gain in its sd / the proxy's in its own (of the largest
    of n normal draws)."""
    out = []
    for g in view.sizes(BEST_OF_N):
        n, d = min((n, d) for n, d in zip(g.curves[0].step_or_n, g.curves[0].d, strict=True) if n > 1)
        out.append(1 - float(view.line(g).at(d)) / expected_best(n))
    return float(np.mean(out))


@claim("C24", (0, INF), "fig8", LEAST)
def c24(view: View) -> list[float]:
    """Extremal Goodhart: in the end gold falls while the proxy rises.

    RL, smallest RM, last quarter of d: the smaller of gold lost and proxy gained."""
    line = view.line(view.sizes(PPO, 1)[0])
    lost = float(line.at(0.75 * line.end)) - line.gold[-1]
    return [lost, line.proxy[-1] - float(line.at(0.75 * line.end, "proxy"))]
