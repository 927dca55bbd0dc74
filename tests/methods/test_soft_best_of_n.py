"""Soft best-of-n against enumeration and its limits: n = 1, T -> infinity, T -> 0, n -> infinity."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmo.analysis.curve_id import Settings
from rmo.config import ConfigError, checks
from rmo.methods import soft_best_of_n
from rmo.methods.bench import Pool
from rmo.methods.best_of_n import best_of_n
from rmo.methods.soft_best_of_n import SoftBestOfN, densities, gold_and_slope, gumbel, kl, means
from rmo.methods.tilt import kl_of, tilted
from rmo.models.metrics import kl_bon

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.py"


def scores(prompts, draws, seed=0):
    rng = np.random.default_rng(seed)
    proxy = rng.normal(size=(prompts, draws))
    return proxy, 0.6 * proxy + 0.8 * rng.normal(size=proxy.shape)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_densities_are_those_of_every_choice_of_n_draws(n, temperature):
    """All 6^n ways to draw n of 6 with replacement."""
    score = scores(1, 6)[0][0]
    chance = np.zeros(6)
    for chosen in itertools.product(range(6), repeat=n):
        np.add.at(chance, list(chosen), softmax(score[list(chosen)] / temperature) / 6**n)
    np.testing.assert_allclose(densities(score, [n], temperature)[0] / 6, chance, atol=1e-11)


def test_scores_are_those_of_every_set_of_n_draws():
    """All sets of 3 of 7 draws, to four standard errors of the noises' mean."""
    proxy, gold = scores(2, 7)
    ns, noises = np.array([1, 3, 5]), 20_000
    (found,) = means(proxy, [gold], ns, 0.4, noises, np.random.default_rng(1))
    for k, n in enumerate(ns):
        sets = [list(s) for s in itertools.combinations(range(7), int(n))]
        exact = [np.mean([softmax(p[s] / 0.4) @ g[s] for s in sets]) for p, g in zip(proxy, gold, strict=True)]
        np.testing.assert_allclose(found[k], exact, atol=1e-12 if n == 1 else 4 * gold.std() / noises**0.5)


def test_one_draw_is_the_initial_policy():
    proxy, gold = scores(4, 50)
    for temperature in (0.01, 1.0, 100.0):
        found, _ = means(proxy, [gold, proxy], np.array([1]), temperature, 2, np.random.default_rng(0))
        np.testing.assert_allclose(found[0], gold.mean(1), atol=1e-12)
        np.testing.assert_array_equal(densities(proxy[0], [1], temperature), np.ones((1, 50)))
        assert kl(proxy, [1], temperature).tolist() == [[0.0] * 4]


def test_infinite_temperature_is_the_initial_policy():
    proxy = scores(3, 64)[0]
    np.testing.assert_allclose(densities(proxy[0], [2, 16, 64], np.inf), 1, atol=1e-11)
    np.testing.assert_allclose(kl(proxy, [2, 16, 64], np.inf), 0, atol=1e-11)


def test_temperature_of_0_is_best_of_n():
    proxy, gold = scores(5, 60)
    ns = np.array([1, 2, 7, 30, 60])
    found = means(proxy, [proxy, gold], ns, 1e-12, 3, np.random.default_rng(0))
    np.testing.assert_allclose(found, best_of_n(proxy, gold, ns), atol=1e-12)
    rank = np.argsort(np.argsort(proxy[0])) + 1
    spread = np.sort(proxy[0])[rank - 1] * 0 + rank  # evenly spaced, so that T of 1/50 cannot confuse two
    expected = [(rank / 60) ** n - ((rank - 1) / 60) ** n for n in (2, 7, 30)]
    np.testing.assert_allclose(densities(spread.astype(float), [2, 7, 30], 0.02) / 60, expected, atol=1e-11)


def test_kl_of_temperature_0_is_best_of_ns_but_for_what_is_said():
    draws = 400
    even = np.arange(draws, dtype=float)[None]
    for n in (4, 20, 100):
        low = kl_bon(n) - kl(even, [n], 0.03)[0, 0]
        assert low == pytest.approx((n / draws) ** 2 / 24, rel=0.06, abs=2e-5)


