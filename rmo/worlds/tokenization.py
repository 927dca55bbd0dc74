"""From text to arrays and back with any tokenizer, and JSONL streamed through a model in order.

Padding is by lengths, never by a token's id: pad may equal eos or be missing, and nothing changes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rmo import config
from rmo.checkpoints.tokenizers import eos_of
from rmo.runtime.files import Json, Row, RunError
from rmo.tracking.progress import Progress
from rmo.worlds import sources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    for name in ("text", "prompt", "response"):
        if not isinstance(row.get(name, ""), str):
            raise TextError(f"{line}: {name} is {row[name]!r}, not a string")
    if row.get("messages") is not None:
        ids = encode_dialogue(tokenizer, row["messages"], line, answer)
    elif "prompt" in row and chat:
        ids = encode_dialogue(tokenizer, as_messages(row, answer), line, answer)
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


def as_messages(row: Row, answer: bool) -> list[Row]:
    """A prompt, and its response where an answer is wanted, as a dialogue."""
    out = [{"role": "user", "content": row["prompt"]}]
    if answer and "response" in row:
        out.append({"role": "assistant", "content": row["response"]})
    return out


def encode_dialogue(tokenizer: PreTrainedTokenizerBase, messages: list[Row], line: str, answer: bool) -> list[int]:
    """Ids of a dialogue through the tokenizer's chat template, which writes special tokens itself."""
    if not getattr(tokenizer, "chat_template", None):
        raise TextError(f"{line}: a dialogue, but the tokenizer has no chat template: give prompt and response")
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answer)
    except Exception as error:
        raise TextError(f"{line}: the chat template refuses the messages: {error}") from error
    return plain_ids(tokenizer, str(text), special=False)


def encode_pair(tokenizer: PreTrainedTokenizerBase, row: Row, vocabulary: str, answer: bool) -> list[int]:
    """Ids of a prompt and, where an answer is wanted, of its response, as a policy met and wrote them."""
    ids = plain_ids(tokenizer, row["prompt"], special=True)
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
    for where, row in sources.read(path):
        if isinstance(row, sources.Malformed):
            raise TextError(f"{where}: {row}")
        yield where, row


class Item(NamedTuple):
    """One row of a file on its way through a model."""

    number: int  # of the row in its file, from 0
    row: Row
    ids: list[int]


def item_of(number: int, where: str, row: Row, encode_row: Callable[[str, Row], list[int]], limit: int) -> Item:
    """A row with its ids; TextError where it has none, or too many."""
    item = Item(number, row, encode_row(where, row))
    if not 0 < len(item.ids) <= limit:
        raise TextError(f"{where} has {len(item.ids)} tokens: 1 to {limit} are possible")
    return item


def stream(
    path: Path,
    out: Path,
    key: Json,
    encode_row: Callable[[str, Row], list[int]],
    work: Callable[[list[Item], int], list[list[Row]]],
    batch: int,
    limit: int,
    batches: int = 32,
) -> int:
    """Send every row of a JSONL file through a model and write what comes back, in the order of the file.

    Rows are looked at `batches * batch` at a time, sorted by length and worked on in batches of one padded length, so
    that memory stays bounded and little is padding. `out` appears when all is done; until then a `.part` file holds
    what is, and the same command goes on behind it, with the same results.

    Args:
      key: whatever the results depend on besides the file: another key never continues this one's part.
      work: (items, padded length) -> the output rows of each; always `batch` items, the last ones copies.
      limit: longest sequence that the model takes.

    Returns the number of rows. Raises TextError where a row is no JSON object or has too many tokens.
    """
    total = sum(1 for _ in read_rows(path))  # a bad line is found before the work, not after an hour of it
    window, stat = batches * batch, path.stat()
    part = out.with_name(f".{out.name}.{config.digest(key, batch, str(path), stat.st_size, stat.st_mtime_ns)}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    done = resume(part, window)
    rows = islice(enumerate(read_rows(path)), done, None)
    bar = Progress(path.name, total, "row", done)
    with open(part, "a", encoding="utf-8") as file:
        while some := list(islice(rows, window)):
            items = [item_of(number, where, row, encode_row, limit) for number, (where, row) in some]
            results: dict[int, list[Row]] = {}
            by_length = sorted(items, key=lambda item: len(item.ids))
            for start in range(0, len(items), batch):
                group = by_length[start : start + batch]
                length = min(bucket(max(len(item.ids) for item in group)), limit)
                made = work(group + group[-1:] * (batch - len(group)), length)
                results |= {item.number: lines for item, lines in zip(group, made, strict=False)}
                bar.to(bar.n + len(group))
            for item in items:
                for line in results[item.number]:
                    file.write(json.dumps({**item.row, **line, "row": item.number}, ensure_ascii=False) + "\n")
            file.flush()
    bar.close()
    os.replace(part, out)
    return total


def resume(part: Path, window: int) -> int:
    """How many input rows a part file holds, in whole windows, so that batches are what they would have been; what
    follows them is cut off."""
    if not part.exists():
        return 0
    kept: list[tuple[int, bytes]] = []
    for line in part.read_bytes().splitlines(keepends=True):
        try:
            kept.append((int(json.loads(line)["row"]), line))
        except (ValueError, KeyError):
            break
    # The last row that is begun may be one of several of its input: it counts as not done.
    done = kept[-1][0] // window * window if kept else 0
    cut = part.with_name(part.name + ".cut")
    cut.write_bytes(b"".join(line for number, line in kept if number < done))
    os.replace(cut, part)
    return done
