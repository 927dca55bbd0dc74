"""Messages of protocol buffers, field by field: enough to read a log without the library that wrote it.

Source: the wire format, https://protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator

Field = tuple[int, int | bytes]  # (its number, a varint or the bytes of anything else)


class WireError(ValueError):
    """A message that ends early or is none."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends) of the varint at a place."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError("a number ends early")


def fields(data: bytes) -> Iterator[Field]:
    """The fields of a message, in order.

    Raises:
      WireError: it ends early, or has a field of no known type.
    """
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise WireError("a field of no known type")
        if at + size > len(data):
            raise WireError("a field ends early")
        yield tag >> 3, data[at : at + size]
        at += size


def parts(data: bytes, number: int) -> Iterator[bytes]:
    """The bytes of every field of one number."""
    for found, value in fields(data):
        if found == number and isinstance(value, bytes):
            yield value


def text(data: bytes, number: int) -> str:
    """The last text of one number, or an empty one."""
    found = ""
    for part in parts(data, number):
        found = part.decode("utf-8", errors="replace")
    return found


def whole(data: bytes, number: int) -> int:
    """The last signed number of one number, or 0."""
    found = 0
    for name, value in fields(data):
        if name == number and isinstance(value, int):
            found = value - (1 << 64) if value >= 1 << 63 else value
    return found


def floats(data: bytes, size: int) -> list[float]:
    """Packed little-endian floats of 4 or 8 bytes."""
    usable = len(data) // size * size
    return list(struct.unpack(f"<{usable // size}{'f' if size == 4 else 'd'}", data[:usable]))
