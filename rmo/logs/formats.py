"""Rows of a log's file: CSV (also what wandb exports of its panels), JSONL (wandb's history, TRL, OpenRLHF, verl's file
logger) and JSON (the Trainer's trainer_state.json).
"""

import json
import re
from pathlib import Path

import numpy as np

from rmo.runtime.files import Json, Row, RunError, read_csv

Rows = list[Row]


class LogError(RunError):
    """What is wrong with a log and what to do about it, in one line."""


def load(path: Path) -> Rows:
    """Rows of one file, nested values under a/b/c.

    Raises:
      LogError: another format, or a line that cannot be read.
    """
    if path.suffix == ".csv":
        return load_csv(path)
    if path.suffix in (".json", ".jsonl", ".ndjson"):
        return load_json(path)
    raise LogError(f"{path}: use .csv, .json or .jsonl")


def load_csv(path: Path) -> Rows:
    """Rows of a CSV file, as text.

    Raises:
      LogError: cells are not separated by commas, or a line has more or fewer of them than the header.
    """
    table = read_csv(path)
    names = [name for name in table[0] if name] if table else []
    separator = re.search("[;\t]", names[0]) if len(names) == 1 else None
    if separator:
        mark = "tabs" if separator[0] == "\t" else "semicolons"
        raise LogError(f"{path} has {mark} between its cells: save it with commas, and points in numbers")
    for line, row in enumerate(table, start=2):
        if None in row or any(cell is None for cell in row.values()):
            raise LogError(f"{path} line {line}: it has more or fewer cells than the header")
    return unpivot([{name.strip(): cell for name, cell in row.items()} for row in table])


def load_json(path: Path) -> Rows:
    """Rows of a JSON or JSONL file.

    Raises:
      LogError: it is no text, no JSON, or holds something else than rows.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LogError(f"{path} is no UTF-8 text ({error.reason}): unpack it, if it is packed") from error
    try:
        rows = json.loads(text)
    except ValueError as error:
        first = text.rstrip().split("\n")[0].strip()
        if path.suffix == ".json" and first in ("{", "[", ""):  # one value over many lines, not a row on each
            raise LogError(f"{path} is no JSON, or half of it: {error}") from error
        rows = parse_lines(path, text)
    if isinstance(rows, dict):
        rows = rows.get("log_history", [rows])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LogError(f"{path}: it must hold rows, each {{name: value, ...}}, or a log_history of them")
    return [flatten(unwrap(row)) for row in rows]


def parse_lines(path: Path, text: str) -> list[Json]:
    """The values of JSON lines. A last line that is cut off is left out: its run still writes, or was killed.

    Raises:
      LogError: another line is no JSON.
    """
    lines = text.rstrip().split("\n")  # not splitlines: JSON strings may hold other ends of lines
    values = []
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values.append(json.loads(line))
        except ValueError as error:
            if i < len(lines):
                raise LogError(f"{path} line {i} is no JSON: {error}") from error
    return values


def unwrap(row: Row) -> Row:
    """verl's {"step": ..., "data": {...}} as one flat row; any other row as it is."""
    if isinstance(row.get("data"), dict) and "step" in row:
        return {**row["data"], "step": row["step"]}
    return row


def flatten(row: Row, prefix: str = "") -> Row:
    """The same values without nesting: {"a": {"b": 1}} becomes {"a/b": 1}."""
    flat = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat


def unpivot(table: Rows) -> Rows:
    """A panel of wandb's, with columns `RUN - METRIC`, `RUN - METRIC__MIN` and `__MAX`, as a row per step and run.

    Any other table as it is.
    """
    wide = [name for name in (table[0] if table else {}) if " - " in name]
    if not any(name.endswith("__MIN") for name in wide):
        return table
    columns_of: dict[str, dict[str, str]] = {}  # run -> metric -> column
    for name in wide:
        run, _, metric = name.rpartition(" - ")
        if not metric.endswith(("__MIN", "__MAX")):
            columns_of.setdefault(run, {})[metric] = name
    shared = [name for name in table[0] if name not in wide]
    rows = []
    for row in table:
        for run, columns in columns_of.items():
            metrics = {metric: row[column] for metric, column in columns.items()}
            rows.append({**{name: row[name] for name in shared}, "run": run, **metrics})
    return rows


def number(value: object) -> float | None:
    """A cell's number; None if it is no finite number."""
    if not isinstance(value, str | int | float):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if np.isfinite(found) else None


def numeric(rows: Rows) -> list[str]:
    """Columns with a number somewhere, in the order in which they first have one."""
    names: dict[str, None] = {}  # an ordered set
    for row in rows:
        for name, value in row.items():
            if name not in names and number(value) is not None:
                names[name] = None
    return list(names)
