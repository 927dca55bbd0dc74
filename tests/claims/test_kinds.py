"""How parts make one number: every kind's ends follow from its parts' intervals, and noise is taken off squares."""

import numpy as np
import pytest

from rmo.analysis.bootstrap import EVERYWHERE, Error
from rmo.claims.claim import MAX_SEEDS, seeds_needed, what_would_decide
from rmo.claims.kinds import ALONE, FLOOR, GREATEST, LEAST, LOG_RATIO, ROOT, SIZE, Estimate

SHARP = Error(1e-10, 4, 0.0, 20)
WIDE = Error(0.04, 4, 0.01, 20)


@pytest.mark.parametrize(
    ("kind", "parts", "number"),
    [
        (ALONE, [0.3], 0.3),
        (LEAST, [0.3, -0.1, 0.2], -0.1),
        (GREATEST, [0.3, -0.4], 0.3),
        (SIZE, [0.3, -0.4], 0.4),
        (ROOT, [0.04], 0.2),
        (LOG_RATIO, [0.04 - FLOOR**2, 0.01 - FLOOR**2], np.log(2)),
    ],
)
def test_without_error_an_interval_is_the_number(kind, parts, number):
    found = Estimate(kind, parts, [SHARP] * len(parts))
    assert found.number == pytest.approx(number)
    np.testing.assert_allclose(found.interval(), number, atol=2e-3)
    wide = Estimate(kind, parts, [WIDE] * len(parts))
    low, high = wide.interval()
    assert low <= wide.number <= high
    assert high - low > 0.1


def test_all_parts_hold_only_where_each_does():
    low, high = Estimate(LEAST, [0.5, 0.6], [SHARP, WIDE]).interval()
    assert low < 0.1  # the second is not known to be above it
    assert high == pytest.approx(0.5, abs=0.01)
    low, high = Estimate(LEAST, [5.0, 0.5], [WIDE, SHARP]).interval()
    assert (low, high) == pytest.approx((0.5, 0.5), abs=0.01)


def test_a_size_is_small_only_where_all_parts_surely_are():
    opposed = Estimate(SIZE, [0.3, -0.3], [SHARP, SHARP])
    assert opposed.number == pytest.approx(0.3)
    assert min(opposed.interval()) > 0.29  # differences of both signs do not cancel
    unknown = Estimate(SIZE, [0.0, 0.0], [WIDE, SHARP])
    assert unknown.interval()[0] == 0
    assert unknown.interval()[1] > 0.4


def test_a_square_below_zero_has_root_zero():
    found = Estimate(ROOT, [-0.01], [Error(1e-4, 4, 0.0, 20)])
    assert found.number == 0
    assert found.interval()[0] == 0
    assert found.interval()[1] > 0


def test_a_ratio_of_errors_has_no_singularity():
    low, high = Estimate(LOG_RATIO, [-0.001, 1.0], [Error(1e-6, 4, 0.0, 20), WIDE]).interval()
    assert np.isfinite([low, high]).all()
    assert high < np.log(0.1)


def test_bounds_hold_for_every_part():
    found = Estimate(GREATEST, [0.97, 0.5], [WIDE, WIDE], (0, 1))
    assert found.interval()[1] < 1


def test_so_many_seeds_would_decide():
    found = Estimate(ALONE, [0.3], [Error(0.03, 2, 0.0, 20)])
    needed = seeds_needed(found, (0, np.inf), 3, 0.95)
    assert needed is not None
    assert found.interval(seeds=needed / 3)[0] > 0 >= found.interval(seeds=(needed - 1) / 3)[0]
    assert f"about {needed} seeds" in what_would_decide(found, (0, np.inf), needed, 0.95)


def test_seeds_cannot_decide_what_prompts_leave_open():
    found = Estimate(ALONE, [0.3], [Error(0.001, 2, 0.04, 20)])
    assert seeds_needed(found, (0, np.inf), 3, 0.95) is None
    assert "2 times the prompts" in what_would_decide(found, (0, np.inf), None, 0.95)
    near = Estimate(ALONE, [1e-4], [Error(0.03, 2, 0.02, 20)], EVERYWHERE)
    assert what_would_decide(near, (0, np.inf), None, 0.95) == f"too near the threshold for {MAX_SEEDS} seeds"
