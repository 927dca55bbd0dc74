"""Files of a run: small JSON, NPZ and CSV, written whole or not at all.

A run directory is local or a URL such as gs://bucket/runs. Of several processes only one writes (`hosts.writer`).
"""

import contextlib
import csv
import errno
import functools
import io
import json
import math
import os
import shutil
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.typing import ArrayLike

from rmo.runtime import checksums, hosts
from rmo.runtime.errors import REFUSED
from rmo.runtime.errors import RunError as RunError
from rmo.runtime.types import Json as Json
from rmo.runtime.types import Row as Row
from rmo.runtime.types import Tree as Tree

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.EROFS}  # errors of disks
SCRATCH = "scratch"  # what a stage needs only until it is done; removed after DONE


# Whose directory it is.

still_mine: list[Callable[[], None]] = []  # of the locks that this process holds (lock.py)


def need_hold() -> None:
    """Before anything is written to a stage: ends this process where it slept so long that another run has taken the
    stage over. Costs nothing while signs of life are given on time."""
    for check in tuple(still_mine):
        check()


# Paths.


def directory(name: str | Path) -> Path:
    """A local path or, of a URL, an `epath.Path`, which has the same methods.

    Raises:
      RunError: there is nothing to read such URLs with.
    """
    if "://" not in str(name):
        return Path(name)
    from etils import epath
    from fsspec import config

    config.conf.setdefault("gcs", {})["use_listings_cache"] = False  # it would not see what other hosts write
    try:
        found = epath.Path(str(name))
        found.exists()
    except Exception as error:
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(
            f"cannot open {name}: {line}; for gs:// install gcsfs (EXTRAS=dev,gcs launch/local.sh)"
        ) from error
    return found  # type: ignore[return-value]


def remote(path: Path) -> bool:
    return not isinstance(path, Path)


def need_inside(root: Path, path: Path) -> None:
    """Refuse to write where a link inside a run directory leads out of it; the directory itself may be a link.

    Raises:
      RunError: it does; names the place.
    """
    if remote(root) or remote(path):
        return
    if not path.resolve().is_relative_to(root.resolve()):
        advice = f"what is written for {root} stays inside it; remove the link, or move what it leads to there"
        raise RunError(f"{path} leads out of the run directory, to {path.resolve()}: {advice}")


def modified(path: Path) -> float:
    """When a file was written last, in seconds since 1970."""
    at = path.stat()
    return at.mtime if remote(path) else at.st_mtime  # type: ignore[attr-defined]


def full(path: Path) -> str:
    """As orbax takes it."""
    return str(path if remote(path) else path.absolute())


def unless_gone(function: object, name: str, raised: tuple) -> None:
    """Raise what `shutil.rmtree` met, unless another process was faster."""
    error = raised[1]
    if not isinstance(error, FileNotFoundError):
        error.filename = name
        raise error


def remove(path: Path) -> None:
    """A whole directory, if it is there.

    Raises:
      OSError: some of it cannot be removed: whoever comes next would take it for their own.
    """
    if hosts.writer():
        need_hold()
        if not remote(path) and path.is_symlink():
            path.unlink()
        elif not remote(path):
            shutil.rmtree(path, onerror=unless_gone)
        elif path.exists():
            path.rmtree()  # type: ignore[attr-defined]


def unlink(path: Path) -> None:
    """A file, if it is there.

    Raises:
      RunError: it is a directory.
    """
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError as error:
        raise RunError(f"{path} is a directory, and a file goes there: remove {path} and run again") from error


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names of files or directories, with as much of their paths as tells them apart.

    Raises:
      RunError: one is given twice.
    """
    parts = [path.absolute().parts for path in paths]
    if twice := [path for path, place in zip(paths, parts, strict=True) if parts.count(place) > 1]:
        raise RunError(f"{twice[0]} is given twice: give different ones")
    depth = next(n for n in range(1, 99) if len({p[-n:] for p in parts}) == len(parts))
    return ["/".join(p[-depth:]) for p in parts]


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A local directory for libraries that know no URLs; what is in it at the end is what `path` holds."""
    need_hold()
    if not remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)
        for file in Path(made).rglob("*"):
            if file.is_file():
                write_bytes(path / str(file.relative_to(made)), file.read_bytes())


