"""Rows of a log, whatever file they come from: a dict per row, nested values under a/b/c."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from rmo.runtime.files import Row, RunError

Rows = list[Row]
WRAPPERS = (
    "data",
    "metrics",
    "logs",
    "log",
    "scalars",
    "values",
)  # what a row may keep its values under, beside a step
STEP_OF = re.compile(r"(^|[/_])(global_step|step|iteration)")  # columns whose `5/94` means 5
LARGEST = 1e100  # of a number that somebody measured
THOUSANDS = re.compile(r"[1-9]\d{0,2}((,\d{3})+\.\d+|(,\d{3}){2,})")  # "1,200.5"; "1,200" may be a European 1.2
SHARE = re.compile(r"\s*(\d+)\s*/\s*\d+\s*")


class LogError(RunError):
    """What is wrong with a log and what to do about it, in one line; `notes` are worth saying before it."""

    def __init__(self, message: str, notes: Sequence[str] = ()):
        super().__init__(message)
        self.notes = list(notes)


class Loaded(NamedTuple):
    """What a file holds."""

    rows: Rows
    notes: list[str]  # on how it was read, a line each


def number(value: object) -> float | None:
    """A cell's number; None if it is none, not finite, or larger than any measurement."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, str) and THOUSANDS.fullmatch(value):
        value = value.replace(",", "")
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) <= LARGEST else None  # NaN neither


def numeric(rows: Rows) -> list[str]:
    """Columns with a number somewhere, in the order in which they first have one."""
    names: dict[str, None] = {}  # an ordered set
    for row in rows:
        for name, value in row.items():
            if name not in names and number(value) is not None:
                names[name] = None
    return list(names)


def flatten(row: Row, prefix: str = "") -> Row:
    """The same values without nesting: {"a": {"b": 1}} becomes {"a/b": 1}."""
    flat = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[one_line(f"{prefix}{name}")] = value
    return flat


def one_line(name: str) -> str:
    """A name without ends of lines and other marks that no terminal shows."""
    return name if name.isprintable() else " ".join(re.sub(r"[^\S ]|[\x00-\x1f]", " ", name).split())


def tidy(row: Row) -> Row:
    """A row as a file holds it, flat: verl's {"step": ..., "data": {...}} without `data`, and ms-swift's
    `global_step/max_steps` (5/94) as a step."""
    for name in WRAPPERS:
        if isinstance(row.get(name), dict) and any(STEP_OF.search(str(other)) for other in row if other != name):
            row = {**row[name], **{other: value for other, value in row.items() if other != name}}
    flat = flatten(row)
    for name, value in list(flat.items()):
        if isinstance(value, str) and STEP_OF.search(name) and (found := SHARE.fullmatch(value)):
            flat[name] = int(found[1])
            flat.setdefault("step", int(found[1]))
    return flat
