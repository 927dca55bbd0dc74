"""Tables: CSV and TSV, among them what wandb exports of a panel and TensorBoard of a chart."""

import csv
import io
import re
from pathlib import Path

from rmo.logs.rows import LogError, Rows, number, one_line

NAMES = ("metric", "tag", "name", "key", "variable", "metric_name")  # of a long table: what a row's value is of
SHARED = re.compile(
    r"_?(global[ _]?)?step|step|(relative|wall)[ _]time.*|_?(timestamp|runtime)|epoch|episode|x|time", re.I
)


def load_csv(path: Path, text: str) -> Rows:
    """Rows of a CSV or TSV file, as text.

    Raises:
      LogError: cells are separated by semicolons, two columns have one name, or a line has more or fewer cells than
        the header.
    """
    lines = text.split("\n", 1)
    separator = "\t" if "\t" in lines[0] and "," not in lines[0] else ","
    try:
        cells = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    except csv.Error as error:
        raise LogError(f"{path} is no CSV text: {error}") from error
    if not cells:
        raise LogError(f"{path} is empty: it holds no rows")
    header = [one_line(name.strip()) for name in cells[0]]
    if len(header) == 1 and ";" in header[0]:
        raise LogError(f"{path} has semicolons between its cells: save it with commas, and points in numbers")
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise LogError(f"{path} has two columns {twice[0]}: rename one of them")
    for line, row in enumerate(cells[1:], start=2):
        if len(row) != len(header):
            if line == len(cells) and not text.endswith("\n"):  # its run still writes, or was killed
                cells.pop()
                break
            raise LogError(f"{path} line {line}: it has more or fewer cells than the header")
    table = [dict(zip(header, row, strict=True)) for row in cells[1:]]
    return charted(pivot(unpivot(table)), path)


def unpivot(table: Rows) -> Rows:
    """A panel of wandb's, with columns `RUN - METRIC` (and perhaps `RUN - METRIC__MIN` and `__MAX`), as a row per step
    and run. Any other table as it is.
    """
    header = list(table[0]) if table else []
    wide = [name for name in header if " - " in name]
    shared = [name for name in header if name not in wide]
    bounds = any(name.endswith("__MIN") for name in wide)
    if not wide or not (bounds or (shared and all(SHARED.fullmatch(last(name)) for name in shared))):
        return table
    columns_of: dict[str, dict[str, str]] = {}  # run -> metric -> column
    for name in wide:
        run, _, metric = name.rpartition(" - ")
        if not metric.endswith(("__MIN", "__MAX")):
            columns_of.setdefault(run, {})[metric] = name
    rows = []
    for row in table:
        for run, columns in columns_of.items():
            metrics = {metric: row[column] for metric, column in columns.items()}
            rows.append({**{name: row[name] for name in shared}, "run": run, **metrics})
    return rows


def last(name: str) -> str:
    """`global_step` of train/global_step."""
    return name.rpartition("/")[2]


def pivot(table: Rows) -> Rows:
    """A long table, with a column that names what its column `value` is of, with a column for each name. Any other
    table as it is."""
    header = {name.lower(): name for name in table[0]} if table else {}
    by = next((header[name] for name in NAMES if name in header), None)
    if by is None or "value" not in header or header["value"] == by:
        return table
    if any(number(row[by]) is not None for row in table):
        return table
    value = header["value"]
    return [{**{n: c for n, c in row.items() if n not in (by, value)}, str(row[by]): row[value]} for row in table]


def charted(table: Rows, path: Path) -> Rows:
    """A chart's download from TensorBoard, `Wall time,Step,Value`, with the chart's name, which only the file has."""
    if not table or [name.lower() for name in table[0]] != ["wall time", "step", "value"]:
        return table
    name = path.stem.rpartition("tag-")[2] or path.stem
    return [{"Step": row[list(row)[1]], name: row[list(row)[2]]} for row in table]
