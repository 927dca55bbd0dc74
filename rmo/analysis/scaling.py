"""coefficients.json: every fit with its intervals, peaks, rival forms by extrapolation error, laws against RM size."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmo.analysis.bootstrap import Resamples, interval, resample
from rmo.analysis.curve import Curve, CurveError
from rmo.analysis.fitting import (
    FORMS,
    STEEP,
    Family,
    Fit,
    Group,
    families,
    fit_curve,
    group,
    interval_source,
    lower_end,
    peak,
)
from rmo.analysis.stopping import advise
from rmo.methods import method as methods
from rmo.methods.method import Method

FAR = 1e3  # a peak beyond so many times the largest KL of the data counts as infinitely far
MIN_D = (0.0, 0.3, 0.6, 1.0)  # lower ends of the RL fit's range of d that are compared


def against_log_size(params: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(slope per decade, intercept at 1 parameter) of values f64[..., G] on log10(params) f64[G], least squares."""
    x = np.log10(np.asarray(params, np.float64))
    centred = x - x.mean()
    slope = (values * centred).sum(-1) / (centred**2).sum()
    return slope, values.mean(-1) - slope * x.mean()


def leave_one_out(params: np.ndarray, values_G: np.ndarray) -> dict[str, float]:
    """Root mean square error of predicting each size's coefficient from the others', per law; infinite for a power law
    where signs differ."""
    x, out = np.log10(np.asarray(params, np.float64)), {}
    laws = {"constant": (0, False), "a + b log N": (1, False), "power law": (1, True)}
    for law, (degree, logs) in laws.items():
        errors = []
        for g in range(len(x)):
            rest = np.arange(len(x)) != g
            y = values_G[rest]
            if logs and not (np.all(values_G > 0) or np.all(values_G < 0)):
                errors.append(np.inf)
                continue
            target = np.log(np.abs(y)) if logs else y
            predicted = np.polyval(np.polyfit(x[rest], target, degree), x[g])
            errors.append(values_G[g] - (np.sign(values_G[g]) * np.exp(predicted) if logs else predicted))
        out[law] = float(np.mean(np.square(errors)) ** 0.5)
    return out


def held_out(
    members: Group, form: str, min_d: float, share_Q: np.ndarray, weight_C: np.ndarray, low_share: float = 0.5
):
    """Residuals and spread of the upper part of one group's KL range under a fit of `form` to the lower part, each with
    its point's weight; None where fewer than 3 points could be fitted.
    """
    d = np.concatenate([c.d for c in members.curves])
    gold = np.concatenate([c.gold if c.gold_KQ is None else c.gold_KQ @ share_Q for c in members.curves])
    weight = np.concatenate([np.full(len(c.d), w) for c, w in zip(members.curves, weight_C, strict=True)])
    cut = (d**2).max() * low_share
    low, high = (d**2 <= cut) & (d >= max(min_d, 1e-9)), d**2 > cut
    if (low & (weight > 0)).sum() < 3 or not weight[high].sum():
        return None
    fitted = fit_curve(d[low], gold[low], form, weight[low])
    mean = np.average(gold[high], weights=weight[high])
    return gold[high] - fitted(d[high]), gold[high] - mean, weight[high]


def extrapolate(
    groups: Sequence[Group], form: str, min_d: float, share_Q: np.ndarray, weight_C: np.ndarray
) -> dict[str, float]:
    """Fit `form` per group on the lower half of its KL range, score it on the rest: pooled held-out RMSE.

    Groups with fewer than 3 points to fit are not scored; `scored` says how many were. `held_out_spread` is the root
    mean square of the held-out gold around its own mean: what a constant would leave.
    """
    parts, start = [], 0
    for members in groups:
        part = held_out(members, form, min_d, share_Q, weight_C[start : start + len(members.curves)])
        start += len(members.curves)
        parts += [part] if part is not None else []
    if not parts:
        return {"held_out_rmse": np.nan, "held_out_spread": np.nan, "scored": 0}
    error, spread, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    rms = lambda x: float(np.average(x**2, weights=weight) ** 0.5)  # noqa: E731
    return {"held_out_rmse": rms(error), "held_out_spread": rms(spread), "scored": len(parts)}


