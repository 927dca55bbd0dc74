"""Exponential tilts against closed forms, and against every other way to weight draws."""

import numpy as np
import pytest

from rmo.methods.best_of_n import best_of_n, weights
from rmo.methods.tilt import coefficients, kl_of, tilted, tilts
from rmo.models.metrics import kl_bon


def gaussian(prompts, draws, seed=0):
    return np.random.default_rng(seed).normal(size=(prompts, draws))


@pytest.mark.parametrize("coefficient", [0.25, 0.5, 1.0, 1.5])
def test_gaussian_scores_have_the_closed_form(coefficient):
    """A tilted normal is the normal shifted by lambda: KL is lambda^2 / 2, the gain lambda, and of a second score that
    correlates rho with it rho times that."""
    proxy = gaussian(16, 40_000)
    gold = 0.6 * proxy + 0.8 * gaussian(16, 40_000, seed=1)
    found = tilts(proxy, {"proxy": proxy, "gold": gold}, np.array([0.0, coefficient]), np.full(16, 0.5))
    assert found["kl"] == pytest.approx([0, coefficient**2 / 2], rel=0.02, abs=1e-12)
    assert found["proxy"].mean(1) == pytest.approx([0, coefficient], rel=0.01, abs=5e-3)
    assert found["gold"].mean(1) == pytest.approx([0, 0.6 * coefficient], rel=0.02, abs=5e-3)


def test_the_end_of_the_curve_is_as_near_to_the_truth_as_is_said():
    """Gain at the KL that is stated, against sqrt(2 KL)."""
    ends = {20: [], 300: []}
    for seed in range(4):
        scores = gaussian(48, 4096, seed)
        for least, found in ends.items():
            end = coefficients(scores, 8, least)[-1]
            w = tilted(scores, end)
            kl = kl_of(w).mean()
            assert kl == pytest.approx(np.log(4096 / least), rel=0.01)
            found.append(np.sum(w * scores, axis=1).mean() / np.sqrt(2 * kl))
    assert np.mean(ends[300]) == pytest.approx(0.997, abs=0.003)
    assert np.mean(ends[20]) == pytest.approx(0.974, abs=0.006)


def test_points_are_even_in_the_root_of_kl_and_rise():
    found = coefficients(gaussian(8, 1024), 12, 20.0)
    roots = [np.sqrt(kl_of(tilted(gaussian(8, 1024), c)).mean()) for c in found]
    assert found[0] == roots[0] == 0
    np.testing.assert_allclose(np.diff(roots), roots[-1] / 11, rtol=0.05)


def test_no_other_weights_of_one_kl_give_more():
    """Best-of-n's weights at their own KL on the draws, and tilts disturbed at random."""
    scores, rng = gaussian(1, 512), np.random.default_rng(3)
    grid = coefficients(scores, 200, 5.0)
    frontier = [(kl_of(w := tilted(scores, c))[0], float((w * scores).sum())) for c in grid]
    kls, gains = np.array(frontier).T
    order = np.argsort(scores[0])
    for n in (2, 8, 32):
        w = np.zeros((1, 512))
        w[0, order] = weights(n, 512)
        assert (w * scores).sum() < np.interp(kl_of(w)[0], kls, gains)
    for c in grid[50:150:10]:
        w = tilted(scores + 0.3 * rng.normal(size=scores.shape), c)
        assert (w * scores).sum() < np.interp(kl_of(w)[0], kls, gains)


def test_best_of_n_lies_below_it_at_its_own_bound():
    scores = gaussian(32, 4096)
    ns = np.array([4, 16, 64])
    best, _ = best_of_n(scores, scores, ns)
    w = [tilted(scores, c) for c in coefficients(scores, 64, 20.0)]
    frontier = np.interp(kl_bon(ns), [kl_of(x).mean() for x in w], [np.sum(x * scores, 1).mean() for x in w])
    assert (best.mean(1) < frontier + 0.02).all()
    assert (best.mean(1) > 0.9 * frontier).all()


def test_ties_end_the_curve_where_draws_cannot_be_told_apart():
    """Half of the draws share the highest score: no tilt goes beyond log 2."""
    scores = np.repeat([[0.0, 1.0]], 64, axis=0).repeat(50, axis=1)
    found = coefficients(scores, 6, 20.0)
    assert np.isfinite(found).all()
    assert kl_of(tilted(scores, found[-1])) == pytest.approx(np.log(2), rel=1e-3)


def test_draws_are_drawn_by_their_weights():
    scores = np.repeat(np.log([[1.0, 2.0, 5.0]]), 4000, axis=0)
    chance = (np.arange(4000) + 0.5) / 4000
    found = tilts(scores, {}, np.array([1.0]), chance)["draw"][0]
    np.testing.assert_allclose(np.bincount(found, minlength=3) / 4000, [1 / 8, 2 / 8, 5 / 8], atol=1e-3)
