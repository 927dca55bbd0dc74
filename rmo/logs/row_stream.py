"""Rows of a file through a model, in the order of the file, resumable: what `rmo score` and `rmo sample` share."""

import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rmo import config
from rmo.runtime.types import Json, Row
from rmo.tracking.progress import Progress
from rmo.worlds.tokenization import TextError, bucket, read_rows


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
