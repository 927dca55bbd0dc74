"""Prompts, demonstrations and human comparisons from files and datasets; what cannot be read is named and counted.

Where rows come from: `containers.read`. What a row means: `shapes.record_of`. Here stands what is made of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rmo.runtime.files import Json, Row
from rmo.worlds.containers import SourceError as SourceError
from rmo.worlds.containers import read as read
from rmo.worlds.dialogue import Malformed as Malformed
from rmo.worlds.dialogue import Prompt, ends_with_answer, is_dialogue, plain
from rmo.worlds.records import RESPONSES, TIE, UNDESIRABLE, UNSCORED, Record, Response, asked, said
from rmo.worlds.scored_answers import scored_record
from rmo.worlds.shapes import record_of

ALONE = "answers without another to the same prompt beside them"


class LeftOut(ValueError):
    """Why a row that is well gives nothing, in words that can be counted: `3 ties`."""


class Comparison(NamedTuple):
    """A prompt and two responses, the preferred one first."""

    prompt: Prompt
    """A text, or a dialogue of more than one turn."""
    chosen: str
    rejected: str


class Loaded(NamedTuple):
    """What was read, and what was not."""

    rows: list[Json]
    dropped: list[tuple[str, str]]
    """(where, why) of what is malformed."""
    left_out: dict[str, int] = {}  # noqa: RUF012  # never written to
    """How many were left out that are well: ties, answers without a score, ..."""

    def summary(self) -> str:
        """One line for people."""
        text = f"{len(self.rows):,} rows"
        if self.left_out:
            text += f"; left out: {counted(self.left_out)}"
        if self.dropped:
            where, why = self.dropped[0]
            text += f"; {len(self.dropped):,} rows dropped, the first {where}: {why}"
        return text


def counted(left_out: dict[str, int]) -> str:
    """`3 ties, 1 undesirable answers`."""
    return ", ".join(f"{count:,} {why}" for why, count in left_out.items())


# One row.


def usable(record: Record) -> Record:
    """The same record; Malformed where its preferences are in doubt."""
    if record.doubt:
        raise Malformed(record.doubt)
    return record


def pairs_of(record: Record) -> list[Comparison | LeftOut]:
    """The comparisons of one record, and why there are no more."""
    prompt, texts = plain(record.prompt), record.responses
    out: list[Comparison | LeftOut] = [Comparison(prompt, texts[a].text, texts[b].text) for a, b in record.preferences]
    return [*out, *(LeftOut(why) for why in record.left_out)]


def comparisons_of(row: Row) -> list[Comparison]:
    """The comparisons of one row; a tie gives none.

    Raises:
      Malformed: the row is of no shape that holds comparisons, or cannot be used.
    """
    record = usable(record_of(row))
    if none_by_shape(record):
        raise Malformed(none_by_shape(record))
    return [one for one in pairs_of(record) if isinstance(one, Comparison)]


def none_by_shape(record: Record) -> str:
    """Why a record can hold no comparison at all; empty where it does, or would but for a tie or a missing score."""
    if record.preferences or record.left_out:
        return ""
    if any(r.desirable is not None for r in record.responses):
        return "no comparison: a label of one answer prefers it to no other"
    return f"no comparison: a row of shape {record.shape} holds no two answers of which one is preferred"


def prompt_of(row: Row) -> Prompt:
    """The prompt of one row: a text, or a dialogue of more than one turn.

    Raises:
      Malformed: there is none, or it cannot be used.
    """
    try:
        record = record_of(row)
        if isinstance(record.prompt, str) and ends_with_answer(record.prompt):
            raise Malformed("text is a whole transcript: give its prompt")
        return plain(record.prompt)
    except Malformed:
        answers = ("chosen", "rejected", "conversation_a", "conversation_b")
        if said(row, ("prompt", "instruction", "question", "query")) is None or said(row, answers):
            raise
        if any(is_dialogue(value) for value in row.values()):
            raise
        found = asked(row).prompt  # what is wrong is in the answers, which nobody asks for here
        if found is None:
            raise
        return plain(found)


def demonstration_of(row: Row) -> tuple[Prompt, str]:
    """(prompt, response) of one row; of several responses the best.

    Raises:
      LeftOut: the response is labelled as undesirable, or none is known to be the best.
      Malformed: there is no response, or the row cannot be used.
    """
    record = record_of(row)
    if not record.responses:
        raise LeftOut(record.left_out[0]) if record.left_out else Malformed("there is no response")
    best = best_of(record)
    if best.desirable is False:
        raise LeftOut(UNDESIRABLE)
    return plain(record.prompt), best.text


def best_of(record: Record) -> Response:
    """The response to imitate; see `demonstration_of`."""
    if record.doubt:
        raise Malformed(record.doubt)
    first, *others = record.responses
    if not others or first.name in RESPONSES:
        return first
    scored = [r for r in record.responses if r.score is not None]
    if len(scored) > 1:
        return max(scored, key=lambda r: r.score or 0.0)
    if record.preferences:
        return record.responses[record.preferences[0][0]]
    if others[0].text.strip() == first.text.strip():
        return first
    raise LeftOut(record.left_out[0] if record.left_out else TIE)


# A whole source.


class Collected:
    """What becomes of a source's rows, counted."""

    def __init__(self) -> None:
        self.rows: list[Json] = []
        self.dropped: list[tuple[str, str]] = []
        self.left_out: Counter[str] = Counter()
        self.total = 0

    def add(self, found: Iterable[Json]) -> None:
        for one in found:
            if isinstance(one, LeftOut):
                self.left_out[str(one)] += 1
            else:
                self.rows.append(one)


