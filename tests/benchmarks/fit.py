"""Bootstrap refits of a size sweep: `rmo.analysis.fitting` against a loop over `scipy.optimize.curve_fit`, the same
weightings of prompts and seeds, the same weights of points, both forms."""

from dataclasses import replace

import numpy as np

SIZES, SEEDS, POINTS, PROMPTS, DRAWS = 6, 3, 40, 64, 1000
FORMS = {
    "d(a - b d)": lambda d, a, b: d * (a - b * d),
    "d(a - b log d)": lambda d, a, b: d * (a - b * np.log(np.maximum(d, 1e-12))),
}


def cases(top):
    shape = f"{SIZES} sizes x {SEEDS} seeds x {POINTS} points"
    return [
        {"name": f"{form}: {DRAWS:,} refits of {shape}", "form": form, "draws": DRAWS, "packages": False}
        for form in FORMS
    ]


def family(form):
    """(the groups of a sweep, their resampling): two coefficients per size, seeds that differ, prompts that differ."""
    from rmo.analysis import bootstrap, curve, fitting
    from rmo.analysis.curve_id import CurveId

    rng, d, curves = np.random.default_rng(0), np.linspace(0.1, 4, POINTS), []
    for size in range(SIZES):
        for seed in range(SEEDS):
            a, b = 0.5 + 0.2 * size + 0.05 * rng.normal(), 0.2 - 0.02 * size + 0.005 * rng.normal()
            noise = rng.normal(size=(1, PROMPTS)) * d[:, None] * 0.3 + 0.05 * rng.normal(size=(POINTS, PROMPTS))
            gold = FORMS[form](d, a, b)[:, None] + noise
            id = CurveId("bon", 10**size, seed=seed)
            curves.append(curve.from_prompts(id, np.arange(POINTS), d**2, gold, gold))
    found = fitting.Family(fitting.group(curves, "bon"), form, shared_alpha=False)
    return found, bootstrap.resample(found.curves, DRAWS)


def ours(case):
    found, r = family(case["form"])
    # Weightings beyond the bootstrap's are the jackknife's, which the peer's loop does not make.
    short = replace(r, share_NQ=r.share_NQ[: 1 + DRAWS], weight_NC=r.weight_NC[: 1 + DRAWS])
    return lambda: found.on(short).size and None, lambda: {"coefficients": found.on(short)[:20]}


def peer(case):
    from scipy.optimize import curve_fit

    found, r = family(case["form"])
    form = FORMS[case["form"]]

    def refit(n: int) -> list[np.ndarray]:
        share, weight = r.row(n)
        out = []
        for g in range(SIZES):
            mine = [i for i in np.flatnonzero(found.of == g) if weight[i] > 0]
            d = np.concatenate([found.curves[i].d[found.keep[i]] for i in mine])
            y = np.concatenate([found.curves[i].gold_KQ[found.keep[i]] @ share for i in mine])
            sigma = np.concatenate([(found.weights[i] * weight[i]) ** -0.5 for i in mine])
            out.append(curve_fit(form, d, y, p0=(1.0, 0.1), sigma=sigma)[0])
        return out

    rows = lambda count: np.array([refit(n) for n in range(count)])
    return lambda: rows(1 + DRAWS).size and None, lambda: {"coefficients": rows(20)}
