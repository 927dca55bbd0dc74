"""The chi-squared penalty against closed forms of two-outcome policies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo.methods.ppo import chi_squared


def two_outcomes(chance: float, start: float = 0.5):
    """(chances, log-ratios) of a policy of two outcomes and its start."""
    p, ref = np.array([chance, 1 - chance]), np.array([start, 1 - start])
    return p, np.log(p / ref)


def test_chi_squared_of_two_outcomes():
    """Samples in exactly the policy's shares: the estimate is the closed form sum p^2 / ref - 1."""
    p, log_ratio = two_outcomes(0.75)
    batch = jnp.asarray(np.repeat(log_ratio, [3, 1]))
    assert float(chi_squared.chi_squared(batch)) == pytest.approx(0.75**2 / 0.5 + 0.25**2 / 0.5 - 1, rel=1e-5)
    w = p / 0.5
    np.testing.assert_allclose(chi_squared.cost(batch), np.repeat((w - 1) / 0.5, [3, 1]), rtol=1e-5)


def test_the_cost_is_the_gradient_of_the_root():
    """sqrt(chi2) in the logit x of a two-outcome policy: E_policy[cost * d log policy / dx]."""

    def root(x):
        p = jax.nn.sigmoid(x)
        return jnp.sqrt(p**2 / 0.3 + (1 - p) ** 2 / 0.7 - 1)

    chance = 0.6
    p, log_ratio = two_outcomes(chance, 0.3)
    costs = np.asarray(chi_squared.cost(jnp.asarray(np.repeat(log_ratio, [6, 4]))))[[0, -1]]
    slope = np.array([1 - chance, -chance])  # of both log-probabilities in x
    assert (p * costs * slope).sum() == pytest.approx(float(jax.grad(root)(jnp.log(chance / (1 - chance)))), rel=1e-4)


def test_chi_squared_has_no_bias_and_is_finite_far_away():
    rng = np.random.default_rng(0)
    p, log_ratio = two_outcomes(0.8, 0.4)
    found = [float(chi_squared.chi_squared(jnp.asarray(rng.choice(log_ratio, 8, p=p)))) for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.8**2 / 0.4 + 0.2**2 / 0.6 - 1, abs=4 * np.std(found) / 20)
    far = jnp.array([300.0, -300.0, 1.0])
    assert np.isfinite(chi_squared.cost(far)).all()
    np.testing.assert_array_equal(chi_squared.cost(jnp.zeros(5)), 0)  # at the start nothing costs


def test_a_chi_squared_penalty_is_taken_off_the_score():
    logps = jnp.log(jnp.array([[0.75, 1.0], [0.25, 1.0]]))
    ref, mask = jnp.log(jnp.array([[0.5, 0.1], [0.5, 0.1]])), jnp.array([[1, 0], [1, 0]], bool)
    earned, said = chi_squared.ChiSquared().reward(jnp.array([1.0, 2.0]), logps, ref, mask, mask, jnp.float32(0.1))
    w = np.array([1.5, 0.5])
    chi2 = np.mean(w + 1 / w - 2)
    np.testing.assert_allclose(earned, np.array([1.0, 2.0]) - 0.1 * (w - 1) / chi2**0.5, rtol=1e-5)
    assert float(said["log_chi2"]) == pytest.approx(np.log1p(chi2), rel=1e-5)
