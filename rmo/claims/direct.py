"""H20 to H29: direct alignment overoptimises too (Rafailov et al. 2024, arXiv 2406.02900), without a reward model.

Of every loss the curves over beta, on the most comparisons with clean labels. Regions were chosen before any run: a
sign where the paper says which way, the paper's own number where it gives one.
"""

from math import log

import numpy as np

from rmo.analysis.fitting import Group
from rmo.analysis.forms import FORMS
from rmo.analysis.sweeps import Missing
from rmo.claims.claim import INF, SMALL, claim
from rmo.claims.evidence import Line, View
from rmo.claims.kinds import LEAST, LOG_RATIO, SIZE
from rmo.methods.direct.door import METHOD
from rmo.methods.paper import BEST_OF_N, PPO

DIRECT = METHOD.name
QUADRATIC = "d^2(a - b d^2)"  # in KL, the paper's rival of the RL form


def over_beta(view: View) -> dict[str, list[Group]]:
    """Every loss's groups, smallest beta first: those on the most comparisons, labels as gold gave them."""
    plain = [g for g in view.evidence.groups[DIRECT] if not g.id.rm_recipe]
    if not plain:
        raise Missing("no policies aligned without an RM")
    most = max(g.comparisons or 0 for g in plain)
    out: dict[str, list[Group]] = {}
    for g in sorted(plain, key=beta_of):
        if g.comparisons == most:
            out.setdefault(str(g.id.settings["loss"]), []).append(g)
    return out


def beta_of(g: Group) -> float:
    return g.id.settings.number("beta")


def of_loss(view: View, loss: str) -> list[Group]:
    """One loss's groups over beta.

    Raises:
      Missing: it was not tried.
    """
    found = over_beta(view)
    if loss not in found:
        raise Missing(f"no policies aligned by {loss.upper()}")
    return found[loss]


def best(view: View, groups: list[Group]) -> Group:
    """The beta with the highest peak on the data as they are, the same on all resamples."""
    return max(groups, key=lambda g: view.evidence.whole.line(g).peak()[1])


def largest_rm(view: View, method: str) -> Group:
    """What a method reached against the largest RM of the main sweep."""
    return view.sizes(method, 1)[-1]


def rm_of_policy_size(view: View, method: str) -> Group:
    """What a method reached against the RM of the main sweep that is nearest to the policy in size.

    Raises:
      Missing: none is within a factor of two of it.
    """
    near = min(view.sizes(method, 1), key=lambda g: abs(log(g.params / (g.policy or 1))))
    if abs(log(near.params / (near.policy or 1))) > log(2):
        raise Missing(f"no {method} curves against an RM of about the policy's size")
    return near


def first_at(line: Line, gold: float) -> float:
    """d at which the mean curve first has this much gold."""
    return float(np.interp(gold, np.maximum.accumulate(line.gold), line.d))


@claim("H20", (0, INF), "direct_alignment", LEAST)
def h20(view: View) -> list[float]:
    """Without an RM gold rises, peaks and falls too, by every loss.

    Smallest beta of each loss: the smaller of gold's rise to its peak and its fall from there to the end, the least of
    the losses."""
    lines = [view.line(groups[0]) for groups in over_beta(view).values()]
    return [part for line in lines for part in (line.peak()[1], line.fall())]


# The paper's peak at about a quarter of an epoch; before the middle is far enough from "the longer the better".
@claim("H21", (0, 0.5), "direct_training", bounds=(0, 1))
def h21(view: View) -> float:
    """With a small beta DPO's gold peaks early in training (the paper: at about a quarter of an epoch).

    Smallest beta, where gold peaks within the data: the update at which the policy has come to the KL of gold's peak,
    as a share of the updates made."""
    group = of_loss(view, "dpo")[0]
    if not view.turned(group):
        raise Missing("no peak of gold within the data at DPO's smallest beta")
    d, shares = view.line(group).place(), []
    for step, kl, weight in view.steps(group):
        reached = np.maximum.accumulate(np.sqrt(np.maximum(kl, 0.0)))
        shares.append(weight * float(np.interp(d, reached, step)) / step[-1])
    return float(sum(shares))


@claim("H22", (0, INF), "direct_alignment")
def h22(view: View) -> float:
    """IPO overoptimises less than DPO.

    Fall of gold from its peak to the end, DPO's less IPO's, mean over the betas that both have and at which DPO's gold
    turns."""
    dpo, ipo = ({beta_of(g): g for g in of_loss(view, loss)} for loss in ("dpo", "ipo"))
    shared = [beta for beta in sorted(dpo.keys() & ipo.keys()) if view.turned(dpo[beta])]
    if not shared:
        raise Missing("no beta of both DPO and IPO at which DPO's gold turns")
    return float(np.mean([view.line(dpo[beta]).fall() - view.line(ipo[beta]).fall() for beta in shared]))


