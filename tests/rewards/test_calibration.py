import numpy as np
import pytest

from rmo.rewards.calibration import Calibration, soft_label_scale


def test_calibration_centres_and_keeps_order():
    raw = np.random.default_rng(0).normal(3, 5, 1000)
    calibrated = Calibration(raw.mean(), 1 / raw.std())(raw)
    assert calibrated.mean() == pytest.approx(0, abs=1e-12)
    assert calibrated.std() == pytest.approx(1)
    np.testing.assert_array_equal(np.argsort(raw), np.argsort(calibrated))


def test_soft_label_scale_recovers_the_factor():
    """A proxy that is gold times 3 plus noise-free: the scale that fits soft labels is 1/3."""
    gap = np.random.default_rng(1).normal(size=5000)
    assert soft_label_scale(3 * gap, gap) == pytest.approx(1 / 3, rel=1e-3)
    # A worthless proxy is shrunk towards nothing.
    assert soft_label_scale(np.random.default_rng(2).normal(size=5000), gap) < 0.1