def rank_forms(groups: Sequence[Group], min_d: float, draws: int, level: float) -> dict[str, dict[str, Any]]:
    """Every form's held-out error with its interval, its mean rank, and the share of resamples on which it is best."""
    r = resample([c for g in groups for c in g.curves], draws)
    out: dict[str, dict[str, Any]] = {form: extrapolate(groups, form, min_d, *r.row(0)) for form in FORMS}
    if not out[next(iter(out))]["scored"]:
        return out
    if len(np.unique(np.hstack([r.share_NQ, r.weight_NC]), axis=0)) == 1:
        return out  # one curve without prompts: there is nothing to resample
    errors = np.array([
        [extrapolate(groups, form, min_d, *r.row(n))["held_out_rmse"] for form in FORMS] for n in range(len(r.share_NQ))
    ])  # fmt: skip
    boot = errors[1 : 1 + draws]
    ranks = boot.argsort(axis=1).argsort(axis=1) + 1
    for i, form in enumerate(FORMS):
        out[form] |= {
            "interval": interval(errors[:, i], r, level),
            "mean_rank": float(ranks[:, i].mean()),
            "best_share": float(np.mean(ranks[:, i] == 1)),
        }
    return out


def rank_laws(params: np.ndarray, values_NG: np.ndarray, r: Resamples) -> dict[str, dict[str, float]]:
    """Laws of a coefficient against RM size by leave-one-size-out error, and how often each is best over resamples."""
    rows = [leave_one_out(params, values) for values in values_NG[: 1 + min(r.draws, 200)]]
    best = [min(row, key=row.__getitem__) for row in rows[1:]]
    return {law: {"leave_one_out_rmse": rows[0][law], "best_share": best.count(law) / len(best)} for law in rows[0]}


def describe(
    g: Group, i: int, label: str, family: Family, values_NG2: np.ndarray, r: Resamples, level: float, min_d: float
) -> dict[str, Any]:
    """One row of the table of fits: coefficients, quality, peak, each with its interval, and the band for plots."""
    form, best = family.form, values_NG2[0, i]
    d = np.concatenate([c.d for c in g.curves])
    gold = np.concatenate([c.gold for c in g.curves])
    keep = d >= max(min_d, 1e-9)
    own = fit_curve(d[keep], gold[keep], form) if keep.sum() >= 3 else None
    fitted = Fit(form, float(best[0]), float(best[1]), np.nan, np.nan)
    residual = gold[keep] - fitted(d[keep])
    d_star, r_star = peak(form, values_NG2[:, i, 0], values_NG2[:, i, 1])
    near = d_star <= (FAR * d.max() ** 2) ** 0.5  # a resample that hardly bends peaks out of all range
    kl_star, r_star = np.where(near, d_star, np.inf) ** 2, np.where(near, r_star, np.inf)
    peak_interval = [max(end, 0.0) for end in interval(kl_star, r, level)]
    r2 = float(1 - np.sum(residual**2) / max(np.sum((gold[keep] - gold[keep].mean()) ** 2), 1e-300))
    grid = np.linspace(min_d, d.max(), 50)
    bundle = values_NG2[:, i] @ FORMS[form][0](grid, 0.0).T
    low, high = np.array([interval(column, r, level) for column in bundle.T]).T
    band = {"kl": grid**2, "fit": fitted(grid), "low": low, "high": high}
    return {
        "group": label, "interval_from": interval_source(g), **g.id.cells(),
        "seeds": len(g.curves), "points": int(keep.sum()),
        "alpha": best[0], "alpha_interval": interval(values_NG2[:, i, 0], r, level),
        "beta": best[1], "beta_interval": interval(values_NG2[:, i, 1], r, level),
        "r2_alone": own.r2 if own else np.nan, "alpha_alone": own.alpha if own else np.nan,
        "beta_alone": own.beta if own else np.nan,
        "r2": r2,
        "rmse": float(np.mean(residual**2) ** 0.5),
        "peak_kl": float(kl_star[0]), "peak_kl_interval": peak_interval,
        "peak_gold": float(r_star[0]), "peak_gold_interval": interval(r_star, r, level),
        "turns": bool(best[1] > 0), "band": {n: values.round(5).tolist() for n, values in band.items()},
        "measured_peak_gold": float(np.mean([c.gold.max() for c in g.curves])),
        "measured_peak_kl": float(np.mean([c.kl[c.gold.argmax()] for c in g.curves])),
        "advice": advise(g.curves, form, min_d, values_NG2[:, i], r, float(kl_star[0]), peak_interval, r2),
    }  # fmt: skip


