"""What each way of optimising buys at one RM: gold at its peak, KL there, gold at twice that KL, its stop's regret.

A peak picked and read on the same noisy scores is too high, so it is picked on one half of the prompts and read on
the other, both ways round. Without scores per prompt (a table of curves) it is the highest point of the mean over
seeds, and rows say so. Errors are those of `bootstrap` over prompts and seeds, on one set of resamples for all rows, so
that two rows are compared on the same prompts and seeds. Where a method stops is decided on one half (without scores
per prompt: by the other seeds) and judged on the other; intervals of the regret hold that decision fixed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rmo.analysis.bootstrap import Resamples, interval, percentiles, resample
from rmo.analysis.curve import Curve, CurveError, common_d, from_prompts, regrid
from rmo.analysis.fitting import Family, Group
from rmo.analysis.forms import lower_end
from rmo.analysis.scaling import describe
from rmo.methods.method import find
from rmo.runtime.types import Row

DRAWS = 200
FROM_D = 0.3  # where fits of steep forms begin
Stop = Callable[[Sequence[Curve]], float | None]  # the KL at which to stop, from some of a group's curves


def advised(curves: Sequence[Curve]) -> float | None:
    """The KL that the advice on a fit to these curves names, within what they reach; None where nothing can be
    fitted."""
    form, g = find(curves[0].method).form, Group(curves[0].id.group, tuple(curves))
    min_d = lower_end(form, FROM_D)
    try:
        family, r = Family([g], form, False, min_d), resample(curves, DRAWS // 2)
        if family.too_short:
            return None
        row = describe(g, 0, "", family, family.on(r), r, 0.95, min_d)
    except (CurveError, np.linalg.LinAlgError, ValueError):
        return None
    return min(row["advice"]["kl"], float(min(c.kl.max() for c in curves)))


def own_stop(curves: Sequence[Curve]) -> float | None:
    """Where the method's own rule stops, mean over curves."""
    rule = find(curves[0].method).stop
    return None if rule is None else float(np.mean([rule(c) for c in curves]))


def half(curve: Curve, which: int) -> Curve:
    """A curve on every other prompt."""
    assert curve.gold_KQ is not None
    gold_KQ = curve.gold_KQ[:, which::2]
    proxy_KQ = gold_KQ if curve.proxy_KQ is None else curve.proxy_KQ[:, which::2]
    return from_prompts(curve.id, curve.step_or_n, curve.kl, proxy_KQ, gold_KQ)


@dataclass(frozen=True)
class Way:
    """One row: the curves of a group, on the resamples that it shares with the other rows."""

    group: Group
    r: Resamples
    columns: Sequence[int]  # which of the resamples' curves
    best_seed: bool = False  # the single best seed in place of the mean over seeds

    @property
    def d_K(self) -> np.ndarray:
        return common_d(self.group.curves)

    @property
    def halved(self) -> bool:
        """Whether peaks are picked on other prompts than they are read on."""
        return all(c.gold_KQ is not None and c.gold_KQ.shape[1] > 1 for c in self.group.curves)

    @property
    def uncertain(self) -> bool:
        """Whether anything is known of its errors: prompts or several seeds."""
        return self.halved or (len(self.group.curves) > 1 and not self.best_seed)

    @cached_property
    def gold_HMKN(self) -> np.ndarray:
        """Gold on each half of the prompts (one half, of all, where they are not known), of the mean over seeds (M = 1)
        or of every seed, on every resample."""
        out = []
        for which in range(2 if self.halved else 1):
            each = []
            for c in self.group.curves:
                share_NQ = np.ones((len(self.r.share_NQ), 1))
                table = c.gold[:, None]
                if self.halved and c.gold_KQ is not None:
                    share_NQ, table = self.r.share_NQ[:, which::2], c.gold_KQ[:, which::2]
                share_NQ = share_NQ / np.maximum(share_NQ.sum(1, keepdims=True), 1e-300)
                each.append(regrid(self.d_K, c, table @ share_NQ.T))
            out.append(np.stack(each) if self.best_seed else self.mean_of_seeds(np.stack(each))[None])
        return np.stack(out)

    def mean_of_seeds(self, values_CxN: np.ndarray) -> np.ndarray:
        """Of values f64[C, ..., N], by the resamples' weights."""
        weight_CN = self.r.weight_NC[:, self.columns].T
        weight_CN = weight_CN / np.maximum(weight_CN.sum(0), 1e-300)
        return np.einsum("c...n,cn->...n", values_CxN, weight_CN)

    @cached_property
    def picked_HN(self) -> tuple[np.ndarray, np.ndarray]:
        """(which seed, which point) is highest on each half."""
        h, m, k, n = self.gold_HMKN.shape
        flat = self.gold_HMKN.reshape(h, m * k, n).argmax(1)
        return flat // k, flat % k

    def read(self, d_HN: np.ndarray) -> np.ndarray:
        """Gold f64[N] at the d that each half chose, read on the other half; NaN beyond the data."""
        seed_HN, _ = self.picked_HN
        out = np.empty(d_HN.shape)
        for h in range(len(d_HN)):
            other = self.gold_HMKN[len(d_HN) - 1 - h]
            for n, d in enumerate(d_HN[h]):
                out[h, n] = np.interp(d, self.d_K, other[seed_HN[h, n], :, n], right=np.nan)
        return out.mean(0)

    @cached_property
    def peak_HN(self) -> np.ndarray:
        """d of the highest gold, by each half."""
        return self.d_K[self.picked_HN[1]]

    @cached_property
    def gold_N(self) -> np.ndarray:
        """Gold at its peak."""
        return self.read(self.peak_HN)

    @cached_property
    def kl_N(self) -> np.ndarray:
        return (self.peak_HN**2).mean(0)

    @cached_property
    def twice_N(self) -> np.ndarray:
        """Gold at twice the KL of the peak."""
        return self.read(self.peak_HN * 2**0.5)

    def regret_N(self, stop: Stop) -> np.ndarray | None:
        """Gold at the peak less gold where a rule stops, each decided on other data than it is read on; None where the
        rule says nothing or there are no other data."""
        curves = self.group.curves
        if self.best_seed:
            return None
        if self.halved:
            stops = [stop([half(c, which) for c in curves]) for which in (0, 1)]
            if None in stops:
                return None
            d_HN = np.sqrt(np.array(stops, np.float64))[:, None] * np.ones(self.peak_HN.shape[1])
            return self.gold_N - self.read(np.minimum(d_HN, self.d_K[-1]))
        regrets = [self.regret_of_seed(i, stop) for i in range(len(curves))] if len(curves) > 1 else [None]
        if None in regrets:
            return None
        return self.mean_of_seeds(np.array(regrets, np.float64)[:, None] * np.ones(len(self.r.share_NQ)))

    def regret_of_seed(self, i: int, stop: Stop) -> float | None:
        """Of one seed, stopped where the others say, against the others' peak."""
        rest = [c for j, c in enumerate(self.group.curves) if j != i]
        kl = stop(rest)
        gold = np.array([regrid(self.d_K, c, c.gold) for c in self.group.curves])
        if kl is None:
            return None
        peak = self.d_K[np.delete(gold, i, axis=0).mean(0).argmax()]
        at_peak, at_stop = np.interp([peak, min(kl**0.5, self.d_K[-1])], self.d_K, gold[i])
        return float(at_peak - at_stop)

    def number(self, values_N: np.ndarray | None, level: float, reach: float | None = None) -> Row | None:
        """{value, interval} of a statistic on the resamples; None where it is not known. No interval where nothing is
        known of its error, as where all resamples peak at one point. What lies between 0 and `reach` is a place, which
        jumps: its interval is of percentiles, and holds the place itself."""
        if values_N is None or not np.isfinite(values_N[0]):
            return None
        ends = None
        if self.uncertain and np.isfinite(values_N).all():
            ends = interval(values_N, self.r, level) if reach is None else percentiles(values_N, self.r, level)
            if reach is not None:
                place, (low, high) = float(values_N[0]), np.clip(ends, 0.0, reach)
                ends = [min(float(low), place), max(float(high), place)]
        varies = ends is not None and ends[1] - ends[0] > 1e-9
        return {"value": float(values_N[0]), "interval": ends if varies else None}


