"""What is fitted to curves: functional forms, peaks, bootstrap, extrapolation, coefficients versus RM size.

d = sqrt(KL) in nats^0.5, R the gold score in its standard deviations above the initial policy (paper section 3.1).
Every form is zero at d = 0 and linear in (alpha, beta), so fits are least squares without intercept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize

from rmo.curve import METHODS, Curve, CurveError

# Forms. Each maps (d, extra) -> features f64[K, 2] that (alpha, beta) multiply; `extra` is a shape parameter, if any.

Features = Callable[[np.ndarray, float], np.ndarray]


def _log(d: np.ndarray, inside: np.ndarray) -> np.ndarray:
    return np.where(d > 0, np.log(np.where(d > 0, inside, 1.0)), 0.0)


FORMS: dict[str, tuple[Features, tuple[float, float] | None]] = {
    "d(a - b d)": (lambda d, _: np.stack([d, -(d**2)], 1), None),
    "d(a - b log d)": (lambda d, _: np.stack([d, -d * _log(d, d)], 1), None),
    "d(a - b log(1+d))": (lambda d, _: np.stack([d, -d * np.log1p(d)], 1), None),
    "d(a - b log(e+d))": (lambda d, e: np.stack([d, -d * np.log(e + d)], 1), (1e-3, 10.0)),
    "d(a - b d^g)": (lambda d, g: np.stack([d, -d * d**g], 1), (0.02, 4.0)),
    "d^2(a - b d^2)": (lambda d, _: np.stack([d**2, -(d**4)], 1), None),
}
FORM_OF = {"bon": "d(a - b d)", "ppo": "d(a - b log d)"}


@dataclass(frozen=True)
class Fit:
    """One form on one set of points."""

    form: str
    alpha: float
    beta: float
    r2: float
    rmse: float
    extra: float | None = None  # the form's shape parameter

    def __call__(self, d: np.ndarray) -> np.ndarray:
        return FORMS[self.form][0](np.asarray(d, np.float64), self.extra or 0.0) @ np.array([self.alpha, self.beta])


def fit_curve(d: np.ndarray, gold: np.ndarray, form: str) -> Fit:
    """Least squares of `form` on the points (d, gold); a shape parameter is searched over its range.

    Raises:
      CurveError: fewer than 3 points away from d = 0.
    """
    d, gold = np.asarray(d, np.float64), np.asarray(gold, np.float64)
    if np.sum(d > 0) < 3:
        raise CurveError(f"{int(np.sum(d > 0))} points with KL > 0: a fit of two coefficients needs at least 3")
    features, bounds = FORMS[form]

    def solve(extra: float) -> tuple[np.ndarray, float]:
        x = features(d, extra)
        coefficients = np.linalg.lstsq(x, gold, rcond=None)[0]
        return coefficients, float(np.sum((gold - x @ coefficients) ** 2))

    extra = None
    if bounds is not None:
        log_bounds = (np.log(bounds[0]), np.log(bounds[1]))
        found = optimize.minimize_scalar(
            lambda log_e: solve(float(np.exp(log_e)))[1], bounds=log_bounds, method="bounded"
        )
        extra = float(np.exp(found.x))
    (alpha, beta), _ = solve(extra or 0.0)
    out = Fit(form, float(alpha), float(beta), np.nan, np.nan, extra)
    error = gold - out(d)
    total = np.sum((gold - gold.mean()) ** 2)
    return replace(
        out, r2=float(1 - np.sum(error**2) / total) if total > 0 else np.nan, rmse=float(np.mean(error**2) ** 0.5)
    )


def peak(form: str, alpha, beta) -> tuple[np.ndarray, np.ndarray]:
    """(d*, R*) in closed form for the paper's two forms; infinite where the form never turns (beta <= 0).

    Best-of-n: a/2b and a^2/4b, both 0 where a <= 0 (gold falls from the start). RL: exp(a/b - 1) and b exp(a/b - 1).
    """
    alpha, beta = np.asarray(alpha, np.float64), np.asarray(beta, np.float64)
    turns = beta > 0
    safe = np.where(turns, beta, 1.0)
    with np.errstate(over="ignore"):
        if form == "d(a - b d)":
            rise = np.maximum(alpha, 0)
            d, top = rise / (2 * safe), rise**2 / (4 * safe)
        elif form == "d(a - b log d)":
            d = np.exp(alpha / safe - 1)
            top = safe * d
        else:
            raise ValueError(f"no closed form for the peak of {form}")
    return np.where(turns, d, np.inf), np.where(turns, top, np.inf)


@dataclass(frozen=True)
class Group:
    """Curves that share coefficients: one RM size (and data size), its seeds."""

    label: str
    params: int
    curves: tuple[Curve, ...]
    comparisons: int | None = None


def group(curves: Sequence[Curve], method: str) -> list[Group]:
    """Curves of one method by (RM parameters, comparisons, policy, KL coefficient), smallest RM first."""
    keys: dict[tuple, list[Curve]] = {}
    for c in curves:
        if c.method == method:
            keys.setdefault(
                tuple(c.meta.get(n) or 0 for n in ("rm_params", "rm_comparisons", "policy_params", "kl_coef")), []
            ).append(c)
    out = []
    for key, members in sorted(keys.items()):
        params, comparisons, policy, kl_coef = key
        label = f"{params:,} parameters" if params else "all"
        label += f", {comparisons:,} comparisons" if len({k[1] for k in keys}) > 1 else ""
        label += f", policy {policy:,}" if len({k[2] for k in keys}) > 1 else ""
        label += f", KL coefficient {kl_coef:g}" if len({k[3] for k in keys}) > 1 else ""
        out.append(Group(label, params, tuple(members), comparisons))
    return out


def fit_groups(groups: Sequence[Group], form: str, shared_alpha: bool, min_d: float = 0.0,
               gold: Sequence[Sequence[np.ndarray]] | None = None,
               weight: Sequence[Sequence[float]] | None = None) -> np.ndarray:  # fmt: skip
    """(alpha, beta) f64[G, 2] of every group by one least squares; with `shared_alpha` all groups have one alpha.

    `gold` replaces the curves' gold (bootstrap); `weight` multiplies each curve's squared errors (resampled seeds).
    """
    features = FORMS[form][0]
    count = len(groups)
    normal, right = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
    for g, members in enumerate(groups):
        slots = [0 if shared_alpha else g, count + g]
        for m, curve in enumerate(members.curves):
            keep = curve.d >= max(min_d, 1e-9)
            x = features(curve.d[keep], 0.0)
            y = (curve.gold if gold is None else gold[g][m])[keep]
            w = 1.0 if weight is None else weight[g][m]
            normal[np.ix_(slots, slots)] += w * x.T @ x
            right[slots] += w * x.T @ y
    solution = np.linalg.lstsq(normal, right, rcond=None)[0]
    alpha = np.full(count, solution[0]) if shared_alpha else solution[:count]
    return np.stack([alpha, solution[count:]], axis=1)


def bootstrap(
    groups: Sequence[Group], form: str, shared_alpha: bool, draws: int, min_d: float = 0.0, seed: int = 0
) -> np.ndarray:
    """(alpha, beta) f64[draws, G, 2] refitted on resampled prompts and, inside each group, resampled RM seeds.

    Prompts are resampled once per draw for all curves, which share them. A curve without per-prompt scores (a foreign
    CSV) gets Gaussian noise of its gold_se instead, correlated exp(-|d - d'|) along the curve; never over n.
    """
    rng = np.random.default_rng(seed)
    prompts = {c.gold_KQ.shape[1] for g in groups for c in g.curves if c.gold_KQ is not None}
    if len(prompts) > 1:
        raise CurveError(f"curves rest on {sorted(prompts)} prompts: the bootstrap over prompts needs the same ones")
    q = prompts.pop() if prompts else 1
    roots = {}
    for g, members in enumerate(groups):
        for m, c in enumerate(members.curves):
            if c.gold_KQ is None and c.gold_se is not None:
                kernel = np.exp(-np.abs(c.d[:, None] - c.d[None])) * np.outer(c.gold_se, c.gold_se)
                roots[g, m] = np.linalg.cholesky(kernel + 1e-12 * np.eye(len(c.d)))
    out = np.empty((draws, len(groups), 2))
    for draw in range(draws):
        share = rng.multinomial(q, np.full(q, 1 / q)) / q
        gold, weight = [], []
        for g, members in enumerate(groups):
            # S - 1 of S seeds: the variance of their mean is then the squared standard error, not (S-1)/S of it.
            size = len(members.curves)
            weight.append(rng.multinomial(max(size - 1, 1), np.full(size, 1 / size)).astype(float))
            row = []
            for m, c in enumerate(members.curves):
                if c.gold_KQ is not None:
                    row.append(c.gold_KQ @ share)
                elif (g, m) in roots:
                    row.append(c.gold + roots[g, m] @ rng.normal(size=len(c.d)))
                else:
                    row.append(c.gold)
            gold.append(row)
        out[draw] = fit_groups(groups, form, shared_alpha, min_d, gold, weight)
    return out


def interval_source(members: Group) -> str:
    """What the bootstrap resamples for this group; a single seed says nothing of the variation between seeds."""
    out = ["prompts"] if any(c.gold_KQ is not None for c in members.curves) else []
    out += ["gold_se"] if any(c.gold_KQ is None and c.gold_se is not None for c in members.curves) else []
    out += [f"{len(members.curves)} seeds"] if len(members.curves) > 1 else []
    return " and ".join(out) or "nothing: one seed and no gold_se"


def interval(samples: np.ndarray, level: float = 0.95) -> list[float]:
    """Percentile interval [low, high] over the first axis; infinite samples count, NaN ones do not occur."""
    return [
        float(np.quantile(samples, (1 - level) / 2, method="nearest")),
        float(np.quantile(samples, (1 + level) / 2, method="nearest")),
    ]


def against_log_size(params: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(slope per decade, intercept at 1 parameter) of values f64[..., G] on log10(params) f64[G], least squares."""
    x = np.log10(np.asarray(params, np.float64))
    centred = x - x.mean()
    slope = (values * centred).sum(-1) / (centred**2).sum()
    return slope, values.mean(-1) - slope * x.mean()


def extrapolate(groups: Sequence[Group], form: str, min_d: float = 0.0) -> dict[str, float]:
    """Fit `form` per group on the lower half of its KL range, score it on the rest: pooled held-out RMSE.

    Groups with fewer than 3 points to fit are not scored; `scored` says how many were. `held_out_spread` is the root
    mean square of the held-out gold around its own mean: what a constant would leave.
    """
    errors, spread = [], []
    for members in groups:
        d = np.concatenate([c.d for c in members.curves])
        gold = np.concatenate([c.gold for c in members.curves])
        cut = (d**2).max() / 2
        low, high = (d**2 <= cut) & (d >= max(min_d, 1e-9)), d**2 > cut
        if low.sum() < 3:
            continue
        fitted = fit_curve(d[low], gold[low], form)
        errors.append(gold[high] - fitted(d[high]))
        spread.append(gold[high] - gold[high].mean())
    rms = lambda parts: float(np.mean(np.concatenate(parts) ** 2) ** 0.5) if parts else np.nan  # noqa: E731
    return {"held_out_rmse": rms(errors), "held_out_spread": rms(spread), "scored": len(errors)}


def summarise(
    curves: Sequence[Curve], draws: int = 1000, level: float = 0.95, min_d_ppo: float = 0.3
) -> dict[str, Any]:
    """Everything that `coefficients.json` holds: per method, coefficients and peaks per group with intervals,
    fit quality, trends against RM size, and the rival forms' extrapolation errors."""
    out: dict[str, Any] = {}
    for method in METHODS:
        groups = group(curves, method)
        if not groups:
            continue
        form, shared = FORM_OF[method], method == "ppo"
        min_d = min_d_ppo if method == "ppo" else 0.0
        best = fit_groups(groups, form, shared, min_d)
        samples = bootstrap(groups, form, shared, draws, min_d)
        free = fit_groups(groups, form, False, min_d)
        rows_out = []
        for g, members in enumerate(groups):
            d = np.concatenate([c.d for c in members.curves])
            gold = np.concatenate([c.gold for c in members.curves])
            keep = d >= max(min_d, 1e-9)
            own = fit_curve(d[keep], gold[keep], form) if keep.sum() >= 3 else None
            fitted = Fit(form, float(best[g, 0]), float(best[g, 1]), np.nan, np.nan)
            residual = gold[keep] - fitted(d[keep])
            d_star, r_star = peak(form, *best[g])
            d_draws, r_draws = peak(form, samples[:, g, 0], samples[:, g, 1])
            grid = np.linspace(min_d, d.max(), 50)
            bundle = samples[:, g] @ FORMS[form][0](grid, 0.0).T
            low, high = np.quantile(bundle, [(1 - level) / 2, (1 + level) / 2], axis=0)
            band = {
                "kl": grid**2,
                "fit": fitted(grid),
                "low": low,
                "high": high,
            }
            rows_out.append({
                "group": members.label, "interval_from": interval_source(members),
                "rm_params": members.params, "rm_comparisons": members.comparisons,
                "seeds": len(members.curves), "points": int(keep.sum()),
                "alpha": best[g, 0], "alpha_interval": interval(samples[:, g, 0], level),
                "beta": best[g, 1], "beta_interval": interval(samples[:, g, 1], level),
                "alpha_alone": free[g, 0], "beta_alone": free[g, 1], "r2_alone": own.r2 if own else np.nan,
                "r2": float(1 - np.sum(residual**2) / np.sum((gold[keep] - gold[keep].mean()) ** 2)),
                "rmse": float(np.mean(residual**2) ** 0.5),
                "peak_kl": float(d_star**2), "peak_kl_interval": interval(d_draws**2, level),
                "peak_gold": float(r_star), "peak_gold_interval": interval(r_draws, level),
                "turns": bool(best[g, 1] > 0), "band": {n: values.round(5).tolist() for n, values in band.items()},
                "measured_peak_gold": float(np.mean([c.gold.max() for c in members.curves])),
                "measured_peak_kl": float(np.mean([c.kl[c.gold.argmax()] for c in members.curves])),
            })  # fmt: skip
        trends = {}
        params = np.array([members.params for members in groups])
        if len(set(params.tolist())) >= 3 and (params > 0).all():
            for i, name in enumerate(("alpha", "beta")):
                if name == "alpha" and shared:
                    continue  # one alpha for all sizes has no trend to measure
                slope, intercept = against_log_size(params, best[:, i])
                slopes, _ = against_log_size(params, samples[:, :, i])
                trends[name] = {
                    "per_decade": float(slope),
                    "interval": interval(slopes, level),
                    "at_1": float(intercept),
                }
        rivals = {name: extrapolate(groups, name, min_d) for name in FORMS}
        out[method] = {
            "form": form, "shared_alpha": shared, "min_d": min_d, "level": level, "bootstrap": draws,
            "groups": rows_out, "trends": trends, "extrapolation": rivals,
        }  # fmt: skip
    return out
