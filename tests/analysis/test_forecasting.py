"""The forecast of a left-out RM size: what it is compared with, and how often it is right."""

import numpy as np
import pytest

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import group
from rmo.analysis.forecasting import left_out, measured_top, sentence
from rmo.analysis.forms import lower_end
from rmo.analysis.hierarchy import seed_fits
from rmo.methods.method import find
from tests.helpers.made_sweeps import Sweep, made_sweep


def rows_of(sweep: Sweep) -> list[dict]:
    form = find(sweep.groups[0].method).form
    return left_out(sweep.groups, seed_fits(sweep.groups, form, lower_end(form, 0.3)), form, 0.95)


def flat(noise: float, rng: np.random.Generator) -> list:
    """A curve that is 1 everywhere but at its start, as one group."""
    d = np.linspace(0, 3, 60)
    table = (d > 0)[:, None] * (1 + noise * rng.standard_normal((60, 20)))
    return group([from_prompts(CurveId("bon", 500, seed=0), np.arange(60), d**2, table, table)], "bon")


def test_the_measured_height_of_a_flat_top_is_not_lifted_by_noise():
    rng = np.random.default_rng(0)
    tops = [measured_top(flat(0.5, rng)[0]).gold for _ in range(200)]
    naive = [flat(0.5, rng)[0].curves[0].gold.max() for _ in range(200)]
    assert np.mean(tops) == pytest.approx(1, abs=0.03)
    assert np.mean(naive) > 1.2


def on_the_law(bend: float) -> list[dict]:
    """Rows of four sizes without noise, whose coefficients are linear in log size; beta is scaled by `bend`."""
    curves = []
    for params in (1000, 10_000, 100_000, 1_000_000):
        x, d = np.log10(params), np.linspace(0, 3, 40)
        gold = np.repeat((d * (0.3 + 0.1 * x - bend * (0.3 - 0.03 * x) * d))[:, None], 4, axis=1)
        curves += [from_prompts(CurveId("bon", params, seed=s), np.arange(40), d**2, gold, gold) for s in (0, 1)]
    groups = group(curves, "bon")
    return left_out(groups, seed_fits(groups, "d(a - b d)", 0.0), "d(a - b d)", 0.95)


def test_without_noise_and_on_the_law_a_size_is_forecast_exactly():
    rows = on_the_law(bend=1)
    for row in rows:
        assert row["predicted_gold"] == pytest.approx(row["measured_gold"], abs=1e-6)
        assert row["predicted_kl"] == pytest.approx(row["measured_kl"], abs=1e-6)
    assert [row["extrapolated"] for row in rows] == [True, False, False, True]
    assert sentence(rows).endswith("median error 0%")


def test_a_peak_beyond_the_range_is_compared_at_its_end():
    for row in on_the_law(bend=0.2):
        assert row["measured_at_end"]
        assert row["predicted_at_end"]
        assert row["predicted_kl"] == pytest.approx(row["range_kl"])
        assert row["predicted_gold"] == pytest.approx(row["measured_gold"], abs=1e-6)


def test_no_interval_leaves_the_range_of_what_it_is_about():
    for row in rows_of(made_sweep(np.random.default_rng(1), "bon", 6, 3)):
        assert row["gold_interval"][0] >= 0
        assert 0 <= row["kl_interval"][0] <= row["kl_interval"][1] <= row["range_kl"] + 1e-9


def test_three_sizes_are_too_few_to_leave_one_out():
    assert rows_of(made_sweep(np.random.default_rng(2), "bon", 3, 2)) == []


def shares(method: str, sizes: int, seeds: int, between: float, sweeps: int) -> tuple[float, float, float]:
    """(share of heights inside, share of KL inside, median error) over all left-out sizes of many sweeps."""
    rng = np.random.default_rng(5)
    rows = [row for _ in range(sweeps) for row in rows_of(made_sweep(rng, method, sizes, seeds, between_sizes=between))]
    gold, kl = (float(np.mean([row[name] for row in rows])) for name in ("gold_inside", "kl_inside"))
    return gold, kl, float(np.median([row["relative_error"] for row in rows]))


def test_forecasts_hold_in_a_few_sweeps():
    for method in ("bon", "ppo"):
        gold, kl, error = shares(method, 6, 3, 1.0, 4)
        assert min(gold, kl) >= 21 / 24
        assert error < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("between", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("sizes", "seeds"), [(5, 2), (6, 3)])
@pytest.mark.parametrize("method", ["bon", "ppo"])
def test_at_least_93_of_100_left_out_tops_lie_in_their_intervals(method, sizes, seeds, between):
    found = shares(method, sizes, seeds, between, 60)
    print(method, sizes, seeds, between, found)
    assert min(found[:2]) >= 0.93, found
