"""wandb's own files: the transaction log of a run (`run-ID.wandb`, what is kept offline) and exported histories.

Sources: wandb's `core/internal/transactionlog` (LevelDB's log format behind a header of seven bytes),
`wandb/proto/wandb_internal.proto`.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from rmo.logs.protobuf import WireError, parts, text, whole
from rmo.logs.rows import Loaded, LogError, Rows, flatten
from rmo.runtime.types import Json, Row

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
HISTORY, CONFIG, RUN = 2, 5, 17  # of a record
ITEM, STEP, NUMBER = 1, 2, 1  # of a history
UPDATE, RUN_CONFIG = 1, 4
KEY, NESTED, JSON = 1, 2, 16  # of an item


def load_wandb(path: Path) -> Loaded:
    """(rows of the history, notes) of a run's transaction log, with the sampling temperature of its config.

    Raises:
      LogError: it is none, or holds no history.
    """
    data = path.read_bytes()
    if data[:4] != b":W&B":
        raise LogError(f"{path} is no log of a wandb run: it does not begin with :W&B")
    rows: Rows = []
    config: Row = {}
    notes = []
    try:
        for record in log_records(data):
            for history in parts(record, HISTORY):
                rows.append(history_row(history))
            for run in parts(record, RUN):
                for found in parts(run, RUN_CONFIG):
                    config |= items(found, UPDATE)
            for found in parts(record, CONFIG):
                config |= items(found, UPDATE)
    except WireError:
        notes.append(f"it is damaged after {len(rows)} rows: the rest is left out")
    if not rows:
        raise LogError(f"{path} holds no history: the run logged nothing, or its file was cut off")
    fixed = {f"config/{name}": value for name, value in flatten(config).items() if name.endswith("temperature")}
    return Loaded([{**fixed, **row} for row in rows], notes)


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format, whole ones only.

    Raises:
      WireError: a part of a record has no known type or is longer than its block.
    """
    at, parts_so_far = HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        if kind == 0 and size == 0:  # padding
            at += left
            continue
        if kind not in (FULL, FIRST, MIDDLE, LAST) or size > left - HEADER:
            raise WireError("a record of no known type")
        part = data[at + HEADER : at + HEADER + size]
        if len(part) < size:
            return
        at += HEADER + size
        parts_so_far = part if kind in (FULL, FIRST) else parts_so_far + part
        if kind in (FULL, LAST):
            yield parts_so_far


def history_row(history: bytes) -> Row:
    """One row of the history, with wandb's step."""
    row = items(history, ITEM)
    for step in parts(history, STEP):
        row.setdefault("_step", whole(step, NUMBER))
    return row


def items(data: bytes, number: int) -> dict[str, Json]:
    """{name: value} of the items of a message; nested names are joined by /."""
    found = {}
    for item in parts(data, number):
        nested = [part.decode("utf-8", errors="replace") for part in parts(item, NESTED)]
        try:
            value = json.loads(text(item, JSON))
        except ValueError:
            continue
        found["/".join(nested) or text(item, KEY)] = value
    return flatten(found)


def load_parquet(path: Path) -> Rows:
    """Rows of a Parquet file, such as a `history` that wandb exports; columns of lists and texts longer than a name are
    left out.

    Raises:
      LogError: it is no Parquet.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise LogError(f"{path} is no Parquet, or damaged: {str(error).splitlines()[0]}") from error
    columns: dict[str, list[Json]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if number_like(kind) or pyarrow.types.is_struct(kind) or pyarrow.types.is_dictionary(kind):
            columns[name] = column.to_pylist()
    rows = []
    for k in range(table.num_rows):
        row = {name: values[k] for name, values in columns.items() if values[k] is not None}
        rows.append(flatten(row))
    return rows


def number_like(kind: object) -> bool:
    """Whether a column's type holds numbers or short texts."""
    import pyarrow.types as types

    tests = (types.is_floating, types.is_integer, types.is_string, types.is_large_string)
    return any(test(kind) for test in tests)