def summarise(
    curves: Sequence[Curve], draws: int = 1000, level: float = 0.95, min_d: float = 0.3, rank_draws: int = 200
) -> dict[str, Any]:
    """Everything that `coefficients.json` holds, per method: fits of every group (groups that differ only in RM size
    are fitted together), and for the main family the trends against RM size, the laws, the rival forms, and for RL
    what the lower end of the fitted range does."""
    out: dict[str, Any] = {}
    for method in methods.every():
        if groups := group(curves, method.name):
            out[method.name] = of_method(method, groups, draws, level, lower_end(method.form, min_d), rank_draws)
    return out


def of_method(
    method: Method, groups: Sequence[Group], draws: int, level: float, min_d: float, rank_draws: int
) -> dict[str, Any]:
    """One method's part of `summarise`."""

    def long(g: Group) -> bool:
        return sum(int((c.d >= max(min_d, 1e-9)).sum()) for c in g.curves) >= 3

    rows, part = [], {}
    too_short, every = [g for g in groups if not long(g)], families([g for g in groups if long(g)])
    if not every:
        raise CurveError(f"{method}: no curve has 3 points with sqrt(KL) > {min_d:g}: a fit of two needs 3")
    for k, members in enumerate(every):
        family = Family(members, method.form, method.shared_alpha, min_d)
        r = resample(family.curves, draws)
        values = family.on(r)
        among = members if len(every) == 1 else groups
        rows += [describe(g, i, g.label(among), family, values, r, level, min_d) for i, g in enumerate(members)]
        if k == 0:
            part = main_family(members, family, values, r, level, min_d, min(draws, rank_draws))
    return {
        "form": method.form, "shared_alpha": method.shared_alpha, "min_d": min_d, "level": level, "bootstrap": draws,
        "main": len(every[0]), "groups": rows, "too_short": [g.label(groups) for g in too_short], **part,
    }  # fmt: skip


def main_family(
    members: Sequence[Group], family: Family, values_NG2: np.ndarray, r: Resamples, level: float, min_d: float,
    rank_draws: int,
) -> dict[str, Any]:  # fmt: skip
    """What is said of the sweep over RM sizes as a whole."""
    form, shared = family.form, family.shared
    trends, laws = {}, {}
    params = np.array([g.params for g in members])
    if len(set(params.tolist())) >= 3 and (params > 0).all():
        for i, name in enumerate(("alpha", "beta")):
            if name == "alpha" and shared:
                continue  # one alpha for all sizes has no trend to measure
            slopes, intercepts = against_log_size(params, values_NG2[:, :, i])
            trends[name] = {
                "per_decade": float(slopes[0]), "interval": interval(slopes, r, level), "at_1": float(intercepts[0])
            }  # fmt: skip
            laws[name] = rank_laws(params, values_NG2[:, :, i], r)
    out: dict[str, Any] = {"trends": trends, "laws": laws, "tau": family.tau2**0.5}
    out["extrapolation"] = rank_forms(members, min_d, rank_draws, level)
    if form in STEEP:
        out["lower_end"] = []
        ones = np.ones(len(family.curves))
        q = r.share_NQ.shape[1]
        for low in MIN_D:
            fitted = Family(members, form, shared, low)
            if min(k.sum() for k in fitted.keep) < 2:
                continue  # too little is left to fit
            best = fitted.best()
            error = extrapolate(members, form, low, np.full(q, 1 / q), ones)["held_out_rmse"]
            out["lower_end"].append(
                {"min_d": low, "alpha": best[0, 0], "beta": best[:, 1].tolist(), "held_out_rmse": error}
            )
    return out
