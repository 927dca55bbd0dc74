"""The shapes in which people keep curves in JSON, as rows: a list of rows, a log history, runs by name, steps by
number, columns as lists, and any of these inside one another.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from rmo.logs.rows import STEP_OF, LogError, Rows, number, tidy
from rmo.runtime.types import Json, Row

DEEPEST = 6  # how far down tables are looked for
KEEPS = ("log_history", "history", "rows", "records", "logs", "log", "metrics", "data", "scalars", "runs", "curves",
         "results", "curve", "train", "training", "series")  # keys that name no run  # fmt: skip
RUN_NAMES = ("run", "run_name", "name", "display_name", "id", "label", "run_id")


def load_json(path: Path, text: str) -> Rows:
    """Rows of a JSON or JSONL file; `run` tells several runs apart.

    Raises:
      LogError: it is no JSON, or holds something else than rows.
    """
    if not text.strip():
        raise LogError(f"{path} is empty: it holds no rows")
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise LogError(f"{path} is nested too deeply: it must hold rows, each {{name: value, ...}}") from error
    except ValueError as error:
        first = text.rstrip().split("\n")[0].strip()
        if first in ("{", "[", "") or text.lstrip()[0] == "[":  # one value over many lines, not a row on each
            raise LogError(f"{path} is no JSON, or half of it: {error}") from error
        value = parse_lines(path, text)
    rows = rows_of(value)
    if not rows:
        raise LogError(f"{path}: it must hold rows, each {{name: value, ...}}, or a log_history of them")
    return rows


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
        except (ValueError, RecursionError) as error:
            if i < len(lines):
                raise LogError(f"{path} line {i} is no JSON: {error}") from error
    return values


def rows_of(value: Json) -> Rows:
    """Rows of whatever tables a value holds, with a column `run` where there are several."""
    found = [(run, rows) for run, rows in tables(value, (), 0) if rows]
    if len(found) == 1:
        return found[0][1]
    several = len({run for run, _ in found}) > 1
    return [{**({"run": run} if several else {}), **row} for run, rows in found for row in rows]


def tables(value: Json, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, Rows]]:
    """(run, rows) of every table below a value; `path` holds the keys that lead there and name a run."""
    run = "/".join(path)
    if depth > DEEPEST:
        return
    if isinstance(value, list):
        yield from tables_of_list(value, path, depth)
    elif not isinstance(value, dict):
        return
    elif isinstance(value.get("log_history"), list):
        yield run, [tidy(row) for row in value["log_history"] if isinstance(row, dict)]
    elif framed := split_frame(value):
        yield run, framed
    elif by_step := rows_by_step(value):
        yield run, by_step
    else:
        columns, rest = columns_of(value)
        for rows in columns:
            yield run, rows
        for name, inner in rest.items():
            below = path if str(name).lower() in KEEPS else (*path, str(name))
            yield from tables(inner, below, depth + 1)


def tables_of_list(value: list[Json], path: tuple[str, ...], depth: int) -> Iterator[tuple[str, Rows]]:
    """A list of rows is a table; one of runs, each with a table inside, is several."""
    items = [item for item in value if isinstance(item, dict)]
    inside = [list(tables(item, path, depth + 1)) for item in items]
    if items and all(is_run(item, found) for item, found in zip(items, inside, strict=True)):
        for i, (item, found) in enumerate(zip(items, inside, strict=True)):
            named = next((str(item[name]) for name in RUN_NAMES if isinstance(item.get(name), str | int)), str(i + 1))
            alone = len(items) == 1
            for run, rows in found:
                yield "/".join(filter(None, (run, "" if alone else named))), rows
    elif items:
        yield "/".join(path), [tidy(item) for item in items]
    elif len(value) > 1 and all(isinstance(item, list) for item in value):  # a header and rows below it
        header, *rest = value
        if header and all(isinstance(name, str) for name in header):
            yield "/".join(path), [dict(zip(header, row, strict=False)) for row in rest]


def is_run(item: dict[str, Json], found: list[tuple[str, Rows]]) -> bool:
    """Whether an item of a list holds a whole run, not a row that has lists in it: its tables know steps or KL, and it
    has none beside them."""

    def knows(names: Iterable[object]) -> bool:
        return any(STEP_OF.search(str(name)) or "kl" in str(name).lower() for name in names)

    scalars = [name for name, value in item.items() if number(value) is not None]
    return not knows(scalars) and any(len(rows) > 1 and knows(rows[0]) for _, rows in found)


def split_frame(value: dict[str, Json]) -> Rows:
    """Rows of {"columns": [names], "data": [[values]]}, as pandas and wandb's tables are written; none of another."""
    names, data = value.get("columns"), value.get("data")
    if not isinstance(names, list) or not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        return []
    return [dict(zip(map(str, names), row, strict=False)) for row in data]


def rows_by_step(value: dict[str, Json]) -> Rows:
    """Rows of {step: {name: value}}; none of another dict."""
    steps = [number(key) for key in value]
    if len(value) < 2 or None in steps or not all(isinstance(row, dict) for row in value.values()):
        return []
    return [tidy({"step": step, **row}) for step, row in zip(steps, value.values(), strict=True)]


def columns_of(value: dict[str, Json]) -> tuple[list[Rows], dict[str, Json]]:
    """(tables of the columns among the items of a dict, the items that hold something else).

    A column is a list of numbers, or {step: number}. Columns of one length are a table; where there are several
    lengths, each has its own column of steps.
    """
    lists: dict[int, dict[str, list[Json]]] = {}
    stepped: dict[float, Row] = {}  # step -> its row
    rest: dict[str, Json] = {}
    constants: Row = {}
    for name, item in value.items():
        if isinstance(item, list) and len(item) > 1 and all(is_cell(cell) for cell in item):
            lists.setdefault(len(item), {})[name] = item
        elif isinstance(item, dict) and is_stepped(item):
            for step, cell in item.items():
                stepped.setdefault(float(step), {"step": float(step)})[name] = cell
        elif isinstance(item, dict | list):
            rest[name] = item
        elif number(item) is not None:
            constants[name] = item
    several = len(lists) > 1
    found = [transposed(columns, constants, several) for columns in lists.values() if has_numbers(columns)]
    if stepped:
        found.append([stepped[step] for step in sorted(stepped)])
    return found, rest


def is_cell(value: Json) -> bool:
    return value is None or isinstance(value, str | int | float)


def is_stepped(item: dict[str, Json]) -> bool:
    """Whether an item is {step: number}, as NeMo-RL dumps a metric."""
    if len(item) < 2:
        return False
    return all(number(key) is not None for key in item) and any(number(cell) is not None for cell in item.values())


def has_numbers(columns: dict[str, list[Json]]) -> bool:
    return any(number(cell) is not None for column in columns.values() for cell in column)


def transposed(columns: dict[str, list[Json]], constants: Row, several: bool) -> Rows:
    """Rows of columns of one length, with a temperature that holds for all of them. Where there are tables of several
    lengths, its only column of steps (steps, eval_steps, ...) is called `step`, so that they share one."""
    fixed = {name: value for name, value in constants.items() if "temperature" in name}
    steps = [name for name in columns if STEP_OF.search(name)]
    names = ["step" if several and [name] == steps else name for name in columns]
    return [{**fixed, **dict(zip(names, cells, strict=True))} for cells in zip(*columns.values(), strict=True)]
