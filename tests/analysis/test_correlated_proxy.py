"""The bound of Laidlaw et al. on tables: it always holds, and is tight where it can be."""

import numpy as np
import pytest

from rmo.analysis.correlated_proxy import guarantee
from rmo.methods.best_of_n import weights
from rmo.methods.tilt import tilted


def policies(proxy_QN, gold_QN, rng):
    """Weights on the draws: tilts by the proxy and against gold, best-of-n, single draws, anything."""
    shape = proxy_QN.shape
    for strength in (0.1, 1.0, 5.0, 50.0):
        yield tilted(proxy_QN, strength)
        yield tilted(proxy_QN - gold_QN, strength)
        yield tilted(-proxy_QN, strength)
    best = np.zeros(shape)
    np.put_along_axis(best, proxy_QN.argsort(axis=1), np.tile(weights(4, shape[1]), (shape[0], 1)), axis=1)
    yield best
    yield np.eye(shape[1])[rng.integers(0, shape[1], shape[0])]
    yield rng.dirichlet(np.full(shape[1], 0.05), shape[0])


def test_it_holds_for_every_policy_on_random_tables():
    rng, tried, tight = np.random.default_rng(0), 0, 0
    for _ in range(300):
        shape = rng.integers(1, 5), rng.integers(4, 30)
        gold = rng.standard_t(rng.choice([2, 5, 50]), size=shape) + rng.normal(size=(shape[0], 1))
        proxy = rng.uniform(0, 2) * gold + rng.standard_t(rng.choice([2, 5, 50]), size=shape)
        if np.corrcoef(proxy.ravel(), gold.ravel())[0, 1] <= 0.01:
            continue
        for policy in policies(proxy, gold, rng):
            found = guarantee(policy, proxy, gold)
            assert found.holds, found
            tried, tight = tried + 1, tight + (found.gold_gain < found.least + 0.1)
    assert tried > 3000
    assert tight > 20  # it is no empty bound


def test_both_sides_by_hand():
    """Two draws, all weight on the second: w - 1 is (-1, 1), chi2 is 1, and gains are 1 of either reward."""
    found = guarantee(np.array([[0.0, 1.0]]), np.array([[1.0, 3.0]]), np.array([[0.0, 10.0]]))
    assert found == pytest.approx((1, 1, 1, 1, 1))
    start = guarantee(np.full((1, 4), 0.25), np.array([[1.0, 2, 3, 4]]), np.array([[1.0, 2, 4, 3]]))
    assert start == pytest.approx((0.8, 0, 0, 0, 0))


def test_the_worst_policy_reaches_it():
    """Where the proxy is gold and an error of its own, a policy that follows the error alone gains no gold, as is said."""
    gold, error = np.array([[1.0, 1, -1, -1]]), np.array([[1.0, -1, 1, -1]])
    found = guarantee(np.array([[0.5, 0, 0.5, 0]]), gold + error, gold)
    assert found.correlation == pytest.approx(0.5**0.5)
    assert found.gold_gain == pytest.approx(0)
    assert found.least == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("weights_QN", "proxy", "gold", "said"),
    [
        ([[0.5, 0.4]], [[1.0, 2]], [[1.0, 2]], "sum to 1"),
        ([[0.5, 0.5]], [[1.0, 1]], [[1.0, 2]], "same for all draws"),
        ([[0.5, 0.5]], [[1.0, 2]], [[2.0, 1]], "correlate -1"),
    ],
)
def test_what_it_is_not_about_is_refused(weights_QN, proxy, gold, said):
    with pytest.raises(ValueError, match=said):
        guarantee(*(np.array(x) for x in (weights_QN, proxy, gold)))
