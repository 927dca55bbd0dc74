"""What holds of any rows: neighbours, order and container change nothing, spellings mean the same, no NaN is preferred."""

import gzip
import itertools
import json
import math
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

pytest.importorskip("hypothesis", reason="property tests need hypothesis (the dev extra has it)")
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rmo.worlds import dialogue, real_text, sources
from rmo.worlds.dialogue import TURN, Message
from rmo.worlds.records import TIE, UNSCORED
from rmo.worlds.shapes import record_of

FEW = settings(max_examples=40, deadline=None, derandomize=True)
# Any text that says something; not one that is a transcript, or JSON of messages, which mean more than they say.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(
    lambda t: t.strip() and not TURN.search(t) and not dialogue.is_dialogue(t)
)
SCORE = st.one_of(st.floats(-5, 5), st.integers(-3, 3), st.sampled_from([math.nan, math.inf, None, "N/A", "", True]))
SCORE = SCORE | st.floats(-5, 5).map(str)
WORDS = st.lists(TEXT, min_size=1, max_size=3, unique=True)


@st.composite
def pairs(draw):
    """A row of {prompt, chosen, rejected}, in texts or in messages, and the comparison that it must give."""
    prompt, chosen, rejected = draw(TEXT), draw(TEXT), draw(TEXT)
    assume(chosen.strip() != rejected.strip() and not (chosen.startswith(prompt) and rejected.startswith(prompt)))
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if draw(st.booleans()):
        user, said = (
            [{"role": "user", "content": prompt}],
            ({"role": "assistant", "content": t} for t in (chosen, rejected)),
        )
        row = dict(zip(("prompt", "chosen", "rejected"), (user, *([m] for m in said)), strict=True))
    return row, (prompt, chosen, rejected)


def parquet(path: Path, rows: list[dict]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def text(name: str, encode):
    def write(path: Path, rows: list[dict]) -> Path:
        file = path.with_name(name)
        file.write_bytes(encode(rows))
        return file

    return write


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


WRITERS = [
    text("a.jsonl", lambda rows: lines(rows).encode()),
    text("b.json", lambda rows: json.dumps(rows, indent=1).encode()),
    text("c.jsonl", lambda rows: lines(rows).encode("utf-16")),
    text("d.jsonl.gz", lambda rows: gzip.compress(lines(rows).encode())),
    text("e.json", lambda rows: json.dumps({"data": rows}).encode()),
    text("f.jsonl", lambda rows: lines(rows).replace("\n", "").encode()),
    lambda path, rows: parquet(path.with_name("g.parquet"), rows),
]


@FEW
@given(st.lists(pairs(), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_a_row_gives_the_same_alone_among_others_and_in_any_file(found, random):
    rows, wanted = [row for row, _ in found], [comparison for _, comparison in found]
    assert list(itertools.chain(*map(sources.comparisons_of, rows))) == wanted
    same_columns = [row for row in rows if isinstance(row["prompt"], type(rows[0]["prompt"]))]
    kept = [c for row, c in found if isinstance(row["prompt"], type(rows[0]["prompt"]))]
    with tempfile.TemporaryDirectory() as made:
        for write in WRITERS:
            path = write(Path(made) / "x", same_columns)
            assert sources.load_comparisons(path).rows == kept, path
        order = random.sample(range(len(rows)), len(rows))
        path = WRITERS[0](Path(made) / "x", [rows[i] for i in order])
        assert sources.load_comparisons(path).rows == [wanted[i] for i in order]
        # What the first stage keeps is what was read, to the letter.
        real_text.write_comparisons(str(path), 0, Path(made))
        assert real_text.read_comparisons(Path(made) / "people.jsonl") == [wanted[i] for i in order]


@FEW
@given(st.none() | TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=2), TEXT, TEXT)
def test_every_spelling_of_a_dialogue_is_the_same_dialogue(system, before, question, answer):
    turns = [("system", system)] if system else []
    for q, a in before:
        turns += [("user", q), ("assistant", a)]
    turns += [("user", question), ("assistant", answer)]
    other = {"system": "system", "user": "human", "assistant": "gpt"}
    messages = [{"role": r, "content": c} for r, c in turns]
    spellings = [
        {"messages": messages},
        {"messages": json.dumps(messages)},
        {"conversations": [{"from": other[r], "value": c} for r, c in turns]},
        {"messages": [{"role": r, "content": [{"type": "text", "text": c}]} for r, c in turns]},
        {"prompt": messages[:-1], "completion": messages[-1:]},
        {"prompt": messages[:-1], "response": answer},
        {"messages": messages[:-1], "response": answer},
        {"prompt": question, "system": system, "history": [list(pair) for pair in before], "response": answer},
    ]
    wanted = (dialogue.plain(tuple(Message(*turn) for turn in turns[:-1])), answer)
    for row in spellings:
        assert sources.demonstration_of(row) == wanted, row
        assert sources.prompt_of(row) == wanted[0], row
    assert dialogue.read_prompt(json.loads(json.dumps(dialogue.spelled(wanted[0])))) == wanted[0]


def as_number(score):
    if isinstance(score, bool) or score in (None, "", "N/A"):
        return None
    return float(score) if math.isfinite(float(score)) else None


@FEW
@given(st.lists(st.tuples(TEXT, SCORE), min_size=1, max_size=6))
def test_only_numbers_that_differ_are_preferences(answers):
    numbers = [as_number(score) for _, score in answers]
    record = record_of({"prompt": "q", "completions": [{"response": t, "overall_score": s} for t, s in answers]})
    better = {(i, j) for i, j in itertools.permutations(range(len(answers)), 2)
              if None not in (numbers[i], numbers[j]) and numbers[i] > numbers[j] and answers[i][0].strip() != answers[j][0].strip()}  # fmt: skip
    assert set(record.preferences) == better
    scored = sum(x is not None for x in numbers)
    assert record.left_out.count(UNSCORED) == len(numbers) - scored
    assert len(record.preferences) + record.left_out.count(TIE) == math.comb(scored, 2)


@FEW
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), TEXT, TEXT)
def test_transcripts_lose_nothing(turns, good, bad):
    turns, good, bad = [(q.strip(), a.strip()) for q, a in turns], good.strip(), bad.strip()
    assume(good != bad)
    prompt = (
        "".join(f"\n\nHuman: {q}\n\nAssistant: {a}" for q, a in turns[:-1]) + f"\n\nHuman: {turns[-1][0]}\n\nAssistant:"
    )
    assume("Human:" not in "".join(q + a for q, a in turns) + good + bad)
    row = {"chosen": f"{prompt} {good}", "rejected": f"{prompt} {bad}"}
    for beside in ({}, {"prompt": prompt}, {"prompt": turns[0][0]}):
        assert sources.comparisons_of({**row, **beside}) == [(prompt, good, bad)]
    said = [m.content for m in dialogue.as_messages(prompt)]
    assert said == [*itertools.chain(*turns[:-1]), turns[-1][0]]
