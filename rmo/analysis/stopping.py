"""Where to stop: what a fit says of its peak, how sure it is, and how far beyond its data it may be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from rmo.analysis.bootstrap import Resamples, below_zero
from rmo.analysis.curve import Curve, forward
from rmo.analysis.fitting import fit_curve
from rmo.analysis.forms import slope
from rmo.analysis.measured import Measured, measure
from rmo.analysis.next_read import NextRead, for_fit, for_measured
from rmo.methods.method import find
from rmo.runtime.types import Row

LEVEL = 0.95  # of the probability by which a fit alone says that gold has turned
SURE, SOME = 3.0, 1.0  # standard errors of a measured fall: enough by itself; enough beside a fit that says so too
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


def step_at(curves: Sequence[Curve], kl: float) -> int | None:
    """The step (or n) at which the curves first pass a KL, on average; None beyond what all of them reach, and where
    the axis holds coefficients, which are no steps."""
    counted = all((c.step_or_n == np.round(c.step_or_n)).all() for c in curves)  # NaN is not
    if not counted or not kl <= min(c.kl.max() for c in curves):
        return None
    steps = [np.interp(kl, c.kl[forward(c.kl)], c.step_or_n[forward(c.kl)]) for c in curves]
    return round(float(np.mean(steps)))


class Advice(NamedTuple):
    """What to do, and in words."""

    verdict: str  # stop, go on or undecided
    kl: float  # where to stop, or how far to go
    sentence: str
    follows: str = "neither"  # what a stop or a go on rests on: the fit or the measurement


@dataclass(frozen=True)
class Signs:
    """All that the advice on the curves of one group rests on, and each piece of advice."""

    curves: Sequence[Curve]
    seen: Measured
    r2: float  # of the fit; where not above 0, the fit counts for nothing
    reach: float  # the KL that all curves reach
    first: float  # the KL from which points are fitted
    peak: float  # KL of the fitted peak; infinite where the form never turns or does not fit
    low: float  # its interval
    high: float
    turned: float  # the probability that gold has turned by `reach`, by the fit; NaN where the form does not fit
    held: float  # how many times farther than their data forecasts went without a miss
    blind: bool  # whether none of several forecasts held
    next: NextRead | None = None  # the read of gold that would decide most

    def advice(self) -> Advice:
        """The first that applies. Whatever the fit says, no stop is advised where measured gold is below its highest by
        more than two standard errors."""
        if self.reach == 0:
            return Advice("undecided", 0.0, "undecided: a curve never leaves KL 0: leave it out")
        found = self.by_fit() or self.by_measurement() or self.undecided()
        return found._replace(sentence=found.sentence + self.fall_as_read(found))

    def by_fit(self) -> Advice | None:
        """What the fit says, where it is sure and what was measured does not contradict it."""
        known = bool(np.isfinite([self.peak, self.high]).all()) and self.high - self.low <= self.reach
        if not known or self.blind:
            return None
        if self.peak > self.reach:
            return None if self.fell(SOME) else self.go_on()
        sure = self.fell(SURE) or (self.turned >= LEVEL and self.fell(SOME))
        if not sure or self.refuted:
            return None
        if self.high > self.first:
            return self.stop_at_peak()
        if self.rose or not self.seen.allows(self.peak):
            return None
        text = f"do not optimise against this proxy: gold falls from the start; {self.evidence}"
        return Advice("stop", self.peak, text, "fit")

    def by_measurement(self) -> Advice | None:
        return self.stop_where_highest() if self.fell(SURE) else None

    def undecided(self) -> Advice:
        if not self.r2 > 0:  # or NaN
            found = self.only_measured()
        else:
            found = self.probably_turned() if self.turned >= 0.5 else self.no_peak_yet()
        return found._replace(sentence=found.sentence + self.read_next())

    def read_next(self) -> str:
        """Where to read gold next, and on how many samples."""
        if self.next is None:
            return ""
        table = self.curves[0].gold_KQ
        samples = f"{self.next.times} times the samples of a read so far"
        if self.next.times == 1:
            samples = "as many samples as so far"
        if table is not None:
            samples = f"{self.next.times * table.shape[1]:,} prompts"
        where = f"gold read at KL {self.at(self.next.kl)} with {samples}"
        if self.next.decides:
            return f"; {where} would decide, if it comes out as expected"
        return f"; {where} would decide most ({self.next.removes:.0%} of the doubt)"

    def fell(self, errors: float) -> bool:
        """Whether smoothed gold fell from its top to the last read by more than so many standard errors."""
        by, error = self.seen.fall
        return by > errors * error

    @property
    def rose(self) -> bool:
        by, error = self.seen.rise
        return by > 2 * error

    @property
    def stop(self) -> float:
        """The fitted peak's KL, or that of the nearest read where measured gold is not below its highest."""
        return self.peak if self.seen.allows(self.peak) else float(self.seen.kl[self.seen.nearest_allowed(self.peak)])

    @property
    def refuted(self) -> bool:
        """Whether measured gold is below its highest, by more than noise, wherever the fitted peak may be."""
        return not self.seen.allows(self.peak) and not self.low <= self.stop <= self.high

    def at(self, kl: float) -> str:
        """A KL, and the step there where it is known."""
        step = step_at(self.curves, kl)
        return f"{kl:.3g}" if step is None else f"{kl:.3g} ({self.unit} {step:,})"

    @property
    def unit(self) -> str:
        return "n" if find(self.curves[0].method).axis == "n" else "step"

    @property
    def top(self) -> float:
        """KL of the highest measured gold."""
        return float(self.seen.kl[self.seen.top])

    @property
    def chance(self) -> str:
        return f"the probability that gold has turned by KL {self.reach:.3g} is {self.turned:.0%}"

    @property
    def fall(self) -> str:
        by, error = self.seen.fall
        if not by > 0:
            return f"it has not fallen by KL {self.seen.kl[-1]:.3g}"
        return f"by KL {self.seen.kl[-1]:.3g} gold has fallen by {by:.2g} (standard error {error:.1g})"

    @property
    def evidence(self) -> str:
        return self.fall if self.fell(SURE) else self.chance

    @property
    def between(self) -> str:
        return f"between KL {self.at(self.low)} and {self.at(self.high)}"

    def fall_as_read(self, said: Advice) -> str:
        """A fall by more than two of the data's own standard errors, where the advice does not speak of it yet."""
        by, error = self.seen.raw_fall
        if not by > 2 * error or (self.fell(2) and self.fall in said.sentence):
            return ""
        source = "" if self.seen.own_errors else ", from the scatter"
        highest = float(self.seen.kl[self.seen.raw.argmax()])
        text = f"; measured gold has fallen by {by:.2g} (standard error {error:.1g}{source})"
        text += f" since KL {self.at(highest)}"
        return f"{text}, though the highest of {len(self.seen.kl)} reads is high by chance too"

    def stop_at_peak(self) -> Advice:
        text = f"stop at KL {self.at(self.stop)}: {self.evidence}, and its peak lies {self.between}"
        if self.high > self.reach:
            text += f", which reaches past the data (KL {self.reach:.3g})"
        if self.stop != self.peak:
            text += f"; the fit has it at KL {self.peak:.3g}, where gold was read below its highest"
        return Advice("stop", self.stop, text, "fit")

    def stop_where_highest(self) -> Advice:
        top = float(self.seen.kl[self.seen.sharp_top])
        text = f"stop at KL {self.at(top)}, where gold was highest: {self.fall}"
        if not (np.isfinite(self.peak) and self.peak <= self.reach and self.refuted):
            return Advice("stop", top, f"{text}, though the fit does not say where its peak is", "measurement")
        by, error = self.seen.difference(self.seen.sharp_top, self.seen.nearest(self.peak))
        text += f"; this follows the measurement, not the fit: at the fitted peak, KL {self.at(self.peak)},"
        return Advice(
            "stop", top, f"{text} measured gold is lower by {by:.2g} (standard error {error:.1g})", "measurement"
        )

    def go_on(self) -> Advice:
        text = f"go on to KL {self.peak:.3g}: the peak lies beyond the data, {self.between}; {self.chance}"
        trusted = self.reach * self.held
        if self.high > trusted:
            text += f"; measure gold again by KL {trusted:.3g}: beyond it no forecast held"
        return Advice("go on", self.peak, text, "fit")

    def only_measured(self) -> Advice:
        text = f"undecided: the form fits worse than a constant (R² {self.r2:.2g}); as measured,"
        text += f" gold was highest at KL {self.at(self.top)}, and {self.fall}"
        return Advice("undecided", self.reach, text)

    def probably_turned(self) -> Advice:
        text = f"undecided: gold has probably turned by KL {self.at(self.reach)} ({self.turned:.0%})"
        if np.isfinite(self.peak):
            text += f"; its peak lies at KL {self.at(min(self.low, self.reach))} or beyond"
        return Advice("undecided", min(self.peak, self.reach), f"{text}: do not optimise further")

    def no_peak_yet(self) -> Advice:
        ahead = self.peak if self.peak > self.reach else np.inf
        kl = min(ahead, self.reach * max(self.held, FACTORS[0]))
        text = f"undecided: the data do not show a peak up to KL {self.at(self.reach)} ({self.chance})"
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

    `verdict` is stop (the peak lies within the data, by the fit or because measured gold fell by more than three of its
    standard errors), go on (the fitted peak lies beyond them) or undecided (no peak, or its interval is wider than the
    data); `follows` says whether it rests on the fit or on the measurement, `kl` where to stop, or to go. `best_kl` is
    where measured gold is highest, whatever the verdict; `next_read` the read that would decide most. `trusted_to_kl`:
    as far beyond their own data as `forecasts` went without a miss.
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
    seen = measure(curves)
    read, noise = None, float(np.median(seen.raw_se) ** 2)
    if fits and turned < LEVEL:
        ahead = reach if turned >= 0.5 else reach * max(held, FACTORS[0])
        ends, needed = (max(min_d**2, first), ahead), float(stats.norm.ppf(LEVEL))
        read = for_fit(form, values_N2[1 : 1 + r.draws], values_N2[0], ends, reach, noise, needed)
    elif reach > 0:  # the fit is sure, or counts for nothing: the reads themselves have to show it
        read = for_measured(seen, SURE)
    signs = Signs(curves, seen, r2, reach, max(min_d**2, first), peak, low, high, turned, held, blind, read)
    verdict, kl, sentence, follows = signs.advice()
    fell_by, fell_se = seen.fall
    return {
        "verdict": verdict, "sentence": sentence, "kl": float(kl), "step": step_at(curves, kl),
        "follows": follows, "turned_probability": turned, "fell_by": fell_by, "fell_se": fell_se,
        "best_kl": signs.top, "best_step": step_at(curves, signs.top), "reach_kl": reach, "past_peak": peak <= reach,
        "peak_step": step_at(curves, peak), "peak_step_interval": [step_at(curves, low), step_at(curves, high)],
        "trusted_to_kl": reach * held, "forecasts": tried,
        "next_read": {**read._asdict(), "step": step_at(curves, read.kl)} if read and verdict == "undecided" else None,
    }  # fmt: skip
