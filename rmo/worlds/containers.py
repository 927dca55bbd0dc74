"""Rows of files, whatever they are kept in: JSON of many spellings, Parquet, Arrow, tfds, the hub, compressed or not.

What comes out is plain JSON values. What cannot be read is named in one line: a row as `Malformed`, a file as
`SourceError`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from rmo.runtime import errors
from rmo.runtime.types import Json
from rmo.worlds.dialogue import Malformed
from rmo.worlds.functions import FunctionError, function_of
from rmo.worlds.hub_files import fetch
from rmo.worlds.json_rows import read_json
from rmo.worlds.packed_text import ARROW, JSON, KNOWN, PACKED, Rows, one_line, suffix_of, unpacked_bytes
from rmo.worlds.packed_text import SourceError as SourceError
from rmo.worlds.plain_values import plain, plain_row


def read(source: str | Path) -> Rows:
    """(where, row) of every row of a file, a directory, `tfds:NAME/SPLIT`, `hub:OWNER/NAME[@REVISION]/FILES` or
    `python:MODULE:FUNCTION`; what is no JSON object comes as Malformed.

    Raises:
      SourceError: there is no such source, or it cannot be opened.
    """
    text, path = str(source), Path(source)
    if text.startswith("tfds:"):
        yield from read_tfds(text.removeprefix("tfds:"), None)
    elif text.startswith("hub:"):
        for file in fetch(text.removeprefix("hub:")):
            yield from read(file)
    elif text.startswith("python:"):
        yield from read_function(text.removeprefix("python:"))
    elif path.is_dir():
        yield from read_directory(path)
    elif not path.is_file():
        raise SourceError(
            f"{source}: no such file, directory, tfds:NAME/SPLIT, hub:OWNER/NAME/FILES or python:MODULE:FUNCTION"
            f"{errors.instead(path)}"
        )
    else:
        yield from read_file(path)


def read_file(path: Path) -> Rows:
    """Rows of one file, by its suffix.

    Raises:
      SourceError: another suffix, or the file is not what its suffix says.
    """
    suffix = suffix_of(path)
    if suffix in JSON:
        yield from read_json(path)
    elif suffix == ".parquet":
        yield from read_parquet(path)
    elif suffix in ARROW:
        yield from read_arrow(path)
    else:
        raise SourceError(
            f"{path}: use {', '.join(KNOWN)} (also with {', '.join(PACKED)} behind it), a directory of such files or "
            "one that datasets or tfds wrote, or tfds:NAME/SPLIT"
        )


# Functions.


def read_function(name: str) -> Rows:
    """Rows that a function `module:function` without arguments gives.

    Raises:
      SourceError: there is no such function, or it fails.
    """
    try:
        made = iter(function_of(name)())  # type: ignore[call-overload]
        for i, row in enumerate(made):
            where = f"python:{name} row {i + 1}"
            yield where, plain_row(row) if isinstance(row, dict) else Malformed(f"a {type(row).__name__}, no object")
    except FunctionError as error:
        raise SourceError(f"python:{name}: {error}") from error
    except Exception as error:
        raise SourceError(f"python:{name} fails: {type(error).__name__}: {one_line(error)}") from error


# Arrow and Parquet.


def read_parquet(path: Path) -> Rows:
    """Rows of a Parquet file.

    Raises:
      SourceError: it is none, or is packed.
    """
    import pyarrow
    import pyarrow.parquet

    if path.suffix.lower() != ".parquet":
        raise SourceError(f"{path}: Parquet packs itself; unpack it")
    try:
        yield from of_batches(path, pyarrow.parquet.ParquetFile(path).iter_batches())
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{path}: {one_line(error)}") from error


def read_arrow(path: Path) -> Rows:
    """Rows of an Arrow file, as a stream (what datasets writes) or with a footer (Feather).

    Raises:
      SourceError: it is neither.
    """
    import pyarrow
    import pyarrow.ipc

    try:
        content = unpacked_arrow(path)
        try:
            batches = pyarrow.ipc.open_stream(content)
        except pyarrow.ArrowInvalid:
            opened = pyarrow.ipc.open_file(content)
            batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
        yield from of_batches(path, iter(batches))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{path} is no whole Arrow file: {one_line(error)}") from error


def unpacked_arrow(path: Path) -> Json:
    import pyarrow

    return pyarrow.memory_map(str(path)) if path.suffix.lower() in ARROW else pyarrow.BufferReader(unpacked_bytes(path))


def of_batches(path: Path, batches: Iterator[Json]) -> Rows:
    """Rows of Arrow's record batches."""
    i = 0
    for batch in batches:
        names = batch.schema.names
        if len(set(names)) < len(names):
            raise SourceError(f"{path} has a column twice: {next(n for n in names if names.count(n) > 1)}")
        for row in batch.to_pylist():
            i += 1
            yield f"{path} row {i}", plain_row(row)


