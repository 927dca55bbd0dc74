import itertools
import math

import numpy as np
import pytest

from rmo.methods import best_of_n


def brute_force(proxy, gold, n):
    """Mean over all C(N, n) subsets of the gold of the best proxy; ties averaged."""
    chosen = []
    for subset in itertools.combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        tied = [i for i in subset if proxy[i] == best]
        chosen.append((best, np.mean([gold[i] for i in tied])))
    return np.mean(chosen, axis=0)


@pytest.mark.parametrize("ties", [False, True])
def test_equals_enumeration(ties):
    rng = np.random.default_rng(0)
    for size in (3, 6, 8):
        proxy = rng.integers(3, size=size).astype(float) if ties else rng.normal(size=size)
        gold = rng.normal(size=size)
        ns = np.arange(1, size + 1)
        got = best_of_n.best_of_n(proxy[None], gold[None], ns)
        expected = np.array([brute_force(proxy, gold, n) for n in ns])
        np.testing.assert_allclose(got[0][:, 0], expected[:, 0], atol=1e-10)
        np.testing.assert_allclose(got[1][:, 0], expected[:, 1], atol=1e-10)


def test_ends():
    rng = np.random.default_rng(1)
    proxy, gold = rng.normal(size=(5, 100)), rng.normal(size=(5, 100))
    p, g = best_of_n.best_of_n(proxy, gold, np.array([1, 100]))
    np.testing.assert_allclose(g[0], gold.mean(1))
    np.testing.assert_allclose(g[1], gold[np.arange(5), proxy.argmax(1)])
    np.testing.assert_allclose(p[1], proxy.max(1))


def test_weights_are_exact_and_sum_to_one():
    for n in (1, 2, 50, 3000, 60_000):
        assert best_of_n.weights(n, 60_000).sum() == pytest.approx(1, abs=1e-8)
    exact = np.array([math.comb(i - 1, 6) / math.comb(40, 7) for i in range(1, 41)])
    np.testing.assert_allclose(best_of_n.weights(7, 40), exact, rtol=1e-10)
    # The recursion w_N = n/N, w_{i-1} = w_i (i-n)/(i-1).
    w = best_of_n.weights(100, 5000)
    assert w[-1] == pytest.approx(100 / 5000)
    i = np.arange(200, 5001)
    np.testing.assert_allclose(w[i - 2], w[i - 1] * (i - 100) / (i - 1), rtol=1e-8)


def test_proxy_is_monotone_and_gold_follows_its_own_draw():
    rng = np.random.default_rng(2)
    gold = rng.normal(size=(20, 400))
    proxy = gold + rng.normal(size=gold.shape)
    ns = best_of_n.grid(400, 20)
    p, g = best_of_n.best_of_n(proxy, gold, ns)
    assert (np.diff(p.mean(1)) > 0).all()
    # Regressional Goodhart (paper appendix A): with equal variances gold gains half of what the proxy does.
    assert g.mean(1)[10] / p.mean(1)[10] == pytest.approx(0.5, abs=0.08)
    # Gold that is not re-sorted with the proxy would gain nothing.
    assert best_of_n.best_of_n(proxy, rng.permuted(gold, axis=1), ns)[1].mean(1)[10] == pytest.approx(0, abs=0.2)


def test_agrees_with_naive_best_of_the_first_n():
    rng = np.random.default_rng(3)
    gold = rng.normal(size=(4000, 16))
    proxy = gold + rng.normal(size=gold.shape)
    naive = np.take_along_axis(gold, proxy[:, :4].argmax(1)[:, None], 1)[:, 0]
    estimate = best_of_n.best_of_n(proxy, gold, np.array([4]))[1][0]
    assert abs(naive.mean() - estimate.mean()) < 4 * np.hypot(naive.std(), estimate.std()) / 4000**0.5
    assert estimate.std() < 0.8 * naive.std()  # that is what the estimator is for


def test_grid_and_errors():
    ns = best_of_n.grid(1024, 32)
    assert ns[0] == 1
    assert ns[-1] == 1024
    assert (np.diff(ns) > 0).all()
    with pytest.raises(ValueError, match="1 <= n <= 8"):
        best_of_n.weights(9, 8)
    with pytest.raises(ValueError, match="prompts, draws"):
        best_of_n.best_of_n(np.zeros((2, 3)), np.zeros((2, 4)), ns)


def test_winners_follow_the_law():
    rng = np.random.default_rng(4)
    proxy = rng.normal(size=10)
    drawn = best_of_n.winners(np.argsort(proxy), 4, rng, 40_000)
    frequency = np.bincount(drawn, minlength=10)[np.argsort(proxy)] / 40_000
    np.testing.assert_allclose(frequency, best_of_n.weights(4, 10), atol=0.012)


def test_expectation_of_a_table_per_n():
    """With the same table at every n it is the estimator itself."""
    rng = np.random.default_rng(4)
    proxy, gold = rng.normal(size=(2, 3, 40))
    ns = np.array([1, 4, 16])
    got = best_of_n.expectation(proxy, [gold] * 3, ns)
    np.testing.assert_allclose(got, best_of_n.best_of_n(proxy, gold, ns)[1])
    np.testing.assert_allclose(
        best_of_n.expectation(proxy, [np.full((3, 40), n) for n in ns], ns), np.repeat(ns[:, None], 3, 1)
    )


def test_nested_winners_only_change_for_the_better():
    proxy = np.random.default_rng(5).normal(size=300)
    chosen = best_of_n.nested(proxy, np.array([1, 3, 10, 300]))
    assert chosen[0] == 0
    assert chosen[-1] == proxy.argmax()
    assert (np.diff(proxy[chosen]) >= 0).all()
