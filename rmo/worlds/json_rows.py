"""Rows of JSON files of many spellings."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from rmo.runtime.types import Json, Row
from rmo.worlds.dialogue import Malformed, spelling
from rmo.worlds.packed_text import Rows, SourceError, decoded, one_line, suffix_of, text_lines, unpacked_bytes


class Twice(ValueError):
    """An object that has a name twice."""


def once(pairs: list[tuple[str, Json]]) -> Row:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise Twice(f"{next(n for n in names if names.count(n) > 1)} is there twice")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=once)
SPACE = re.compile(r"[ \t\r\n\ufeff]*")


def values(text: str, start: int = 0) -> Iterator[Json]:
    """JSON values that follow each other, with or without space between them.

    Raises:
      ValueError, RecursionError: something else stands there.
    """
    while (start := SPACE.match(text, start).end()) < len(text):  # type: ignore[union-attr]
        value, start = DECODER.raw_decode(text, start)
        yield value


def read_json(path: Path) -> Rows:
    """Rows of a JSON file: an object a line, or one after another; one list of objects; columns; or one of these
    under a name (`{"data": […]}`).

    Raises:
      SourceError: it is no text, or no JSON.
    """
    lines = text_lines(path)
    seen = list(itertools.islice(lines, 1))
    while not any(line.strip() for line in seen) and (more := next(lines, None)) is not None:
        seen.append(more)
    first = seen[-1] if seen else ""
    while not (more := next(lines, "")).strip() and more:
        seen.append(more)
    if more and is_object(first):  # a row a line: not all of it need be in memory
        yield from read_lines(path, itertools.chain(seen, [more], lines))
        return
    lines.close()
    yield from read_whole(path)


def read_whole(path: Path) -> Rows:
    """Rows of a file that is not a row a line, or not more than one row."""
    text = decoded(unpacked_bytes(path), path)
    lines = text.split("\n")  # not splitlines: texts may hold other ends of lines
    first = next((line for line in lines if line.strip()), "")
    try:
        found = list(values(text))
    except (ValueError, RecursionError) as error:
        # A row a line, the first of which is broken?
        if suffix_of(path) != ".json" or any(is_object(line) for line in lines):
            yield from read_lines(path, lines)
            return
        raise SourceError(f"{path} is not JSON: {one_line(error)}") from error
    rows = found if len(found) != 1 else rows_of(found[0], path)
    if len(found) == 1 and rows == found:
        yield f"{path} line {lines.index(first) + 1}", checked(found[0])
        return
    for i, row in enumerate(rows, start=1):
        yield f"{path} row {i}", checked(row)


def is_object(line: str) -> bool:
    try:
        return any(isinstance(value, dict) for value in values(line))
    except (ValueError, RecursionError):
        return False


def read_lines(path: Path, lines: Iterable[str]) -> Rows:
    """Rows of lines, each an object, or several of them."""
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path} line {i}"
        try:
            rows: list[Json] = list(values(line))
        except RecursionError:
            rows = [Malformed("no JSON: nested too deeply")]
        except ValueError as error:
            rows = [Malformed(f"no JSON: {error}")]
        for row in rows:
            yield where, row if isinstance(row, Malformed) else checked(row)


def checked(row: Json) -> Row | Malformed:
    """A row that is an object of whole characters."""
    if not isinstance(row, dict):
        return Malformed(f"a {type(row).__name__}, no object")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        name = next((n for n, v in row.items() if not whole(n) or not whole(v)), "")
        shown = name if whole(name) else repr(name)
        return Malformed(f"{shown} is no text: {error.reason} (half of a character)")
    except (ValueError, RecursionError) as error:
        return Malformed(f"no JSON: {one_line(error)}")
    return row


def whole(value: Json) -> bool:
    """Whether all texts in a value can be written."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def rows_of(value: Json, path: Path) -> list[Json]:
    """The rows of a file that holds one JSON value.

    Raises:
      SourceError: a table in a form that is not read, or several tables under names.
    """
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or not value:
        return [value]
    if {"columns", "data"} <= value.keys() and all(
        isinstance(value[n], list) for n in ("columns", "data")
    ):  # pandas, "split"
        names = value["columns"]
        if not all(isinstance(row, list) and len(row) == len(names) for row in value["data"]):
            raise SourceError(f"{path}: its data do not have as many cells a row as there are columns")
        return [dict(zip(names, row, strict=True)) for row in value["data"]]
    tables = [n for n, v in value.items() if is_table(v)]
    lists = [n for n, v in value.items() if isinstance(v, list)]
    if len(tables) > 1 and len(tables) == len(value):
        raise SourceError(f"{path} holds several lists, {', '.join(tables)}: give each a file of its own")
    if (
        len(tables) == 1
        and lists == tables
        and (len(value) == 1 or tables[0] in ("data", "rows", "examples", "instances"))
    ):
        rows = value[tables[0]]
        if all("row" in row and "row_idx" in row for row in rows):  # the hub's viewer
            return [row["row"] for row in rows]
        return rows
    return from_columns(value, path)


def is_table(value: Json) -> bool:
    """Whether a value is a list of rows, and no dialogue or list of answers in one row."""
    return isinstance(value, list) and bool(value) and all(isinstance(x, dict) and not spelling(x) for x in value)


def from_columns(value: Row, path: Path) -> list[Json]:
    """Rows of a table written column by column, as {name: {"0": …}} or {name: [...]}; any other value as one row.

    Raises:
      SourceError: columns of different lengths.
    """
    columns = list(value.values())
    if all(isinstance(c, dict) and c and all(str(k).isdigit() for k in c) for c in columns):
        keys = list(dict.fromkeys(k for c in columns for k in c))
        if any(c.keys() != set(keys) for c in columns):
            raise SourceError(f"{path}: its columns do not have the same rows")
        return [{name: column[key] for name, column in value.items()} for key in keys]
    if not all(isinstance(c, list) and c for c in columns) or all(isinstance(x, dict) for c in columns for x in c):
        return [value]  # a row, dialogues as lists of messages included
    if len({len(c) for c in columns}) > 1:
        raise SourceError(f"{path}: its columns have {', '.join(f'{len(c)} ({n})' for n, c in value.items())} rows")
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
