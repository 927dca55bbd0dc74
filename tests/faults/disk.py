"""Every file operation below a directory, counted in order, and disturbed at the k-th.

Operations are found by tracing: while a `Disk` is entered, what Python code does to files below its root goes through
`step`, whoever does it. What C++ code writes (arrays of checkpoints, array_record) is not seen, but lies between two
operations that are.
"""

import builtins
import errno
import io
import os
import posix
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

KILL, SHORT, STALE = "kill", "short write", "stale listing"
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}
TAKES_SPACE = ("open to write", "write", "close", "mkdir", "link", "fsync")
WITHOUT_NAME = ("write", "read", "close", "fsync")  # the system's error then names no file
FAULTS = (KILL, *ERRORS, SHORT, STALE)


class Killed(BaseException):
    """Stands for SIGKILL: nothing below catches it."""


class Operation(NamedTuple):
    kind: str
    path: str  # relative to the root


KINDS = (
    "stat",
    "list",
    "open",
    "read",
    "open to write",
    "write",
    "close",
    "fsync",
    "rename",
    "link",
    "unlink",
    "mkdir",
)
KINDS += ("rmdir", "utime", "chmod", "truncate")


def possible(kind: str) -> list[str]:
    """Which faults an operation of one kind can meet."""
    found = [KILL, "EIO"]
    if kind in TAKES_SPACE:
        found.append("ENOSPC")
    if kind not in WITHOUT_NAME:
        found.append("EACCES")
    return found + {"write": [SHORT], "list": [STALE]}.get(kind, [])


POSSIBLE = {kind: possible(kind) for kind in KINDS}