# Directories.


def read_directory(path: Path) -> Rows:
    """Rows of a directory: what `datasets.save_to_disk` or tfds wrote, or files of rows, in order of their names.

    Raises:
      SourceError: it is none of these, or not whole.
    """
    if (path / "dataset_dict.json").is_file():
        for split in listed_in(path / "dataset_dict.json", "splits"):
            yield from read_directory(path / str(split))
    elif (path / "state.json").is_file():
        yield from read_saved(path)
    elif (path / "features.json").is_file() or not (files := files_in(path)):
        yield from read_tfds(str(path), path)
    else:
        for file in files:
            yield from read_file(file)


def files_in(path: Path) -> list[Path]:
    """The files of rows in a directory, by name."""
    about = ("dataset_info.json", "dataset_infos.json", "state.json", "features.json", "metadata.json", "config.json")
    return sorted(f for f in path.iterdir() if f.is_file() and suffix_of(f) in KNOWN and f.name not in about)


def listed_in(path: Path, name: str) -> list[Json]:
    """A list in a small JSON file.

    Raises:
      SourceError: there is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(found, list) or not found:
        raise SourceError(f"{path} names no {name.strip('_').replace('_', ' ')}")
    return found


def read_saved(path: Path) -> Rows:
    """Rows of a directory that `datasets.save_to_disk` wrote.

    Raises:
      SourceError: a file is missing, or rows were chosen by an index that is kept apart.
    """
    state = path / "state.json"
    for one in listed_in(state, "_data_files"):
        file = path / str(one.get("filename") if isinstance(one, dict) else one)
        if not file.is_file():
            raise SourceError(f"{path}: {file.name} is missing")
        yield from read_arrow(file)
    kept = json.loads(state.read_text(encoding="utf-8"))
    if kept.get("_indices_data_files") or kept.get("_indices_files"):
        raise SourceError(f"{path}: its rows are chosen by an index; save it after flatten_indices()")


# tfds.


def read_tfds(name: str, directory: Path | None) -> Rows:
    """Rows of a dataset that tfds knows (NAME/SPLIT), or of a directory that it wrote (all splits)."""
    import tensorflow_datasets as tfds

    try:
        if directory is not None:
            builder: Json = tfds.builder_from_directory(str(directory))
            splits = sorted(builder.info.splits)
        else:
            name, _, split = name.rpartition("/")
            builder, splits = tfds.builder(name), [split]
        sources = [(split, builder.as_data_source(split=split)) for split in splits]
    except Exception as error:
        raise SourceError(f"{directory or 'tfds:' + name}: {unreadable(directory, error)}") from error
    for split, rows in sources:
        for i in range(len(rows)):
            where = f"{directory or name} {split} row {i + 1}"
            try:
                row = rows[i]
            except Exception as error:
                raise SourceError(f"{where}: {one_line(error)}") from error
            yield where, plain_row(of_features(row, builder.info.features))


def unreadable(directory: Path | None, error: Exception) -> str:
    """Why tfds cannot read a directory."""
    if directory is None or (directory / "features.json").is_file():
        return one_line(error)
    there = sorted(item.name for item in directory.iterdir())[:8]
    holds = f"it holds {', '.join(there)}" if there else "it is empty"
    return f"no rows: neither files of them ({', '.join(KNOWN)}) nor what datasets or tfds wrote; {holds}"


def of_features(value: Json, feature: Json) -> Json:
    """A value of tfds with its sequences of dicts, which tfds gives as a dict of sequences, as lists of dicts."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict) and isinstance(value, dict):
        return {name: of_features(item, feature[name]) for name, item in value.items()}
    if isinstance(feature, tfds.features.Sequence):
        inner = feature.feature
        if isinstance(inner, tfds.features.FeaturesDict) and isinstance(value, dict):
            names = list(value)
            rows = zip(*(list(value[n]) for n in names), strict=True)
            return [of_features(dict(zip(names, row, strict=True)), inner) for row in rows]
        return [of_features(item, inner) for item in value]
    return plain(value)
