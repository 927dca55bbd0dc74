"""Tables that runs make, compared."""

import pytest

from rmo.runtime import files


def close(a, b, tolerance):
    """Every number of two CSV files."""
    rows = [files.read_csv(path) for path in (a, b)]
    assert len(rows[0]) == len(rows[1]) > 0
    for x, y in zip(*rows, strict=True):
        for name in x:
            try:
                assert float(x[name]) == pytest.approx(float(y[name]), abs=tolerance), name
            except ValueError:
                assert x[name] == y[name]
