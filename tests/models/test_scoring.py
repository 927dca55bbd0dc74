import jax.numpy as jnp
import numpy as np

from rmo.models import scoring


def test_last_token_is_found_by_the_mask():
    mask = jnp.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(scoring.last_token(mask), [2, 3, 3])
