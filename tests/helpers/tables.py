"""Tables that runs make, compared."""

import numpy as np
import pytest

from rmo.artifacts.tables import TEXT, Table
from rmo.runtime import files


def table_of(rows):
    """A Table of dicts, which may lack cells."""
    names = dict.fromkeys(name for row in rows for name in row)
    of = lambda name, empty, kind: np.array([row.get(name, empty) for row in rows], kind)
    return Table({name: of(name, "", object) if name in TEXT else of(name, np.nan, float) for name in names})


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
