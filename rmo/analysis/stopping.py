"""Where to stop: what a fit says of its peak, how sure it is, and how far beyond its data it may be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rmo.analysis.bootstrap import Resamples, below_zero
from rmo.analysis.curve import Curve, forward
from rmo.analysis.fitting import fit_curve
from rmo.analysis.forms import slope
from rmo.methods.method import find
from rmo.runtime.types import Row

FACTORS = (1.25, 1.5, 2.0, 3.0, 4.0)  # how many times farther than the points that it is fitted to a form is tried


def forecasts(d: np.ndarray, gold: np.ndarray, form: str, min_d: float) -> list[Row]:
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
        from_kl = float(d[low].max() ** 2)
        out.append({"factor": factor, "from_kl": from_kl, "rmse": error, "allowed": allowed, "holds": error <= allowed})
    return out


class Seen(NamedTuple):
    """What one curve shows without any form, as means of three neighbours."""

    top: float  # KL of the highest gold
    rise: float  # gold there
    fall: float  # from there to the end
    error: float  # standard error of the fall


def measured(curve: Curve) -> Seen:
    """What a curve shows. The error is the curve's own, else from how far neighbours differ."""
    width = min(3, len(curve.gold))

    def smooth(x: np.ndarray) -> np.ndarray:
        return np.convolve(x, np.full(width, 1 / width), "valid")

    gold = smooth(curve.gold)
    top = int(gold.argmax())
    if curve.fall_se is not None:
        error = float(curve.fall_se[-1])
    elif curve.gold_se is not None:
        error = float(np.hypot(curve.gold_se[width // 2 + top], curve.gold_se[-1]))
    else:
        error = float((np.mean(np.diff(curve.gold) ** 2) / 3) ** 0.5)  # a point's variance is half of the mean
    return Seen(float(smooth(curve.kl)[top]), float(gold[top]), float(gold[top] - gold[-1]), error)


def step_at(curves: Sequence[Curve], kl: float) -> int | None:
    """The step (or n) at which the curves first pass a KL, on average; None beyond what all of them reach."""
    if not kl <= min(c.kl.max() for c in curves) or any(np.isnan(c.step_or_n).any() for c in curves):
        return None
    steps = [np.interp(kl, c.kl[forward(c.kl)], c.step_or_n[forward(c.kl)]) for c in curves]
    return round(float(np.mean(steps)))


class Advice(NamedTuple):
    """What to do, and in words."""

    verdict: str  # stop, go on or undecided
    kl: float  # where to stop, or how far to go
    sentence: str


@dataclass(frozen=True)
class Signs:
    """All that the advice on the curves of one group rests on, and each piece of advice."""

    curves: Sequence[Curve]
    seen: Sequence[Seen]  # curve by curve
    r2: float  # of the fit; where not above 0, the fit counts for nothing
    reach: float  # the KL that all curves reach
    first: float  # the KL from which points are fitted
    peak: float  # KL of the fitted peak; infinite where the form never turns or does not fit
    low: float  # its interval
    high: float
    turned: float  # the probability that gold has turned by `reach`; NaN where the form does not fit
    held: float  # how many times farther than their data forecasts went without a miss
    blind: bool  # whether none of several forecasts held

    def advice(self) -> Advice:
        """The first that applies."""
        fell = all(curve.fall > 4 * curve.error for curve in self.seen)
        rose = all(curve.rise > 4 * curve.error for curve in self.seen)
        known = bool(np.isfinite([self.peak, self.high]).all()) and self.high - self.low <= self.reach
        sharp, early = known and not self.blind, self.high <= self.first
        chance = f"the probability that gold has turned by KL {self.reach:.3g} is {self.turned:.0%}"
        evidence = self.fall if fell else chance
        if self.reach == 0:
            return Advice("undecided", 0.0, "undecided: a curve never leaves KL 0: leave it out")
        if sharp and early and not rose:
            text = f"do not optimise against this proxy: gold falls from the start; {evidence}"
            return Advice("stop", self.peak, text)
        if sharp and self.peak <= self.reach and not early:
            return self.stop_at_peak(evidence)
        if fell:
            return self.stop_where_highest()
        if sharp and self.peak > self.reach:
            return self.go_on(evidence)
        if not self.r2 > 0:  # or NaN
            return self.only_measured()
        return self.probably_turned() if self.turned >= 0.5 else self.no_peak_yet(chance)

    def at(self, kl: float) -> str:
        """A KL, and the step there where it is known."""
        step = step_at(self.curves, kl)
        unit = "n" if find(self.curves[0].method).axis == "n" else "step"
        return f"{kl:.3g}" if step is None else f"{kl:.3g} ({unit} {step:,})"

    @property
    def top(self) -> float:
        """KL of the highest measured gold."""
        return float(np.mean([curve.top for curve in self.seen]))

    @property
    def fall(self) -> str:
        by, error = np.mean([(curve.fall, curve.error) for curve in self.seen], axis=0)
        return f"by KL {self.reach:.3g} gold has fallen by {by:.2g} (standard error {error:.1g})"

    @property
    def between(self) -> str:
        return f"between KL {self.at(self.low)} and {self.at(self.high)}"

    def stop_at_peak(self, evidence: str) -> Advice:
        text = f"stop at KL {self.at(self.peak)}: {evidence}, and its peak lies {self.between}"
        if self.high > self.reach:
            text += f", which reaches past the data (KL {self.reach:.3g})"
        return Advice("stop", self.peak, text)

    def stop_where_highest(self) -> Advice:
        text = f"stop at KL {self.at(self.top)}, where gold was highest: {self.fall}"
        return Advice("stop", self.top, f"{text}, though the fit does not say where its peak is")

    def go_on(self, evidence: str) -> Advice:
        text = f"go on to KL {self.peak:.3g}: the peak lies beyond the data, {self.between}; {evidence}"
        trusted = self.reach * self.held
        if self.high > trusted:
            text += f"; measure gold again by KL {trusted:.3g}: beyond it no forecast held"
        return Advice("go on", self.peak, text)

    def only_measured(self) -> Advice:
        text = f"undecided: the form fits worse than a constant (R² {self.r2:.2g}); as measured,"
        text += f" gold was highest at KL {self.at(self.top)}, and {self.fall} since"
        return Advice("undecided", self.reach, text)

    def probably_turned(self) -> Advice:
        text = f"undecided: gold has probably turned by KL {self.at(self.reach)} ({self.turned:.0%})"
        if np.isfinite(self.peak):
            text += f"; its peak lies at KL {self.at(min(self.low, self.reach))} or beyond"
        return Advice("undecided", min(self.peak, self.reach), f"{text}: do not optimise further")

    def no_peak_yet(self, chance: str) -> Advice:
        ahead = self.peak if self.peak > self.reach else np.inf
        kl = min(ahead, self.reach * max(self.held, FACTORS[0]))
        text = f"undecided: the data do not show a peak up to KL {self.at(self.reach)} ({chance})"
        return Advice("undecided", kl, f"{text}; go on to KL {kl:.3g}, measure gold on the way and fit again")


def advise(
    curves: Sequence[Curve],
    form: str,
    min_d: float,
    values_N2: np.ndarray,
    r: Resamples,
    peak: float,
    interval: Sequence[float],
    r2: float,
) -> Row:
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
    missed = min([row["factor"] for row in tried if not row["holds"]], default=np.inf)
    first = min(min(c.kl[c.kl > 0], default=0.0) for c in curves)
    turned = below_zero(slope(form, values_N2[:, 0], values_N2[:, 1], reach**0.5), r) if fits else np.nan
    held = max([row["factor"] for row in tried if row["factor"] < missed], default=1.0)
    blind = bool(tried) and not any(row["holds"] for row in tried)
    seen = [measured(c) for c in curves]
    signs = Signs(curves, seen, r2, reach, max(min_d**2, first), peak, low, high, turned, held, blind)
    verdict, kl, sentence = signs.advice()
    return {
        "verdict": verdict, "sentence": sentence, "kl": float(kl), "step": step_at(curves, kl),
        "turned_probability": turned, "fell_by": [s.fall for s in seen],
        "fell_se": [s.error for s in seen], "reach_kl": reach, "past_peak": peak <= reach,
        "peak_step": step_at(curves, peak), "peak_step_interval": [step_at(curves, low), step_at(curves, high)],
        "trusted_to_kl": reach * held, "forecasts": tried,
    }  # fmt: skip
