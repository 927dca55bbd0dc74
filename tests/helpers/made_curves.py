"""Made-up curves, for tests of what comes after measuring."""

import numpy as np

from rmo.analysis.bootstrap import Resamples, resample
from rmo.analysis.curve import Curve, from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import Family, Fit, Group
from rmo.methods.method import find

BON, PPO = "d(a - b d)", "d(a - b log d)"


def made(method, alpha, beta, params=1000, seed=0, noise=0.0, prompts=40, kl=None, rng=None, seed_noise=0.0) -> Curve:
    """A curve of the method's own form; noise per prompt is one shift and one slope, so points correlate."""
    rng = rng or np.random.default_rng(params + seed)
    kl = np.linspace(0, 9 if method == "bon" else 40, 30) if kl is None else kl
    d = np.sqrt(kl)
    alpha = alpha + seed_noise * rng.normal()
    gold = Fit(find(method).form, alpha, beta)(d)
    shifts = rng.normal(size=(1, prompts)) + rng.normal(size=(1, prompts)) * d[:, None] / 3
    table = gold[:, None] + noise * (shifts * (d[:, None] > 0) + rng.normal(size=(len(d), prompts)) / 4)
    return from_prompts(CurveId(method, params, seed=seed), np.arange(len(d)), kl, table, table)


def refits(
    groups: list[Group], form: str, shared: bool, draws: int, min_d: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, Resamples]:
    """(alpha, beta) f64[N, G, 2] of groups on every resample of their prompts and seeds."""
    family = Family(groups, form, shared, min_d)
    r = resample(family.curves, draws, seed)
    return family.on(r, seed), r
