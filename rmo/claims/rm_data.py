"""The paper's claims C6 to C10: what reward models learn from, and what their validation loss says."""

import contextlib

import numpy as np

from rmo.analysis import sweeps
from rmo.analysis.sweeps import Missing
from rmo.claims.claim import INF, SMALL, claim
from rmo.claims.evidence import View
from rmo.claims.kinds import GREATEST
from rmo.claims.rm_size import per_decade
from rmo.methods.paper import BEST_OF_N, PPO


@claim("C6", (-INF, 0.55), "fig11", GREATEST, bounds=(0, 1))
def c6(view: View) -> list[float]:
    """RMs below the sweep's smallest size are near chance.

    Largest validation accuracy among them."""
    swept = {g.params for g in view.sizes(BEST_OF_N)}
    full = view.sizes(BEST_OF_N)[0].comparisons
    left_out = [(p, c) for p, c in view.rms(rm_comparisons=full) if p < min(swept)]
    if not left_out:
        raise Missing("no RMs smaller than those that were optimised against")
    return [view.rm(p, c, "validation_accuracy") for p, c in left_out]


BETTER = 0.01  # nats below chance from which a validation loss counts as better than random


def swept(view: View, method: str) -> int:
    """The RM size that was trained on the most numbers of comparisons, as "a small RM".

    Raises:
      Missing: it is the largest of several.
    """
    found = sweeps.most_swept(view.evidence.groups[method], method)
    if len(sizes := view.sizes(method, 1)) > 1 and found == sizes[-1].params:
        raise Missing(f"several numbers of comparisons only for the largest RM that {method} was run against")
    return found


def swept_by_both(view: View) -> int:
    """The small RM of RL, where it was run against such a one, so that both methods' figures are of one RM."""
    rl = view.evidence.groups[PPO]
    if bool(rl) and len(view.all(PPO)) > len(view.sizes(PPO, 1)):
        with contextlib.suppress(Missing):
            return swept(view, PPO)
    return swept(view, BEST_OF_N)


def peak_slope(view: View, method: str, params: int) -> float:
    """Slope of the height of the peak per decade of comparisons, at one RM size."""
    groups = view.data(method, params)
    return per_decade([g.comparisons or 1 for g in groups], [view.line(g).peak()[1] for g in groups])


@claim("C7a", (0, INF), "fig4a")
def c7a(view: View) -> float:
    """More comparisons give a higher gold score: best-of-n, a small RM.

    Slope of the peak per decade of comparisons."""
    return peak_slope(view, BEST_OF_N, swept_by_both(view))


@claim("C7b", (0, INF), "fig4b")
def c7b(view: View) -> float:
    """More comparisons give a higher gold score: RL, a small RM.

    Slope of the peak per decade of comparisons."""
    return peak_slope(view, PPO, swept(view, PPO))


@claim("C7c", (0, INF), "fig19")
def c7c(view: View) -> float:
    """More comparisons give a higher gold score: best-of-n, the largest RM.

    Slope of the peak per decade of comparisons."""
    return peak_slope(view, BEST_OF_N, view.sizes(BEST_OF_N, 1)[-1].params)


@claim("C7d", (-INF, 0), "fig4b")
def c7d(view: View) -> float:
    """More comparisons give less goodharting.

    RL, a small RM: slope per decade of comparisons of the fall from the peak to the largest d that all reach."""
    groups = view.data(PPO, swept(view, PPO))
    lines = [view.line(g) for g in groups]
    end = min(line.end for line in lines)
    return per_decade([g.comparisons or 1 for g in groups], [line.fall(end) for line in lines])


def swept_data(view: View) -> tuple[list[int], list[int]]:
    """(RM sizes, numbers of comparisons) that were all trained."""
    sizes = [g.params for g in view.sizes(BEST_OF_N)]
    pairs = view.rms()
    counts = sorted({c for _, c in pairs if all((p, c) in pairs for p in sizes)})
    if len(counts) < 3 or min(counts) >= 2000:
        raise Missing("fewer than 3 numbers of comparisons, or none below 2,000, at every RM size")
    return sizes, counts


