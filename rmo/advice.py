"""Where to stop: what a fit says of its peak, how sure it is, and how far beyond its data it may be trusted."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmo.curve import Curve, forward
from rmo.fit import fit_curve

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


def step_at(curves: Sequence[Curve], kl: float) -> int | None:
    """The step (or n) at which the curves first pass a KL, on average; None beyond what all of them reach."""
    if not kl <= min(c.kl.max() for c in curves) or any(np.isnan(c.step_or_n).any() for c in curves):
        return None
    steps = [np.interp(kl, c.kl[forward(c.kl)], c.step_or_n[forward(c.kl)]) for c in curves]
    return round(float(np.mean(steps)))


def advise(
    curves: Sequence[Curve], form: str, min_d: float, peaks_N: np.ndarray, interval: Sequence[float]
) -> dict[str, Any]:
    """What to do, from the curves of one group and the KL of the fitted peak on every resample f64[N] (row 0 is the fit
    itself, infinite where it never turns) with its interval.

    `verdict` is stop (the peak lies within the data), go on (it lies beyond them) or undecided (no peak, or its
    interval is wider than the data). `trusted_to_kl`: as far beyond their own data as `forecasts` went without a miss.
    """
    d, gold = (np.concatenate([getattr(c, name) for c in curves]) for name in ("d", "gold"))
    reach, peak, (low, high) = float(min(c.kl.max() for c in curves)), float(peaks_N[0]), interval
    tried = forecasts(d, gold, form, min_d)
    misses = [row["factor"] for row in tried if not row["holds"]]
    held = max([row["factor"] for row in tried if row["factor"] < min(misses, default=np.inf)], default=1.0)
    trusted, turned = reach * held, float(np.mean(peaks_N[1:] <= reach))
    wide = not np.isfinite(high) or high - low > reach
    verdict = "undecided" if wide or not np.isfinite(peak) else "stop" if peak <= reach else "go on"
    unit = "n" if curves[0].method == "bon" else "step"
    at = lambda kl: "" if (s := step_at(curves, kl)) is None else f" ({unit} {s:,})"  # noqa: E731
    sure = f"the probability that gold has turned by KL {reach:.3g} is {turned:.0%}"
    between = f"between KL {low:.3g}{at(low)} and {high:.3g}{at(high)}"
    if verdict == "stop" and peak <= max(min_d**2, min(c.kl[c.kl > 0].min() for c in curves)):
        text = f"do not optimise against this proxy: gold falls from the start; {sure}"
    elif verdict == "stop":
        text = f"stop at KL {peak:.3g}{at(peak)}: {sure}, and its peak lies {between}"
        text += f", which reaches past the data (KL {reach:.3g})" if high > reach else ""
    elif verdict == "go on":
        text = f"go on to KL {peak:.3g}: the peak lies beyond the data, {between}; {sure}"
        text += f"; read gold by KL {trusted:.3g}, beyond which no forecast was seen to hold" if high > trusted else ""
    else:
        until = min(peak if peak > reach else np.inf, reach * max(held, FACTORS[0]))
        text = f"undecided: the data do not show a peak up to KL {reach:.3g}{at(reach)} ({sure});"
        text += f" go on until KL {until:.3g}, reading gold, and fit again"
    return {
        "verdict": verdict, "sentence": text, "turned_probability": turned, "reach_kl": reach,
        "past_peak": bool(peak <= reach), "peak_step": step_at(curves, peak),
        "peak_step_interval": [step_at(curves, low), step_at(curves, high)],
        "trusted_to_kl": trusted, "forecasts": tried,
    }  # fmt: skip