@functools.cache
def local(path: Path) -> Path:
    """The directory itself or, of a URL, a copy on this machine."""
    if not remote(path):
        return path
    _copies.append(tempfile.TemporaryDirectory(prefix="rmo-", ignore_cleanup_errors=True))
    made = Path(_copies[-1].name)

    def copy(source: Path, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for item in source.iterdir():
            if item.is_dir():
                copy(item, target / item.name)
            else:
                (target / item.name).write_bytes(item.read_bytes())

    copy(path, made)
    return made


_copies: list[tempfile.TemporaryDirectory] = []  # they go when the process ends


# Small files.


@contextlib.contextmanager
def naming(path: Path, service: bool = True) -> Iterator[None]:
    """Have errors of a disk inside name the file: of one that fails in the middle, the system names none. With
    `service`, where nothing but a file's own operations are inside, what a bucket's service refuses is said as such.

    Raises:
      RunError: the service of a bucket refuses.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK and not error.filename:
            error.filename = str(path)
        elif service and remote(path) and refused(error):
            raise RunError(f"{path}: {' '.join(str(error).split())[:200]}: {REFUSED}") from error
        raise


def refused(error: OSError) -> bool:
    """Whether a service answered with an error, which libraries raise without the system's number."""
    return error.errno is None and not isinstance(error, FileNotFoundError) and not hosts.passing(error)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file in one move: a reader or a kill never sees half of it.

    Raises:
      OSError: it cannot be written; names it. The file stays as it was.
    """
    if not hosts.writer():
        return
    need_hold()
    path.parent.mkdir(parents=True, exist_ok=True)
    if remote(path):  # an object appears whole or not at all
        with naming(path):
            path.write_bytes(content)
        return
    part = path.with_name(f".{path.name}.part")
    if part.is_symlink():  # it would be written through, to wherever it leads
        part.unlink()
    try:
        with naming(path):
            part.write_bytes(content)
            os.replace(part, path)
    except IsADirectoryError as error:
        part.unlink()
        raise RunError(f"{path} is a directory, and a file goes there: remove {path} and run again") from error
    except OSError as error:
        if error.errno in DISK:  # what is there of it would take the last of the space
            part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def create(path: Path, text: str) -> bool:
    """Make a file with its content, unless it is there: of several processes who try at once, one succeeds."""
    if remote(path):
        import fsspec

        fs, name = fsspec.core.url_to_fs(full(path))
        try:
            fs.pipe_file(name, text.encode(), mode="create")
        except FileExistsError:
            return False
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        with naming(path):
            part.write_text(text)
            os.link(part, path)  # with its content, or not at all
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return True


def write_json(path: Path, value: Json) -> None:
    """JSON with every float as Python prints it. numpy becomes plain; JSON has no infinity, so that becomes null."""

    def plain(x: Json) -> Json:
        if isinstance(x, np.ndarray | np.generic | jax.Array):
            x = x.tolist()
        if isinstance(x, dict):
            return {str(name): plain(item) for name, item in x.items()}
        if isinstance(x, list | tuple):
            return [plain(item) for item in x]
        return None if isinstance(x, float) and not math.isfinite(x) else x

    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Json:
    """Raises RunError where the file is missing, broken, or not what was written."""
    try:
        with naming(path):
            return json.loads(checksums.content(path))
    except (OSError, ValueError) as error:
        if hosts.passing(error) or isinstance(error, PermissionError):
            raise
        raise RunError(f"cannot read {path}: {error}; {checksums.advice(path)}") from error


def write_npz(path: Path, **arrays: ArrayLike) -> None:
    """Arrays by name."""
    if hosts.writer():
        whole = io.BytesIO()
        np.savez(whole, **{name: np.asarray(value) for name, value in arrays.items()})  # type: ignore[arg-type]
        write_bytes(path, whole.getvalue())


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Raises RunError where the file is missing, broken, or not what was written."""
    try:
        with naming(path), np.load(io.BytesIO(checksums.content(path)), allow_pickle=False) as arrays:
            if damaged := arrays.zip.testzip():  # numpy stops before it would see that
                raise zipfile.BadZipFile(f"{damaged} in it is damaged")
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if hosts.passing(error) or isinstance(error, PermissionError):
            raise
        raise RunError(f"cannot read {path}: {error}; {checksums.advice(path)}") from error


def write_csv(path: Path, columns: list[str], rows: Iterable[Row]) -> None:
    """Numbers at 9 significant digits (a float32 survives), empty where not known; texts quoted where they must be."""

    def cell(value: object) -> str:
        if value is None or (isinstance(value, float) and not np.isfinite(value)):
            return ""
        text = f"{value:.9g}" if isinstance(value, float) else str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & {",", '"', "\n", "\r"} else text

    lines = [",".join(columns)] + [",".join(cell(row.get(name)) for name in columns) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def table_bytes(path: Path) -> bytes:
    """What is in the file of a table. Raises RunError where it is none, or not what was written."""
    try:
        with naming(path):
            return checksums.content(path)
    except IsADirectoryError as error:
        raise RunError(f"{path} is a directory, not a table: {checksums.advice(path)}") from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows as text. Raises RunError where it is none, or not what was written."""
    try:
        text = table_bytes(path).decode("utf-8-sig")  # a spreadsheet may have put a byte-order mark
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} is no CSV text: {error}") from error