@claim("C8a", (-INF, 0.1), "fig6")
def c8a(view: View) -> float:
    """Below about 2,000 comparisons validation loss is near chance.

    Mean over RM sizes, at the most comparisons below 2,000: gain over chance as a share of the gain with all."""
    sizes, counts = swept_data(view)
    few = max(c for c in counts if c < 2000)

    def gain(params: int, comparisons: int) -> float:
        return np.log(2) - view.rm(params, comparisons)

    return float(np.mean([gain(p, few) / max(gain(p, counts[-1]), 1e-6) for p in sizes]))


@claim("C8b", (-0.3, INF), "fig6")
def c8b(view: View) -> float:
    """The threshold does not come substantially earlier for larger RMs.

    Slope per decade of RM size of log10(comparisons at which loss is 0.01 below chance)."""
    sizes, counts = swept_data(view)
    x, where = np.log10(counts), []
    for p in sizes:
        gain = np.maximum.accumulate([np.log(2) - view.rm(p, c) for c in counts])
        if p == sizes[0] and gain[0] >= BETTER:  # whose threshold is the latest: then all would lie at the first count
            raise Missing(f"no threshold: with {counts[0]} comparisons the smallest RM is better than chance already")
        where.append(float(np.interp(BETTER, gain, x)))
    return per_decade(sizes, where)


@claim("C8c", (0, INF), "fig6")
def c8c(view: View) -> float:
    """Above the threshold larger RMs improve faster.

    Slope per decade of RM size of the loss gained from 2,000 comparisons to all."""
    sizes, counts = swept_data(view)
    start = min(counts, key=lambda c: abs(np.log(c / 2000)))
    return per_decade(sizes, [view.rm(p, start) - view.rm(p, counts[-1]) for p in sizes])


def epochs_peaks(view: View) -> tuple[float, float, float]:
    """Mean peak over RM sizes of (1 epoch on few, several epochs on few, 1 epoch on more)."""
    rows = []
    for _, several, few, more in sweeps.repeated(view.evidence.groups[BEST_OF_N], BEST_OF_N):
        if few and more:
            rows.append([view.line(g).peak()[1] for g in (few, several, more)])
    if not rows:
        raise Missing(
            "no RM trained k epochs on some comparisons beside 1 epoch on them and 1 epoch on k times as many"
        )
    few, several, more = np.mean(rows, axis=0)
    return float(few), float(several), float(more)


# Expected to be zero: within a small effect either way. As a share of what new data give it was a ratio of two noises.


@claim("C9a", (-SMALL, SMALL), "fig13")
def c9a(view: View) -> float:
    """Repeating the data does not change gold.

    Peak gained by the extra epochs, in gold sd, mean over RM sizes."""
    few, several, _ = epochs_peaks(view)
    return several - few


@claim("C9b", (0, INF), "fig13")
def c9b(view: View) -> float:
    """As much unique data is substantially better.

    Peak gained by as much new data, mean over RM sizes."""
    few, _, more = epochs_peaks(view)
    return more - few


# Expected to be zero: within a small effect either way. Ranks jump; gold bends in the loss, so its square stands by.


@claim("C10", (-SMALL, SMALL), "fig5")
def c10(view: View) -> float:
    """Equal validation loss means equal robustness, whatever the RM's size.

    Best-of-n at the largest n: gold from the smallest to the largest RM at equal loss, in sd, by least squares on log
    size, loss and its square."""
    groups = view.all(BEST_OF_N)
    if len({g.comparisons for g in groups}) < 3 or len({g.params for g in groups}) < 3:
        raise Missing("fewer than 3 RM sizes by 3 numbers of comparisons")
    loss = np.array([view.rm(g.params, g.comparisons or 0) for g in groups])
    size = np.log([g.params for g in groups])
    x = np.stack([size, np.ones_like(loss), loss - loss.mean(), (loss - loss.mean()) ** 2], axis=1)
    gold = np.array([view.line(g).gold[-1] for g in groups])
    return float(np.linalg.lstsq(x, gold, rcond=None)[0][0] * np.ptp(size))