@claim("H23", (-INF, 0), "direct_alignment")
def h23(view: View) -> float:
    """The smaller beta is, the farther the policy goes.

    Slope of sqrt(KL) at the end per decade of beta, mean over losses."""
    slopes = []
    for groups in over_beta(view).values():
        if len(groups) > 1:
            ends = [sum(w * float(kl[-1]) ** 0.5 for _, kl, w in view.steps(g)) for g in groups]
            slopes.append(np.polyfit(np.log10([beta_of(g) for g in groups]), ends, 1)[0])
    if not slopes:
        raise Missing("no loss with two betas")
    return float(np.mean(slopes))


@claim("H24", (0, INF), "direct_alignment")
def h24(view: View) -> float:
    """DPO spends more KL than best-of-n for the same gold.

    Log of DPO's KL over best-of-n's (largest RM), where each first has half the gold that both reach, at DPO's best
    beta."""
    groups = best(view, of_loss(view, "dpo")), largest_rm(view, BEST_OF_N)
    if min(view.evidence.whole.line(g).peak()[1] for g in groups) < SMALL:
        raise Missing("no gain of gold by both DPO and best-of-n, which could be had at some KL")
    direct, bon = (view.line(g) for g in groups)
    half = min(line.peak()[1] for line in (direct, bon)) / 2
    return 2 * log(max(first_at(direct, half), 1e-3) / max(first_at(bon, half), 1e-3))


# The paper takes both for alike in quality at their best: no lower than by what counts as an effect.
@claim("H25", (-SMALL, INF), "direct_alignment")
def h25(view: View) -> float:
    """At its best DPO gives no less gold than PPO against an RM of the policy's size.

    Peak of DPO's best beta less PPO's against the RM nearest to the policy in size, within a factor of two."""
    return view.line(best(view, of_loss(view, "dpo"))).peak()[1] - view.line(rm_of_policy_size(view, PPO)).peak()[1]


# The paper's humps of both kinds lie within the same few tens of nats; a factor of 4 in KL is 2 in d.
@claim("H26", (-INF, log(4)), "direct_alignment", SIZE)
def h26(view: View) -> float:
    """The humps of DPO and PPO lie at like KL.

    Size of the log of KL at the peak of DPO's smallest beta over that of PPO against the RM nearest to the policy in
    size, within a factor of two."""
    places = [view.line(g).place() for g in (of_loss(view, "dpo")[0], rm_of_policy_size(view, PPO))]
    if min(places) <= 0:
        raise Missing("no peaks away from the initial policy")
    return 2 * log(places[0] / places[1])


def misfit(line: Line, form: str, least_d: float) -> float:
    """Mean square of the mean curve about its least-squares fit, from `least_d` on."""
    keep = line.d >= least_d
    x = FORMS[form].features(line.d[keep], 0.0)
    return float(np.mean((line.gold[keep] - x @ np.linalg.lstsq(x, line.gold[keep], rcond=None)[0]) ** 2))


@claim("H27", (-INF, 0), "direct_alignment", LOG_RATIO)
def h27(view: View) -> list[float]:
    """PPO's form d(a - b log d) fits direct alignment better than a quadratic in KL does.

    Log of the form's error / the quadratic's, each fitted by least squares to every mean curve of at least 8 points,
    root mean squares over losses and betas, noise removed, errors below 0.05 sd counted as none."""
    lines = [view.line(g) for groups in over_beta(view).values() for g in groups]
    low = view.evidence.min_d
    long = [line for line in lines if (line.d >= low).sum() >= 8]
    if not long:
        raise Missing("no curve of direct alignment with 8 points to fit")
    return [float(np.mean([misfit(line, form, low) for line in long])) for form in (METHOD.form, QUADRATIC)]


# A correlation of a half is a quarter of the variance: less is what the paper calls no relation.


@claim("H28", (-0.5, 0.5), "direct_training", bounds=(-1, 1))
def h28(view: View) -> float:
    """How well the implicit reward tells better from worse does not say how good the policy is.

    Correlation over losses and betas, at the end of training, of the implicit reward's accuracy on held-out comparisons
    with gold."""
    groups = [g for groups in over_beta(view).values() for g in groups]
    if len(groups) < 4:
        raise Missing("fewer than 4 losses and betas of direct alignment")
    gold = np.array([view.line(g).gold[-1] for g in groups])
    accuracy = [sum(w * float(x[-1]) for x, w in view.diagnostic(g, "held_accuracy")) for g in groups]
    return float(np.corrcoef(accuracy, gold)[0, 1])


@claim("H29", (-INF, 0), "direct_training")
def h29(view: View) -> float:
    """DPO makes even preferred responses less likely: the mass goes to what no comparison holds.

    Smallest beta, at the end: mean log-ratio of what gold prefers in held-out comparisons, nats."""
    group = of_loss(view, "dpo")[0]
    return float(sum(w * float(x[-1]) for x, w in view.diagnostic(group, "held_preferred")))
