"""Bytes of files, unpacked, and their text, whatever encoding it is in; what is neither is named."""

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO

from rmo.runtime.files import Json, Row, RunError
from rmo.worlds.dialogue import Malformed

JSON = (".jsonl", ".ndjson", ".json")
ARROW = (".arrow", ".feather")
PACKED = (".gz", ".zst", ".zstd", ".bz2", ".xz")
KNOWN = (*JSON, ".parquet", *ARROW)
Rows = Iterator[tuple[str, Row | Malformed]]


class SourceError(RunError):
    """What is wrong with a source and where, in one line."""

    def __init__(self, why: str) -> None:
        super().__init__(" ".join(why.splitlines()))


def one_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def suffix_of(path: Path) -> str:
    """The suffix that says what a file holds, without that of its packing."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in PACKED else path.suffix.lower()


MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
OTHERS = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"PAR1": "a Parquet file: call it .parquet",
    b"ARROW1": "an Arrow file: call it .arrow",
    b"version https://git-lfs": "a pointer of git-lfs, not the file: run `git lfs pull`",
}


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked, whatever its name says.

    Raises:
      SourceError: it cannot be read or unpacked, also while it is read; or it is an archive.
    """
    import pyarrow

    try:
        with open(path, "rb") as file:
            start = file.read(24)
        kind = next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)
        if kind is None:
            if what := next((what for magic, what in OTHERS.items() if start.startswith(magic)), None):
                raise SourceError(f"{path} is {what}")
            with open(path, "rb") as file:
                yield file
        elif kind == "zstd":
            opened: Json = pyarrow.input_stream(str(path), compression="zstd")
            with opened as stream:
                yield stream
        else:
            opener: Json = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[kind]
            with opener(path, "rb") as file:
                yield file
    except (OSError, EOFError, lzma.LZMAError, zlib.error, pyarrow.ArrowException) as error:
        raise SourceError(f"{path} cannot be read, or is not whole: {one_line(error)}") from error


def unpacked_bytes(path: Path) -> bytes:
    """All bytes of a file; see `unpacked`."""
    with unpacked(path) as file:
        return file.read()


def encoding_of(start: bytes) -> str:
    """The encoding of a JSON text by its first bytes: a byte-order mark, or zeros beside ASCII."""
    if start.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "utf-32"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if len(start) > 1 and start[:2].count(0) == 1:
        return "utf-16-be" if start[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def text_lines(path: Path) -> Generator[str, None, None]:
    """The lines of a file, one in memory at a time; only `\\n` ends a line.

    Raises:
      SourceError: it cannot be read, or is no text; see `decoded`.
    """
    with unpacked(path) as file:
        start = file.read(4)
    try:
        with unpacked(path) as file, io.TextIOWrapper(file, encoding_of(start), newline="\n") as text:
            yield from text
    except UnicodeDecodeError:
        decoded(unpacked_bytes(path), path)
        raise


def decoded(content: bytes, path: Path) -> str:
    """A file's text: UTF-8, or UTF-16 or UTF-32 by its byte-order mark or its zeros.

    Raises:
      SourceError: it is none of these; says where, and what it may be.
    """
    name = encoding_of(content)
    try:
        return content.decode(name)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        where = f"{path} line {line}: byte {content[error.start]:#04x} is no {name.removesuffix('-sig').upper()}"
        if name != "utf-8-sig":
            raise SourceError(f"{where}; the file may be cut off") from error
        windows = any(0x80 <= byte < 0xA0 for byte in set(content))
        likely = "WINDOWS-1252" if windows else "LATIN1"
        raise SourceError(f"{where}; if it is {likely}, write it as UTF-8: iconv -f {likely} -t UTF-8") from error
