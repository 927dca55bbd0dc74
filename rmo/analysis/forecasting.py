"""The forecast of an RM size that was not measured: each size left out, its highest gold and where it lies predicted.

What is predicted is what can be measured: the highest gold within the range of KL that the left-out size was run over,
and the KL there. A peak beyond that range is not seen by anybody; there both are at the range's end, and rows say so.
The measured height is read on one half of the prompts where the other half is highest, both ways round, so that noise
does not lift it (without scores per prompt it is the highest point of the mean over seeds, which noise lifts a little).

Coefficients come from the law of the other sizes (`analysis.hierarchy`), with what the law misses between sizes and the
luck of as many seeds as were measured; how far the curve's highest point lies from the form's is learnt from the other
sizes too, as a mean and its scatter. Intervals are for what is measured, on the same prompts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from rmo.analysis.curve import common_d, regrid
from rmo.analysis.fitting import Group
from rmo.analysis.forms import FORMS
from rmo.analysis.hierarchy import DRAWS, LEAST_SIZES, Estimate, SeedFits, fit_hierarchy, gradient_of, quantiles
from rmo.runtime.types import Row


class Top(NamedTuple):
    """The highest gold within a range of d, and where."""

    d: float
    gold: float
    at_end: bool  # whether it is the range's last point


def measured_top(g: Group) -> Top:
    """Of the mean curve over seeds, within the range that all of them reach."""
    d = common_d(g.curves)
    mean = np.mean([regrid(d, c, c.gold) for c in g.curves], axis=0)
    at_end = bool(mean.argmax() == len(d) - 1)
    tables = [c.gold_KQ for c in g.curves]
    if any(table is None or table.shape[1] < 2 for table in tables):
        return Top(float(d[mean.argmax()]), float(mean.max()), at_end)
    table_KQ = np.mean([regrid(d, c, np.asarray(c.gold_KQ)) for c in g.curves], axis=0)
    a, b = table_KQ[:, 0::2].mean(1), table_KQ[:, 1::2].mean(1)
    i, j = int(a.argmax()), int(b.argmax())
    return Top(float(d[i] + d[j]) / 2, float(b[i] + a[j]) / 2, at_end)


def top_of(form: str, d_K: np.ndarray, values_N2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(d, gold), f64[N] each, where a form with these coefficients is highest over a grid of d."""
    gold_NK = values_N2 @ FORMS[form].features(d_K, 0.0).T
    return d_K[gold_NK.argmax(1)], gold_NK.max(1)


def left_out(groups: Sequence[Group], fits: SeedFits, form: str, level: float) -> list[Row]:
    """A row per RM size: its highest gold and the KL there, as the other sizes predict and as measured; none with
    fewer than four sizes. `fits` are `hierarchy.seed_fits` of the groups."""
    if len(groups) <= LEAST_SIZES:
        return []
    grids, tops = [common_d(g.curves) for g in groups], [measured_top(g) for g in groups]
    means_G2 = fits.mean_of_seeds(fits.values_C2)
    misfit_G2 = np.array([
        np.subtract((top.gold, top.d), [part[0] for part in top_of(form, d, mean[None])][::-1])
        for top, d, mean in zip(tops, grids, means_G2, strict=True)
    ])  # fmt: skip
    out = []
    for g, group in enumerate(groups):
        law = fit_hierarchy(fits.without(g)).new_mean(group.params, len(group.curves))
        rest = np.delete(np.arange(len(groups)), g)
        forecast = predict(law, form, grids[g], misfit_G2[rest], level)
        ends = fits.x_G.min(), fits.x_G.max()
        out.append({
            "group": group.label(groups), **group.id.cells(), "seeds": len(group.curves),
            "extrapolated": bool(fits.x_G[g] in ends), **forecast, **compared(forecast, tops[g]),
        })  # fmt: skip
    return out


def predict(law: Estimate, form: str, d_K: np.ndarray, misfit_G2: np.ndarray, level: float) -> Row:
    """Highest gold within the range of d and the KL there, with intervals; `misfit_G2` are the distances of measured
    tops (gold, d) from their own fits', of other sizes."""

    def gold_of(value_2: np.ndarray) -> float:
        return float(top_of(form, d_K, value_2[None])[1][0])

    rng, n, end = np.random.default_rng(1), len(misfit_G2), float(d_K[-1])
    mean, scatter = misfit_G2.mean(0), misfit_G2.std(0, ddof=1) * (1 + 1 / n) ** 0.5
    miss = mean + scatter * stats.t.rvs(n - 1, size=(DRAWS, 2), random_state=rng)
    d, gold = top_of(form, d_K, law.draws(gradient_of(gold_of, law)))
    d_0, gold_0 = (float(x[0]) for x in top_of(form, d_K, law.value_2[None]))
    return {
        "predicted_gold": max(gold_0 + float(mean[0]), 0.0),
        "gold_interval": quantiles(np.maximum(gold + miss[:, 0], 0.0), level),
        "predicted_kl": float(np.clip(d_0 + mean[1], 0, end)) ** 2,
        "kl_interval": quantiles(np.clip(d + miss[:, 1], 0, end) ** 2, level),
        "range_kl": end**2, "predicted_at_end": bool(d_0 >= end),
    }  # fmt: skip


def compared(forecast: Row, top: Top) -> Row:
    """What was measured, beside its forecast."""

    def inside(value: float, interval: list[float]) -> bool:
        return interval[0] - 1e-9 <= value <= interval[1] + 1e-9

    gold, kl = top.gold, top.d**2
    error = abs(forecast["predicted_gold"] - gold) / gold if gold > 0 else None
    return {
        "measured_gold": gold, "measured_kl": kl, "measured_at_end": top.at_end, "relative_error": error,
        "gold_inside": inside(gold, forecast["gold_interval"]), "kl_inside": inside(kl, forecast["kl_interval"]),
    }  # fmt: skip


def sentence(rows: Sequence[Row]) -> str:
    """How many of the left-out sizes' highest gold lie in their intervals, and the median error."""
    inside, errors = sum(row["gold_inside"] for row in rows), [r["relative_error"] for r in rows]
    known = [error for error in errors if error is not None]
    median = f"; median error {100 * float(np.median(known)):.0f}%" if known else ""
    return (
        "Highest gold of an RM size predicted from the other sizes, each left out once: "
        f"{inside} of {len(rows)} lie in their intervals{median}"
    )
