"""Gold without a form: smoothed, with errors that hold whatever the shape and however alike neighbours' noise is."""

import numpy as np
import pytest

from rmo.analysis.curve import Curve, from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.analysis.measured import MOST, floor_of, measure, smooth

D = np.linspace(0, 5, 25)
SHAPES = {
    "level": 0 * D,
    "hump": 1.2 * D / 2.5 * np.exp(1 - D / 2.5) - 0.2 * D,
    "kink": np.interp(D, [0, 2.5, 5], [0, 1, -1]),
}


def curve(gold, se=None, seed=0, kl=D**2):
    return Curve(CurveId("ppo", seed=seed), 10.0 * np.arange(len(kl)), kl, gold * np.nan, gold, gold_se=se)


def noise(rng, rho, count=25):
    e = rng.normal(size=count)
    for k in range(1, count):
        e[k] = rho * e[k - 1] + (1 - rho**2) ** 0.5 * e[k]
    return e


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_errors_of_smoothed_differences_hold(shape, known):
    truth, misses, gain = SHAPES[shape], 0, []
    for seed in range(60):
        gold = truth + 0.1 * np.random.default_rng(seed).normal(size=25)
        seen = measure([curve(gold, np.full(25, 0.1) if known else None)])
        by, error = seen.difference(12, 24)
        misses += abs(by - (truth[12] - truth[24])) > 2 * error
        gain.append(np.mean((seen.smooth.mean - truth) ** 2) / 0.01)
        assert seen.own_errors == known
    assert misses <= 9  # 3 are expected
    assert np.mean(gain) < 0.6  # smoothing takes away noise


@pytest.mark.parametrize(("rho", "most"), [(0.0, 1), (0.8, 8)])
def test_noise_about_a_level_is_seldom_taken_for_a_fall(rho, most):
    falls = 0
    for seed in range(60):
        by, error = measure([curve(0.1 * noise(np.random.default_rng(seed), rho))]).fall
        falls += by > 3 * error
    assert falls <= most


def test_the_top_of_a_kink_is_found_to_the_read():
    tops = [measure([curve(SHAPES["kink"] + 0.03 * np.random.default_rng(s).normal(size=25))]) for s in range(30)]
    assert np.mean([seen.sharp_top == SHAPES["kink"].argmax() for seen in tops]) >= 0.8
    assert all(abs(D[seen.top] - 2.5) < 0.3 for seen in tops)


def test_no_read_below_the_highest_by_two_errors_is_a_place_to_stop():
    for seed in range(30):
        gold = SHAPES["hump"] + 0.1 * np.random.default_rng(seed).normal(size=25)
        seen = measure([curve(gold, np.full(25, 0.1))])
        for kl in np.linspace(0, 25, 60):
            if seen.allows(kl):
                assert np.interp(kl, D**2, gold) >= gold.max() - 0.2 - 1e-12
        assert seen.allowed[seen.top]
        assert gold[seen.top] >= gold.max() - 0.2
        assert gold[seen.sharp_top] >= gold.max() - 0.1


def test_prompts_shared_by_all_reads_cancel_in_differences():
    """Prompts differ by 1, reads of one prompt by 0.1: a difference of means over 100 prompts is known to 0.014."""
    rng = np.random.default_rng(0)
    table = SHAPES["hump"][:, None] + rng.normal(size=(1, 100)) + 0.1 * rng.normal(size=(25, 100))
    seen = measure([from_prompts(CurveId("ppo"), np.arange(25), D**2, table, table)])
    assert seen.raw_se == pytest.approx(np.full(25, 0.1), rel=0.3)  # of a read's mean
    assert seen.difference(12, 24)[1] < 0.03


def test_several_curves_are_averaged_and_their_spread_counts():
    rng = np.random.default_rng(0)
    curves = [curve(SHAPES["hump"] + 0.05 * rng.normal(size=25), seed=s) for s in range(4)]
    alone, together = measure(curves[:1]), measure(curves)
    assert together.fall[1] < 0.8 * alone.fall[1]
    assert together.fall[0] == pytest.approx(SHAPES["hump"].max() - SHAPES["hump"][-1], abs=0.1)
    apart = [curve(SHAPES["hump"] * (1 + 0.5 * s), seed=s) for s in (-1, 0, 1)]
    assert measure(apart).fall[1] > 0.1


def test_long_logs_are_averaged_first():
    gold = np.interp(np.linspace(0, 5, 1200), D, SHAPES["hump"]) + 0.3 * np.random.default_rng(0).normal(size=1200)
    seen = measure([curve(gold, kl=np.linspace(0, 5, 1200) ** 2)])
    assert len(seen.kl) == MOST
    assert seen.raw_se[0] == pytest.approx(0.3 / 20**0.5, rel=0.3)
    assert seen.fall[0] == pytest.approx(SHAPES["hump"].max() - SHAPES["hump"][-1], abs=0.15)


def test_what_happens_after_a_collapse_is_no_noise_of_the_top():
    gold = np.interp(D, [0, 1, 3], [0, 1, 0]) + np.where(D > 3, -5 - 2 * np.cos(9 * D), 0)
    seen = measure([curve(gold + 0.02 * np.random.default_rng(0).normal(size=25))])
    assert floor_of(gold) == pytest.approx(-2, abs=0.5)
    assert D[seen.sharp_top] == pytest.approx(1, abs=0.25)
    by, error = seen.fall
    assert by == pytest.approx(1 - gold[-1], rel=0.15)  # as deep as it went
    assert by > 3 * error


def test_reads_at_one_kl_and_few_reads_do_no_harm():
    for kl in (np.ones(8), np.array([0.0, 1, 2, 3]), np.array([0.0, 1, 1, 1, 2])):
        seen = measure([curve(np.arange(len(kl)) * 0.1, kl=kl)])
        assert np.isfinite(seen.smooth.mean).all()
        assert np.isfinite(seen.fall).all()
    exact = smooth(D, np.zeros(25))
    assert exact.mean == pytest.approx(np.zeros(25))


@pytest.mark.parametrize("known", ["prompts", "errors", "none"])
@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_reads_are_taken_as_they_are(count, known):
    """RL that reached its KL within one iteration; with prompts at hand this once ended in a singular matrix."""
    kl, gold_KQ = np.arange(float(count)), np.random.default_rng(0).normal(size=(count, 8))
    id = CurveId("ppo", 10, 100)
    gold = gold_KQ.mean(axis=1)
    curve = Curve(id, kl, kl, gold, gold, gold_se=np.full(count, 0.1) if known == "errors" else None)
    if known == "prompts":
        curve = from_prompts(id, kl, kl, gold_KQ, gold_KQ)
    found = measure([curve])
    np.testing.assert_array_equal(found.smooth.mean, gold)
    assert found.top == int(gold.argmax())
    want = {"prompts": curve.gold_se, "errors": np.full(count, 0.1), "none": np.zeros(count)}[known]
    np.testing.assert_allclose(found.smooth.noise, want)
