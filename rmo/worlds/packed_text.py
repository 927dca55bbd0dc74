"""Bytes of files, unpacked, and their text, whatever encoding it is in; what is neither is named."""

from collections.abc import Callable, Iterator
from pathlib import Path

from rmo.runtime.files import Row, RunError
from rmo.worlds.dialogue import Malformed

JSON = (".jsonl", ".ndjson", ".json")
ARROW = (".arrow", ".feather")
PACKED = (".gz", ".zst", ".zstd", ".bz2", ".xz")
KNOWN = (*JSON, ".parquet", *ARROW)
Rows = Iterator[tuple[str, Row | Malformed]]


class SourceError(RunError):
    """What is wrong with a source and where, in one line."""


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
}


def unpacked_bytes(path: Path) -> bytes:
    """All bytes of a file, unpacked, whatever its name says.

    Raises:
      SourceError: it cannot be read or unpacked, or is an archive.
    """
    import bz2
    import gzip
    import lzma
    import zlib

    import pyarrow

    try:
        content = path.read_bytes()
        kind = next((name for magic, name in MAGIC.items() if content.startswith(magic)), None)
        if kind == "zstd":
            with pyarrow.input_stream(pyarrow.BufferReader(content), compression="zstd") as stream:
                return stream.read()
        if kind is not None:
            unpack: Callable[[bytes], bytes] = {"gzip": gzip.decompress, "bz2": bz2.decompress, "xz": lzma.decompress}[
                kind
            ]
            return unpack(content)
    except (OSError, EOFError, ValueError, lzma.LZMAError, pyarrow.ArrowException, zlib.error) as error:
        raise SourceError(f"{path} cannot be read, or is not whole: {one_line(error)}") from error
    for magic, what in OTHERS.items():
        if content.startswith(magic):
            raise SourceError(f"{path} is {what}")
    if content.startswith(b"version https://git-lfs"):
        raise SourceError(f"{path} is a pointer of git-lfs, not the file: run `git lfs pull`")
    return content


def decoded(content: bytes, path: Path) -> str:
    """A file's text: UTF-8, or UTF-16 or UTF-32 by its byte-order mark or its zeros.

    Raises:
      SourceError: it is none of these; says where, and what it may be.
    """
    if content.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        name = "utf-32"
    elif content.startswith((b"\xff\xfe", b"\xfe\xff")):
        name = "utf-16"
    elif content[:2].count(0) == 1 and len(content) % 2 == 0:
        name = "utf-16-be" if content[0] == 0 else "utf-16-le"
    else:
        name = "utf-8-sig"
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