def collect(
    source: str | Path,
    use: Callable[[Row], Iterable[Json]],
    tolerance: float,
    last: Callable[[], Iterable[Json]] = tuple,
) -> Loaded:
    """What `use` makes of every row, and `last` of the end.

    Raises:
      SourceError: see `load`.
    """
    c = Collected()
    for where, row in read(source):
        c.total += 1
        try:
            if isinstance(row, Malformed):
                raise row
            c.add(use(row))
        except Malformed as why:
            c.dropped.append((where, str(why)))
        except LeftOut as why:
            c.add([why])
    c.add(last())
    if not c.total:
        raise SourceError(f"{source} is empty")
    if len(c.dropped) > tolerance * c.total:
        where, why = c.dropped[0]
        share = f"{len(c.dropped):,} of {c.total:,} rows, more than {tolerance:.0%}, cannot be used"
        raise SourceError(f"{source}: {share}; the first is {where.removeprefix(f'{source} ')}: {why}")
    if not c.rows:
        raise SourceError(
            f"{source}: nothing can be used of its {c.total:,} rows: {counted(c.left_out) or 'none fits'}"
        )
    return Loaded(c.rows, c.dropped, dict(c.left_out))


def load(source: str | Path, reader: Callable[[Row], Json], tolerance: float = 0.01) -> Loaded:
    """Everything that `reader` makes of a source's rows; a reader may give a list, and raise LeftOut.

    Raises:
      SourceError: there is no such source, it is empty, nothing of it can be used, or more than `tolerance` of its rows
        are malformed.
    """

    def use(row: Row) -> list[Json]:
        made = reader(row)
        return made if isinstance(made, list) else [made]

    return collect(source, use, tolerance)


class Neighbours:
    """Comparisons of records, and of single answers with a score in rows that follow each other (HelpSteer2)."""

    def __init__(self) -> None:
        self.waiting: tuple[Prompt, Response] | None = None

    def __call__(self, row: Row) -> Iterator[Comparison | LeftOut]:
        record = usable(record_of(row))
        one = record.responses[0] if len(record.responses) == 1 else None
        single = one is not None and (one.score is not None or UNSCORED in record.left_out)
        if not single or one is None:
            if why := none_by_shape(record):
                raise Malformed(why)
            yield from self.end()
            yield from pairs_of(record)
        elif one.score is None:
            yield LeftOut(UNSCORED)
        elif self.waiting is None or self.waiting[0] != record.prompt:
            yield from self.end()
            self.waiting = record.prompt, one
        else:
            other, self.waiting = self.waiting[1], None
            yield from compared(record.prompt, other, one)

    def end(self) -> Iterator[LeftOut]:
        """What waits for another answer and meets none."""
        if self.waiting is not None:
            self.waiting = None
            yield LeftOut(ALONE)


def compared(prompt: Prompt, first: Response, second: Response) -> list[Comparison | LeftOut]:
    """The comparison of two answers with scores."""
    return pairs_of(scored_record(prompt, (first, second), [(0, 1)]))


def load_comparisons(source: str | Path, tolerance: float = 0.01) -> Loaded:
    """Every `Comparison` of a source; see `load`. Answers with a score in rows of their own are compared with the next
    row's if its prompt is the same."""
    use = Neighbours()
    return collect(source, use, tolerance, use.end)


def load_prompts(source: str | Path, tolerance: float = 0.01) -> Loaded:
    """Every distinct prompt of a source, in order; see `load`."""
    found = load(source, prompt_of, tolerance)
    return found._replace(rows=list(dict.fromkeys(found.rows)))
