"""coefficients.json: every fit with its intervals, peaks, rival forms by extrapolation error, laws against RM size."""

from collections.abc import Sequence

import numpy as np

from rmo.analysis.bootstrap import Resamples, interval, resample
from rmo.analysis.curve import Curve, CurveError
from rmo.analysis.fitting import FEWEST, Family, Fit, Group, families, fit_curve, group, interval_source
from rmo.analysis.forecasting import left_out
from rmo.analysis.forms import FORMS, lower_end, peak
from rmo.analysis.hierarchy import Estimate, Hierarchy, fit_hierarchy, peaks, seed_fits
from rmo.analysis.stopping import advise
from rmo.methods import method as methods
from rmo.methods.method import Method
from rmo.runtime.types import Row

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
    x = np.log10(np.asarray(params, np.float64))

    def left_out(values_G: np.ndarray, degree: int, g: int) -> float:
        """What a polynomial in x, fitted to all values but one, says of that one."""
        rest = np.arange(len(x)) != g
        return float(np.polyval(np.polyfit(x[rest], values_G[rest], degree), x[g]))

    def rms(predicted: Sequence[float]) -> float:
        return float(np.mean(np.square(values_G - np.array(predicted))) ** 0.5)

    every, one_sign = range(len(x)), np.all(values_G > 0) or np.all(values_G < 0)
    logs, sign = np.log(np.abs(values_G)) if one_sign else values_G, np.sign(values_G)
    return {
        "constant": rms([left_out(values_G, 0, g) for g in every]),
        "a + b log N": rms([left_out(values_G, 1, g) for g in every]),
        "power law": rms([sign[g] * np.exp(left_out(logs, 1, g)) for g in every]) if one_sign else np.inf,
    }


