"""Made-up sweeps over RM size whose truth is known: a law, sizes that miss it, seeds, prompts that all curves share, and
curves that wind about their form."""

from typing import NamedTuple

import numpy as np

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import Group, group
from rmo.analysis.forms import FORMS
from rmo.methods.method import find

# Of (alpha, beta): the law's intercept and change per decade, and standard deviations of everything that is drawn.
LAW = {"bon": ((0.25, 0.33), (0.25, -0.035)), "ppo": ((0.55, 0.62), (0.1, -0.06))}
SIZES, SEEDS = (0.05, 0.015), (0.09, 0.03)
SHARED, OWN = (0.5, 0.15), (0.4, 0.1)  # of one prompt: the same for all curves, and each curve's own
READ, WIGGLE = 0.8, 0.06  # of one read of one prompt; of a curve about its form, in gold's unit
FAR = {"bon": 6.6, "ppo": 30.0}  # largest KL


class Sweep(NamedTuple):
    """The curves, and what they were made of."""

    groups: list[Group]
    law_22: np.ndarray  # (A, B), f64[2, 2]
    sizes_G2: np.ndarray  # (alpha, beta) of every size, f64[G, 2]


def two(rng: np.random.Generator, sd: tuple[float, float], *shape: int) -> np.ndarray:
    """Draws f64[..., 2] with these standard deviations, correlated 0.7 as slope and curvature of a curve are."""
    draws = rng.standard_normal((*shape, 2))
    draws[..., 1] = 0.7 * draws[..., 0] + 0.51**0.5 * draws[..., 1]
    return draws * sd


def wiggle(rng: np.random.Generator, d: np.ndarray, correlation: float = 0.8) -> np.ndarray:
    """An autoregressive path along the curve, zero at its start, f64[K]."""
    out, state = np.zeros(len(d)), rng.standard_normal()
    for k in range(len(d)):
        out[k] = state
        state = correlation * state + (1 - correlation**2) ** 0.5 * rng.standard_normal()
    return WIGGLE * out * np.minimum(d, 1)


def made_sweep(
    rng: np.random.Generator, method: str, sizes: int, seeds: int, prompts: int = 48, between_sizes: float = 1.0
) -> Sweep:
    """A sweep of `sizes` RM sizes with `seeds` seeds; `between_sizes` scales what sizes miss the law by."""
    params = np.geomspace(500, 100_000, sizes).round().astype(int)
    law, x = np.array(LAW[method]), np.log10(params)
    truth = law[0] + law[1] * x[:, None] + two(rng, SIZES, sizes) * between_sizes
    d = np.linspace(0, FAR[method] ** 0.5, 28)
    features = FORMS[find(method).form].features(d, 0.0)
    level, tilt = two(rng, SHARED, prompts), two(rng, SHARED, prompts) * 0.3
    curves = []
    for g in range(sizes):
        for seed in range(seeds):
            one = truth[g] + two(rng, SEEDS) + level + tilt * (x[g] - x.mean()) + two(rng, OWN, prompts)
            noise = READ * rng.standard_normal((len(d), prompts)) * (d[:, None] > 0)
            table = features @ one.T + wiggle(rng, d)[:, None] + noise
            curves.append(
                from_prompts(CurveId(method, int(params[g]), seed=seed), np.arange(len(d)), d**2, table, table)
            )
    return Sweep(group(curves, method), law, truth)
