"""Bounded rewards: the sigmoid's ends, middle and slope."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo.methods.ppo import bounded


def test_a_bounded_reward_has_the_sigmoids_ends():
    scores = jnp.array([-100.0, 0.0, np.log(3), 100.0])
    np.testing.assert_allclose(bounded.bounded(scores, 1.0), [0, 0.5, 0.75, 1], atol=1e-6)
    np.testing.assert_allclose(bounded.bounded(scores, 2.0)[2], 0.9, rtol=1e-6)
    slope = jax.grad(lambda x: bounded.bounded(x, 2.0))(0.0)
    assert float(slope) == pytest.approx(0.5)
