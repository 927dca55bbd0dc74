"""Made-up RMs over sizes and comparisons whose truth is known: a law that levels off, places that miss it, seeds, reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmo.analysis.curve import Curve
from rmo.analysis.curve_id import CurveId
from rmo.analysis.forms import FORMS
from rmo.methods.method import find
from tests.helpers.made_sweeps import FAR, LAW, SEEDS, SIZES, two, wiggle

PER_DECADE = (0.2, -0.03)  # of (alpha, beta), of comparisons
READ = 0.03  # standard error of a read
Place = tuple[int, int | None]


@dataclass(frozen=True)
class Grid:
    """Measured curves, and another place's own."""

    curves: list[Curve]
    kl: np.ndarray  # f64[K]
    truth: np.ndarray  # f64[K], the expected gold of one new RM at the other place


def truth_at(method: str, place: Place, levels_off: float) -> np.ndarray:
    """(alpha, beta) by the law, which `levels_off` bends over the decades from 500 parameters and 500 comparisons on."""
    law = np.array(LAW[method])
    x = np.log10(place[0])
    out = law[0] + law[1] * x - levels_off * np.array((0.03, -0.005)) * (x - 2.7) ** 2
    if place[1] is None:
        return out
    y = np.log10(place[1] / 36_000)
    return out + np.array(PER_DECADE) * y - levels_off * np.array((0.02, -0.003)) * y**2


def made_grid(
    rng: np.random.Generator, method: str, places: Sequence[Place], seeds: int, other: Place,
    missed: float = 1.0, levels_off: float = 1.0,
) -> Grid:  # fmt: skip
    """Curves of `seeds` RMs at each place, and the truth of one RM at another; `missed` scales what places miss the law
    by."""
    d = np.linspace(0, FAR[method] ** 0.5, 28)
    features, curves = FORMS[find(method).form].features(d, 0.0), []
    for params, comparisons in places:
        mean = truth_at(method, (params, comparisons), levels_off) + two(rng, SIZES) * missed
        for seed in range(seeds):
            read = READ * rng.standard_normal(len(d)) * (d > 0)
            gold = features @ (mean + two(rng, SEEDS)) + wiggle(rng, d) + read
            id = CurveId(method, params, comparisons, policy_params=9, seed=seed)
            curves.append(Curve(id, np.arange(len(d)), d**2, gold, gold, gold_se=np.where(d > 0, READ, 0.0)))
    own = truth_at(method, other, levels_off) + two(rng, SIZES) * missed + two(rng, SEEDS)
    return Grid(curves, d**2, features @ own)
