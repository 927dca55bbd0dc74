"""What a finished directory holds: `DONE` lists each of its files with size and checksum, and who reads one compares.

The promise: of a stage that is done no byte is used that is not what was written. `content`, `present` and `check_tree`
are the doors that every reader of a run passes.

The first line of `DONE` is the path of the stage in its run, digest included. Then comes a line per file, `sha256 size
name`, and the sha256 of all lines before. `PUBLISHED` is the same for the tables at the top of a run. Older code wrote
the first line only: then nothing is compared.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from rmo.runtime.errors import RunError

DONE, PUBLISHED = "DONE", "PUBLISHED"
NOT_LISTED = ("HOLDER", "scratch", DONE)  # come and go without the stage
LARGE = 64 << 20  # bytes: a larger file in a bucket is compared by its size, as it would have to be fetched once more
PIECE = 1 << 20  # bytes read at once
SEAL = re.compile("[0-9a-f]{64}")
STAGE = re.compile(r".-[0-9a-f]{10}$")  # how the name of a stage's directory ends, with its digest


class Sum(NamedTuple):
    sha256: str  # `-` where only the size is known
    size: int
    said_by: str = ""  # the list


_known: dict[tuple[Path, str], Mapping[str, Sum]] = {}  # of directories, by the name of their list; checked again
_whole: set[tuple[str, float, int]] = set()  # files that were compared: path, time and size


# Writing.


def sealed(directory: Path, title: str, names: Iterable[str] | None = None, most: int | None = None) -> str:
    """The text of a list: of the files of those names, else of all that a stage leaves; of files with more than `most`
    bytes the size alone."""
    lines = [title]
    for name in sorted(files_of(directory) if names is None else names):
        size = stamp(directory / name)[2]
        found = Sum("-", size) if most is not None and size > most else measured(directory / name)
        lines.append(f"{found.sha256} {found.size} {name}")
    text = "\n".join(lines) + "\n"
    return text + hashlib.sha256(text.encode()).hexdigest() + "\n"


def files_of(directory: Path, inside: str = "") -> list[str]:
    """Names of all files in a stage's directory and below, relative to it."""
    out: list[str] = []
    for item in directory.iterdir():
        name = inside + item.name
        if item.is_dir():
            out += [] if name in NOT_LISTED else files_of(item, name + "/")
        elif name not in NOT_LISTED and not item.name.startswith("."):
            out.append(name)
    return out


def measured(path: Path) -> Sum:
    """A file's size and checksum, read piece by piece."""
    size = stamp(path)[2]
    if size > LARGE and not isinstance(path, Path):
        return Sum("-", size)
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            total.update(piece)
    return Sum(total.hexdigest(), size)


def stamp(path: Path) -> tuple[str, float, int]:
    """By what it is seen that a file is as it was when it was compared."""
    at = path.stat()
    if isinstance(path, Path):
        return str(path), at.st_mtime, at.st_size
    return str(path), at.mtime, at.length


# Reading.


def content(path: Path) -> bytes:
    """The bytes of a small file.

    Raises:
      RunError: they are not what was written.
      OSError: it cannot be read.
    """
    for last in (False, True):  # the list first: a file that grows is listed only when it is whole
        wanted = wanted_of(path)
        found = bytes_of(path, wanted)
        if wanted is None or same(found, wanted):
            return found
        if last:
            raise changed(path, wanted.said_by)
        forget(path)  # it may be another list by now
    raise AssertionError


def bytes_of(path: Path, wanted: Sum | None) -> bytes:
    """Raises RunError where there is no such file any more, OSError where there never was."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        if wanted is None:
            raise
        what = "is a directory now" if isinstance(error, IsADirectoryError) else "is missing"
        raise gone(path, what) from error


def same(found: bytes, wanted: Sum) -> bool:
    if len(found) != wanted.size:
        return False
    return wanted.sha256 == "-" or hashlib.sha256(found).hexdigest() == wanted.sha256


def present(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
      RunError: there is none, and there was when its directory was finished.
    """
    if path.exists():
        return True
    if wanted_of(path) is not None:
        forget(path)
        if wanted_of(path) is not None:
            raise gone(path)
    return False


def all_present(directory: Path) -> None:
    """Raises RunError where a file of a finished directory is missing."""
    for name in listed(directory, DONE):
        present(directory / name)


