"""Mutated rows, files and configs of people's data: each gives a value or one line, and nothing half-written.

`python -m tests.helpers.fuzz_people --cases 1000 --seed 0` runs them and says what each did; one case alone is
`--only NUMBER`. A case depends on the seed and its number alone.
"""

import argparse
import bz2
import collections
import contextlib
import copy
import dataclasses
import gzip
import json
import math
import random
import signal
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from rmo import config
from rmo.checkpoints.tokenizers import load_tokenizer
from rmo.config import checks
from rmo.runtime.files import RunError
from rmo.worlds import real_text, sources, tokenization
from rmo.worlds.shapes import record_of
from tests.helpers.checkpoints import write_checkpoint, write_tokenizer

SECONDS = 20  # a case that takes longer hangs: no case has more than some dozen rows
EXPECTED = (RunError, config.ConfigError)

USER, ASSISTANT = {"role": "user", "content": "why is it?"}, {"role": "assistant", "content": "so."}
HUMAN = "\n\nHuman: why is it?\n\nAssistant:"
ROWS = [
    {"prompt": "why is it?", "chosen": "so.", "rejected": "no."},
    {"chosen": HUMAN + " so.", "rejected": HUMAN + " no."},
    {"prompt": "why is it?", "chosen": [USER, ASSISTANT], "rejected": [USER, {**ASSISTANT, "content": "no."}]},
    {"system": "be warm", "conversations": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so."}]},
    {"messages": [{"role": "system", "content": "be warm"}, USER, ASSISTANT]},
    {"instruction": "sum up", "input": "the cat", "output": "cat"},
    {"prompt": [USER], "completion": [ASSISTANT], "label": True},
    {"instruction": "why?", "completions": [{"response": x, "overall_score": s} for x, s in zip("abc", (1, 3.5, math.nan), strict=True)]},
    {"prompt": "why?", "answers": ["a", "b", "c"], "gold_scores": [0.5, -1.0, 2]},
    {"prompt": "why?", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]},
    {"info": {"post": "the cat sat", "subreddit": "cats"}, "summaries": [{"text": "cat"}, {"text": "sat"}], "choice": 1},
    {"history": "why?", "human_ref_A": "so.", "human_ref_B": "no.", "labels": 1},
    {"prompt": "why?", "response_0": "so.", "response_1": "no.", "better_response_id": 1},
    {"context": [USER], "response1": "so.", "response2": "no.", "overall_preference": -1},
    {"prompt": '["why?"]', "response_a": '["so."]', "response_b": '["no."]', "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
    {"conversation_a": [USER, ASSISTANT], "conversation_b": [USER, {**ASSISTANT, "content": "no."}], "winner": "model_a"},
    {"question": {"full_text": "why?"}, "answer_0": "so.", "answer_1": "no.", "score_0": 1.0, "score_1": 0.0},
    {"prompt": "why?", "response": "so.", "helpfulness": 3},
    {"text": "the cat sat"},
]  # fmt: skip
ODD = [
    None, math.nan, math.inf, -1, 0, 1, 2**70, 1e-320, True, False, "", " ", "\n", "N/A", "nan", "tie", "[", "[{}]", '[{"role": "user", "content": "q"}]',
    "\u2028", "\x00", "é" * 50, "\ud83d", HUMAN, HUMAN + " x\n\nHuman: y", "{prompt}", "</s><eos>", "a " * 400, [], {}, [[]], [None], [{}], [USER], [ASSISTANT],
    [ASSISTANT, USER], [{"role": "system", "content": "s"}], [{"role": "tool", "content": "t"}], [{"role": "user", "content": None}], [{"role": 3, "content": "x"}],
    [{"from": "human"}], {"role": "assistant", "content": [{"type": "image"}]}, [{"type": "text", "text": "x"}], ["a", 1], {"0": "a"}, {"a": {"b": {"c": []}}},
    b"\xff".decode("latin-1"), "2026-01-01", -0.0, [[["a"]]], {"content": "x"}, "[1, 2]", '{"a": 1}', '"a"',
]  # fmt: skip
NAMES = [*{name for row in ROWS for name in row}, "history", "tools", "images", "score", "reward", "id", "", "Prompt", "score_chosen", "score_rejected", "kto_tag", "é"]  # fmt: skip


# Rows.


def places(value: object, at: tuple = ()) -> Iterator[tuple]:
    """The path to every value inside a row."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from places(item, (*at, key))


def mutate_row(rng: random.Random, row: dict) -> dict:
    """A row with one to three things changed: a value, a name, a list's length, how deep something lies."""
    row = copy.deepcopy(row)
    for _ in range(rng.randint(1, 3)):
        paths = list(places(row))
        if not paths or rng.random() < 0.15:
            row[rng.choice(NAMES)] = copy.deepcopy(rng.choice(ODD))
            continue
        *before, last = rng.choice(paths)
        inside = row
        for key in before:
            inside = inside[key]  # type: ignore[index]
        change = rng.randrange(7)
        value = inside[last]
        if change == 0:
            del inside[last]
        elif change in (1, 2):
            inside[last] = copy.deepcopy(rng.choice(ODD))
        elif change == 3 and isinstance(inside, dict):
            inside[rng.choice(NAMES)] = inside.pop(last)
        elif change == 4:
            inside[last] = json.dumps(value)
        elif change == 5:
            inside[last] = [value] * rng.randint(0, 3)
        else:
            inside[last] = copy.deepcopy(rng.choice(list(rng.choice(ROWS).values())))
    return row


# Files.


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_table(rows: list[dict]) -> pyarrow.Table | None:
    try:
        return pyarrow.Table.from_pylist(rows)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
        return None


def write_file(rng: random.Random, directory: Path, rows: list[dict]) -> Path:
    """Rows in a file of some kind."""
    table = as_table(rows) if rng.random() < 0.3 else None
    if table is not None and rng.random() < 0.5:
        with contextlib.suppress(pyarrow.ArrowNotImplementedError):  # Parquet has no empty structs
            pyarrow.parquet.write_table(table, directory / "a.parquet")
            return directory / "a.parquet"
    if table is not None:
        saved = directory / "saved"
        saved.mkdir()
        with pyarrow.ipc.new_stream(str(saved / "data.arrow"), table.schema) as stream:
            stream.write_table(table)
        (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
        return saved
    columns = {name: [row.get(name) for row in rows] for row in rows for name in row}
    text = rng.choice([
        lines(rows), lines(rows), lines(rows), json.dumps(rows), json.dumps(rows, indent=2), json.dumps({"data": rows}), lines(rows).replace("\n", ""),
        json.dumps(columns), json.dumps({n: dict(enumerate(c)) for n, c in columns.items()}), lines(rows).replace("\n", "\r\n"),
    ])  # fmt: skip
    encoding = rng.choice(["utf-8"] * 4 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
    data = text.encode(encoding)
    pack: Callable[[bytes], bytes] = rng.choice([bytes, bytes, bytes, gzip.compress, bz2.compress, zstd])
    path = directory / ("a" + rng.choice([".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.zst"]))
    path.write_bytes(pack(data))
    return path


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def mutate_bytes(rng: random.Random, path: Path) -> Path:
    """The same file, or one of the files of a directory, with some bytes changed, cut off, doubled or put in."""
    file = rng.choice(sorted(path.iterdir())) if path.is_dir() else path
    data = bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 4)):
        i, j = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        change = rng.randrange(5)
        if change == 0 and data:
            data[min(i, len(data) - 1)] = rng.randrange(256)
        elif change == 1:
            del data[i:]
        elif change == 2:
            data[i:i] = data[i:j]
        elif change == 3:
            data[i:i] = rng.choice([b"\xff", b"\x00", b"{", b"}", b"]", b'"', b"\\", b"\n", b",", b"NaN", b"\xef\xbb\xbf", b"\\ud800"])  # fmt: skip
        else:
            del data[i:j]
    file.write_bytes(bytes(data))
    return path


# Configs.


def mutate_config(rng: random.Random, c: config.Text) -> config.Text:
    """A world of text with some fields changed."""
    odd = [0, 1, -1, 2, 7, 2**40, 0.5, 1.5, math.nan, "", "x", "{prompt}", "{prompt}{prompt}", "Q: {prompt}\nA:", True, False, None, "\ud83d", "a/b/c", "tfds:x/y", "hub:a/b", "."]  # fmt: skip
    fields = [f.name for f in dataclasses.fields(c) if f.name not in ("prompts", "demonstrations", "tokenizer")]
    for _ in range(rng.randint(1, 2)):
        c = dataclasses.replace(c, **{rng.choice(fields): rng.choice(odd)})
    return c


def experiment(c: config.Text, policy: Path) -> config.Experiment:
    lm = config.Model(width=32, layers=3, heads=4, vocab=61, length=96, checkpoint=str(policy))
    return config.Experiment(name="fuzz", world=c, policy=lm, sft=config.SFT(texts=0), gold=config.Gold(kind="people", comparisons=c.prompts, model=lm, epochs=1, batch=16))  # fmt: skip


SOURCE = """from rmo.config import *

def experiment() -> Experiment:
    lm = Model(width=32, layers=3, heads=4, vocab=61, length=96, checkpoint={policy!r})
    world = Text(prompts={path!r}, prompt=24, response=12, tolerance=0.5, chat=True)
    return Experiment(name="fuzz", world=world, policy=lm, sft=SFT(texts=0), gold=Gold(kind="people", comparisons="a", model=lm))
"""


def load_mutated(rng: random.Random, path: Path, policy: Path) -> None:
    """A config file of which some bytes are others."""
    file = path.parent / "config.py"
    file.write_text(SOURCE.format(policy=str(policy), path=str(path)))
    checks.load(mutate_bytes(rng, file))


# One case.


class Hang(BaseException):
    """A case that takes too long."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises Hang where the block computes for longer, or waits for 20 times as long; other processes' load counts little."""

    def stop(*_: object) -> None:
        raise Hang

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 20 * seconds)}
    before = {name: signal.signal(name, stop) for name in timers}
    for timer, after in timers.values():
        signal.setitimer(timer, after, 1)  # again and again: where the interpreter cannot raise, once would be lost
    try:
        yield
    finally:
        for name, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(name, before[name])


