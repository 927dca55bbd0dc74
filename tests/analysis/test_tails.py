"""Hill's estimator on known tails, and what light and heavy errors on one proxy do to best-of-n."""

import numpy as np
import pytest

from rmo.analysis.tails import hill, proxy_error
from rmo.methods.best_of_n import best_of_n


@pytest.mark.parametrize("alpha", [1.0, 2.0, 5.0])
def test_a_pareto_tail_has_its_index(alpha):
    """Beyond the median's shift, which a tail forgets: within four standard errors at the thousandth largest."""
    x = np.random.default_rng(0).pareto(alpha, 4_000_000)
    found = hill(x)
    at = int(np.searchsorted(found.k, 1000))
    assert found.estimate[at] == pytest.approx(1 / alpha, abs=4 * found.error[at] + 0.02)


def test_by_hand():
    """Of 10 values e^1, e^2, ... above 90 zeros the mean excess of the largest ten over the next is that of logs."""
    x = np.concatenate([np.linspace(-1, 1, 190), np.exp(np.arange(1, 11.0))])
    x -= np.median(x)
    found = hill(x)
    falling = np.sort(x)[::-1]
    assert found.k[0] == 10
    assert found.estimate[0] == pytest.approx(np.mean(np.log(falling[:10])) - np.log(falling[10]))
    np.testing.assert_allclose(hill(7 * x + 3).estimate, found.estimate)  # neither unit nor zero matter


def test_a_normal_is_light_and_students_t_is_not():
    rng = np.random.default_rng(0)
    light, heavy = hill(rng.normal(size=400_000)), hill(rng.standard_t(2, 400_000))
    assert light.estimate[0] < 0.1 < 0.2 < light.estimate[-1] < 0.35  # falls toward 0 as k becomes small
    assert (np.abs(heavy.estimate - 0.5) < 4 * heavy.error + 0.1).all()


def test_what_has_no_tail_is_refused():
    with pytest.raises(ValueError, match="99 values"):
        hill(np.arange(99.0))
    with pytest.raises(ValueError, match="no tail"):
        hill(np.zeros(200))


def test_the_error_knows_nothing_of_gold():
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(20, 500)) + rng.normal(size=(20, 1))
    error = rng.standard_t(3, size=gold.shape)
    found = proxy_error(0.7 * gold + error + 5, gold)
    assert np.corrcoef(found.ravel(), error.ravel())[0, 1] > 0.99
    within = gold - gold.mean(1, keepdims=True)
    assert np.sum(found * within) == pytest.approx(0, abs=1e-8)


def test_light_errors_let_gold_rise_and_heavy_ones_give_it_back():
    """Kwa et al. 2024: the same gold under a normal error and under Student's t with 1.5 degrees of freedom, of one
    median size. Best-of-n's gold rises on, or comes back to its base."""
    rng = np.random.default_rng(0)
    ns = np.array([1, 4, 16, 64, 1024, 16_384])
    gold = rng.normal(size=(24, 65_536))
    errors = {"light": rng.normal(size=gold.shape), "heavy": 0.8 * rng.standard_t(1.5, size=gold.shape)}
    curves = {name: best_of_n(gold + error, gold, ns)[1].mean(axis=1) for name, error in errors.items()}
    assert (np.diff(curves["light"]) > 0.2).all()
    assert curves["heavy"].argmax() in (2, 3)
    assert curves["heavy"].max() > 0.5
    assert abs(curves["heavy"][-1]) < 0.15
    tails = {name: hill(proxy_error(gold + error, gold)) for name, error in errors.items()}
    assert tails["light"].estimate[0] < 0.15
    assert tails["heavy"].estimate[0] == pytest.approx(1 / 1.5, abs=5 * tails["heavy"].error[0])