def ways(groups: Sequence[Group]) -> list[Way]:
    """A row per group, on one set of resamples; beside a combined reward also the best of its single RMs."""
    curves = [c for g in groups for c in g.curves]
    r, start, out = resample(curves, DRAWS), 0, []
    for g in groups:
        columns = list(range(start, start + len(g.curves)))
        start += len(g.curves)
        out.append(Way(g, r, columns))
        beside = [o for o in groups if o.id.rm_combined and (o.method, o.id.settings) == (g.method, g.id.settings)]
        beside = [o for o in beside if o.id.rm_recipe == g.id.rm_recipe]
        if beside and not g.id.rm_combined and len(g.curves) > 1:
            out.append(Way(g, r, columns, best_seed=True))
    return out


def apart(values_GN: Sequence[np.ndarray | None], rows: Sequence[Way], level: float) -> np.ndarray:
    """Which rows can be told apart, bool[G, G]: the interval of their difference, on the same prompts and seeds, has no
    zero in it, at a level that allows for every other row being compared with the best (Bonferroni). Where nothing is
    known of a row's errors it can be told from none."""
    out, level = np.zeros((len(rows), len(rows)), bool), 1 - (1 - level) / max(len(rows) - 1, 1)
    for i, a in enumerate(values_GN):
        for j, b in enumerate(values_GN[:i]):
            if a is None or b is None or not (rows[i].uncertain and rows[j].uncertain):
                continue
            difference = a - b
            if np.isfinite(difference).all() and np.ptp(difference) > 0:
                low, high = interval(difference, rows[i].r, level)
                out[i, j] = out[j, i] = low > 0 or high < 0
            elif np.isfinite(difference).all():
                out[i, j] = out[j, i] = difference[0] != 0
    return out


def ranks(values_G: Sequence[float | None], apart_GG: np.ndarray, larger: bool = True) -> list[int | None]:
    """The place of every value, 1 the best. Those that cannot be told from the best of a place share it; None of what
    is not known."""
    known = [i for i, value in enumerate(values_G) if value is not None]
    order = sorted(known, key=lambda i: -(values_G[i] or 0.0) if larger else (values_G[i] or 0.0))
    out: list[int | None] = [None] * len(values_G)
    best, rank = -1, 0
    for place, i in enumerate(order, start=1):
        if best < 0 or apart_GG[best, i]:
            best, rank = i, place
        out[i] = rank
    return out


def front(gold_G: Sequence[float], spent_G: Sequence[float | None]) -> list[bool]:
    """Which rows no other beats at as little: more gold for as much or less, or as much gold for less."""
    known = [(g, s) for g, s in zip(gold_G, spent_G, strict=True) if s is not None]

    def beaten(gold: float, spent: float) -> bool:
        return any((g >= gold and s < spent) or (g > gold and s <= spent) for g, s in known)

    return [s is not None and not beaten(g, s) for g, s in zip(gold_G, spent_G, strict=True)]


def table(rows: Sequence[Way], level: float) -> list[Row]:
    """What each row buys, with intervals and ranks."""
    numbers: dict[str, list[np.ndarray | None]] = {
        "gold": [w.gold_N for w in rows], "kl": [w.kl_N for w in rows], "twice": [w.twice_N for w in rows],
        "regret": [w.regret_N(own_stop if find(w.group.method).stop else advised) for w in rows],
    }  # fmt: skip
    out: list[Row] = []
    for i, w in enumerate(rows):
        reach = float(w.d_K[-1] ** 2)
        known = {name: w.number(of[i], level, reach if name == "kl" else None) for name, of in numbers.items()}
        own = find(w.group.method).stop is not None
        of_way = {"seeds": len(w.group.curves), "best_seed": w.best_seed, "halved": w.halved, "own_stop": own}
        out.append({**w.group.id.cells(), **of_way, "reach_kl": reach, **known})
    for name, larger in (("gold", True), ("twice", True), ("regret", False)):
        values = [row[name] and row[name]["value"] for row in out]
        for row, rank in zip(out, ranks(values, apart(numbers[name], rows, level), larger), strict=True):
            if row[name]:
                row[name]["rank"] = rank
    return out