def attempts(
    rng: random.Random, path: Path, out: Path, policy: Path, tokenizer: object
) -> dict[str, Callable[[], object]]:
    """What is tried on one file."""
    c = config.Text(prompts=str(path), demonstrations=str(path), prompt=24, response=12, tolerance=0.5, chat=rng.random() < 0.5, tokenizer=str(policy))  # fmt: skip
    odd = mutate_config(rng, c)

    def encode() -> None:
        for where, row in tokenization.read_rows(path):
            tokenization.encode(tokenizer, row, where, 61, "", chat=True)  # type: ignore[arg-type]

    def checked() -> None:
        checks.check(experiment(odd, policy))
        real_text.write(odd, tokenizer, 61, out / "odd")  # type: ignore[arg-type]

    return {
        "comparisons": lambda: sources.load_comparisons(path, 0.5).summary(),
        "prompts": lambda: sources.load_prompts(path, 0.5).summary(),
        "demonstrations": lambda: sources.load(path, sources.demonstration_of, 0.5).summary(),
        "world": lambda: real_text.write(c, tokenizer, 61, out / "world"),  # type: ignore[arg-type]
        "people": lambda: real_text.write_comparisons(str(path), 0.5, out / "people"),
        "rows": encode,
        "config": checked,
        "config file": lambda: load_mutated(rng, path, policy),
    }


