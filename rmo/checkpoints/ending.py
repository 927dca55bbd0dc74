"""Where texts end: the ids that end a response, and the token at which a classifier's score is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rmo.checkpoints import notes, weight_files
from rmo.checkpoints.tokenizers import eos_of
from rmo.checkpoints.weight_files import CheckpointError
from rmo.runtime.types import Json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def is_id(value: Json) -> bool:
    """Whether it is an integer that a tokenizer takes; those below 0 stand for none."""
    return isinstance(value, int) and not isinstance(value, bool) and value < 2**31


def ids_in(path: Path, value: Json) -> list[int]:
    """The ids of eos_token_id, one or several; those below 0, which some configs have, are none.

    Raises:
      CheckpointError: they are no ids.
    """
    given = value if isinstance(value, list) else [] if value is None else [value]
    if not all(is_id(i) for i in given):
        raise CheckpointError(f"{path}: eos_token_id is {value!r}, no ids of tokens")
    return [i for i in given if i >= 0]


def response_ends(places: list[Path], tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids that end a response: those of generation_config.json, or else of config.json, and the tokenizer's eos.

    transformers stops at the former, vLLM at both; text that follows any of them is no part of a response.

    Args:
      places: directories that may have these files, the first that names an id counts.
    """
    found: list[int] = []
    for name in ("generation_config.json", "config.json"):
        for path in (place / name for place in places):
            if not found and path.is_file():
                found = ids_in(path, weight_files.read_object(path).get("eos_token_id"))
    own = eos_of(tokenizer)
    ids: set[int] = {*found, *([] if own is None else [own])}
    out = tuple(sorted(ids))
    if len(out) > 1:
        spelled = ", ".join(f"{tokenizer.convert_ids_to_tokens(i)} ({i})" for i in out)
        notes.say(f"{places[0] if places else 'the tokenizer'}: a response ends at any of {spelled}")
    return out


def pad_id(places: list[Path], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that transformers takes for padding when it looks for the last token of a text: config.json's, or that of
    the tokenizer, or, where neither has one, eos, which people then make their pad.

    Raises:
      CheckpointError: config.json's is no id.
    """
    for path in (place / "config.json" for place in places):
        if path.is_file():
            found = weight_files.read_object(path).get("pad_token_id")
            if found is not None and not is_id(found):
                raise CheckpointError(f"{path}: pad_token_id is {found!r}, no id of a token")
            if found is not None and found >= 0:
                return found
    own = tokenizer.pad_token_id
    return own if isinstance(own, int) else eos_of(tokenizer)


def before_pad(ids: list[int], pad: int | None) -> list[int]:
    """A text up to its last token that is not `pad`, where transformers' classifiers read a score; whatever comes after
    cannot change it. Of nothing but pad the first is kept, as there."""
    end = len(ids)
    while end > 1 and ids[end - 1] == pad:
        end -= 1
    return ids[:end]
