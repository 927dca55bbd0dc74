"""One column of a log over its steps."""

import itertools
import re
from collections.abc import Sequence

import numpy as np

from rmo.logs.rows import LogError, Rows, number, numeric

MOST_RUNS = 20  # values of a column that may tell runs apart
MOST_COLUMNS = 3  # that do so together


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


def how_to_separate(rows: Rows, name: str, step: str | None) -> str:
    """Which options separate the runs of one table, with the columns that do it, or might."""
    say = "tell the runs apart by --group COLUMN or --seeds COLUMN"
    if found := separating(rows, name, step):
        return f"{say}, e.g. --group {','.join(found)}"
    few = [column for column in candidates(rows) if column not in (name, step)]
    return f"{say}, e.g. {', '.join(few[:6])}" if few else say


def candidates(rows: Rows) -> list[str]:
    """Columns that may tell runs apart: of a few values, texts before numbers, those that are called so first."""
    cells: dict[str, set[str]] = {}
    for column in dict.fromkeys(column for row in rows for column in row):
        cells[column] = {str(row.get(column)) for row in rows}
    most = min(MOST_RUNS, len(rows) // 2)
    few = [column for column, values in cells.items() if 1 < len(values) <= most]
    numbers = set(numeric(rows))
    called = re.compile(r"seed|run|model|method|family|label|variant|policy|lr|beta|coef|name|id$|arm|exp", re.I)
    order = list(cells).index
    return sorted(few, key=lambda column: (column in numbers, not called.search(column), order(column)))


def separating(rows: Rows, name: str, step: str | None) -> list[str]:
    """The fewest columns, the likeliest first, of whose values each has one `name` a step (without steps: a `name` that
    never begins anew); none if nothing does it."""
    used = [row for row in rows if number(row.get(name)) is not None]
    if step is not None:
        used = [row for row in used if number(row.get(step)) is not None]
    values = {column: [str(row.get(column)) for row in used] for column in candidates(rows)}
    values = {column: cells for column, cells in values.items() if column not in (name, step)}
    for size in range(1, MOST_COLUMNS + 1):
        for columns in itertools.combinations(list(values)[:12], size):
            runs: dict[tuple[str, ...], Rows] = {}
            for row, *key in zip(used, *(values[column] for column in columns), strict=True):
                runs.setdefault(tuple(key), []).append(row)
            if all(is_one_run(part, name, step) for part in runs.values()):
                return list(columns)
    return []


def is_one_run(rows: Rows, name: str, step: str | None) -> bool:
    """Whether rows have one `name` a step or, without steps, one that never begins anew."""
    if step is not None:
        return len({number(row[step]) for row in rows}) == len(rows)
    return begins_anew(np.array([number(row[name]) for row in rows], np.float64)) is None


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
