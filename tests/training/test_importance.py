"""Importance weights and the preference loss that they weigh: by hand, their limits, and a bandit whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from rmo import config
from rmo.models import transformer
from rmo.training import losses, objectives
from rmo.training.importance import effective_sample_size, importance_weights
from rmo.training.update import Member


def test_weights_by_hand():
    ratio = np.log([1.0, 2.0, 4.0])
    np.testing.assert_allclose(importance_weights(ratio, 9.0), np.array([3, 6, 12]) / 7, rtol=1e-6)
    root = np.array([1, 2**0.5, 2])
    np.testing.assert_allclose(importance_weights(ratio, 9.0, 0.5), root / root.mean(), rtol=1e-6)
    clipped = np.exp([-1.0, 0.0, 2.0])  # of -1, 0 and 9 nats from the median, at most 2
    found = importance_weights(np.array([-7.0, -6.0, 3.0]), 2.0)
    np.testing.assert_allclose(found, clipped / clipped.mean(), rtol=1e-6)
    assert found.dtype == np.float32


def test_what_all_log_ratios_share_is_lost_and_equal_ones_are_exactly_1():
    ratio = np.random.default_rng(0).normal(-40, 8, 1000)
    weights = importance_weights(ratio, 3.0, 0.5)
    np.testing.assert_allclose(weights, importance_weights(ratio + 100, 3.0, 0.5), rtol=1e-6)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights.max() / weights.min() <= np.exp(6.0) * (1 + 1e-5)
    np.testing.assert_array_equal(importance_weights(np.full(7, -3.3), 1.0), np.ones(7, np.float32))
    np.testing.assert_array_equal(importance_weights(ratio, 3.0, 0.0), np.ones(1000, np.float32))  # whatever they are


def test_effective_sample_size():
    assert effective_sample_size(np.ones(12)) == 12
    assert effective_sample_size(np.array([5.0, 0, 0])) == 1
    assert effective_sample_size(np.array([1.0, 2.0])) == pytest.approx(9 / 5)
    ratio = np.random.default_rng(1).normal(0, 3, 4000)
    sizes = [effective_sample_size(importance_weights(ratio, 9.0, flatten)) for flatten in (0.01, 0.25, 0.5, 1.0)]
    assert sizes == sorted(sizes, reverse=True)  # less correction, less noise
    assert sizes[0] == pytest.approx(4000, rel=1e-2)


def test_the_weighted_loss_and_its_gradient_by_hand():
    """Gaps of 0 and log 3: losses log 2 and log 4/3, slopes -1/2 and -1/4."""
    scores = jnp.array([[1.0, 1.0], [np.log(3.0), 0.0]])
    weights = jnp.array([0.5, 1.5])
    value, slope = jax.value_and_grad(lambda s: losses.preference(s, 0.0, weights))(scores)
    assert value == pytest.approx((0.5 * np.log(2) + 1.5 * np.log(4 / 3)) / 2, rel=1e-6)
    by_hand = np.array([0.5 * -0.5, 1.5 * -0.25]) / 2
    np.testing.assert_allclose(slope, np.stack([by_hand, -by_hand], 1), rtol=1e-5)
    smooth = losses.preference(scores, 0.1, weights)
    both = 0.9 * np.log([2, 4 / 3]) + 0.1 * np.log([2, 4])
    assert smooth == pytest.approx(np.mean([0.5, 1.5] * both), rel=1e-6)


def test_weights_of_1_change_no_bit_of_loss_or_gradient():
    rm = transformer.RewardModel(config.Model(width=16, layers=1, heads=2), 20, 8)
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 20, (32, 2, 8)).astype(np.int32)
    params = transformer.init(rm, jax.random.key(0))
    nothing = jnp.float32(0)
    member = Member(jnp.int32(1), jax.random.key(1), nothing, nothing, jnp.float32(0.1), jnp.bool_(False))
    step = jax.jit(jax.value_and_grad(objectives.proxy(rm, False), has_aux=True))
    plain = step(params, (tokens, tokens > 0), member, 0)
    weighted = step(params, (tokens, tokens > 0, np.ones(32, np.float32)), member, 0)
    jax.tree.map(np.testing.assert_array_equal, plain, weighted)
    other = step(params, (tokens, tokens > 0, np.linspace(0.5, 1.5, 32, dtype=np.float32)), member, 0)
    assert float(other[0][0]) != float(plain[0][0])


# Three responses. An RM of one number scores them theta times (0, 1, 2); gold prefers the second to the third and both
# to the first, so that no theta is right: which is best depends on which pairs count.
X, GOLD = np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 1.0])
SOURCE, TARGET = np.array([6, 5, 1]), np.array([1, 5, 6])  # how often each policy writes each, of 12


def pairs_of(often: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(preferred, other) of every pair of different responses, as often as two draws give it."""
    found = [(i, j) for i in range(3) for j in range(3) for _ in range(often[i] * often[j]) if GOLD[i] > GOLD[j]]
    preferred, other = np.array(found * 2).T  # whichever was drawn first
    return preferred, other


def best(preferred: np.ndarray, other: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The theta with the lowest loss."""
    gaps = X[preferred] - X[other]

    def loss(theta: float) -> float:
        scores = jnp.stack([jnp.float32(theta) * gaps, jnp.zeros(len(gaps))], axis=1)
        return float(losses.preference(scores, 0.0, None if weights is None else jnp.asarray(weights)))

    return float(minimize_scalar(loss, bracket=(-1.0, 1.0), tol=1e-4).x)


def test_with_full_support_the_minimiser_is_that_of_the_target_distribution():
    """Misspecified, the RM of the source's pairs ranks the target's responses the wrong way round; weights mend it."""
    source, target = pairs_of(SOURCE), pairs_of(TARGET)
    ratio = np.log(TARGET / SOURCE)
    weights = importance_weights(ratio[source[0]] + ratio[source[1]], clip=50.0)
    as_drawn, wanted, found = best(*source), best(*target), best(*source, weights)
    assert as_drawn > 0.5
    assert wanted < -0.2
    assert found == pytest.approx(wanted, abs=2e-3)
    half = best(*source, importance_weights(ratio[source[0]] + ratio[source[1]], 50.0, 0.5))
    assert wanted + 0.1 < half < as_drawn - 0.1  # half of the correction lies between