def test_kl_is_at_most_best_of_ns_and_less_where_draws_are_tied():
    proxy = scores(3, 300)[0]
    ns = [2, 8, 64]
    warm, cold = kl(proxy, ns, 1.0), kl(proxy, ns, 0.05)
    assert (warm < cold).all()
    assert (cold < kl_bon(ns)[:, None]).all()
    tied = np.round(proxy)  # of 3 to 7 values
    best = (tied == tied.max(1, keepdims=True)).mean(1)
    assert (kl(tied, [64], 0.02)[0] <= -np.log(best) + 1e-9).all()


def test_many_draws_are_the_exponential_tilt():
    proxy = scores(1, 40)[0]
    tilt = tilted(proxy, 1 / 0.8)
    np.testing.assert_allclose(densities(proxy[0], [20_000], 0.8)[0] / 40, tilt[0], atol=1e-4)
    assert kl(proxy, [20_000], 0.8)[0, 0] == pytest.approx(kl_of(tilt)[0], abs=1e-3)


@pytest.mark.parametrize("coldness", [0.0, 0.7, 6.0, 40.0])
def test_gold_and_its_slope(coldness):
    (proxy,), (gold,) = scores(1, 90, seed=3)
    value, slope = gold_and_slope(proxy, gold, 16, coldness)
    temperature = 1 / coldness if coldness else np.inf
    assert value == pytest.approx(densities(proxy, [16], temperature)[0] @ gold / 90, abs=1e-11)
    h = 1e-4
    ends = [gold_and_slope(proxy, gold, 16, coldness + side * h)[0] for side in (0, 1, 2)]
    assert slope == pytest.approx((-3 * ends[0] + 4 * ends[1] - ends[2]) / (2 * h), abs=2e-7)


def test_noise_is_gumbel_and_evenly_spread():
    noise = np.stack(list(gumbel(np.random.default_rng(0), 8, (20, 500))))
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.02)
    assert noise.var() == pytest.approx(np.pi**2 / 6, rel=0.03)
    ranks = np.sort(np.exp(-np.exp(-noise)), axis=0)
    assert (np.floor(8 * ranks) == np.arange(8)[:, None, None]).all()  # one in every eighth


def test_bad_settings_are_refused_in_one_line():
    smoke = checks.load(SMOKE)
    for bad, message in [(SoftBestOfN((), 32), "temperatures is empty"), (SoftBestOfN((0.0,), 32), "has 0: at least"),
                         (SoftBestOfN((0.1, 0.1), 32), "twice"), (SoftBestOfN(max_n=200), "max_n is 200: 4 to the 128"),
                         (SoftBestOfN(max_n=32, noises=0), "noises is 0"), (SoftBestOfN(max_n=32, points=2), "points")]:  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            checks.check(replace(smoke, methods=(bad,)))
    with_it = replace(smoke, methods=(SoftBestOfN(max_n=32),))
    checks.check(with_it)
    assert len(list(soft_best_of_n.jobs(with_it))) == 3


def test_its_record_has_a_curve_for_every_reward_and_temperature():
    proxy, gold = scores(6, 200)
    pool = Pool([proxy, -proxy], gold, np.zeros(gold.shape), 1.0)
    settings = SoftBestOfN((0.1, 1.0), max_n=50, points=8)
    record = soft_best_of_n.of_pool(pool, ["0", "1"], settings, lambda purpose: np.random.default_rng(len(purpose)))
    assert [(a.reward, a.settings) for a in record.arms] == [
        (m, Settings(temperature=t)) for m in (0, 1) for t in (0.1, 1.0)
    ]
    assert record.gold.shape == record.proxy.shape == (4, len(record.step_or_n[0]), 6)
    np.testing.assert_allclose(record.gold[:, 0], [gold.mean(1)] * 4, atol=1e-12)
    assert (record.kl[0] > record.kl[1])[1:].all()
    assert record.gold[0, -1].mean() > record.gold[1, -1].mean() > 0 > record.gold[2, -1].mean()
