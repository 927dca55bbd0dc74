"""The read that leaves least doubt, held to what a refit with that read would say."""

import numpy as np
import pytest

from rmo.analysis.curve import Curve
from rmo.analysis.curve_id import CurveId
from rmo.analysis.forms import FORMS
from rmo.analysis.measured import measure
from rmo.analysis.next_read import best_read, for_fit, for_measured
from tests.helpers.made_curves import BON


def covariance(d, noise):
    """Of (alpha, beta) by least squares on reads at d."""
    x = FORMS[BON].features(np.asarray(d), 0.0)
    return noise * np.linalg.inv(x.T @ x)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.2), (1.0, 0.1)])
def test_it_leaves_what_a_refit_leaves_and_no_other_place_leaves_less(alpha, beta):
    d, noise = np.linspace(0.3, 2, 8), 0.02
    had = covariance(d, noise)
    draws = np.random.default_rng(0).multivariate_normal([alpha, beta], had, size=40_000)
    read = for_fit(BON, draws, (alpha, beta), (0.09, 6.0), 4.0, noise, 1.645)
    asks = np.array([1.0, -2 * 2.0])  # the slope at d = 2

    def left(place, times):
        return asks @ covariance_with(d, place, noise, times) @ asks

    before = asks @ had @ asks
    assert 1 - read.removes == pytest.approx(left(read.kl**0.5, read.times) / before, rel=0.05)
    others = [left(place, read.times) for place in np.linspace(0.3, 6**0.5, 30)]
    assert left(read.kl**0.5, read.times) <= 1.02 * min(others)
    slope = alpha - 2 * beta * 2
    assert read.decides == (abs(slope) > 1.645 * left(read.kl**0.5, read.times) ** 0.5)


def covariance_with(d, place, noise, times):
    x = FORMS[BON].features(np.append(d, place), 0.0)
    weight = np.append(np.full(len(d), 1 / noise), times / noise)
    return np.linalg.inv(x.T * weight @ x)


def test_no_more_samples_than_decide():
    sure = best_read(3.0, 1.645, 1.0, np.array([1.0, 1.0]), np.array([0.5, 0.9]), np.array([4.0, 9.0]), 1.0)
    assert (sure.kl, sure.times, sure.decides) == (9.0, 1, True)
    unsure = best_read(1.0, 1.645, 1.0, np.array([1.0, 1.0]), np.array([0.5, 0.9]), np.array([4.0, 9.0]), 1.0)
    assert unsure.decides
    assert unsure.times == 4  # 0.81 / 1.25 of the variance: 1 > 1.645 x 0.593
    never = best_read(0.1, 1.645, 1.0, np.array([1.0]), np.array([0.9]), np.array([9.0]), 1.0)
    assert not never.decides
    assert never.times < 32
    assert best_read(np.nan, 1.645, 1.0, np.ones(1), np.ones(1), np.ones(1), 1.0) is None


def test_without_a_form_the_top_or_the_end_is_read_again():
    d = np.linspace(0, 3, 12)
    gold = 1 - (d - 1.5) ** 2 / 9 + 0.1 * np.random.default_rng(0).normal(size=12)
    seen = measure([Curve(CurveId("ppo"), np.arange(12.0), d**2, gold, gold, gold_se=np.full(12, 0.1))])
    read = for_measured(seen, 3.0)
    assert 0 < read.removes <= 1
    assert read.kl in d**2
