"""From text to arrays and back with any tokenizer, and JSONL streamed through a model in order.

Padding is by lengths, never by a token's id: pad may equal eos or be missing, and nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmo import config
from rmo.checkpoints.tokenizers import eos_of
from rmo.runtime.files import Json, Row, RunError
from rmo.worlds import containers, dialogue, templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


BPE = "bpe:"  # world.tokenizer: one of so many tokens, trained on the run's own texts
BYTES = 259  # tokens that such a one has at least: pad, bos, eos and every byte


class TextError(RunError):
    """What is wrong with a file of texts, and on which line."""


def bucket(length: int) -> int:
    """The next of 16, 24, 32, 48, 64, 96, ...: few shapes, so few compilations, at most a third of it padding."""
    size = 16
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def pad(ids: list[list[int]], length: int, left: bool) -> tuple[np.ndarray, np.ndarray]:
    """(tokens i32, mask bool) [B, length]; 0 stands where nothing is."""
    tokens, mask = np.zeros((len(ids), length), np.int32), np.zeros((len(ids), length), bool)
    for row, one in enumerate(ids):
        where = slice(length - len(one), length) if left else slice(0, len(one))
        tokens[row, where], mask[row, where] = one, True
    return tokens, mask


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Tells vocabularies apart: ids of one must never be read with another."""
    return config.digest(sorted(tokenizer.get_vocab().items()))


def extends(tokenizer: PreTrainedTokenizerBase, base: PreTrainedTokenizerBase) -> bool:
    """Whether every token of `base` has the same id in `tokenizer`, which may have more."""
    ids = tokenizer.get_vocab()
    return all(ids.get(token) == i for token, i in base.get_vocab().items())


def encode(
    tokenizer: PreTrainedTokenizerBase,
    row: Row,
    line: str,
    vocab: int,
    vocabulary: str,
    chat: bool = False,
    answer: bool = True,
) -> list[int]:
    """Token ids of one row: `messages`, `prompt` and `response`, or `text`.

    With `chat` the tokenizer's template makes the dialogue of a prompt (or of messages), with a turn left open where no
    `answer` is wanted. Without it prompt and response are tokenised apart, as a policy met them, and eos ends the
    response unless the row's `ended` is false. A row that `rmo sample` wrote with the same vocabulary holds the
    response's ids (`tokens`): they are taken as they are.

    Args:
      line: where the row is, for messages.
      vocab: how many tokens the model has.
      vocabulary: the tokenizer's `fingerprint`.

    Raises:
      TextError: the row has none of these, the tokenizer has no template, or the model has no such token.
    """
    for name in ("text", "response"):
        if not isinstance(row.get(name, ""), str):
            raise TextError(f"{line}: {name} is {row[name]!r}, not a string")
    prompt = row.get("prompt")
    talk = row["messages"] if row.get("messages") is not None else prompt
    if row.get("messages") is not None or (talk is not None and not isinstance(talk, str)):
        ids = encode_dialogue(tokenizer, with_response(dialogue_in(talk, line), row, answer), line, answer)
        return known(ids, line, vocab)
    if "prompt" in row and not isinstance(prompt, str):
        raise TextError(f"{line}: prompt is {prompt!r}, not a string")
    if "prompt" in row and chat:
        ids = encode_dialogue(tokenizer, with_response(dialogue_in(prompt, line), row, answer), line, answer)
    elif "prompt" in row:
        ids = encode_pair(tokenizer, row, vocabulary, answer)
    elif "text" in row:
        ids = plain_ids(tokenizer, row["text"], special=True)
    else:
        raise TextError(f"{line} has {', '.join(row) or 'nothing'}: it needs text, prompt and response, or messages")
    return known(ids, line, vocab)


def known(ids: list[int], line: str, vocab: int) -> list[int]:
    """The same ids; TextError where one is no token of a model with `vocab`."""
    if ids and max(ids) >= vocab:
        raise TextError(f"{line}: token {max(ids)}, but the model has {vocab}: is the tokenizer another model's?")
    return ids


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str, special: bool) -> list[int]:
    """Ids of a text; with `special` those that the tokenizer puts around a text too."""
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


def open_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text that goes on: with what the tokenizer puts before texts, but not what it puts behind them (an eos
    between prompt and response)."""
    probe, inside = (plain_ids(tokenizer, "a", special) for special in (True, False))
    before = next((k for k in range(len(probe)) if inside and probe[k : k + len(inside)] == inside), len(probe))
    behind = max(len(probe) - len(inside) - before, 0)
    ids = plain_ids(tokenizer, text, special=True)
    return ids[: len(ids) - behind]


def dialogue_in(value: Json, line: str) -> dialogue.Dialogue:
    """A prompt, or messages, as a dialogue.

    Raises:
      TextError: it is none.
    """
    try:
        if isinstance(value, str) and not dialogue.is_dialogue(value):
            return dialogue.as_messages(value)
        if isinstance(value, tuple):
            return value
        return dialogue.dialogue_of(value, "messages")
    except dialogue.Malformed as error:
        raise TextError(f"{line}: {error}") from error


def with_response(messages: dialogue.Dialogue, row: Row, answer: bool) -> dialogue.Dialogue:
    """A dialogue and, where an answer is wanted, the response in a row behind it."""
    if not answer or "response" not in row:
        return messages
    return (*messages, dialogue.Message("assistant", row["response"]))


def encode_dialogue(
    tokenizer: PreTrainedTokenizerBase, messages: dialogue.Dialogue, line: str, answer: bool
) -> list[int]:
    """Ids of a dialogue through the tokenizer's chat template, which writes special tokens itself."""
    try:
        text = templates.render(tokenizer, messages, answer)
    except templates.TemplateError as error:
        raise TextError(f"{line}: {error}") from error
    return plain_ids(tokenizer, text, special=False)


def encode_pair(tokenizer: PreTrainedTokenizerBase, row: Row, vocabulary: str, answer: bool) -> list[int]:
    """Ids of a prompt and, where an answer is wanted, of its response, as a policy met and wrote them."""
    ids = open_ids(tokenizer, row["prompt"])
    if not answer or "response" not in row:
        return ids
    if "tokens" in row and row.get("vocabulary") == vocabulary:
        return ids + [int(i) for i in row["tokens"]]
    response, eos = plain_ids(tokenizer, row["response"], special=False), eos_of(tokenizer)
    if eos is None or response[-1:] == [eos] or not row.get("ended", True):
        return ids + response
    return [*ids, *response, eos]


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """(where, row) of a source's rows, none of which may be malformed.

    Raises:
      TextError: a line is no JSON object; says which.
    """
    for where, row in containers.read(path):
        if isinstance(row, dialogue.Malformed):
            raise TextError(f"{where}: {row}")
        yield where, row
