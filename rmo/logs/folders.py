"""A directory of logs: which files in it are runs, and which are parts of one."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from rmo.logs.event_files import is_events
from rmo.logs.formats import load_file
from rmo.logs.rows import Loaded, LogError, number
from rmo.runtime.files import names_of

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PRINTED = (".log", ".out", ".txt")
MOST = 500  # files
CHECKPOINT = re.compile(r"checkpoint[-_]?\d+|global_step_?\d+")
OURS = ("_fit", "_bon")  # endings of the directories that results are written into
NO_LOGS = re.compile(r"config|args|tokenizer|vocab|merges|special_tokens|generation|summary|metadata|requirements|"
                     r"adapter|index|results|debug", re.I)  # fmt: skip


def load_folder(folder: Path) -> dict[str, Loaded]:
    """What each run of a directory logged, by a short name.

    Of a kind that says what it is, all are read: TensorBoard's event files (those of one directory are one run,
    restarts included), wandb's `.wandb`, `trainer_state.json` (of a run's checkpoints the last). Where there are none,
    every table, else whatever was printed.

    Raises:
      LogError: there is nothing to read, none of it can be, or it is more than `MOST` files.
    """
    files = [path for path in walk(folder) if path.stat().st_size]
    groups = grouped(files)
    if not groups:
        raise LogError(f"{folder} holds no logs: name the file of the run's numbers")
    runs: dict[str, Loaded] = {}
    failed: list[str] = []
    names = names_of(list(groups)) if len(groups) > 1 else [folder.name]
    for name, parts in zip(names, groups.values(), strict=True):
        try:
            runs[name] = joined(parts)
        except LogError as error:
            failed.append(str(error))
    if not runs:
        raise LogError(failed[0])
    tables = all(path.suffix in TABLES for parts in groups.values() for path in parts)
    passed = [path for path in files if tables and path.suffix in TABLES[:2] + TABLES[3:] and NO_LOGS.search(path.name)]
    left = [f"left out: {line}" for line in failed]
    left += [f"left out by its name: {path} (name the file to read it)" for path in passed]
    first = next(iter(runs))
    runs[first] = runs[first]._replace(notes=[*runs[first].notes, *left])
    return runs


def walk(folder: Path) -> list[Path]:
    """Files below a directory, hidden ones and our own results left out, in order.

    Raises:
      LogError: there are more than can be meant; it looks no further then, as of a whole disk.
    """
    found: list[Path] = []
    for parent, directories, names in os.walk(folder):
        directories[:] = [name for name in directories if counts(name)]
        found += [path for name in names if counts(name) and (path := Path(parent, name)).is_file()]
        if len(found) > MOST * 20:
            raise LogError(f"{folder} holds more than {MOST * 20:,} files: name the directory of the runs' logs")
    return sorted(found)


def counts(name: str) -> bool:
    """Whether a file or directory may be of a run's logs."""
    return not (name.startswith(".") or name.endswith(OURS))


def grouped(files: Sequence[Path]) -> dict[Path, list[Path]]:
    """{run: its files} of the kind of file that says most."""
    groups: dict[Path, list[Path]] = {}
    for path in files:
        if is_events(path):
            groups.setdefault(path.parent, []).append(path)
    if groups:
        return groups
    for path in files:
        if path.suffix == ".wandb":  # the runs of one id are one run that was resumed
            groups.setdefault(path.with_suffix(""), []).append(path)
    if groups:
        return by_wandb_id(groups)
    for path in files:
        if path.name == "trainer_state.json":
            parent = path.parent
            run = parent.parent if CHECKPOINT.fullmatch(parent.name) else parent
            groups[run] = [max([*groups.get(run, []), path], key=lambda p: (last_step(p), p.stat().st_mtime))]
    if groups:
        return groups
    named = [path for path in files if path.suffix in TABLES and not NO_LOGS.search(path.name)]
    named = named or [path for path in files if path.suffix in PRINTED and not NO_LOGS.search(path.name)]
    if len(named) > MOST:
        raise LogError(f"{named[0].parent} and below hold {len(named)} logs: name at most {MOST}")
    return {path.with_suffix("") if len({p.with_suffix("") for p in named}) == len(named) else path: [path]
            for path in named}  # fmt: skip


def last_step(path: Path) -> int:
    """The number of a checkpoint's directory; of the run's own file, more than any."""
    digits = re.findall(r"\d+", path.parent.name)
    return int(digits[-1]) if CHECKPOINT.fullmatch(path.parent.name) and digits else 1 << 62


def by_wandb_id(groups: dict[Path, list[Path]]) -> dict[Path, list[Path]]:
    """Groups of wandb's files joined where their names, `run-ID`, are one."""
    joined: dict[str, list[Path]] = {}
    for paths in groups.values():
        joined.setdefault(paths[0].stem, []).extend(paths)
    return {paths[0].parent if paths[0].parent.name != "wandb" else paths[0]: paths for paths in joined.values()}


def joined(parts: Sequence[Path]) -> Loaded:
    """The rows of a run's files, in the order of the files' times; where a restart went back, both are kept, and the
    later ones count.

    Raises:
      LogError: no part can be read.
    """
    read: list[Loaded] = []
    failed: list[LogError] = []
    for path in sorted(parts, key=started):
        try:
            read.append(load_file(path))
        except LogError as error:
            failed.append(error)
    if not read:
        raise failed[0]
    return Loaded([row for part in read for row in part.rows], [note for part in read for note in part.notes])


def started(path: Path) -> tuple[float, str]:
    """When a file was begun: event files and wandb's directories say it in their names."""
    named = re.search(r"tfevents\.(\d+)", path.name) or re.search(r"run-(\d{8})_(\d{6})", path.parent.name)
    at = number("".join(named.groups())) if named else None
    return at if at is not None else path.stat().st_mtime, path.name
