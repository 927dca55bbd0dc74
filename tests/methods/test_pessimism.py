"""InferenceTimePessimism against its definition, enumeration, its optimum and its limits."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

from rmo.analysis.curve_id import Settings
from rmo.config import ConfigError, checks
from rmo.methods import pessimism
from rmo.methods.bench import Pool
from rmo.methods.pessimism import Pessimism, PessimismOverN, chi_squared_weights, dealt, gold_and_slope, kl_of_dealt
from rmo.methods.tilt import kl_of

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.py"


def scores(prompts, draws, seed=0):
    rng = np.random.default_rng(seed)
    proxy = rng.normal(size=(prompts, draws))
    return proxy, 0.6 * proxy + 0.8 * rng.normal(size=proxy.shape)


@pytest.mark.parametrize("beta", [0.02, 0.3, 2.0, 50.0])
def test_weights_are_relu_of_score_less_the_lambda_of_mean_1(beta):
    proxy = scores(3, 40)[0]
    for row, weights in zip(proxy, chi_squared_weights(proxy, 1 / beta), strict=True):
        mean = lambda lam, row=row: np.maximum((row - lam) / beta, 0).mean() - 1
        lam = optimize.brentq(mean, row.min() - 2 * beta - 1, row.max(), xtol=1e-14)
        np.testing.assert_allclose(40 * weights, np.maximum((row - lam) / beta, 0), atol=1e-9)
        assert weights.sum() == pytest.approx(1, abs=1e-12)


def test_by_hand():
    """Scores 0, 1, 3 and beta 1: lambda with (3 - l + 1 - l) / 3 = 1 is 1/2, and 0 stays below it."""
    np.testing.assert_allclose(chi_squared_weights(np.array([[1.0, 3.0, 0.0]]), 1.0), [[1 / 6, 5 / 6, 0]], atol=1e-15)


def test_its_limits():
    proxy = scores(4, 30)[0]
    np.testing.assert_array_equal(chi_squared_weights(proxy, 0.0), np.full((4, 30), 1 / 30))
    best = chi_squared_weights(proxy, 1e9)
    np.testing.assert_array_equal(best, proxy == proxy.max(axis=1, keepdims=True))
    np.testing.assert_allclose(kl_of(best), np.log(30), atol=1e-12)


def test_nothing_has_more_reward_at_its_price_in_chi_squared():
    """E[r] - beta/2 chi^2 of other weights on the draws is lower."""
    (proxy,), beta, rng = scores(1, 50)[0], 0.4, np.random.default_rng(1)

    def objective(p):
        return p @ proxy - beta / 2 * (50 * (p**2).sum() - 1)

    best = chi_squared_weights(proxy[None], 1 / beta)[0]
    for _ in range(200):
        other = np.maximum(best + 0.01 * rng.normal(size=50), 0)
        assert objective(other / other.sum()) < objective(best)


@pytest.mark.parametrize("strength", [0.0, 0.5, 4.0])
def test_slope_is_the_derivative(strength):
    proxy, gold = scores(5, 60)
    value, slope = gold_and_slope(proxy, gold, strength)
    np.testing.assert_allclose(value, (chi_squared_weights(proxy, strength) * gold).sum(1))
    h = 1e-7
    np.testing.assert_allclose(slope, (gold_and_slope(proxy, gold, strength + h)[0] - value) / h, atol=1e-5)


def test_sets_of_n_are_those_of_enumeration():
    """Over all orders of 5 draws every set of 3 comes as often."""
    proxy, gold = scores(2, 5)
    orders = [np.array([order] * 2) for order in itertools.permutations(range(5))]
    total, times = dealt(proxy, orders, 3, 2.0)
    chance = np.zeros((2, 5))
    sets = [list(s) for s in itertools.combinations(range(5), 3)]
    for s in sets:
        chance[:, s] += chi_squared_weights(proxy[:, s], 2.0) / len(sets)
    np.testing.assert_allclose(total / times.sum(1, keepdims=True), chance, atol=1e-12)
    np.testing.assert_allclose((total * gold).sum(1) / times.sum(1), (chance * gold).sum(1), atol=1e-12)
    np.testing.assert_allclose(kl_of_dealt(proxy, total, times), kl_of(chance), atol=1e-12)


def test_one_draw_is_the_initial_policy_and_all_draws_are_the_pools_tilt():
    proxy, _ = scores(3, 24)
    orders = [np.indices(proxy.shape)[1]]
    one = dealt(proxy, orders, 1, 5.0)
    np.testing.assert_allclose(one, 1, atol=1e-12)
    np.testing.assert_allclose(kl_of_dealt(proxy, *one), 0, atol=1e-12)
    every = dealt(proxy, orders, 24, 5.0)
    np.testing.assert_allclose(every[0] / 24, chi_squared_weights(proxy, 5.0), atol=1e-12)
    np.testing.assert_allclose(kl_of_dealt(proxy, *every), kl_of(chi_squared_weights(proxy, 5.0)), atol=1e-12)
    assert dealt(proxy, orders, 10, 5.0)[1].sum(1).tolist() == [20] * 3  # four are left over


def test_kl_of_two_draws_is_the_closed_one():
    """Two draws weigh 1 + (r - r') / 2 beta each where beta is large: q = 1 + (r - mean) / 2 beta."""
    proxy, rng, beta = scores(20, 2000)[0], np.random.default_rng(1), 5.0
    orders = [rng.permuted(np.indices(proxy.shape)[1], axis=1) for _ in range(8)]
    found = kl_of_dealt(proxy, *dealt(proxy, orders, 2, 1 / beta)).mean()
    assert found == pytest.approx(1 / (8 * beta**2), rel=0.1)


def test_records():
    proxy, gold = scores(8, 400)
    pool, rng = Pool([proxy, -proxy], gold, np.zeros(gold.shape), 1.0), lambda purpose: np.random.default_rng(0)
    record = pessimism.of_pool(pool, ["0", "1"], Pessimism(points=8), rng)
    np.testing.assert_allclose(record.gold[:, 0], [gold.mean(1)] * 2, atol=1e-12)
    assert (np.diff(record.kl, axis=1) > 0).all()
    assert record.kl[:, -1] == pytest.approx(np.log(400 / 20), rel=0.03)
    over_n = pessimism.of_pool_over_n(pool, ["0", "1"], PessimismOverN((0.1, 1.0), max_n=100, points=6), rng)
    assert [(a.reward, a.settings) for a in over_n.arms] == [(m, Settings(beta=b)) for m in (0, 1) for b in (0.1, 1.0)]
    np.testing.assert_allclose(over_n.gold[:, 0], [gold.mean(1)] * 4, atol=1e-12)
    np.testing.assert_allclose(over_n.kl[:, 0], 0, atol=1e-12)
    assert (over_n.kl[0] >= over_n.kl[1]).all()
    assert over_n.gold[0, -1].mean() > over_n.gold[1, -1].mean() > 0 > over_n.gold[2, -1].mean()


def test_bad_settings_are_refused_in_one_line():
    smoke = checks.load(SMOKE)
    for bad, message in [(Pessimism(points=3), "points is 3"), (Pessimism(least_draws=128.0), "least_draws is 128"),
                         (PessimismOverN((), 32), "betas is empty"), (PessimismOverN((0.0,), 32), "has 0: above 0"),
                         (PessimismOverN((0.1, 0.1), 32), "twice"), (PessimismOverN(max_n=200), "max_n is 200"),
                         (PessimismOverN(max_n=32, passes=0), "passes is 0")]:  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            checks.check(replace(smoke, methods=(bad,)))
    with_both = replace(smoke, methods=(Pessimism(), PessimismOverN(max_n=32)))
    checks.check(with_both)
    assert len(list(pessimism.jobs(with_both))) == len(list(pessimism.jobs_over_n(with_both))) == 3
