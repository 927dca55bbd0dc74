"""Best-of-Poisson against the mixture that it is, its density, and closed forms."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from rmo.config import ConfigError, checks
from rmo.methods import best_of_n, best_of_poisson
from rmo.methods.bench import Pool
from rmo.methods.best_of_poisson import BestOfPoisson, density, kl, slopes, weights
from rmo.models.metrics import kl_bon

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.py"


@pytest.mark.parametrize("mu", [0.0, 0.7, 3.0, 20.0])
def test_weights_are_the_mixture_of_best_of_ns(mu):
    draws = 80
    mixed = sum(stats.poisson.pmf(n - 1, mu) * best_of_n.weights(n, draws) for n in range(1, draws + 1))
    np.testing.assert_allclose(weights(mu, draws), mixed, atol=1e-12)
    assert weights(mu, draws).sum() == pytest.approx(1, abs=1e-12)


def test_mu_of_0_is_the_initial_policy():
    np.testing.assert_allclose(weights(0.0, 50), 1 / 50, atol=1e-15)
    assert kl(0.0) == 0


@pytest.mark.parametrize("mu", [0.5, 5.0, 40.0])
def test_the_pool_gives_the_integral_over_the_density(mu):
    """E of u^k at the i-th of N quantiles is a rising factorial, so that the weights have the density's moments
    exactly, at any N."""
    draws = 120
    i = np.arange(1, draws + 1)
    moment_N = np.ones(draws)
    for k in (1, 2, 3):
        moment_N = moment_N * (i + k - 1) / (draws + k)
        expected = integrate.quad(lambda u, k=k: u**k * density(u, mu), 0, 1, epsabs=1e-13)[0]
        assert weights(mu, draws) @ moment_N == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("mu", [0.3, 4.0, 30.0])
def test_slopes_are_the_derivative(mu):
    h = 1e-4
    difference = (weights(mu + h, 100) - weights(mu - h, 100)) / (2 * h)
    np.testing.assert_allclose(slopes(mu, 100), difference, atol=1e-8)


@pytest.mark.parametrize("mu", [1e-3, 1.0, 63.0, 5000.0])
def test_kl_is_the_integral_and_lies_below_that_of_the_same_mean_n(mu):
    def integrand(u):
        q = density(u, mu)
        return q * np.log(q) if q > 0 else 0.0

    def integral(f):
        ends = [0, *(1 - k / mu for k in (50, 20, 5, 1) if k < mu), 1]
        return sum(integrate.quad(f, a, b, epsabs=1e-13, epsrel=1e-13)[0] for a, b in itertools.pairwise(ends))

    assert integral(lambda u: density(u, mu)) == pytest.approx(1, abs=1e-10)
    expected = integral(integrand)
    assert kl(mu) == pytest.approx(expected, abs=1e-10)
    assert 0 < kl(mu) < kl_bon(mu + 1) + 1e-9


def test_kl_of_a_large_mu_is_log_mu_less_1():
    """q tends to mu e^{-mu (1 - u)}, the tilt of the quantile, whose KL is log mu - 1."""
    assert kl(1e6) == pytest.approx(np.log(1e6) - 1, abs=1e-4)


def test_more_draws_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"mu is 20: .* 24 draws are enough"):
        weights(20.0, 24)
    smoke = checks.load(SMOKE)
    for bad, message in [(BestOfPoisson(max_n=128), "max_n is 128: too near the 128 draws"),
                         (BestOfPoisson(max_n=2), "max_n is 2"), (BestOfPoisson(max_n=32, points=3), "points is 3")]:  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            checks.check(replace(smoke, methods=(bad,)))
    with_it = replace(smoke, methods=(BestOfPoisson(max_n=32),))
    checks.check(with_it)
    with pytest.raises(ConfigError, match="methods has 2 entries BestOfPoisson: their curves would be the same"):
        checks.check(replace(smoke, methods=(BestOfPoisson(max_n=32), BestOfPoisson(max_n=16))))
    assert len(list(best_of_poisson.jobs(with_it))) == 3
    assert list(best_of_poisson.jobs(smoke)) == []


def test_its_record_starts_at_the_initial_policy_and_is_near_best_of_ns():
    rng = np.random.default_rng(0)
    gold_QN = rng.normal(size=(40, 800))
    proxies = [gold_QN + rng.normal(size=gold_QN.shape) for _ in range(2)]
    record = best_of_poisson.of_pool(Pool(proxies, gold_QN, np.zeros(gold_QN.shape), 1.0), BestOfPoisson(200, 16))
    np.testing.assert_allclose(record.gold[:, 0], [gold_QN.mean(1)] * 2, atol=1e-12)
    assert record.step_or_n[0, [0, -1]].tolist() == [1, 200]
    assert (np.diff(record.kl[0]) > 0).all()
    ns = np.arange(1, 301)
    best_gold = best_of_n.best_of_n(proxies[0], gold_QN, ns)[1].mean(1)
    at_equal_kl = np.interp(np.sqrt(record.kl[0]), np.sqrt(kl_bon(ns)), best_gold)
    np.testing.assert_allclose(record.gold[0].mean(1), at_equal_kl, atol=0.03)
