"""gold(n) = integral of m(u) n u^{n-1} du, in closed forms, from pools, and split in straight and bent."""

import numpy as np
import pytest

from rmo.analysis.goodhart import at_ranks, best_of, by_rank, gold_of, share_above, split
from rmo.methods.best_of_n import best_of_n, weights

SHAPES = {
    "cubic": lambda u: 1 + u - 3 * u**3,
    "root": lambda u: np.sqrt(0.2 + u),
    "wave": lambda u: np.sin(3 * u) - np.exp(u),
    "kink-like": lambda u: np.tanh(4 * (u - 0.6)),
}


@pytest.mark.parametrize("n", [1, 2, 7.5, 64, 3000])
@pytest.mark.parametrize("k", [0, 1, 2.5, 9])
def test_powers_have_their_closed_form(n, k):
    assert gold_of(lambda u: u**k, n) == pytest.approx(n / (n + k), abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("draws", [12, 200])
def test_the_identity_holds_at_every_n(shape, draws):
    """The unbiased estimator on what a pool of N draws shows on average is the integral, whatever m is."""
    m_N = at_ranks(SHAPES[shape], draws)
    for n in {1, 2, 3, 5, draws // 2, draws - 1, draws}:
        assert weights(n, draws) @ m_N == pytest.approx(gold_of(SHAPES[shape], n), abs=1e-10)


def test_ranks_have_betas_moments():
    i = np.arange(1, 21)
    np.testing.assert_allclose(at_ranks(lambda u: u, 20), i / 21, atol=1e-13)
    np.testing.assert_allclose(at_ranks(lambda u: u**2, 20), i * (i + 1) / (21 * 22), atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 5, 17, 40])
def test_real_n_goes_through_the_whole_ones(n):
    here, slope = best_of(n, 40)
    np.testing.assert_allclose(here, weights(n, 40), atol=1e-12)
    assert here.sum() == pytest.approx(1, abs=1e-12)
    assert slope.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [1.3, 4.7, 22.1])
def test_between_them_it_is_a_chance_with_that_slope(n):
    here, slope = best_of(n, 40)
    assert (here >= 0).all()
    assert here.sum() == pytest.approx(1, abs=1e-12)
    h = 1e-5
    np.testing.assert_allclose(slope, (best_of(n + h, 40)[0] - best_of(n - h, 40)[0]) / (2 * h), atol=1e-8)
    quantile = np.arange(1, 41) / 41
    assert here @ quantile == pytest.approx(n / (n + 1), abs=2e-3)


def test_impossible_n_is_refused():
    for n in (0.5, 41):
        with pytest.raises(ValueError, match="needs 1 <= n <= 40"):
            best_of(n, 40)


def pool(seed=0, prompts=30, draws=300):
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=(prompts, draws)) + rng.normal(size=(prompts, 1))
    return gold + rng.normal(size=gold.shape), gold


def test_the_pools_ranks_give_best_of_n():
    proxy, gold = pool()
    proxy_N, gold_N = by_rank(proxy, gold)
    ns = np.array([1, 3, 50, 300])
    both = best_of_n(proxy, gold, ns)
    for n, *expected in zip(ns, *(x.mean(1) for x in both), strict=True):
        np.testing.assert_allclose([weights(n, 300) @ x for x in (proxy_N, gold_N)], expected, atol=1e-10)


def test_gaussian_scores_are_all_regressional():
    """X and Z normal with equal variances: half of the proxy's rise is gold's at every n (appendix A)."""
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(400, 500))
    found = split(gold + rng.normal(size=gold.shape), gold, np.array([1, 4, 16, 64]))
    assert found.slope == pytest.approx(0.5, abs=0.005)
    np.testing.assert_allclose(found.regressional_K + found.extremal_K, found.gold_K, atol=1e-12)
    np.testing.assert_allclose(found.extremal_K, 0, atol=0.02)
    assert found.gold_K[-1] == pytest.approx(0.5 * 2**0.5 * 2.36, abs=0.04)  # half the best of 64 normals of variance 2


def test_a_bend_is_extremal_and_has_no_part_in_the_line():
    rng = np.random.default_rng(0)
    proxy = rng.normal(size=(200, 400))
    bent = split(proxy, proxy - 0.8 * np.maximum(proxy - 1, 0) ** 2, np.array([1, 2, 8, 32, 128]))
    assert (np.diff(bent.regressional_K) > 0).all()
    assert bent.gold_K.argmax() < 4
    assert bent.extremal_K[-1] < -0.5
    assert bent.gold_K[0] == pytest.approx(0, abs=1e-12)
    flat = split(np.zeros((2, 10)), rng.normal(size=(2, 10)), np.array([1, 5]))
    assert flat.slope == 0
    np.testing.assert_allclose(flat.gold_K, 0, atol=1e-12)


def test_where_a_curve_reads_m():
    assert share_above(0.9, 1) == pytest.approx(0.1)
    assert share_above(0.9, 22) == pytest.approx(1 - 0.9**22)
