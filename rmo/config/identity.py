"""What tells two configs apart: the digest that ends the name of a stage's directory.

A field is in the digest only where it differs from its default, so a new field whose default does what was done before
renames no stage. Two kinds of field need a mark, which says so where the field is declared:

    chunk: int = memory(1024)                 changes memory, speed or rounding alone: in no digest
    lr: float = changed(2e-3, old=1e-3)       its default is not what stages without this field were made with

Rounding is what another order of the same sums changes. `Model.dtype` is not marked: bfloat16 keeps 8 bits of each
activation where float32 keeps 24, and that is another model.

Names of classes and of fields are in the digest: `World` and `Text` may hold equal values and mean different things. So
renaming one renames the stages that say it, and they are made again. That costs time but mixes nothing up, and a name
that changes often goes with a meaning that does.
"""

import dataclasses
import hashlib
import json
from typing import TypeVar

T = TypeVar("T")
MEMORY, OLD = "memory", "old"  # keys of a field's metadata


def memory(default: T) -> T:
    """Declares a field that changes memory, speed or rounding and no other number: it is left out of every digest."""
    return dataclasses.field(default=default, metadata={MEMORY: True})


def changed(default: T, old: T) -> T:
    """Declares a field whose default has become another, or a new field whose default does not do what was done before.

    It is left out of the digest where it is `old`, as of stages that know nothing of the change, and not where it is
    `default`: those stages are other ones.
    """
    return dataclasses.field(default=default, metadata={OLD: old})


def digest(*parts: object) -> str:
    """10 hex digits of any nesting of dataclasses, tuples, lists, dicts, numbers, strings and None.

    Of dataclasses only what differs from the default counts, without the fields that are marked with `memory`.

    Raises:
      TypeError: a part holds something else.
    """
    text = json.dumps([content(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def content(value: object) -> object:
    """What a digest says of a value, as JSON: a dataclass is the name of its class, under "", and fields that count."""
    if isinstance(value, list | tuple):
        return [content(item) for item in value]
    if isinstance(value, dict):
        return {name: content(item) for name, item in value.items()}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    out: dict[str, object] = {"": type(value).__name__}
    for field in dataclasses.fields(value):
        said = content(getattr(value, field.name))
        # Contents are compared, not values: what differs from the default in memory fields alone is left out too.
        if MEMORY not in field.metadata and said != content(left_out_at(field)):
            out[field.name] = said
    return out


def left_out_at(field: dataclasses.Field) -> object:
    """The value at which a field is left out; of a field without a default a value that equals nothing."""
    if OLD in field.metadata:
        return field.metadata[OLD]
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
