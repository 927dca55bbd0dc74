"""Where to stop: what a fit says of its peak, how sure it is, and how far beyond its data it may be trusted."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmo.analysis.bootstrap import Resamples, below_zero
from rmo.analysis.curve import Curve, forward
from rmo.analysis.fitting import fit_curve, slope
from rmo.methods.method import find

FACTORS = (1.25, 1.5, 2.0, 3.0, 4.0)  # how many times farther than the points that it is fitted to a form is tried


def forecasts(d: np.ndarray, gold: np.ndarray, form: str, min_d: float) -> list[dict[str, Any]]:
    """What fits to the lower part of the KL range say of the rest, one row per factor between the two.

    A forecast holds where its root mean square error is within two of the scatter about a fit to all points, or within
    5% of gold's range.
    """
    used = d >= max(min_d, 1e-9)
    d, gold = d[used], gold[used]
    allowed = max(2 * fit_curve(d, gold, form).rmse, 0.05 * float(np.ptp(np.append(gold, 0.0))))
    out = []
    for factor in FACTORS:
        low = d**2 <= (d.max() ** 2) / factor
        if low.sum() < 4 or (~low).sum() < 2:
            continue
        error = float(np.mean((gold[~low] - fit_curve(d[low], gold[low], form)(d[~low])) ** 2) ** 0.5)
        out.append({"factor": factor, "from_kl": float(d[low].max() ** 2), "rmse": error, "allowed": allowed,
                    "holds": error <= allowed})  # fmt: skip
    return out


def measured(curve: Curve) -> tuple[float, float, float, float]:
    """(KL of the highest gold, gold there, its fall from there to the end, the fall's standard error), as means of
    three neighbours and without any form. The error is the curve's own, else from how far neighbours differ."""
    width = min(3, len(curve.gold))
    three = lambda x: np.convolve(x, np.full(width, 1 / width), "valid")  # noqa: E731
    gold = three(curve.gold)
    top = int(gold.argmax())
    if curve.fall_se is not None:
        error = float(curve.fall_se[-1])
    elif curve.gold_se is not None:
        error = float(np.hypot(curve.gold_se[width // 2 + top], curve.gold_se[-1]))
    else:
        error = float((np.mean(np.diff(curve.gold) ** 2) / 3) ** 0.5)  # a point's variance is half of the mean
    return float(three(curve.kl)[top]), float(gold[top]), float(gold[top] - gold[-1]), error


def step_at(curves: Sequence[Curve], kl: float) -> int | None:
    """The step (or n) at which the curves first pass a KL, on average; None beyond what all of them reach."""
    if not kl <= min(c.kl.max() for c in curves) or any(np.isnan(c.step_or_n).any() for c in curves):
        return None
    steps = [np.interp(kl, c.kl[forward(c.kl)], c.step_or_n[forward(c.kl)]) for c in curves]
    return round(float(np.mean(steps)))


def advise(
    curves: Sequence[Curve], form: str, min_d: float, values_N2: np.ndarray, r: Resamples, peak: float,
    interval: Sequence[float], r2: float,
) -> dict[str, Any]:  # fmt: skip
    """What to do, from the curves of one group, their (alpha, beta) on every resample, the KL of the fitted peak
    (infinite where it never turns) with its interval, and R2 of the fit; where that is not above 0, the fit counts for
    nothing and `turned_probability` is NaN.

    `verdict` is stop (the peak lies within the data, by the fit or because every curve fell by more than four standard
    errors), go on (the fitted peak lies beyond them) or undecided (no peak, or its interval is wider than the data).
    `trusted_to_kl`: as far beyond their own data as `forecasts` went without a miss.
    """
    d, gold = (np.concatenate([getattr(c, name) for c in curves]) for name in ("d", "gold"))
    reach = float(min(c.kl.max() for c in curves))
    fits = r2 > 0 and reach > 0
    peak, low, high = (peak, *interval) if fits else (np.inf, np.inf, np.inf)
    tried = forecasts(d, gold, form, min_d)
    misses = [row["factor"] for row in tried if not row["holds"]]
    held = max([row["factor"] for row in tried if row["factor"] < min(misses, default=np.inf)], default=1.0)
    trusted = reach * held
    turned = below_zero(slope(form, values_N2[:, 0], values_N2[:, 1], reach**0.5), r) if fits else np.nan
    seen = [measured(c) for c in curves]
    rose, fell = (all(row[i] > 4 * row[3] for row in seen) for i in (1, 2))
    blind = bool(tried) and not any(row["holds"] for row in tried)  # the form forecasts nothing here
    sharp = np.isfinite([peak, high]).all() and high - low <= reach and not blind
    unit = "n" if find(curves[0].method).axis == "n" else "step"
    at = lambda kl: "" if (s := step_at(curves, kl)) is None else f" ({unit} {s:,})"  # noqa: E731
    top, _, by, error = np.mean(seen, axis=0).tolist()
    sure = f"the probability that gold has turned by KL {reach:.3g} is {turned:.0%}"
    seen_to = f"by KL {reach:.3g} gold has fallen by {by:.2g} (standard error {error:.1g})"
    sure = seen_to if fell else sure
    between = f"between KL {low:.3g}{at(low)} and {high:.3g}{at(high)}"
    first = min(min(c.kl[c.kl > 0], default=0.0) for c in curves)
    verdict, stop, early = "undecided", peak, high <= max(min_d**2, first)
    if reach == 0:
        stop, text = 0.0, "undecided: a curve never leaves KL 0: leave it out"
    elif sharp and early and not rose:
        verdict, text = "stop", f"do not optimise against this proxy: gold falls from the start; {sure}"
    elif sharp and peak <= reach and not early:
        verdict, text = "stop", f"stop at KL {peak:.3g}{at(peak)}: {sure}, and its peak lies {between}"
        text += f", which reaches past the data (KL {reach:.3g})" if high > reach else ""
    elif fell:
        verdict, stop = "stop", top
        text = f"stop at KL {top:.3g}{at(top)}, where gold was highest: {sure}, though the fit says little of its peak"
    elif sharp and peak > reach:
        verdict, text = "go on", f"go on to KL {peak:.3g}: the peak lies beyond the data, {between}; {sure}"
        text += f"; read gold by KL {trusted:.3g}, beyond which no forecast was seen to hold" if high > trusted else ""
    elif not fits:
        stop, text = reach, f"undecided: the form fits worse than a constant (R² {r2:.2g}); what was measured:"
        text += f" gold was highest at KL {top:.3g}{at(top)}, and {seen_to} since"
    elif turned >= 0.5:
        stop, where = min(peak, reach), min(low, reach)
        text = f"undecided: gold has probably turned by KL {reach:.3g}{at(reach)} ({turned:.0%})"
        text += f"; its peak lies somewhere from KL {where:.3g}{at(where)} on" if np.isfinite(peak) else ""
        text += ": do not optimise further"
    else:
        stop = min(peak if peak > reach else np.inf, reach * max(held, FACTORS[0]))
        text = f"undecided: the data do not show a peak up to KL {reach:.3g}{at(reach)} ({sure});"
        text += f" go on until KL {stop:.3g}, reading gold, and fit again"
    return {
        "verdict": verdict, "sentence": text, "kl": float(stop), "step": step_at(curves, stop),
        "turned_probability": turned, "fell_by": [row[2] for row in seen], "fell_se": [row[3] for row in seen],
        "reach_kl": reach, "past_peak": peak <= reach, "peak_step": step_at(curves, peak),
        "peak_step_interval": [step_at(curves, low), step_at(curves, high)],
        "trusted_to_kl": trusted, "forecasts": tried,
    }  # fmt: skip
