"""Rows of people's score tables as columns: a row per draw, or lists of draws; prompts as texts, ids or dialogues."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmo.runtime.files import RunError
from rmo.runtime.types import Json, Row
from rmo.worlds import sources

SCORES = ("proxy", "gold")
NEEDED = ("prompt", *SCORES)
NUMBERS = ("rm_params", "rm_comparisons", "policy_params", "seed")  # optional columns: every combination is one RM
NAMES = ("rm", "rm_name", "reward_model", "proxy_name", "proxy_model")  # the same, as texts
OPTIONAL = ("draw", *NUMBERS, *NAMES)
MOST = 64  # values of a column that may tell tables apart; one with more is text or an id


class TableError(RunError):
    """What is wrong with a table of scores and where, in one line."""


class Columns(NamedTuple):
    """A table of scores, an entry per draw."""

    prompt: np.ndarray  # object[D], a key: dialogues as JSON
    numbers: dict[str, np.ndarray]  # f64[D]: proxy, gold; draw, seed, rm_params, ... where there are such
    names: dict[str, np.ndarray]  # object[D]: columns that name an RM
    others: dict[str, np.ndarray]  # object[D]: columns of few values that nothing here reads


class Table:
    """Columns while rows are being read."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.known: dict[str, list[Json]] = {name: [] for name in SCORES}
        self.others: dict[str, list[Json]] = {}
        self.values: dict[str, set[Json]] = {}  # of others; None where there are too many

    def add(self, where: str, row: Row) -> None:
        """One draw.

        Raises:
          TableError: a cell is missing or is not what its column holds.
        """
        before = len(self.prompts)
        self.prompts.append(prompt_key(where, row))
        for name in (*SCORES, *OPTIONAL):
            if name in row and name not in self.known:
                if before:
                    raise TableError(f"{where} has {name}, and rows before it do not: each needs it")
                self.known[name] = []
            if name in self.known:
                self.known[name].append(cell(where, name, row.get(name)))
        for name, value in row.items():
            if name == "prompt" or name in self.known or not isinstance(value, str | int | None):
                continue
            values = self.values.setdefault(name, set())
            if len(values) <= MOST:
                values.add(value)
                cells = self.others.setdefault(name, [])
                cells += [None] * (before - len(cells)) + [value]
        for name in [name for name in self.others if len(self.values[name]) > MOST]:
            del self.others[name]

    def columns(self) -> Columns:
        """What has been read."""
        draws = len(self.prompts)
        numbers = {n: np.array(x, np.float64) for n, x in self.known.items() if n not in NAMES}
        names = {n: np.array(x, object) for n, x in self.known.items() if n in NAMES}
        whole = {n: x + [None] * (draws - len(x)) for n, x in self.others.items()}
        others = {n: np.array([str(value) for value in x], object) for n, x in whole.items()}
        return Columns(np.array(self.prompts, object), numbers, names, others)


def read_columns(path: Path) -> Columns:
    """The columns of a table.

    Raises:
      TableError: no rows, a column is missing, or a cell is not what its column holds; says where.
    """
    table = Table()
    for where, row in sources.read(path):
        if isinstance(row, sources.Malformed):
            raise TableError(f"{where}: {row}")
        for one in draws_of(where, row):
            table.add(where, one)
    if not table.prompts:
        raise TableError(f"{path} has no rows")
    return table.columns()


def draws_of(where: str, row: Row) -> Iterator[Row]:
    """The draws of a row: itself, or one per entry of its lists, which may be JSON in a text.

    Raises:
      TableError: a column is missing, or lists have other lengths.
    """
    for name in NEEDED:
        if name not in row:
            optional = ", ".join(("draw", *NUMBERS, "rm"))
            raise TableError(f"{where} has no column {name}: a row is prompt, proxy, gold; optionally {optional}")
    lists = {name: found for name in (*SCORES, "draw", "seed") if (found := listed(row.get(name))) is not None}
    if not any(name in lists for name in SCORES):
        yield row
        return
    sizes = {name: len(lists.get(name, ())) for name in SCORES} | {name: len(x) for name, x in lists.items()}
    if len(set(sizes.values())) > 1:
        raise TableError(
            f"{where}: {', '.join(f'{n} has {size}' for n, size in sizes.items())} draws: each needs as many"
        )
    for i in range(sizes["proxy"]):
        yield {**row, **{name: values[i] for name, values in lists.items()}}


def listed(value: Json) -> list[Json] | None:
    """A list, or the list that a text holds as JSON; None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, list) else None


def prompt_key(where: str, row: Row) -> str:
    """What tells prompts apart: a text itself, an id's digits, a dialogue as JSON.

    Raises:
      TableError: there is none.
    """
    prompt = row["prompt"]
    if prompt is None or prompt != prompt:
        raise TableError(f"{where} has no prompt")
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)


def cell(where: str, name: str, value: Json) -> float | str:
    """A finite score, a whole number, or the name of an RM.

    Raises:
      TableError: it is something else.
    """
    if name in NAMES:
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value)
        raise TableError(f"{where}: {name} is {shown(value)}, no name")
    kind = "a finite number" if name in SCORES else "a whole number"
    try:
        ok = isinstance(value, int | float) and math.isfinite(value) and (name in SCORES or value == int(value))
    except OverflowError:
        ok = False
    if not ok:
        raise TableError(f"{where}: {name} is {shown(value)}, not {kind}")
    return float(value)


def shown(value: Json) -> str:
    """A cell, for a message."""
    return "missing" if value is None else repr(value)[:40]
