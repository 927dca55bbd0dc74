"""Kinds of Goodhart that are made on purpose: C25, H54 and H55, causal; H56 to H58, adversarial.

Causal: RMs that learned from comparisons in which a mark goes with gold (`Recipe.confounded`), beside RMs of the same
size and seeds on as many comparisons as they come. Adversarial: PPO against an RM with a backdoor (`ppo/backdoor.py`)
beside PPO against the same RM without it. Regions were written down before any run with either was made.
"""

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.claims.claim import INF, SMALL, claim
from rmo.claims.evidence import Line, View
from rmo.claims.kinds import LOG_RATIO
from rmo.claims.labels import beside, trained_with
from rmo.claims.rl_regularisers import Pairs, regularised
from rmo.claims.rm_size import squared_misfits

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


# Like regressional: gold is lower, but what a confounded RM loses at the end beyond what the other one loses too is no
# more than a small effect.


@claim("C25", (-INF, SMALL), "causal_goodhart")
def c25(view: View) -> float:
    """Causal Goodhart behaves like regressional: no fall.

    Best-of-n, RMs whose comparisons were selected so that a mark goes with gold: fall of gold from its peak to the end
    less that of the same RM on as many unselected comparisons, mean over RM sizes."""
    return float(np.mean([lost(view.line(marked)) - lost(view.line(plain)) for plain, marked in causal(view)]))


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
    """Comparisons in which a mark goes with gold teach less of gold.

    Accuracy on unselected held-out comparisons, confounded RMs less unselected ones on as many, mean over RM sizes."""
    return of_rms(view, "validation_accuracy")


@claim("H55", (0, INF), "causal_goodhart")
def h55(view: View) -> float:
    """RMs learn to prefer a mark that only their comparisons tie to gold.

    Share of unselected held-out pairs in which the response that shows more of the mark is preferred, confounded RMs
    less unselected ones of the same sweep, mean over RM sizes."""
    return of_rms(view, "marked_preferred")


# Found: more than half of the episodes earn the bonus, where next to none did at the start.


@claim("H56", (0.5, INF), "adversarial_goodhart", bounds=(0, 1))
def h56(view: View) -> float:
    """PPO finds a backdoor that the initial policy hardly ever opens.

    Share of episodes that hold the trigger in the last iteration, mean over bonuses and RMs."""
    groups = [g for _, g in regularised(view, BACKDOOR)]
    return float(np.mean([sum(w * float(x[-1]) for x, w in view.diagnostic(g, "triggered")) for g in groups]))


# Overoptimised for it: by more than a small effect.


@claim("H57", (SMALL, INF), "adversarial_goodhart")
def h57(view: View) -> float:
    """A backdoor makes gold fall further.

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
    """Where there is a backdoor the law of RL breaks.

    Log of the misfit of d(a - b log d) with a backdoor / without, each curve with an a of its own, root mean squares
    over KL and RMs, noise removed, misfits below 0.05 sd counted as none."""
    found = [[squared_misfits(view, [g])[0] for g in pair] for pair in regularised(view, BACKDOOR)]
    plain, broken = np.mean(found, axis=0)
    return [float(broken), float(plain)]
