"""curves.csv, the public format of curves: one row per point, read from anybody's table and from older ones."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rmo.analysis.curve import Curve, CurveError, axis_number
from rmo.analysis.curve_id import OLDER, CurveId
from rmo.methods.method import default_method, find
from rmo.runtime.files import Row

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


def id_of(row: Mapping[str, str], where: str) -> CurveId:
    """Which curve a row is of.

    Raises:
      CurveError: the method is not known, or a cell is not a number.
    """
    method = row.get("method", "") or default_method()
    try:
        return CurveId.of_cells({**row, "method": find(method).name}, older=True)
    except ValueError as error:
        raise CurveError(f"{where}: {error}") from error


def curve_of(id: CurveId, points: Sequence[Mapping[str, float]], source: str) -> Curve:
    """One curve of its points, in order of its steps where all are known, else of KL.

    Raises:
      CurveError: two points at one place, or a column filled in for some points only.
    """
    by = "step_or_n" if np.isfinite([p["step_or_n"] for p in points]).all() else "kl"
    points = sorted(points, key=lambda p: p[by])
    if twice := [p[by] for p, after in itertools.pairwise(points) if p[by] == after[by]]:
        apart = f"tell its runs apart by a column ({', '.join(IDENTITY)})"
        raise CurveError(f"{source}: a curve has two points at {by} {twice[0]:g}: {apart}")
    column = {name: np.array([p[name] for p in points]) for name in MEASURED}
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
    return [curve_of(id, points, source) for id, points in found.items()]