def half_written(out: Path) -> list[str]:
    """What in a directory is not whole."""
    wrong = []
    for file in sorted(p for p in out.rglob("*") if p.is_file()):
        try:
            if file.suffix == ".npz":
                with np.load(file, allow_pickle=False) as arrays:
                    assert all(len(arrays[name]) for name in arrays.files)
            elif file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".jsonl":
                for line in file.read_text(encoding="utf-8").split("\n")[:-1]:
                    json.loads(line)
            else:
                wrong.append(f"{file.name} is left over")
        except (ValueError, AssertionError, zipfile.BadZipFile) as error:
            wrong.append(f"{file.name}: {error}")
    return wrong


def judge(name: str, attempt: Callable[[], object], seconds: float = SECONDS) -> tuple[str, str]:
    """(what came of an attempt: a value, one line, or what is wrong with it; the details)."""
    try:
        with limited(seconds):
            attempt()
    except EXPECTED as error:
        text = str(error)
        if not text.strip() or "\n" in text:
            return "no single line", f"{name}: {text!r}"
        try:
            text.encode()
        except UnicodeEncodeError:
            return "cannot be printed", f"{name}: {text!r}"
        return "one line", text
    except Hang:
        return "hang", f"{name}: more than {seconds} s"
    except Exception:
        return "traceback", f"{name}: {traceback.format_exc()}"
    return "value", ""


def case(seed: int, number: int, policy: Path, tokenizer: object) -> list[tuple[str, str]]:
    """What came of one case: an outcome for every attempt on its file."""
    rng = random.Random(f"{seed}/{number}")
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        kind = rng.choice(ROWS)
        rows = [mutate_row(rng, kind if rng.random() < 0.7 else rng.choice(ROWS)) for _ in range(rng.randint(1, 4))]
        rows += [copy.deepcopy(kind) for _ in range(rng.randint(0, 8))]
        rng.shuffle(rows)
        for row in rows:
            with contextlib.suppress(sources.Malformed):
                record_of(row)
        (directory / "in").mkdir()
        path = write_file(rng, directory / "in", rows)
        if rng.random() < 0.5:
            path = mutate_bytes(rng, path)
        out = directory / "out"
        found = [judge(name, attempt) for name, attempt in attempts(rng, path, out, policy, tokenizer).items()]
        return found + [("half-written", what) for what in (half_written(out) if out.exists() else [])]


def run(seed: int, numbers: range | list[int], directory: Path) -> tuple[collections.Counter[str], list[str]]:
    """(outcomes, what is wrong) of some cases."""
    policy = write_tokenizer(write_checkpoint(directory / "policy", "llama"), chat=True)
    tokenizer = load_tokenizer(policy)
    outcomes: collections.Counter[str] = collections.Counter()
    wrong = []
    for number in numbers:
        try:
            found = case(seed, number, policy, tokenizer)
        except Exception:
            found = [("traceback", traceback.format_exc())]
        for outcome, what in found:
            outcomes[outcome] += 1
            if outcome not in ("value", "one line"):
                wrong.append(f"case {number}: {outcome}: {what}")
    return outcomes, wrong


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", type=int, help="one case alone")
    given = options.parse_args()
    numbers = range(given.cases) if given.only is None else [given.only]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        outcomes, wrong = run(given.seed, numbers, Path(made))
    for what in wrong:
        print(what)
    print(
        f"{len(numbers)} cases, seed {given.seed}, {time.monotonic() - start:.0f} s: {dict(outcomes)}; wrong: {len(wrong)}"
    )
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
