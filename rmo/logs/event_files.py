"""TensorBoard's event files: records of scalars by tag and step.

Sources: TensorFlow's `core/lib/io/record_writer`, `core/util/event.proto`, `core/framework/{summary,tensor}.proto`.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from rmo.logs.protobuf import WireError, fields, floats, parts, text, whole
from rmo.logs.rows import Loaded, LogError
from rmo.runtime.types import Row

EVENT_STEP, EVENT_SUMMARY, SUMMARY_VALUE = 2, 5, 1
TAG, SIMPLE_VALUE, TENSOR = 1, 2, 8
DTYPE, CONTENT, FLOATS, DOUBLES = 1, 4, 5, 6
FLOAT32, FLOAT64 = 1, 2
LARGEST = 1 << 28  # bytes of a record; a longer one is damage


def is_events(path: Path) -> bool:
    return "tfevents" in path.name


def load_events(path: Path) -> Loaded:
    """(a row per step with all its tags, notes) of an event file. What follows damage or a cut is left out.

    Raises:
      LogError: it holds no scalar.
    """
    rows: dict[int, Row] = {}
    data = path.read_bytes()
    notes = []
    read = 0
    try:
        for start, event in records(data):
            step = whole(event, EVENT_STEP)
            for summary in parts(event, EVENT_SUMMARY):
                for value in parts(summary, SUMMARY_VALUE):
                    found = scalar(value)
                    if found is not None:
                        rows.setdefault(step, {"step": step})[text(value, TAG)] = found
            read = start
    except WireError:
        notes.append(f"{len(data) - read} bytes from byte {read} on are damaged: they are left out")
    if not rows:
        raise LogError(f"{path} holds no scalars of TensorBoard's: give the directory of the run, or its log as JSONL")
    return Loaded([rows[step] for step in sorted(rows)], notes)


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(where the next one starts, its bytes) of the records of a TFRecord file.

    Raises:
      WireError: a record's length is damaged; one that is cut off at the end is left out.
    """
    at = 0
    while at + 12 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        if size > LARGEST or masked_crc(data[at : at + 8]) != struct.unpack_from("<I", data, at + 8)[0]:
            raise WireError("a record's length is damaged")
        end = at + 12 + size + 4
        if end > len(data):
            return
        yield end, data[at + 12 : end - 4]
        at = end


def scalar(value: bytes) -> float | None:
    """The number of one value of a summary; None if it is a picture, a histogram or a text."""
    found = None
    for name, part in fields(value):
        if name == SIMPLE_VALUE and isinstance(part, bytes):
            found = floats(part, 4)[0]
        elif name == TENSOR and isinstance(part, bytes):
            found = only_number(part)
    return found


def only_number(tensor: bytes) -> float | None:
    """The number of a tensor that holds just one."""
    dtype = whole(tensor, DTYPE)
    numbers: list[float] = []
    for name, part in fields(tensor):
        if not isinstance(part, bytes):
            continue
        if name == FLOATS or (name == CONTENT and dtype == FLOAT32):
            numbers += floats(part, 4)
        elif name == DOUBLES or (name == CONTENT and dtype == FLOAT64):
            numbers += floats(part, 8)
    return numbers[0] if len(numbers) == 1 else None


def crc_table() -> list[int]:
    """Of CRC-32C, byte by byte."""
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC = crc_table()


def masked_crc(data: bytes) -> int:
    """TensorFlow's masked CRC-32C."""
    value = 0xFFFFFFFF
    for byte in data:
        value = CRC[(value ^ byte) & 0xFF] ^ (value >> 8)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
