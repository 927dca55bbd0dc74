import numpy as np
import pytest

from rmo.analysis.spread import DOUBLED, stop_at


def test_the_rule_stops_where_the_variance_has_doubled():
    np.testing.assert_allclose(DOUBLED**2, 2)
    spread = np.array([0.5, 0.6, 0.7, 0.71, 0.69, 0.9])  # 0.5 * sqrt 2 = 0.7071
    assert stop_at(spread) == 3
    assert stop_at(spread[:3]) is None
    assert stop_at(spread, factor=1.2) == 1
    assert stop_at(np.array([1.0, 0.5, 0.3])) is None  # RMs that agree ever more


def test_rms_that_agree_from_the_start_have_no_unit():
    assert stop_at(np.zeros(3)) is None
    assert stop_at(np.array([0.0, 1.0])) is None


def test_a_factor_that_is_none():
    with pytest.raises(ValueError, match=r"factor is 1: .* above 1"):
        stop_at(np.ones(3), factor=1.0)
