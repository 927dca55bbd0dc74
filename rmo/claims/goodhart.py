"""Kinds of Goodhart that are made on purpose: C25, H54 and H55, causal; H56 to H58, adversarial.

Causal: RMs that learned from comparisons in which a mark goes with gold (`Recipe.confounded`), beside RMs of the same
size and seeds on as many comparisons as they come. Adversarial: PPO against an RM with a backdoor (`ppo/backdoor.py`)
beside PPO against the same RM without it. Regions were written down before any run with either was made.
"""

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.claims.claim import INF, SMALL, claim
from rmo.claims.evidence import Line, View
from rmo.claims.kinds import GREATEST, LOG_RATIO
from rmo.claims.labels import beside, trained_with
from rmo.claims.rl_regularisers import Pairs, regularised
from rmo.claims.rm_size import squared_misfit

BACKDOOR = "backdoor"  # the setting of such curves


def causal(view: View) -> Pairs:
    """(unselected, confounded) for every RM of confounded comparisons, under best-of-n."""
    return beside(
        view, trained_with(view, "confounded"), Settings(), "that rest on a correlate which does not cause gold"
    )


def lost(line: Line, end: float | None = None) -> float:
    """Gold from its peak to d = `end`, about zero where it still rises. `Line.fall` is below zero there, the more the
    steeper gold rises: a curve that only rises more slowly, which is regressional, would have the larger fall."""
    end = line.end if end is None else end
    return line.peak(end)[1] - float(line.at(end))


# Like regressional: gold may be lower, but neither what a confounded RM loses at the end nor what it loses beyond the
# other one is more than a small effect. Where the RMs learned no mark there is nothing causal to speak of.


@claim("C25", (-INF, SMALL), "causal_goodhart", GREATEST)
def c25(view: View) -> list[float]:
    """Causal Goodhart behaves like regressional: no fall.

    Best-of-n, RMs whose comparisons were selected so that a mark goes with gold: the larger of gold's fall from its
    peak to the end, and of that less the fall with the same RM on as many unselected comparisons, means over RM
    sizes."""
    pairs = causal(view)
    if of_rms(view.evidence.whole, "marked_preferred") <= 0:
        raise Missing("no RMs that learned the mark which their comparisons were selected by: nothing causal to see")
    plain, marked = np.mean([[lost(view.line(g)) for g in pair] for pair in pairs], axis=0)
    return [float(marked - plain), float(marked)]


# That the selection did something: both are a matter of sign, as how much depends on the RM.


def of_rms(view: View, column: str) -> float:
    """A metric of confounded RMs less that of unselected ones, mean over RM sizes."""
    out = []
    for pair in causal(view):
        plain, marked = (view.rm(g.params, g.comparisons or 0, column, g.id.rm_recipe) for g in pair)
        out.append(marked - plain)
    return float(np.mean(out))


@claim("H54", (-INF, 0), "causal_goodhart")
def h54(view: View) -> float:
    """RMs of comparisons in which a mark goes with gold are less accurate where it does not.

    Accuracy on unselected held-out comparisons, confounded RMs less unselected ones on as many, mean over RM sizes."""
    return of_rms(view, "validation_accuracy")


@claim("H55", (0, INF), "causal_goodhart")
def h55(view: View) -> float:
    """RMs of comparisons in which a mark goes with gold prefer it more.

    Share of unselected held-out pairs in which the response that shows more of the mark is preferred, confounded RMs
    less unselected ones of the same sweep, mean over RM sizes."""
    return of_rms(view, "marked_preferred")


# Found: the share of the episodes that earn the bonus has grown by more than half, from the next to none that a trigger
# is refused for having more of (`Backdoor.rarity`).


@claim("H56", (0.5, INF), "adversarial_goodhart", bounds=(-1, 1))
def h56(view: View) -> float:
    """PPO comes to write a trigger in most episodes that its start hardly wrote.

    Share of episodes that hold the trigger in the last iteration less share of the start's responses in the pool, mean
    over bonuses and RMs."""
    return float(np.mean([opened(view, g) for _, g in regularised(view, BACKDOOR)]))


def opened(view: View, g: Group) -> float:
    """The last share that holds the trigger less the first, mean over seeds."""
    found = view.diagnostic(g, "triggered")
    if not all(np.isfinite(x[0]) for x, _ in found):
        raise Missing("no share of the start's responses that hold the trigger")
    return sum(w * float(x[-1] - x[0]) for x, w in found)


# Overoptimised for it: by more than a small effect.


@claim("H57", (SMALL, INF), "adversarial_goodhart")
def h57(view: View) -> float:
    """Gold falls further where there is a backdoor.

    RL: fall of gold from its peak to the last d that both reach, with the backdoor less without, mean over bonuses and
    RMs."""
    out = []
    for plain, g in regularised(view, BACKDOOR):
        a, b = view.line(plain), view.line(g)
        end = min(a.end, b.end)
        out.append(lost(b, end) - lost(a, end))
    return float(np.mean(out))


# The laws may break, says the paper of adversarial Goodhart: the form then misses at least twice as much as without.
# That it misses a little more may be for any other reward.


@claim("H58", (float(np.log(2)), INF), "adversarial_goodhart", LOG_RATIO)
def h58(view: View) -> list[float]:
    """Where there is a backdoor the law of RL misses gold at least twice as far.

    Log of the misfit of d(a - b log d) with a backdoor / without, each curve with an a of its own, up to the last d
    that both reach, root mean squares over KL and RMs, noise removed, misfits below 0.05 sd counted as none."""
    plain, broken = np.mean([misfits_where_both_are(view, pair) for pair in regularised(view, BACKDOOR)], axis=0)
    return [float(broken), float(plain)]


def misfits_where_both_are(view: View, pair: tuple[Group, Group]) -> list[float]:
    """Mean squares of each curve's misfit up to the last d that both reach, each fitted there alone."""
    ends = [view.line(g).end for g in pair]
    end, out = min(ends), []
    for g, own in zip(pair, ends, strict=True):
        # Never 1, which is no cut at all: seeds that go on beyond the others would be fitted beyond `end`.
        share = min((end / own) ** 2, 1 - 1e-10)
        out.append(squared_misfit(view, g, view.fits([g], max_kl_share=share)[0], end))
    return out
