"""What must hold of any rows: a score is its row's own, and a written draw is scored as it was inside a run."""

import gzip
import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo.checkpoints import hf, tokenizers
from rmo.logs import score_and_sample
from rmo.models import bulk_scoring, scoring
from rmo.worlds import tokenization
from rmo.worlds.rm_reader import TextReader
from tests.helpers.checkpoints import VOCAB, write_checkpoint, write_tokenizer

FEW = settings(max_examples=10, deadline=None, derandomize=True)
WORDS = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat.", "warm", "rain?"]), min_size=1, max_size=9
).map(" ".join)
ASKED = WORDS.map(lambda text: [{"role": "user", "content": text}])
PAIRS = st.fixed_dictionaries({"prompt": WORDS, "response": WORDS, "ended": st.booleans()})
TALKS = st.fixed_dictionaries({"messages": ASKED, "response": WORDS})
TEXTS = st.fixed_dictionaries({"text": WORDS})
TWO = st.fixed_dictionaries(
    {
        "prompt": WORDS.map(lambda text: f"{text} of what?"),
        "chosen": WORDS,
        "rejected": WORDS.map(lambda text: f"{text} no"),
    }
)
ROWS = st.lists(st.one_of(PAIRS, TALKS, TEXTS, TWO), min_size=2, max_size=7)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An RM and a policy of one vocabulary, with numbers at random, and an RM of another."""
    top = tmp_path_factory.mktemp("models")
    write_tokenizer(write_checkpoint(top / "rm", "qwen3", "rm"), chat=True)
    write_tokenizer(write_checkpoint(top / "lm", "llama"), chat=True)
    other = ("rain on the cat", "a warm mat sat here. no rain?")
    write_tokenizer(write_checkpoint(top / "other", "llama", "rm"), chat=True, texts=other)
    return top


def write(path, rows):
    """Rows in the format that a file's name says."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".parquet":
        names = dict.fromkeys(name for row in rows for name in row)  # from_pylist takes the first row's alone
        whole = [{name: row.get(name) for name in names} for row in rows]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(whole), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines if path.suffix == ".jsonl" else json.dumps(rows, indent=1))
    return path


def scores(place, rm, name, rows, batch=4, chat=False):
    """Each row's scores, by their columns."""
    path, out = write(place / name, rows), place / "out.jsonl"
    score_and_sample.score(str(place / rm), path, out, batch, chat)
    made = [json.loads(line) for line in out.read_text().splitlines()]
    return [
        {key: row[key] for key in ("score", "score_chosen", "score_rejected") if row.get(key) is not None}
        for row in made
    ]


def alike(got, want):
    assert [row.keys() for row in got] == [row.keys() for row in want]
    for a, b in zip(got, want, strict=True):
        assert a == pytest.approx(b, abs=2e-5)


@FEW
@given(rows=ROWS, data=st.data())
def test_a_score_is_its_rows_own(place, rows, data):
    """Whatever the order, the neighbours, the batch and the format of the file."""
    want = scores(place, "rm", "rows.jsonl", rows)
    order = data.draw(st.permutations(range(len(rows))))
    suffix = data.draw(st.sampled_from(["jsonl", "json", "jsonl.gz", "parquet"]))
    kept = order[: data.draw(st.integers(1, len(rows)))]
    got = scores(place, "rm", f"other.{suffix}", [rows[i] for i in kept], batch=data.draw(st.sampled_from([1, 4])))
    alike(got, [want[i] for i in kept])


def drawn(place, prompts, seed, temperature):
    path, out = write(place / "prompts.jsonl", [{"prompt": text} for text in prompts]), place / "draws.jsonl"
    score_and_sample.sample(str(place / "lm"), path, out, 2, False, 2, 10, temperature, seed)
    return [json.loads(line) for line in out.read_text().splitlines()]


ASKS = {
    "prompts": st.lists(WORDS, min_size=1, max_size=3),
    "seed": st.integers(0, 99),
    "temperature": st.sampled_from([0.5, 1.0, 2.0]),
}


@FEW
@given(**ASKS)
def test_a_written_draw_is_scored_as_its_ids_are_inside_a_run(place, prompts, seed, temperature):
    rows = drawn(place, prompts, seed, temperature)
    got = scores(place, "rm", "draws_to_score.jsonl", rows)
    module, params = hf.load_reward_model(place / "rm")
    own = tokenizers.load_tokenizer(place / "lm")
    for row, found in zip(rows, got, strict=True):
        prompt, mask = tokenization.pad([own(row["prompt"])["input_ids"]], 24, left=True)
        tokens, tokens_mask = tokenization.pad([row["tokens"]], 10, left=False)
        (want,) = scoring.score_n(module, params, *map(jnp.asarray, (prompt[0], mask[0], tokens, tokens_mask)), chunk=1)
        assert found == {"score": pytest.approx(float(want), abs=2e-5)}


@FEW
@given(chat=st.booleans(), **ASKS)
def test_a_written_draw_is_scored_as_its_text_is_inside_a_run(place, chat, prompts, seed, temperature):
    """By an RM with a tokenizer of its own: plain, and through its chat template."""
    rows = drawn(place, prompts, seed, temperature)
    got = scores(place, "other", "draws_to_score.jsonl", rows, chat=chat)
    module, params = hf.load_reward_model(place / "other")
    policy = tokenizers.load_tokenizer(place / "lm")
    ids = [policy(row["prompt"])["input_ids"] for row in rows]
    texts = {np.array(one, np.int32).tobytes(): row["prompt"] for one, row in zip(ids, rows, strict=True)}
    world = SimpleNamespace(
        tokenizer=policy,
        eos=2,
        shown=lambda text: text,
        prompt_text=lambda found: texts[found.astype(np.int32).tobytes()],
    )
    own = tokenizers.load_tokenizer(place / "other")
    reader = TextReader(world, 24, own, chat, VOCAB, 96)
    prompt, prompt_mask = tokenization.pad(ids, 24, left=True)
    tokens, mask = tokenization.pad([row["tokens"] for row in rows], 10, left=False)
    read, read_mask = reader.host(np.concatenate([prompt, tokens], 1), np.concatenate([prompt_mask, mask], 1))
    wide = [np.pad(x, ((0, 0), (0, 96 - x.shape[1]))) for x in (read, read_mask)]
    want = [bulk_scoring.score_all(module, params, *(x[i : i + 1] for x in wide), chunk=1)[0] for i in range(len(rows))]
    alike(got, [{"score": float(x)} for x in want])
