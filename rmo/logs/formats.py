"""Rows of a log's file: CSV (also what wandb exports of its panels), JSONL (wandb's history, TRL, OpenRLHF, verl's file
logger) and JSON (the Trainer's trainer_state.json).
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from rmo.runtime.files import RunError, read_csv

Rows = list[dict[str, Any]]


class LogError(RunError):
    """What is wrong with a log and what to do about it, in one line."""


def load(path: Path) -> Rows:
    """Rows of one file, nested values under a/b/c.

    Raises:
      LogError: another format, or a line that cannot be read.
    """
    if path.suffix == ".csv":
        table = read_csv(path)
        if table and len(only := [n for n in table[0] if n]) == 1 and (other := re.search("[;\t]", only[0])):
            mark = "tabs" if other[0] == "\t" else "semicolons"
            raise LogError(f"{path} has {mark} between its cells: save it with commas, and points in numbers")
        for line, row in enumerate(table, start=2):
            if None in row or any(cell is None for cell in row.values()):
                raise LogError(f"{path} line {line}: it has more or fewer cells than the header")
        return unpivot([{name.strip(): cell for name, cell in row.items()} for row in table])
    if path.suffix not in (".json", ".jsonl", ".ndjson"):
        raise LogError(f"{path}: use .csv, .json or .jsonl")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LogError(f"{path} is no UTF-8 text ({error.reason}): unpack it, if it is packed") from error
    try:
        rows = json.loads(text)
        rows = rows.get("log_history", [rows]) if isinstance(rows, dict) else rows
    except ValueError as whole:
        lines, rows = text.rstrip().split("\n"), []  # JSON may hold other ends of lines
        if path.suffix == ".json" and lines[0].strip() in ("{", "[", ""):  # not a row on each line
            raise LogError(f"{path} is no JSON, or half of it: {whole}") from whole
        for i, line in enumerate(lines, start=1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except ValueError as error:
                if i < len(lines):  # a run that still writes, or was killed, leaves half a last line
                    raise LogError(f"{path} line {i} is no JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LogError(f"{path}: it must hold rows, each {{name: value, ...}}, or a log_history of them")
    verl = lambda row: isinstance(row.get("data"), dict) and "step" in row  # noqa: E731
    return [flatten({**row["data"], "step": row["step"]} if verl(row) else row) for row in rows]


def flatten(row: dict[str, Any], at: str = "") -> dict[str, Any]:
    out = {}
    for name, value in row.items():
        out |= flatten(value, f"{at}{name}/") if isinstance(value, dict) else {at + name: value}
    return out


def unpivot(table: Rows) -> Rows:
    """The columns `RUN - METRIC`, `RUN - METRIC__MIN` and `__MAX` of wandb's panels as a row per step and run."""
    wide = [name for name in (table[0] if table else {}) if " - " in name]
    if not any(name.endswith("__MIN") for name in wide):
        return table
    runs: dict[str, dict[str, str]] = {}
    for name in wide:
        run, _, metric = name.rpartition(" - ")
        if not metric.endswith(("__MIN", "__MAX")):
            runs.setdefault(run, {})[metric] = name
    kept = [name for name in table[0] if name not in wide]
    return [
        {**{name: row[name] for name in kept}, "run": run, **{metric: row[name] for metric, name in of.items()}}
        for row in table for run, of in runs.items()
    ]  # fmt: skip


def number(value: Any) -> float | None:
    """None of what is no finite number."""
    try:
        out = float(value)
    except (TypeError, ValueError):
        return None
    return out if np.isfinite(out) else None


def numeric(rows: Rows) -> list[str]:
    """Columns with a number somewhere."""
    out: dict[str, None] = {}
    for row in rows:
        out |= {name: None for name, value in row.items() if name not in out and number(value) is not None}
    return list(out)
