"""Anybody's logs as rows of the public format of curves."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from rmo.artifacts.curves_csv import COLUMNS
from rmo.logs.choosing import pick
from rmo.logs.columns import Columns
from rmo.logs.folders import load_folder
from rmo.logs.formats import load as load
from rmo.logs.formats import load_file
from rmo.logs.kl_columns import reached
from rmo.logs.no_kl import NoKl, Question, Reads
from rmo.logs.points import points
from rmo.logs.rows import Loaded, LogError, Rows, one_line
from rmo.logs.series import pairs
from rmo.logs.steps import one_step
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.runtime.files import names_of

SHOWN = 6  # runs that a line names
IDS = ("rm_params", "rm_comparisons", "policy_params", "kl_coef")  # columns of the public format that a group may have
Key = tuple[tuple[str, str], ...]  # what distinguishes a run: (column of the public format, value) pairs


def read(paths: Sequence[Path], want: Columns) -> tuple[Rows, list[str]]:
    """(rows for `curve.from_rows`, notes for people) of any logs.

    Several files are several runs, but files that lack KL or gold are parts of one table.

    Raises:
      LogError: a file cannot be read, or no run can be used.
    """
    files = load_all(paths)
    loaded = {name: found.rows for name, found in files.items()}
    said = [f"{name}: {note}" for name, found in files.items() for note in found.notes]
    if is_public(loaded, want):
        rows, notes = public_rows(loaded, want)
        return rows, said + notes
    runs = split(tables_of(loaded, want), want)
    largest = largest_kl(runs, want)
    rows: Rows = []
    failed: list[tuple[str, LogError]] = []
    runs_with: dict[str, list[str]] = {}  # note -> the runs that it holds for
    seeds: dict[str, int] = {}  # value of the column of seeds -> 0, 1, ...
    for key, part in runs.items():
        name = run_name(key, want) or paths[0].name
        try:
            made, notes = points(part, want, largest)
        except LogError as error:
            failed.append((name, grouped_further(error, want)))
            continue
        meta: dict[str, str | int] = dict(key)
        if want.seeds:
            meta["seed"] = seeds.setdefault(str(meta["seed"]), len(seeds))
        rows += [{**row, **meta} for row in made]
        for note in notes:
            runs_with.setdefault(note, []).append(name)
    if not runs:
        raise LogError(f"{paths[0].name} holds no rows: it needs a row for every step, with KL and gold")
    if not rows:
        raise none_usable(failed, said)
    lines = said + of_runs(runs_with, len(runs))
    return rows, lines + left_out(failed)


def of_runs(runs_with: dict[str, list[str]], runs: int) -> list[str]:
    """Notes, each with the runs that it holds for."""
    lines = []
    for note, names in runs_with.items():
        everywhere = 1 < len(names) == runs
        lines.append(f"{'all runs' if everywhere else of_these(names)}: {note}")
    return lines


def none_usable(failed: Sequence[tuple[str, LogError]], said: Sequence[str]) -> LogError:
    """What to raise where no run can be used: a question to the user, else that there is no KL, each with gold by step;
    else what is wrong with the first run, and how to tell runs apart where others need it."""
    notes: dict[str, list[str]] = {}
    for name, error in failed:
        for note in error.notes:
            notes.setdefault(note, []).append(name)
    lines = [*said, *of_runs(notes, len(failed))]
    for kind in (Question, NoKl):
        found = [(name, error) for name, error in failed if isinstance(error, kind)]
        if found:
            reads: dict[str, Reads] = {name: held for name, error in found for held in error.reads.values()}
            rest = left_out([one for one in failed if one not in found])
            return kind(f"{of_these([name for name, _ in found])}: {found[0][1]}", reads, lines + rest)
    name, first = failed[0]
    alike = [name for name, error in failed if str(error) == str(first)]
    line = f"{of_these(alike)}: {first}"
    apart = [str(error) for _, error in failed if "tell the runs apart" in str(error)]
    if apart and "tell the runs apart" not in line:
        line += f"; of other runs {apart[0]}"
    return LogError(line, lines)


def grouped_further(error: LogError, want: Columns) -> LogError:
    """The error, its advice on how to tell runs apart added to the groups that there are."""
    hint = "e.g. --group "
    if not want.group or hint not in str(error):
        return error
    return LogError(str(error).replace(hint, f"{hint}{want.group},"), error.notes)


def left_out(failed: Sequence[tuple[str, LogError]]) -> list[str]:
    """A line for every reason why runs are left out."""
    runs: dict[str, list[str]] = {}
    for name, error in failed:
        runs.setdefault(str(error), []).append(name)
    return [f"left out: {of_these(names)}: {why}" for why, names in runs.items()]


def of_these(names: Sequence[str]) -> str:
    """Names of runs for a line: all, or a few and how many there are."""
    return f"{', '.join(names[:SHOWN])}, ... ({len(names)} runs)" if len(names) > SHOWN else ", ".join(names)


def largest_kl(runs: dict[Key, Rows], want: Columns) -> float:
    """The largest of what the runs reach; NaN where there is no KL."""
    found = [np.nan]
    for rows in runs.values():
        if name := pick("kl", rows, want):
            found += [reached(values)] if (values := [value for _, value in pairs(rows, name, None)]) else []
    return float(np.nanmax(found)) if len(found) > 1 else np.nan


def load_all(paths: Sequence[Path]) -> dict[str, Loaded]:
    """What each file holds, and each run of a directory, under a short name that no other one has.

    Raises:
      LogError: a file cannot be read; of a directory, all of it.
    """
    bare = [path if path.is_dir() else path.with_suffix("") for path in paths]
    distinct = len(set(bare)) == len(bare)
    names = names_of(bare if distinct else paths)
    found: dict[str, Loaded] = {}
    for name, path in zip(names, paths, strict=True):
        if path.is_dir():
            runs = load_folder(path)
            several = len(runs) > 1 or len(paths) > 1
            found |= {run if several and len(paths) == 1 else f"{name}/{run}": held for run, held in runs.items()}
        else:
            found[name] = load_file(path)
    return {name.replace(",", ";"): Loaded(one_step(held.rows), held.notes) for name, held in found.items()}


def is_public(loaded: dict[str, Rows], want: Columns) -> bool:
    """Whether all files are in the public format already, and no column of theirs was named."""
    for rows in loaded.values():
        if rows and not {"kl", "gold"} <= {*rows[0]} <= {*COLUMNS}:
            return False
    given = [getattr(want, field.name) for field in fields(Columns) if field.name != "method"]
    return all(value is None or value is False for value in given)


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
    """A table for every file with gold and KL, and one for all files that lack one of them; where no file has KL, a
    table for every file with gold."""

    def has_kl(rows: Rows) -> bool:
        return bool(pick("kl", rows, want) or want.n)

    by_step = not any(has_kl(rows) for rows in loaded.values())
    tables, parts = {}, {}
    for name, rows in loaded.items():
        complete = pick("gold", rows, want) and (by_step or has_kl(rows))
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
    words = [one_line(str(row.get(name, ""))) for name in sources]
    words += [one_line(f"{name}={row.get(name, '')}") for name in groups if name not in IDS]
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
