"""Length-penalised rewards, by hand."""

import jax.numpy as jnp
import numpy as np

from rmo.methods.bench import Pool
from rmo.methods.ppo import length_penalty
from rmo.methods.wording import PoolTexts


def test_tokens_beyond_the_free_ones_cost():
    mask = jnp.arange(6)[None] < jnp.array([[2], [4], [6]])
    found = length_penalty.penalised(jnp.array([1.0, 1.0, 1.0]), mask, 0.1, 3.5)
    np.testing.assert_allclose(found, [1, 0.95, 0.75])


def test_what_is_free_is_the_starts_mean_length():
    masks = [np.arange(4)[None] < np.array([[1], [3]]), np.arange(4)[None] < np.array([[4], [2]])]

    class Bench:
        def pool(self):
            texts = PoolTexts(lambda q: (np.zeros((2, 4), int), masks[q]), 2, 2, 9)
            return Pool([], np.zeros((2, 2)), np.zeros((2, 2)), 1.0, texts=texts)

    assert length_penalty.LengthPenalty().at(Bench()).free == 2.5
    assert length_penalty.LengthPenalty(free=7.0).at(Bench()).free == 7
