"""Anybody's logs as rows of the public format of curves."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rmo.artifacts.curves_csv import COLUMNS
from rmo.logs.choosing import pick
from rmo.logs.columns import Columns
from rmo.logs.formats import LogError, Rows, load
from rmo.logs.points import points
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.runtime.files import names_of

IDS = ("rm_params", "rm_comparisons", "policy_params", "kl_coef")  # columns of the public format that a group may have
Key = tuple[tuple[str, str], ...]  # what distinguishes a run: (column of the public format, value) pairs


def read(paths: Sequence[Path], want: Columns) -> tuple[Rows, list[str]]:
    """(rows for `curve.from_rows`, notes for people) of any logs.

    Several files are several runs, but files that lack KL or gold are parts of one table.

    Raises:
      LogError: a file cannot be read, or no run can be used.
    """
    loaded = load_all(paths)
    if is_public(loaded, want):
        return public_rows(loaded, want)
    runs = split(tables_of(loaded, want), want)
    rows: Rows = []
    failed: list[str] = []
    runs_with: dict[str, list[str]] = {}  # note -> the runs that it holds for
    seeds: dict[str, int] = {}  # value of the column of seeds -> 0, 1, ...
    for key, part in runs.items():
        name = run_name(key, want) or paths[0].name
        try:
            made, notes = points(part, want)
        except LogError as error:
            failed.append(f"{name}: {error}")
            continue
        meta: dict[str, str | int] = dict(key)
        if want.seeds:
            meta["seed"] = seeds.setdefault(str(meta["seed"]), len(seeds))
        rows += [{**row, **meta} for row in made]
        for note in notes:
            runs_with.setdefault(note, []).append(name)
    if not rows:
        raise LogError(failed[0])
    lines = []
    for note, names in runs_with.items():
        everywhere = 1 < len(names) == len(runs)
        lines.append(f"{'all runs' if everywhere else ', '.join(names)}: {note}")
    return rows, lines + [f"left out: {line}" for line in failed]


def load_all(paths: Sequence[Path]) -> dict[str, Rows]:
    """Rows of each file, under a short name that no other one has."""
    bare = [path.with_suffix("") for path in paths]
    distinct = len(set(bare)) == len(bare)
    names = names_of(bare if distinct else paths)
    return {name.replace(",", ";"): load(path) for name, path in zip(names, paths, strict=True)}


def is_public(loaded: dict[str, Rows], want: Columns) -> bool:
    """Whether all files are in the public format already, and no column of theirs was named."""
    for rows in loaded.values():
        if rows and not {"kl", "gold"} <= {*rows[0]} <= {*COLUMNS}:
            return False
    return all(getattr(want, field.name) is None for field in fields(Columns) if field.name != "method")


def public_rows(loaded: dict[str, Rows], want: Columns) -> tuple[Rows, list[str]]:
    """(rows, notes) of files in the public format."""
    out: Rows = []
    notes = []
    for name, rows in loaded.items():
        if rows and "method" not in rows[0]:
            taken = want.method or f"{BEST_OF_N}; say --method {PPO} if it is RL"
            notes.append(f"{name} has no column method: taken as {taken}")
        for row in rows:
            parts = [name if len(loaded) > 1 else "", row.get("settings") or ""]
            settings = " ".join(part for part in parts if part)
            out.append({"method": want.method or BEST_OF_N, **row, "settings": settings})
    return out, notes


def tables_of(loaded: dict[str, Rows], want: Columns) -> dict[str, Rows]:
    """A table for every file with gold and KL, and one for all files that lack one of them."""
    tables, parts = {}, {}
    for name, rows in loaded.items():
        complete = pick("gold", rows, want) and (pick("kl", rows, want) or want.n)
        (tables if complete else parts)[name] = rows
    if parts:
        tables[" + ".join(parts)] = [row for rows in parts.values() for row in rows]
    return tables


def split(tables: dict[str, Rows], want: Columns) -> dict[Key, Rows]:
    """The rows of every run: of files and wandb's runs, and of the values of --group and --seeds.

    Raises:
      LogError: there is no such column.
    """
    rows = [{"file": name, **row} for name, table in tables.items() for row in table]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    groups = [name.strip() for name in want.group.split(",")] if want.group else []
    named = [*groups, want.seeds] if want.seeds else groups
    for name in named:
        if name not in columns:
            raise LogError(f"no column {name} to tell runs apart by: there are {', '.join(columns[:12])}")
    sources = []  # of "file" and "run", those with several values
    for name in ("file", "run"):
        values = {row.get(name) for row in rows} - {None}
        if name not in named and len(values) > 1:
            sources.append(name)
    runs: dict[Key, Rows] = {}
    for row in rows:
        runs.setdefault(key_of(row, sources, groups, want.seeds), []).append(row)
    return runs


def key_of(row: dict[str, object], sources: Sequence[str], groups: Sequence[str], seeds: str | None) -> Key:
    """What distinguishes the run of a row."""
    words = [str(row.get(name, "")) for name in sources]
    words += [f"{name}={row.get(name, '')}" for name in groups if name not in IDS]
    key = [("settings", " ".join(words).replace(",", ";"))]
    key += [(name, str(row.get(name, ""))) for name in groups if name in IDS]
    if seeds:
        key.append(("seed", str(row.get(seeds, ""))))
    return tuple(key)


def run_name(key: Key, want: Columns) -> str:
    """A run's name for people; empty if nothing distinguishes it."""
    words = []
    for name, value in key:
        if not value:
            continue
        if name == "settings":
            words.append(value)
        else:
            words.append(f"{want.seeds if name == 'seed' else name}={value}")
    return " ".join(words)
