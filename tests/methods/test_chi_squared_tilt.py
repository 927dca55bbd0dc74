"""Chi-squared tilts by hand, against other weights of one chi-squared, and the bound along them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from rmo import config
from rmo.analysis.curve_id import Settings
from rmo.config import checks
from rmo.experiment.graph import plan
from rmo.methods.bench import Pool, RewardRow
from rmo.methods.chi_squared_tilt import METHOD, ChiSquaredTilt, along, linear, run, strengths
from rmo.methods.method import Job
from rmo.methods.tilt import kl_of, tilted

SMOKE = checks.load(Path(__file__).parents[2] / "configs" / "smoke.py")


def chi2(weights_QN):
    return float(np.mean((weights_QN * weights_QN.shape[1] - 1) ** 2))


def test_weights_by_hand():
    two = np.array([[-1.0, 1.0], [4.0, 2.0]])
    np.testing.assert_allclose(linear(two, 0.5), [[0.25, 0.75], [0.75, 0.25]])
    np.testing.assert_allclose(linear(two, 7.0), [[0, 1], [1, 0]])
    np.testing.assert_allclose(linear(two, 0.0), 0.5)
    # Of (-3, 0, 3) at strength 1 the lowest has none; 1 + 0 - nu and 1 + 3 - nu must sum to 3, so nu is 1.
    np.testing.assert_allclose(linear(np.array([[-3.0, 0.0, 3.0]]), 1.0), [[0, 0, 1]])
    np.testing.assert_allclose(linear(np.array([[-3.0, 0.0, 3.0]]), 0.5), [[0, 0.25, 0.75]])
    np.testing.assert_allclose(linear(np.array([[2.0, 2.0, 2.0]]), 9.0), 1 / 3)


def test_where_all_draws_have_weight_the_closed_form_holds():
    """chi2 is strength^2 Var, the gain strength Var."""
    scores = np.random.default_rng(0).uniform(-1, 1, (3, 500))
    weights, variance = linear(scores, 0.5), scores.var(axis=1).mean()
    assert chi2(weights) == pytest.approx(0.25 * variance)
    gain = (weights * scores).sum(1) - scores.mean(1)
    assert gain.mean() == pytest.approx(0.5 * variance)


def test_no_other_weights_of_one_chi_squared_give_more():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(1, 400))
    for strength in (0.3, 2.0, 20.0):
        best = linear(scores, strength)
        for other in (tilted(scores, 0.7 * strength), linear(scores + 0.3 * rng.normal(size=scores.shape), strength)):
            share = min((chi2(best) / chi2(other)) ** 0.5, 1.0)  # mixed with the start to no more chi-squared
            mixed = share * other + (1 - share) / 400
            assert chi2(mixed) <= chi2(best) * (1 + 1e-9)
            assert (mixed * scores).sum() < (best * scores).sum()


def test_its_points_are_even_in_the_root_of_kl_and_end_where_few_draws_count():
    scores = np.random.default_rng(2).normal(size=(6, 1024))
    roots = np.sqrt([kl_of(linear(scores, s)).mean() for s in strengths(scores, 12, 20.0)])
    assert roots[0] == 0
    assert roots[-1] == pytest.approx(np.log(1024 / 20) ** 0.5, rel=0.02)
    np.testing.assert_allclose(np.diff(roots), roots[-1] / 11, rtol=0.15)


def test_gold_is_never_below_what_is_guaranteed():
    rng = np.random.default_rng(3)
    gold = rng.normal(size=(5, 300))
    for noise in (0.1, 1.0, 4.0):
        proxy = gold + noise * rng.standard_t(2, size=gold.shape)
        found = along(proxy, gold, strengths(proxy, 10, 5.0))
        assert (found["gold_gain"] >= found["least_gold"] - 1e-9).all()
    assert np.isnan(along(-gold, gold, np.array([0.0, 1.0]))["least_gold"]).all()


def test_its_record():
    rng = np.random.default_rng(4)
    gold = rng.normal(size=(4, 200))

    class Bench:
        rewards = (RewardRow("0", 10, Settings(), 0, 0),)

        def pool(self):
            return Pool([gold + rng.normal(size=gold.shape)], gold, np.zeros(gold.shape), 1.0)

    record = run(Bench(), Job("made-up", "made-up", ChiSquaredTilt(points=6)))
    assert record.gold.shape == (1, 6, 4)
    assert record.diagnostics.keys() == {d.name for d in METHOD.diagnostics}
    assert (np.diff(record.kl[0]) > 0).all()


def test_its_stages_and_what_it_refuses():
    def with_methods(*settings):
        return dataclasses.replace(SMOKE, methods=settings)

    new = [name for name in plan(with_methods(ChiSquaredTilt())) if name not in plan(SMOKE)]
    assert new == ["chi2_tilt/w8x1-main", "chi2_tilt/w16x1-main", "chi2_tilt/w24x1-main"]
    for settings, said in (
        ([ChiSquaredTilt(least_draws=500.0)], "must be less than the 128 draws"),
        ([ChiSquaredTilt(points=2)], "a curve needs at least 4"),
        ([ChiSquaredTilt(), ChiSquaredTilt(points=9)], "methods has 2 entries ChiSquaredTilt"),
    ):
        with pytest.raises(config.ConfigError, match=said):
            checks.check(with_methods(*settings))