def held_out(
    members: Group, form: str, min_d: float, share_Q: np.ndarray, weight_C: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(residuals, spread, weight) of the points in the upper half of one group's KL range, under a fit of `form` to the
    lower half; None where fewer than 3 points could be fitted."""
    d = np.concatenate([c.d for c in members.curves])
    gold = np.concatenate([c.gold if c.gold_KQ is None else c.gold_KQ @ share_Q for c in members.curves])
    weight = np.concatenate([np.full(len(c.d), w) for c, w in zip(members.curves, weight_C, strict=True)])
    cut = (d**2).max() * 0.5
    low, high = (d**2 <= cut) & (d >= max(min_d, 1e-9)), d**2 > cut
    if (low & (weight > 0)).sum() < FEWEST or not weight[high].sum():
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
    ends = np.cumsum([len(g.curves) for g in groups])[:-1]
    tried = [held_out(g, form, min_d, share_Q, w) for g, w in zip(groups, np.split(weight_C, ends), strict=True)]
    parts = [part for part in tried if part is not None]
    if not parts:
        return {"held_out_rmse": np.nan, "held_out_spread": np.nan, "scored": 0}
    error, spread, weight = (np.concatenate(column) for column in zip(*parts, strict=True))

    def rms(x: np.ndarray) -> float:
        return float(np.average(x**2, weights=weight) ** 0.5)

    return {"held_out_rmse": rms(error), "held_out_spread": rms(spread), "scored": len(parts)}


def rank_forms(groups: Sequence[Group], min_d: float, draws: int, level: float) -> dict[str, Row]:
    """Every form's held-out error with its interval, its mean rank, and the share of resamples on which it is best."""
    r = resample([c for g in groups for c in g.curves], draws)
    out: dict[str, Row] = {form: extrapolate(groups, form, min_d, *r.row(0)) for form in FORMS}
    if not any(row["scored"] for row in out.values()):
        return out
    if len(np.unique(np.hstack([r.share_NQ, r.weight_NC]), axis=0)) == 1:
        return out  # one curve without prompts: there is nothing to resample
    rows = range(len(r.share_NQ))
    errors_NF = np.array([
        [extrapolate(groups, form, min_d, *r.row(n))["held_out_rmse"] for form in FORMS] for n in rows
    ])  # fmt: skip
    ranks = errors_NF[1 : 1 + draws].argsort(axis=1).argsort(axis=1) + 1
    for i, form in enumerate(FORMS):
        out[form]["interval"] = interval(errors_NF[:, i], r, level, (0, np.inf))
        out[form]["mean_rank"] = float(ranks[:, i].mean())
        out[form]["best_share"] = float(np.mean(ranks[:, i] == 1))
    return out


def rank_laws(params: np.ndarray, values_NG: np.ndarray, r: Resamples) -> dict[str, dict[str, float]]:
    """Laws of a coefficient against RM size by leave-one-size-out error, and how often each is best over resamples."""
    rows = [leave_one_out(params, values) for values in values_NG[: 1 + min(r.draws, 200)]]
    best = [min(row, key=row.__getitem__) for row in rows[1:]]
    return {law: {"leave_one_out_rmse": rows[0][law], "best_share": best.count(law) / len(best)} for law in rows[0]}


def describe(
    g: Group, i: int, label: str, family: Family, values_NG2: np.ndarray, r: Resamples, level: float, min_d: float
) -> Row:
    """One row of the table of fits: coefficients, quality, peak, each with its interval, and the band for plots."""
    form, values_N2 = family.form, values_NG2[:, i]
    alpha, beta = values_N2[0]
    d = np.concatenate([c.d for c in g.curves])
    keep = d >= max(min_d, 1e-9)
    gold = np.concatenate([c.gold for c in g.curves])[keep]
    alone = fit_curve(d[keep], gold, form) if keep.sum() >= FEWEST else Fit(form, np.nan, np.nan)
    residual = gold - Fit(form, alpha, beta)(d[keep])
    r2 = float(1 - np.sum(residual**2) / max(np.sum((gold - gold.mean()) ** 2), 1e-300))
    d_star, gold_star = peak(form, values_N2[:, 0], values_N2[:, 1])
    near = d_star <= (FAR * d.max() ** 2) ** 0.5  # a resample that hardly bends peaks out of all range
    kl_star, gold_star = np.where(near, d_star, np.inf) ** 2, np.where(near, gold_star, np.inf)
    peak_interval = interval(kl_star, r, level, (0, np.inf))
    return {
        "group": label, "interval_from": interval_source(g), **g.id.cells(),
        "seeds": len(g.curves), "points": int(keep.sum()),
        "alpha": alpha, "alpha_interval": interval(values_N2[:, 0], r, level),
        "beta": beta, "beta_interval": interval(values_N2[:, 1], r, level),
        "r2_alone": alone.r2, "alpha_alone": alone.alpha, "beta_alone": alone.beta,
        "r2": r2, "rmse": float(np.mean(residual**2) ** 0.5),
        "peak_kl": float(kl_star[0]), "peak_kl_interval": peak_interval,
        "peak_gold": float(gold_star[0]), "peak_gold_interval": interval(gold_star, r, level),
        "turns": bool(beta > 0), "band": band(form, values_N2, np.linspace(min_d, d.max(), 50), r, level),
        "measured_peak_gold": float(np.mean([c.gold.max() for c in g.curves])),
        "measured_peak_kl": float(np.mean([c.kl[c.gold.argmax()] for c in g.curves])),
        "advice": advise(g.curves, form, min_d, values_N2, r, float(kl_star[0]), peak_interval, r2),
    }  # fmt: skip


def band(form: str, values_N2: np.ndarray, d: np.ndarray, r: Resamples, level: float) -> dict[str, list[float]]:
    """A fit and its interval at every d, for plots."""
    gold_NK = values_N2 @ FORMS[form].features(d, 0.0).T
    low, high = np.array([interval(gold_N, r, level) for gold_N in gold_NK.T]).T
    columns = {"kl": d**2, "fit": Fit(form, *values_N2[0])(d), "low": low, "high": high}
    return {name: values.round(5).tolist() for name, values in columns.items()}


def summarise(
    curves: Sequence[Curve], draws: int = 1000, level: float = 0.95, min_d: float = 0.3, rank_draws: int = 200
) -> dict[str, Row]:
    """Everything that `coefficients.json` holds, per method: fits of every group (groups that differ only in RM size
    are fitted together), and for the main family the trends against RM size, the laws, the rival forms, and for steep
    forms what the lower end of the fitted range does. Groups with fewer than 3 points to fit are named in `too_short`
    and left out; a method that has no others has no rows in `groups`.

    Raises:
      CurveError: no curve of any method has 3 points to fit.
    """
    out = {}
    for method in methods.every():
        if groups := group(curves, method.name):
            out[method.name] = of_method(method, groups, draws, level, lower_end(method.form, min_d), rank_draws)
    if out and not any(part["groups"] for part in out.values()):
        raise CurveError("; ".join(line for name, part in out.items() for line in not_fitted(name, part)))
    return out


def not_fitted(method: str, part: Row) -> list[str]:
    """Which curves of a method were left without a fit and why, in one line; none where all were fitted."""
    if not part["too_short"]:
        return []
    named = "no curve" if not part["groups"] else f"not fitted: {', '.join(part['too_short'])}. None of these"
    return [f"{method}: {named} has {FEWEST} points with sqrt(KL) > {part['min_d']:g}: a fit of two needs {FEWEST}"]


def of_method(method: Method, groups: Sequence[Group], draws: int, level: float, min_d: float, rank_draws: int) -> Row:
    """One method's part of `summarise`."""

    def long(g: Group) -> bool:
        return sum(int((c.d >= max(min_d, 1e-9)).sum()) for c in g.curves) >= FEWEST

    too_short, every = [g for g in groups if not long(g)], families([g for g in groups if long(g)])
    rows, part = [], {"trends": {}, "laws": {}, "extrapolation": {}}
    for members in every:
        family = Family(members, method.form, method.shared_alpha, min_d)
        r = resample(family.curves, draws)
        values = family.on(r)
        among = members if len(every) == 1 else groups
        rows += [describe(g, i, g.label(among), family, values, r, level, min_d) for i, g in enumerate(members)]
        if members is every[0]:
            part = {
                **against_sizes(family, values, r, level), "tau": family.tau2**0.5,
                **hierarchical(members, method.form, min_d, level),
                "extrapolation": rank_forms(members, min_d, min(draws, rank_draws), level),
                **({"lower_end": lower_ends(family, r.share_NQ[0])} if FORMS[method.form].steep else {}),
            }  # fmt: skip
    return {
        "form": method.form, "shared_alpha": method.shared_alpha, "min_d": min_d, "level": level, "bootstrap": draws,
        "main": len(every[0]) if every else 0, "groups": rows,
        "too_short": [g.label(groups) for g in too_short], **part,
    }  # fmt: skip


def against_sizes(family: Family, values_NG2: np.ndarray, r: Resamples, level: float) -> dict[str, Row]:
    """Trends and laws of the coefficients against RM size; none with fewer than 3 sizes."""
    trends, laws = {}, {}
    params = np.array([g.params for g in family.groups])
    several = len(set(params.tolist())) >= 3 and (params > 0).all()
    for i, name in enumerate(("alpha", "beta")):
        if not several or (name == "alpha" and family.shared):
            continue  # one alpha for all sizes has no trend to measure
        slopes, at_1 = against_log_size(params, values_NG2[:, :, i])
        trends[name] = {
            "per_decade": float(slopes[0]), "interval": interval(slopes, r, level), "at_1": float(at_1[0])
        }  # fmt: skip
        laws[name] = rank_laws(params, values_NG2[:, :, i], r)
    return {"trends": trends, "laws": laws}


def hierarchical(groups: Sequence[Group], form: str, min_d: float, level: float) -> dict[str, object]:
    """The hierarchical fit over RM size, and every size as the others predict it; nothing without three known sizes
    (four, for the latter) whose curves can each be fitted alone."""
    try:
        fits = seed_fits(groups, form, min_d)
    except ValueError:
        return {}
    fitted = fit_hierarchy(fits)
    rows = [size_in(fitted, i, form, level) | {"group": g.label(groups), **g.id.cells()} for i, g in enumerate(groups)]
    names, slopes = ("alpha", "beta"), fitted.slopes()
    law = {
        name: {"per_decade": float(slopes.value_2[i]), "interval": slopes.interval(i, level)}
        for i, name in enumerate(names)
    }
    spread = {
        "between_sizes": np.diag(fitted.sizes_22) ** 0.5,
        "between_seeds": np.diag(fitted.seeds_22) ** 0.5,
    }
    return {
        "hierarchy": {
            "law": law, "sizes": rows, "prompts": fits.prompts_QC2 is not None,
            **{name: dict(zip(names, map(float, sd), strict=True)) for name, sd in spread.items()},
        },
        "left_out": left_out(groups, fits, form, level),
    }  # fmt: skip


def size_in(fitted: Hierarchy, g: int, form: str, level: float) -> Row:
    """Coefficients and peak of one size, as the hierarchical fit has them."""
    own: Estimate = fitted.size(g)
    d_star, gold_star = peak(form, *own.value_2)
    kl_interval, gold_interval = peaks(own, form, level)
    return {
        "alpha": float(own.value_2[0]), "alpha_interval": own.interval(0, level),
        "beta": float(own.value_2[1]), "beta_interval": own.interval(1, level),
        "peak_kl": float(d_star) ** 2, "peak_kl_interval": kl_interval,
        "peak_gold": float(gold_star), "peak_gold_interval": gold_interval,
    }  # fmt: skip


def lower_ends(family: Family, share_Q: np.ndarray) -> list[Row]:
    """What fits from each of `MIN_D` on say, where enough points are left to fit."""
    out = []
    for low in MIN_D:
        fitted = Family(family.groups, family.form, family.shared, low)
        if min(keep.sum() for keep in fitted.keep) < 2:
            continue
        best = fitted.best()
        score = extrapolate(family.groups, family.form, low, share_Q, np.ones(len(family.curves)))
        out.append({
            "min_d": low, "alpha": best[0, 0], "beta": best[:, 1].tolist(), "held_out_rmse": score["held_out_rmse"]
        })  # fmt: skip
    return out