class Disk:
    """`fault` at operation number `at`; without one, operations are counted only.

    A kill leaves the directory as it is at that moment in `left`, if that is given, and every later operation fails: what
    is still written by threads that do not know goes to a directory that nobody looks at again. With `really`, the
    process kills itself. A full disk stays full, a file that may not be touched stays so; other errors come once. A short
    write writes half: `os.write` says so, a buffered file meets a full disk with the other half.
    """

    def __init__(self, root: Path, at: int = -1, fault: str = "", left: Path | None = None, really: bool = False):
        self.root, self.at, self.fault, self.left, self.really = str(root), at, fault, left, really
        self.seen: list[Operation] = []
        self.struck: Operation | None = None
        self.dead = False
        self.lock, self.inside = threading.RLock(), threading.local()
        self.before: dict[tuple[Any, str], Any] = {}

    # What happens at an operation.

    def step(self, kind: str, path: str) -> bool:
        """Count an operation that is about to be made; whether to make half of it.

        Raises:
          Killed, OSError: it is not made at all.
        """
        with self.lock:
            if self.dead:
                raise Killed
            here = Operation(kind, os.path.relpath(path, self.root))
            self.seen.append(here)
            hit = len(self.seen) == self.at + 1
            if hit:
                self.struck = here
            if hit and self.fault == KILL and kind != "write":
                self.die()
            if self.fault in ERRORS and self.struck and self.fails(here, hit):
                code = ERRORS[self.fault]
                raise OSError(code, os.strerror(code), *([] if kind in WITHOUT_NAME else [path]))
            return hit and self.fault in (KILL, SHORT, STALE)

    def fails(self, here: Operation, hit: bool) -> bool:
        if self.fault == "ENOSPC":
            return here.kind in TAKES_SPACE
        if self.fault == "EACCES":
            return here.path == self.struck.path and here.kind not in WITHOUT_NAME  # type: ignore[union-attr]
        return hit

    def die(self) -> None:
        if self.really:
            os.kill(os.getpid(), signal.SIGKILL)
        self.inside.quiet = True
        if self.left:
            shutil.copytree(self.root, self.left)
        self.inside.quiet = False
        self.dead = True
        raise Killed

    # Operations.

    def below(self, path: Any, dir_fd: int | None = None) -> str:
        """The absolute path, if it is below the root; else empty."""
        if getattr(self.inside, "quiet", False):
            return ""
        if isinstance(path, int):
            found = posix.readlink(f"/proc/self/fd/{path}") if path > 2 else ""
        else:
            found = os.fsdecode(path)
            if not found.startswith("/"):
                start = posix.getcwd() if dir_fd is None else posix.readlink(f"/proc/self/fd/{dir_fd}")
                found = os.path.join(start, found)
        found = os.path.normpath(found) if found else ""
        return found if found == self.root or found.startswith(self.root + "/") else ""

    def of_path(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if found := self.below(path, kwargs.get("dir_fd")):
                self.step(kind, found)
            return real(path, *args, **kwargs)

        return call

    def of_two(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **kwargs: Any) -> Any:
            if found := self.below(target, kwargs.get("dst_dir_fd")):
                self.step(kind, found)
            return real(source, target, **kwargs)

        return call

    def listdir(self, path: Any = ".") -> list[Any]:
        found = self.below(path)
        stale = self.step("list", found) if found else False
        names = self.before[os, "listdir"](path)
        return [name for name in names if name != newest(found, names)] if stale else names

    def scandir(self, path: Any = ".") -> Any:
        found = self.below(path)
        stale = self.step("list", found) if found else False
        entries = self.before[os, "scandir"](path)
        return Entries(entries, found) if stale else entries

    def open_fd(self, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if found := self.below(path, kwargs.get("dir_fd")):
            self.step("open to write" if flags & (os.O_WRONLY | os.O_RDWR) else "open", found)
        return self.before[os, "open"](path, flags, *args, **kwargs)

    def write_fd(self, fd: int, data: bytes) -> int:
        real = self.before[os, "write"]
        if (found := self.below(fd)) and self.step("write", found):
            count = real(fd, data[: max(1, len(data) // 2)])
            if self.fault == KILL:
                self.die()
            return count
        return real(fd, data)

    def open_file(self, path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        real = self.before[io, "open"]
        found = "" if isinstance(path, int) else self.below(path)
        if not found:
            return real(path, mode, *args, **kwargs)
        writes = bool(set(mode) & set("wax+"))
        self.step("open to write" if writes else "open", found)
        file = real(path, mode, *args, **kwargs)
        self.watch(file, found, writes)
        return file

    def watch(self, file: Any, path: str, writes: bool) -> None:
        """Have the operations of an open file counted too."""
        real_write, real_close, real_read = getattr(file, "write", None), file.close, file.read

        def write(data: Any) -> int:
            assert real_write
            if self.step("write", path):
                real_write(data[: len(data) // 2])
                file.flush()
                if self.fault == KILL:
                    self.die()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # buffers write the rest, and meet this
            return real_write(data)

        def close() -> None:
            if not file.closed:
                try:
                    self.step("close", path)
                except OSError:
                    real_close()
                    raise
                real_close()

        def read(*args: Any) -> Any:
            self.step("read", path)
            return real_read(*args)

        if writes:
            file.write, file.close = write, close
        else:
            file.read = read

    def __enter__(self) -> "Disk":
        ours: dict[tuple[Any, str], Any] = {
            (os, "listdir"): self.listdir, (os, "scandir"): self.scandir, (os, "open"): self.open_fd,
            (os, "write"): self.write_fd, (io, "open"): self.open_file, (builtins, "open"): self.open_file,
        }  # fmt: skip
        one = {
            "stat": "stat",
            "lstat": "stat",
            "mkdir": "mkdir",
            "rmdir": "rmdir",
            "unlink": "unlink",
            "remove": "unlink",
        }
        one |= {"utime": "utime", "chmod": "chmod", "truncate": "truncate", "fsync": "fsync", "fdatasync": "fsync"}
        for name, kind in one.items():
            ours[os, name] = self.of_path(kind, getattr(os, name))
        for name, kind in {"rename": "rename", "replace": "rename", "link": "link", "symlink": "link"}.items():
            ours[os, name] = self.of_two(kind, getattr(os, name))
        for (owner, name), call in ours.items():
            self.before[owner, name] = getattr(owner, name)
            setattr(owner, name, call)
        return self

    def __exit__(self, *_: object) -> None:
        for (owner, name), call in self.before.items():
            setattr(owner, name, call)


def newest(directory: str, names: list[str]) -> str:
    """The entry that was changed last; empty where there is none."""
    return max(names, key=lambda name: posix.stat(os.path.join(directory, name)).st_mtime_ns, default="")


class Entries:
    """A listing by `os.scandir` that lacks the newest entry."""

    def __init__(self, entries: Any, directory: str):
        found = list(entries)
        entries.close()
        lost = newest(directory, [os.fsdecode(entry.name) for entry in found])
        self.left = iter([entry for entry in found if os.fsdecode(entry.name) != lost])

    def __iter__(self) -> Iterator[Any]:
        return self.left

    def __next__(self) -> Any:
        return next(self.left)

    def __enter__(self) -> "Entries":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass
