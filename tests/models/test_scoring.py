import jax.numpy as jnp
import numpy as np
import pytest

from rmo.models import scoring


def test_calibration_centres_and_keeps_order():
    raw = np.random.default_rng(0).normal(3, 5, 1000)
    calibrated = scoring.Calibration(raw.mean(), 1 / raw.std())(raw)
    assert calibrated.mean() == pytest.approx(0, abs=1e-12)
    assert calibrated.std() == pytest.approx(1)
    np.testing.assert_array_equal(np.argsort(raw), np.argsort(calibrated))


def test_soft_label_scale_recovers_the_factor():
    """A proxy that is gold times 3 plus noise-free: the scale that fits soft labels is 1/3."""
    gap = np.random.default_rng(1).normal(size=5000)
    assert scoring.soft_label_scale(3 * gap, gap) == pytest.approx(1 / 3, rel=1e-3)
    # A worthless proxy is shrunk towards nothing.
    assert scoring.soft_label_scale(np.random.default_rng(2).normal(size=5000), gap) < 0.1


def test_last_token_is_found_by_the_mask():
    mask = jnp.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(scoring.last_token(mask), [2, 3, 3])


def test_combinations():
    scores = jnp.asarray(np.random.default_rng(3).normal(size=(5, 20)))
    mean = scoring.combine(scores, "mean")
    np.testing.assert_allclose(scoring.combine(scores, "uwo", 0.0), mean)  # a coefficient of 0 means 0
    uwo = np.asarray(scores).mean(0) - 0.3 * np.asarray(scores).var(0, ddof=0)
    np.testing.assert_allclose(scoring.combine(scores, "uwo", 0.3), uwo, rtol=1e-5, atol=1e-6)
    assert (scoring.combine(scores, "wco") <= mean).all()
    with pytest.raises(ValueError, match="use mean, wco or uwo"):
        scoring.combine(scores, "median")
