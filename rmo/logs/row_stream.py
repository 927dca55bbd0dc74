"""Rows of a file through a model, in the order of the file, resumable: what `rmo score` and `rmo sample` share."""

import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from rmo import config
from rmo.runtime.types import Json, Row
from rmo.tracking.progress import Progress, say
from rmo.worlds.tokenization import TextError, bucket, read_rows

T = TypeVar("T")
NUMBER = "row"  # the column of a row's number in its file, where it has none of that name


class Item(NamedTuple):
    """One text of a row on its way through a model."""

    number: int  # of the row in its file, from 0
    ids: list[int]


class Prepared(NamedTuple, Generic[T]):
    """A row as the model meets it."""

    texts: list[list[int]]  # ids of each
    lines: Callable[[list[T]], list[Row]]  # what the model made of each text -> the new columns of each output row
    columns: tuple[str, ...]  # their names


class Job(NamedTuple, Generic[T]):
    """What is done with rows."""

    key: Json  # whatever results depend on besides the file: another key never continues this one's part
    prepare: Callable[[str, Row], Prepared[T]]
    work: Callable[[list[Item], int], list[T]]  # (items, padded length): always `batch` items, the last ones copies
    batch: int
    limit: int  # longest text that the model takes
    batches: int = 32  # looked at at once
    instead: str = "give another name"  # what to do where rows have a column that would be written
    skip_long: bool = False  # leave out rows with a text that is longer
    replaces: tuple[str, ...] = ()  # columns of rows that may be written over
    looked: Callable[[], None] = lambda: None  # called when every row has been prepared once, before any work

    @property
    def window(self) -> int:
        """Rows that are looked at at once."""
        return self.batch * self.batches


def stream(path: Path, out: Path, job: Job[T]) -> int:
    """Send every row of a file through a model and write what comes back, in the order of the file.

    Every row is looked at before any work is done. Then rows are taken `job.window` at a time, sorted by length and
    worked on in batches of one padded length, so that memory stays bounded and little is padding. `out` appears when
    all is done; until then a `.part` file holds what is, and the same command goes on behind it, also where rows after
    it were mended.

    Returns the number of rows that went through.

    Raises:
      TextError: a row is no JSON object, cannot be used, has too many tokens, or has a column that would be written.
    """
    total, long = look(path, job)
    job.looked()
    part = out.with_name(f".{out.name}.{config.digest(job.key, job.batch, job.skip_long, str(path))}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    done = resume(part, path, job.window, job.replaces)
    rows = islice(enumerate(read_rows(path)), done, None)
    bar = Progress(path.name, total, "row", done)
    with open(part, "a", encoding="utf-8") as file:
        while some := list(islice(rows, job.window)):
            for number, row, lines in through(some, job):
                for line in lines:
                    whole = {**row, **line, **({} if NUMBER in row or NUMBER in line else {NUMBER: number})}
                    file.write(json.dumps([number, whole], ensure_ascii=False) + "\n")
                bar.to(bar.n + 1)
            file.flush()
    bar.close()
    finish(part, out)
    if long:
        say(f"rmo: {long:,} of {total:,} rows left out: they have more than {job.limit} tokens")
    return total - long


def look(path: Path, job: Job[T]) -> tuple[int, int]:
    """(rows, how many of them are too long and left out). What is wrong is found before the work, not after an hour of
    it.

    Raises:
      TextError: see `stream`.
    """
    total, long, first = 0, 0, ""
    for where, row in read_rows(path):
        total += 1
        found = job.prepare(where, row)
        if there := [name for name in found.columns if name in row and name not in job.replaces]:
            raise TextError(f"{where} has a column {there[0]} already, which would be written over: {job.instead}")
        most = max(map(len, found.texts))
        if min(map(len, found.texts)) == 0:
            raise TextError(f"{where} has 0 tokens: 1 to {job.limit} are possible")
        if most > job.limit:
            long, first = long + 1, first or f"{where} has {most} tokens: 1 to {job.limit} are possible"
    if not total:
        raise TextError(f"{path} has no rows")
    if long and not job.skip_long:
        advice = "shorten them, or leave them out (--skip-long)"
        raise TextError(f"{first}; {long:,} of {total:,} rows are too long: {advice}")
    if long == total:
        raise TextError(f"{first}; all {total:,} rows are too long")
    return total, long


def through(some: list[tuple[int, tuple[str, Row]]], job: Job[T]) -> Iterator[tuple[int, Row, list[Row]]]:
    """(number, row, new columns of each output row) of a window of rows, in their order."""
    window = [(number, row, job.prepare(where, row)) for number, (where, row) in some]
    kept = [one for one in window if max(map(len, one[2].texts)) <= job.limit]
    items = [Item(number, ids) for number, _, found in kept for ids in found.texts]
    by_length = sorted(range(len(items)), key=lambda i: len(items[i].ids))
    results: dict[int, T] = {}
    for start in range(0, len(items), job.batch):
        places = by_length[start : start + job.batch]
        group = [items[i] for i in places]
        length = min(bucket(max(len(item.ids) for item in group)), job.limit)
        made = job.work(group + group[-1:] * (job.batch - len(group)), length)
        results |= dict(zip(places, made, strict=False))
    begin = 0
    for number, row, found in kept:
        end = begin + len(found.texts)
        yield number, row, found.lines([results[i] for i in range(begin, end)])
        begin = end


def resume(part: Path, path: Path, window: int, replaced: tuple[str, ...] = ()) -> int:
    """How many input rows a part file holds, in whole windows, so that batches are what they would have been; what
    follows them, or was made of a row that is now another, is cut off."""
    if not part.exists():
        return 0
    kept: list[tuple[int, bytes]] = []
    rows = enumerate(read_rows(path))
    number, row = -1, {}
    for line in part.read_bytes().split(b"\n"):
        try:
            found, made = json.loads(line)
            while number < found:
                number, (_, row) = next(rows)
        except (ValueError, TypeError, StopIteration):
            break
        stays = [name for name in row if name not in replaced]
        if number != found or not isinstance(made, dict) or any(differ(made.get(n), row[n]) for n in stays):
            break
        kept.append((number, line + b"\n"))
    # The last row that is begun may be one of several lines of its input: it counts as not done.
    done = kept[-1][0] // window * window if kept else 0
    cut = part.with_name(part.name + ".cut")
    cut.write_bytes(b"".join(line for number, line in kept if number < done))
    os.replace(cut, part)
    return done


def differ(a: Json, b: Json) -> bool:
    """Whether two values are written differently; NaN equals itself here."""
    return json.dumps(a) != json.dumps(b)


def finish(part: Path, out: Path) -> None:
    """Make the output of a part file that is whole: the same rows without their numbers."""
    whole = part.with_name(part.name + ".whole")
    with open(part, encoding="utf-8", newline="\n") as lines, open(whole, "w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(json.dumps(json.loads(line)[1], ensure_ascii=False) + "\n")
    os.replace(whole, out)
    part.unlink()
