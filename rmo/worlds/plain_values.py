"""What tables and tfds hold, as plain JSON values: texts, numbers, truth values, null, lists and objects."""

import datetime
import decimal

from rmo.runtime.types import Json, Row
from rmo.worlds.dialogue import Malformed


def plain_row(row: Row) -> Row | Malformed:
    """A row of plain values; Malformed where bytes are no text."""
    out = {}
    for name, value in row.items():
        try:
            out[str(name)] = plain(value)
        except UnicodeDecodeError:
            return Malformed(f"{name} holds bytes that are no UTF-8 text: leave the column out, or write it as text")
    return out


def plain(value: Json) -> Json:
    """A value without types of libraries: dates as ISO texts, decimals as numbers, bytes as the UTF-8 text they hold.

    Raises:
      UnicodeDecodeError: bytes that are no text.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8")
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() and value.is_finite() else float(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # an array, or a number of numpy
        return plain(value.tolist())
    return str(value)
