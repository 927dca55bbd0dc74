"""One column of a log over its steps."""

import itertools
from collections.abc import Sequence

import numpy as np

from rmo.logs.formats import LogError, Rows, number


def pairs(rows: Rows, name: str, step: str | None) -> list[tuple[float, float]]:
    """(step, value) in the order of the file; without a column of steps (row, value), rows from 0."""
    found = []
    for i, row in enumerate(rows):
        at = float(i) if step is None else number(row.get(step))
        value = number(row.get(name))
        if at is not None and value is not None:
            found.append((at, value))
    return found


def overwritten(points: Sequence[tuple[float, float]]) -> list[float]:
    """Steps that have another value later."""
    last = dict(points)
    return [at for at, value in points if last[at] != value]


def series(rows: Rows, name: str, step: str | None) -> dict[float, float]:
    """{step: value}, by step; where a restarted run went back to a step and logged it again, the last.

    Raises:
      LogError: no row has both, or a step has several values.
    """
    points = pairs(rows, name, step)
    if not points:
        raise LogError(f"no row has both {name} and {step}: say another --step")
    several = several_values(points)
    if several is not None:
        raise LogError(f"{name} has several values at {step} {several:g}: {how_to_separate(rows, name, step)}")
    return dict(sorted(points))


def several_values(points: Sequence[tuple[float, float]]) -> float | None:
    """A step with several values of one run or of several runs; None if there is none.

    A restart that goes back to a checkpoint is the same run. What goes back to the beginning is another one.
    """
    parts = [[points[0]]]  # steps rise within each
    for before, point in itertools.pairwise(points):
        if point[0] < before[0]:
            parts.append([])
        parts[-1].append(point)
    if any(part[0][0] <= points[0][0] for part in parts[1:]):
        parts = [list(points)]
    for part in parts:
        if twice := overwritten(part):
            return twice[0]
    return None


def how_to_separate(rows: Rows, *used: str | None) -> str:
    """Which options separate the runs of one table, with the columns that might do it."""
    cells: dict[str, set[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        cells[name] = {str(row.get(name)) for row in rows}
    most = min(20, len(rows) // 2)
    few = [name for name, values in cells.items() if 1 < len(values) <= most and name not in used]
    example = f", e.g. {', '.join(few[:6])}" if few else ""
    return f"tell the runs apart by --group COLUMN or --seeds COLUMN{example}"


def at_or_before(steps: np.ndarray, values: dict[float, float]) -> np.ndarray:
    """The value logged at each of K steps or last before it, f64[K]; NaN before the first."""
    at = np.searchsorted(list(values), steps, side="right") - 1
    return np.where(at >= 0, np.array(list(values.values()))[at], np.nan)


def begins_anew(kl_K: np.ndarray) -> int | None:
    """The place where KL, in the order of a file, falls from near its highest so far to near nothing and stays low at
    the next point: another run begins there. None if it never does."""
    top = np.maximum.accumulate(kl_K)[2:-2]
    before, here, after = kl_K[2:-2], kl_K[3:-1], kl_K[4:]
    found = np.flatnonzero((before > 0.5 * top) & (here < 0.1 * top) & (after < 0.5 * top))
    return int(found[0]) + 3 if len(found) else None
