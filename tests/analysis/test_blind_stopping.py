"""Rules that stop without gold, on curves where the place is known."""

import numpy as np
import pytest

from rmo.analysis.blind_stopping import where_gain_fades, where_moved, where_others_peaked

D = np.linspace(0, 4, 65)


def test_it_stops_where_the_proxys_gain_has_fallen():
    """A proxy of slope 1 to d = 2 and slope 0.25 from there on: a window of half a d that starts at 2 gains a quarter."""
    proxy = np.minimum(D, 2) + 0.25 * np.maximum(D - 2, 0)
    assert where_gain_fades(D, proxy, 0.3) == pytest.approx(2 - 0.5 * 0.05 / 0.75, abs=0.07)
    assert where_gain_fades(D, proxy, 0.2) == 4  # it never gains so little
    assert where_gain_fades(D, 3 * proxy, 0.3) == where_gain_fades(D, proxy, 0.3)  # the proxy's unit is no matter
    assert where_gain_fades(D, D * (1 - D / 8), 0.5) == pytest.approx(2 - 0.125, abs=0.07)  # slope 1 - d/4, by windows
    assert where_gain_fades(D, -D, 0.5) == 4
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        where_gain_fades(D, proxy, 1.5)


def test_it_stops_where_what_is_shown_has_moved():
    assert where_moved(D, 10 - D, 0.2) == pytest.approx(2 + 1 / 16)
    assert where_moved(D, 10 + D, 0.2) == pytest.approx(2 + 1 / 16)
    assert where_moved(D, 10 - D, 0.5) == 4
    with pytest.raises(ValueError, match="must be positive"):
        where_moved(D, 10 - D, 0.0)
    with pytest.raises(ValueError, match="the start shows 0"):
        where_moved(D, D, 0.1)


def test_it_stops_where_others_peaked():
    assert where_others_peaked(4, [1, 3, 2]) == 2
    assert where_others_peaked(1.5, [1, 3, 2]) == 1.5
    with pytest.raises(ValueError, match="at least one"):
        where_others_peaked(4, [])
