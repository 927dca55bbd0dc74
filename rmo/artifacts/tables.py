"""Tables of a run, by columns: those of a large run have hundreds of thousands of rows, and few are looked at."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np

from rmo.analysis.curve_id import COLUMNS, OLDER, CurveId
from rmo.runtime.files import RunError, table_bytes
from rmo.runtime.types import Row

TEXT = ("method", "rm_recipe", "rm_combined", "settings", "variant", "place")  # columns that are no numbers


class Unreadable(RunError):
    """What is in a file is no table of numbers."""


class Table(Sequence[Row]):
    """Rows, each a dict of its numbers (NaN where a cell is empty) and texts, made when they are asked for."""

    def __init__(self, columns: Mapping[str, np.ndarray] | None = None):
        """`columns`: f64[R] each, of those in TEXT object[R]."""
        self.columns = dict(columns or {})
        self.length = len(next(iter(self.columns.values()), ()))
        self.made: dict[CurveId, list[Row]] = {}  # what `of` has found so far

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return self.rows(np.arange(self.length)[index])
        return self.rows(np.array([range(self.length)[index]]))[0]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows(np.arange(self.length)))

    def rows(self, which: np.ndarray) -> list[Row]:
        """Some rows, i[N], as dicts."""
        cells = [as_cells(column[which]) for column in self.columns.values()]
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*cells, strict=True)]

    def alike(self, names: Sequence[str]) -> list[np.ndarray]:
        """Which rows have the same cells in some columns, i[N] of every kind, kinds in order of appearance."""
        kind = np.zeros(self.length, int)
        for column in (self.columns[name] for name in names if name in self.columns):
            own = codes(column)
            kind = np.unique(kind * (own.max(initial=0) + 1) + own, return_inverse=True)[1]
        order = np.argsort(kind, kind="stable")
        found = np.split(order, np.cumsum(np.bincount(kind))[:-1]) if self.length else []
        return sorted(found, key=lambda rows: rows[0])

    @cached_property
    def by_id(self) -> dict[CurveId, np.ndarray]:
        """Which rows are of a curve, and of its group, in the table's order."""
        found: dict[CurveId, list[np.ndarray]] = {}
        older = () if "settings" in self.columns else OLDER  # as `CurveId.of_cells`: else they are diagnostics
        for rows in self.alike((*COLUMNS, *older)):
            own = CurveId.of_cells(self[int(rows[0])])
            for id in dict.fromkeys((own, own.group)):
                found.setdefault(id, []).append(rows)
        return {id: np.sort(np.concatenate(parts)) for id, parts in found.items()}

    def of(self, id: CurveId) -> list[Row]:
        """Rows that belong to one curve or, of a group's identity, to any of its seeds; kept, and not to be changed."""
        if id not in self.made:
            self.made[id] = self.rows(self.by_id[id]) if id in self.by_id else []
        return self.made[id]


def as_cells(column: np.ndarray) -> list[float] | list[str]:
    """Numbers or texts. Every NaN is numpy's own: two others are not equal as keys, and rows would not be alike."""
    cells = column.tolist()
    if column.dtype == object or not np.isnan(column).any():
        return cells
    return [np.nan if cell != cell else cell for cell in cells]


def codes(column: np.ndarray) -> np.ndarray:
    """A number for every value of a column, i[R]; NaN is one of them."""
    if column.dtype == object:
        place: dict[str, int] = {}
        return np.fromiter((place.setdefault(text, len(place)) for text in column), int, len(column))
    return np.unique(column, return_inverse=True)[1]


def read(path: Path) -> Table:
    """The table in a file as `rmo.runtime.files.write_csv` writes it: numbers, empty where not known, and texts.

    Raises:
      Unreadable: it is another.
      RunError: it is a directory, or not what was written.
    """
    import pyarrow
    import pyarrow.csv

    whole = table_bytes(path)
    try:
        names = header(whole)
        if not names:
            return Table()
        types = {name: pyarrow.string() if name in TEXT else pyarrow.float64() for name in names}
        how = pyarrow.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=False)
        lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
        found = pyarrow.csv.read_csv(pyarrow.BufferReader(whole), parse_options=lines, convert_options=how)
        columns = dict(zip(names, found.columns, strict=True))
    except (ValueError, csv.Error) as error:  # arrow's and those of other alphabets are ValueErrors
        raise Unreadable(f"{path} is no table of numbers: {' '.join(str(error).split())}") from error
    arrays = {name: cells.to_numpy() for name, cells in columns.items()}
    for name, cells in columns.items():
        if name not in TEXT and np.isnan(arrays[name]).sum() > cells.null_count:
            raise Unreadable(f"{path} is no table of numbers: {name} is nan, where an empty cell means not known")
    return Table(arrays)


def header(whole: bytes) -> list[str]:
    """Names of the columns; none of an empty file.

    Raises:
      csv.Error, UnicodeDecodeError: the first line is none of a table.
    """
    first = whole.split(b"\n", 1)[0].decode("utf-8-sig")
    return next(csv.reader(io.StringIO(first), strict=True), [])