def check_tree(directory: Path) -> None:
    """Compare all files of a directory in a finished stage, such as a checkpoint that a library will read.

    Raises:
      RunError: one is missing or is not what was written.
    """
    stage = directory.parent
    forget(directory)
    for name, wanted in listed(stage, DONE).items():
        if name.startswith(directory.name + "/"):
            check_file(stage / name, wanted)


def check_list(path: Path, title: str, directory: Path) -> None:
    """Compare the files of a directory with a list of them that lies elsewhere, where it is there and has that title.

    Raises:
      RunError: one is missing or is not what was written, or the list is damaged.
    """
    try:
        text = path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return
    if text.split("\n")[0] == title:
        for name, wanted in read_list(path, text).items():
            check_file(directory / name, wanted)


def check_file(path: Path, wanted: Sum) -> None:
    try:
        mark = stamp(path)
        if mark in _whole:
            return
        found = measured(path) if mark[2] == wanted.size and wanted.sha256 != "-" else Sum("-", mark[2])
    except FileNotFoundError as error:
        raise gone(path) from error
    if found.size != wanted.size or found.sha256 not in ("-", wanted.sha256):
        raise changed(path, wanted.said_by)
    _whole.add(mark)


def wanted_of(path: Path) -> Sum | None:
    """What a file was when its directory was finished; None where that is not known."""
    places = ((path.parent, DONE), (path.parent, PUBLISHED), (path.parent.parent, DONE))
    for place, list_name in sorted(places, key=lambda place: place not in _known):  # a bucket is asked for each
        name = path.name if place == path.parent else f"{path.parent.name}/{path.name}"
        if found := listed(place, list_name).get(name):
            return found
    return None


def forget(path: Path) -> None:
    for place in (path.parent, path.parent.parent):
        for name in (DONE, PUBLISHED):
            _known.pop((place, name), None)


def listed(directory: Path, name: str) -> Mapping[str, Sum]:
    """What is listed of a directory; nothing while it is not finished, or where older code finished it.

    Raises:
      RunError: the list is damaged, or is that of another stage.
    """
    if (directory, name) in _known:
        return _known[directory, name]
    try:
        text = (directory / name).read_bytes().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except IsADirectoryError as error:
        raise changed(directory / name) from error
    found = _known[directory, name] = read_list(directory / name, text)
    return found


def read_list(path: Path, text: str) -> Mapping[str, Sum]:
    """Raises RunError where it is damaged, or that of another stage."""
    head, _, seal = text.rstrip("\n").rpartition("\n")
    title = text.split("\n")[0]
    whole = hashlib.sha256((head + "\n").encode()).hexdigest() == seal
    if not whole and head and (path.name == PUBLISHED or is_of(title, path) or SEAL.fullmatch(seal)):
        raise changed(path)
    if STAGE.search(path.parent.name) and STAGE.search(title) and not is_of(title, path):
        raise RunError(f"{path.parent} holds {title}, of another run ({path} says so): {advice(path)}")
    if not whole:
        return {}  # by older code, or somebody else's file of that name
    rows = [line.split(" ", 2) for line in head.split("\n")[1:]]
    return {name: Sum(sha256, int(size), str(path)) for sha256, size, name in rows}


def is_of(title: str, path: Path) -> bool:
    """Whether a list is of the directory that it is in."""
    return title.split("/")[-1] == path.parent.name


# Words.


def changed(path: Path, said_by: str = "") -> RunError:
    from_what = f"from that in {said_by}" if said_by else "from that in its last line"
    return RunError(f"{path} is not what was written (its checksum differs {from_what}): {advice(path)}")


def gone(path: Path, what: str = "is missing") -> RunError:
    return RunError(f"{path} {what}, and was a file when it was finished: {advice(path)}")


def advice(path: Path) -> str:
    """What to do about a file of a run that cannot be used."""
    for place in (path, *list(path.parents)[:6]):
        if place.parent.name == "scratch" and place.is_dir():
            return f"remove {place} and run again"
        if STAGE.search(place.name):
            return f"remove {place} and run again"
    if (path.parent / "planned.json").exists() or (path.parent / PUBLISHED).exists():
        return "run again, which writes it anew"
    return f"remove {path} and run again"
