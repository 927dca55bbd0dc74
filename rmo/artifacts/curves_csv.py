"""curves.csv, the public format of curves: one row per point, read from anybody's table and from older ones."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from rmo.analysis.curve import Curve, CurveError, axis_number
from rmo.analysis.curve_id import OLDER, CurveId
from rmo.artifacts import tables
from rmo.artifacts.tables import Table
from rmo.methods.method import default_method, find
from rmo.runtime.files import Row, read_csv

MEASURED = ("step_or_n", "kl", "proxy", "gold", "proxy_se", "gold_se", "fall_se", "kl_given")
ALL_OR_NONE = ("proxy_se", "gold_se", "fall_se", "kl_given")  # known for every point of a curve, or for none
COLUMNS = [
    "method", "step_or_n", "kl", "proxy", "gold", "proxy_se", "gold_se", "rm_params", "rm_comparisons", "rm_recipe",
    "rm_combined", "policy_params", "settings", "seed", "fall_se", "kl_given",
]  # fmt: skip
IDENTITY = (
    "rm_params",
    "rm_comparisons",
    "rm_recipe",
    "rm_combined",
    "policy_params",
    "settings",
    "seed",
)  # of a curve


def to_rows(curve: Curve) -> list[Row]:
    """The curve as one row per point."""
    out = []
    known = {name: getattr(curve, name) for name in ALL_OR_NONE if getattr(curve, name) is not None}
    for k, step in enumerate(curve.step_or_n):
        point = {"kl": curve.kl[k], "proxy": curve.proxy[k], "gold": curve.gold[k]}
        point |= {name: values[k] for name, values in known.items()}
        numbers = {name: float(value) for name, value in point.items()}
        place = axis_number(float(step)) if np.isfinite(step) else None
        out.append({**curve.id.cells(), "step_or_n": place, **numbers})
    return out


def point_of(row: Mapping[str, str], where: str) -> dict[str, float]:
    """The numbers of one row; NaN where a cell is empty.

    Raises:
      CurveError: a cell is not a number, or there is no KL or gold.
    """
    point = {}
    for name in MEASURED:
        cell = row.get(name, "")
        try:
            point[name] = float(cell) if cell != "" else np.nan
        except ValueError as error:
            raise CurveError(f"{where}: {name} is {cell!r}, not a number") from error
    if not math.isfinite(point["kl"]) or not math.isfinite(point["gold"]):
        raise CurveError(f"{where}: kl and gold must be finite numbers")
    return point


def id_of(row: Mapping[str, object], where: str) -> CurveId:
    """Which curve a row is of.

    Raises:
      CurveError: the method is not known, or a cell is not a number.
    """
    method = row.get("method", "") or default_method()
    try:
        return CurveId.of_cells({**row, "method": find(str(method)).name}, older=True)
    except ValueError as error:
        raise CurveError(f"{where}: {error}") from error


def curve_of(id: CurveId, column: Mapping[str, np.ndarray], source: str) -> Curve:
    """One curve of its points, f64[K] by the names in MEASURED, in order of its steps where all are known, else of KL.

    Raises:
      CurveError: two points at one place, or a column filled in for some points only.
    """
    by = "step_or_n" if np.isfinite(column["step_or_n"]).all() else "kl"
    order = np.argsort(column[by], kind="stable")
    column = {name: column[name][order] for name in MEASURED}
    twice = column[by][1:][np.diff(column[by]) == 0]
    if len(twice):
        apart = f"tell its runs apart by a column ({', '.join(IDENTITY)})"
        raise CurveError(f"{source}: a curve has two points at {by} {twice[0]:g}: {apart}")
    known = {name: np.isfinite(column[name]) for name in ALL_OR_NONE}
    for name, points_known in known.items():
        if points_known.any() and not points_known.all():
            raise CurveError(f"{source}: {name} is filled in for some points of a curve only: give all or none")
    optional = {name: column[name] for name in ALL_OR_NONE if known[name].all()}
    return Curve(id, column["step_or_n"], column["kl"], column["proxy"], column["gold"], **optional)


def with_stripped_names(row: Mapping[str, str]) -> Mapping[str, str]:
    """The row with spaces around column names removed. One with more cells than columns stays, to be refused."""
    if None in row or not any(name != name.strip() for name in row):
        return row
    return {name.strip(): cell for name, cell in row.items()}


def from_rows(table: Iterable[Mapping[str, str]], source: str = "the table") -> list[Curve]:
    """Curves from rows of the public format: `kl` and `gold` are needed, every other column is optional.

    Raises:
      CurveError: a column is missing or a cell is not a number; says which row.
    """
    rows = [with_stripped_names(row) for row in table]
    if not rows:
        raise CurveError(f"{source} has no rows: it needs a header and one line per point")
    missing = [name for name in ("kl", "gold") if name not in rows[0]]
    if missing:
        raise CurveError(f"{source} has no column {', '.join(missing)}: the format is {','.join(COLUMNS)}")
    found: dict[CurveId, list[dict[str, float]]] = {}
    points: dict[tuple[str | None, ...], list[dict[str, float]]] = {}  # by cells, which are quicker to compare
    names = ("method", *IDENTITY, *OLDER)
    for line, row in enumerate(rows, start=2):
        where = f"{source} line {line}"
        if None in row or any(value is None for value in row.values()):
            raise CurveError(f"{where}: it has more or fewer cells than the header")
        point = point_of(row, where)
        cells = tuple(row.get(name) for name in names)
        if cells not in points:
            points[cells] = found.setdefault(id_of(row, where), [])
        points[cells].append(point)
    of_points = {id: {name: np.array([p[name] for p in points]) for name in MEASURED} for id, points in found.items()}
    return [curve_of(id, column, source) for id, column in of_points.items()]


def curves_of(path: Path) -> list[Curve]:
    """The curves in a file of the public format; by columns, which a large run's need.

    Raises:
      CurveError, RunError: as `from_rows`; it is not what was written.
    """
    try:
        return from_columns(tables.read(path), str(path))
    except (tables.Unreadable, CurveError):
        return from_rows(read_csv(path), str(path))  # says what is wrong, and in which line


def from_columns(table: Table, source: str) -> list[Curve]:
    """`from_rows` of a table whose cells are numbers as they should be.

    Raises:
      CurveError: they are not; rows have to be looked at one by one.
    """
    columns = table.columns
    named = {"kl", "gold"} <= columns.keys() and all(name == name.strip() for name in columns)
    if not (len(table) and named and np.isfinite(columns["kl"]).all() and np.isfinite(columns["gold"]).all()):
        raise CurveError(f"{source} is no plain table of curves")
    found: dict[CurveId, list[np.ndarray]] = {}
    for rows in table.alike(("method", *IDENTITY, *OLDER)):
        found.setdefault(id_of(table[int(rows[0])], source), []).append(rows)
    empty = np.full(len(table), np.nan)
    column = {name: columns.get(name, empty) for name in MEASURED}
    whole = {id: np.sort(np.concatenate(parts)) for id, parts in found.items()}
    return [curve_of(id, {name: column[name][rows] for name in MEASURED}, source) for id, rows in whole.items()]
