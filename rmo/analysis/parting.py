"""Where gold parts from what it learned from: beyond that, an optimiser works on what gold got wrong."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rmo.analysis.bootstrap import interval, resample
from rmo.analysis.curve import Curve, regrid

POINTS = 24  # even in sqrt(KL)


class Parting(NamedTuple):
    """How far the annotator lies above gold on the way to gold's highest mean, both in their standard deviations."""

    peak_kl: float  # where gold's mean over seeds is highest, as far as every seed gets
    gap: float  # annotator less gold where they are farthest apart up to there, signed
    gap_interval: list[float]
    gap_kl: float
    parted_kl: float | None  # the first KL up to there at which the interval of the difference leaves out 0


def parting(curves: Sequence[Curve], apart: Sequence[np.ndarray], draws: int, level: float) -> Parting:
    """Of curves of several seeds with gold per prompt, and the annotator's scores less gold's at their points,
    f64[K, Q] each. Intervals are those of one KL, over prompts and seeds, paired by prompt."""
    r = resample(curves, draws)
    grid = np.linspace(0, min(c.d.max() for c in curves), POINTS)

    def mean_GN(each: Sequence[np.ndarray]) -> np.ndarray:
        known = [regrid(grid, c, x_KQ) @ r.share_NQ.T for c, x_KQ in zip(curves, each, strict=True)]
        return np.einsum("nc,cgn->gn", r.weight_NC, np.stack(known)) / r.weight_NC.sum(axis=1)

    gold_G = mean_GN([np.asarray(c.gold_KQ) for c in curves])[:, 0]
    way_GN = mean_GN(apart)[: int(np.argmax(gold_G)) + 1]
    intervals = [interval(x_N, r, level) for x_N in way_GN]
    most = int(np.argmax(np.abs(way_GN[:, 0])))
    parted = [d**2 for d, (low, high) in zip(grid, intervals, strict=False) if d and not low <= 0 <= high]
    return Parting(
        float(grid[len(way_GN) - 1] ** 2), float(way_GN[most, 0]), intervals[most], float(grid[most] ** 2),
        float(parted[0]) if parted else None,
    )  # fmt: skip
