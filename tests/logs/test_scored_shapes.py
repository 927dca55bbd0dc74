"""`rmo score` and `rmo sample` on the rows and models that people have; every score is the id of a token (known_models)."""

import json

import numpy as np
import pytest

from rmo.checkpoints import saved_model, tokenizers
from rmo.cli import main
from rmo.logs import row_stream, row_texts, score_and_sample
from rmo.worlds import tokenization
from tests.helpers.known_models import OPEN, language_model, letter, reward_model, tokenizer

N, W, X, Y = map(letter, "nwxy")
EOS = 2


def ask(text):
    return [{"role": "user", "content": text}]


def say(text):
    return {"role": "assistant", "content": text}


BIRD = ask("Name a bird")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def rm(tmp_path_factory):
    """Its template leaves answers open: of a dialogue, too, the score is that of the answer's last letter."""
    return tokenizer(reward_model(tmp_path_factory.mktemp("rm")), template=OPEN)


def rmo(monkeypatch, capsys, *args):
    monkeypatch.setattr("sys.argv", ["rmo", *map(str, args)])
    main.main()
    return capsys.readouterr().err


def scores(rm, tmp_path, rows, **options):
    out = tmp_path / "scores.jsonl"
    score_and_sample.score(str(rm), write(tmp_path / "rows.jsonl", rows), out, **{"batch": 4, "chat": False, **options})
    return read(out)


SHAPES = [
    ({"prompt": "Name a bird", "response": "Heron", "ended": False}, {"score": N}),
    ({"prompt": "Name a bird", "response": "Heron"}, {"score": EOS}),
    ({"prompt": "Name a bird", "completion": "Cow", "label": True}, {"score": EOS}),
    ({"messages": BIRD, "response": "Heron"}, {"score": N}),
    ({"messages": BIRD, "response": "Cow"}, {"score": W}),
    ({"text": "Choose a letter", "response": "x", "ended": False}, {"score": X}),
    ({"text": "Choose a letter", "response": "y", "ended": False}, {"score": Y}),
    ({"messages": [*BIRD, say("Heron")]}, {"score": N}),
    ({"messages": [{"role": "system", "content": "Be brief"}, *BIRD, say("Cow")]}, {"score": W}),
    ({"conversations": [{"from": "human", "value": "Name a bird"}, {"from": "gpt", "value": "Cow"}]}, {"score": W}),
    ({"prompt": BIRD, "completion": [say("Cow")]}, {"score": W}),
    ({"prompt": BIRD, "chosen": [say("Heron")], "rejected": [say("Cow")]}, {"score_chosen": N, "score_rejected": W}),
    ({"chosen": [*BIRD, say("Heron")], "rejected": [*BIRD, say("Cow")]}, {"score_chosen": N, "score_rejected": W}),
    ({"prompt": "Name a bird", "chosen": "Heron", "rejected": "Cow"}, {"score_chosen": EOS, "score_rejected": EOS}),
    ({"prompt": BIRD, "answers": ["Heron", "Cow", "x"], "gold_scores": [1, 2, 3]}, {"scores": [N, W, X]}),
    ({"instruction": "Name a bird", "completions": [{"response": "x", "overall_score": 1}, {"response": "y", "overall_score": "N/A"}]}, {"scores": [EOS, EOS]}),
    ({"prompt": BIRD, "answers": ["Heron", "Cow"]}, {"scores": [N, W]}),
    ({"prompt": BIRD, "response": [{"type": "text", "text": "Cow"}]}, {"score": W}),
    ({"prompt": BIRD, "response": ["Heron", "Cow"]}, {"scores": [N, W]}),
    ({"messages": BIRD, "responses": [{"text": "Heron"}, {"text": "Cow"}], "id": 3}, {"scores": [N, W]}),
    ({"prompt": BIRD, "response_0": "Heron", "response_1": "Cow", "better_response_id": 0}, {"score_response_0": N, "score_response_1": W}),
    ({"text": "Heron"}, {"score": N}),
]  # fmt: skip


@pytest.mark.parametrize(("row", "want"), SHAPES)
def test_what_is_scored_is_the_response(tmp_path, rm, row, want):
    got, _ = scores(rm, tmp_path, [row, row])
    assert {name: got[name] for name in row} == row  # every column of the row is kept
    assert got.keys() - row.keys() == {*want, "row"}
    for name, score in want.items():
        assert got[name] == pytest.approx(score, abs=1e-3)


def test_several_shapes_in_one_file_and_any_batch(tmp_path, rm):
    """A row's score is its own: whatever its neighbours are, and however many are worked on at once."""
    rows = [row for row, _ in SHAPES]
    for batch in (1, 5):
        for got, (_, want) in zip(scores(rm, tmp_path, rows, batch=batch), SHAPES, strict=True):
            for name, score in want.items():
                assert got[name] == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Name a bird"}, "line 1 has prompt and nothing to score"),
        ({"messages": BIRD}, "line 1 has messages and nothing to score"),
        ({"messages": [*BIRD, say("Heron"), *ask("Thanks")]}, "and nothing to score"),
        ({"prompt": "a", "text": "a b"}, "and nothing to score"),
        ({"prompt": "a", "response": "b", "ended": "no"}, "ended is 'no', neither true nor false"),
        ({"prompt": "a", "response": "b", "tokens": ["x"], "vocabulary": "v"}, "tokens are no ids"),
        ({"prompt": "a", "response": "b", "score": 0.7}, "line 1 has a column score already, .*--name"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 8}, "has a column score_chosen already"),
        ({"prompt": "a", "response": "b" * 600}, "tokens: 1 to 512 are possible; 1 of 1 rows are too long"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path, rm, row, message):
    with pytest.raises(tokenization.TextError, match=message):
        scores(rm, tmp_path, [row])
    assert not (tmp_path / "scores.jsonl").exists()


def test_a_second_rms_scores_go_beside_the_firsts(tmp_path, rm):
    first = scores(rm, tmp_path, [{"messages": [*BIRD, say("Heron")], "id": 5}])
    second = scores(rm, tmp_path, first, name="other")
    assert second == [{**first[0], "other": pytest.approx(N, abs=1e-3)}]
    assert second[0]["row"] == 0
    (third,) = scores(rm, tmp_path, [{"text": "x"}], name="row")
    assert third == {"text": "x", "row": pytest.approx(X, abs=1e-3)}


def test_long_rows_are_counted_before_any_work(tmp_path, rm, capsys, monkeypatch):
    rows = [{"text": "a" * (600 if i == 9 else 3) + "x"} for i in range(12)]
    monkeypatch.setattr(row_stream, "through", lambda *args: pytest.fail("no work is done"))
    with pytest.raises(tokenization.TextError, match=r"line 10 has 602 tokens.*1 of 12 rows are too long.*--skip-long"):
        scores(rm, tmp_path, rows, batch=1)
    monkeypatch.undo()
    got = scores(rm, tmp_path, rows, skip_long=True)
    assert [row["row"] for row in got] == [*range(9), 10, 11]
    assert all(row["score"] == pytest.approx(X, abs=1e-3) for row in got)
    assert "1 of 12 rows left out: they have more than 512 tokens" in capsys.readouterr().err


def test_a_mended_file_continues_where_it_was(tmp_path, rm, monkeypatch):
    """What is done of rows that are as they were stays; from the first window with another row on, all is done anew."""
    rows = [{"text": "abc"[i % 3] * 3} for i in range(10)]
    real, done = row_stream.stream, []
    monkeypatch.setattr(row_stream, "stream", lambda path, out, job: real(path, out, watched(job._replace(batches=2))))

    def watched(job):
        def work(items, length):
            done.extend(item.number for item in items)
            if len(done) >= limit:
                raise KeyboardInterrupt
            return job.work(items, length)

        return job._replace(work=work)

    limit = 7  # dies in the fourth batch of 2: windows of 4 rows, of which one is whole and one is begun
    with pytest.raises(KeyboardInterrupt):
        scores(rm, tmp_path, rows, batch=2)
    done.clear()
    limit = 99
    rows[5] = {"text": "x"}
    got = scores(rm, tmp_path, rows, batch=2)
    assert [row["score"] for row in got] == pytest.approx([letter(row["text"][-1]) for row in rows], abs=1e-3)
    assert sorted(set(done)) in ([*range(4, 10)], [*range(10)])


# Where a text ends.


def test_no_eos_stands_between_prompt_and_response(tmp_path):
    own = tokenizers.load_tokenizer(tokenizer(tmp_path / "t", eos=True))
    ids = lambda row: tokenization.encode(own, row, "here", 264, "")
    a, b = letter("a"), letter("b")
    assert ids({"prompt": "a", "response": "b"}) == [1, a, b, 2]
    assert ids({"prompt": "a", "response": "b", "ended": False}) == [1, a, b]
    assert ids({"text": "a"}) == [1, a, 2]
    assert tokenization.encode(own, {"prompt": "a"}, "here", 264, "", answer=False) == [1, a]
    plain = tokenizers.load_tokenizer(tokenizer(tmp_path / "u", bos=False, eos=True))
    assert tokenization.encode(plain, {"prompt": "a", "response": "b"}, "here", 264, "") == [a, b, 2]


def draws(tmp_path, lm, rows, **options):
    out, path = tmp_path / "draws.jsonl", write(tmp_path / "p.jsonl", rows)
    given = {"batch": 2, "chat": False, "draws": 1, "length": 8, "temperature": 1.0, "seed": 0, **options}
    score_and_sample.sample(str(lm), path, out, **given)
    return read(out)


CHAIN = {
    letter("b"): letter("c"),
    letter("c"): 6,
    6: letter("z"),
    letter("z"): letter("z"),
}  # b, c, <end_of_turn>, z, z, ...


@pytest.mark.parametrize(
    ("config", "generation", "want"),
    [
        ([2, 6], None, "c"),
        (2, [2, 6], "c"),
        (2, 6, "c"),
        (2, None, "c<end_of_turn>zzzzzz"),
        ([2, -1], None, "c<end_of_turn>zzzzzz"),
        (None, None, "c<end_of_turn>zzzzzz"),
    ],
)
def test_a_response_ends_at_any_of_several_ids(tmp_path, config, generation, want):
    lm = tokenizer(language_model(tmp_path / "lm", CHAIN, eos_token_id=config))
    if generation is not None:
        (lm / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    (row,) = draws(tmp_path, lm, [{"prompt": "ab"}])
    assert (row["response"], row["ended"]) == (want, want == "c")
    assert row["tokens"][0] == letter("c")
    assert len(row["tokens"]) == (2 if want == "c" else 8)


def test_a_prompt_has_no_eos_behind_it(tmp_path):
    following = {letter("b"): letter("c"), letter("c"): letter("d"), 2: letter("z"), letter("z"): letter("z")}
    lm = tokenizer(language_model(tmp_path / "lm", following), eos=True)
    (row,) = draws(tmp_path, lm, [{"prompt": "ab"}])
    assert (row["response"], row["ended"]) == ("cd", True)


def test_spaces_stay_as_they_were_drawn(tmp_path):
    """Whatever the tokenizer's config says of cleaning up: ` !` is not `!`."""
    following = {letter("x"): letter("Ġ"), letter("Ġ"): letter("!"), letter("!"): letter("=")}
    lm = tokenizer(language_model(tmp_path / "lm", following), clean_up_tokenization_spaces=True)
    (row,) = draws(tmp_path, lm, [{"prompt": "x"}])
    assert row["response"] == " !="


def test_ids_that_are_none(tmp_path, monkeypatch, capsys):
    lm = tokenizer(language_model(tmp_path / "lm", CHAIN))
    (lm / "generation_config.json").write_text(json.dumps({"eos_token_id": "</s>"}))
    with pytest.raises(SystemExit):
        rmo(monkeypatch, capsys, "sample", lm, write(tmp_path / "p.jsonl", [{"prompt": "a"}]))
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "eos_token_id is '</s>', no ids of tokens" in error


ENDS = [{"prompt": "Name a bird", "response": "Heron"}, {"prompt": "Name a bird", "response": "Cow", "ended": False}]


@pytest.mark.parametrize("pad", [2, None])
def test_pad_that_is_eos_is_said_and_both_readings_are_to_be_had(tmp_path, monkeypatch, capsys, pad):
    directory = tokenizer(reward_model(tmp_path / "rm", pad_token_id=pad), pad="</s>" if pad else "")
    path, out = write(tmp_path / "rows.jsonl", ENDS), tmp_path / "out.jsonl"
    error = rmo(monkeypatch, capsys, "score", directory, path, "--out", out)
    assert "1 of 2 texts, the first in" in error
    assert "read at the last token before it (--at before-pad)" in error
    assert [row["score"] for row in read(out)] == pytest.approx([EOS, W], abs=1e-3)
    error = rmo(monkeypatch, capsys, "score", directory, path, "--out", out, "--at", "before-pad")
    assert "before-pad" not in error
    assert [row["score"] for row in read(out)] == pytest.approx([N, W], abs=1e-3)


def test_a_pad_of_its_own_needs_no_word(tmp_path, monkeypatch, capsys, rm):
    error = rmo(monkeypatch, capsys, "score", rm, write(tmp_path / "rows.jsonl", ENDS))
    assert "before-pad" not in error


def test_two_bos_are_counted(tmp_path, monkeypatch, capsys, rm):
    rows = [
        {"text": "<s><|user|>Name a bird<|assistant|>Heron"},
        {"text": "Heron"},
        {"messages": [*BIRD, say("Heron")]},
    ]
    error = rmo(monkeypatch, capsys, "score", rm, write(tmp_path / "rows.jsonl", rows))
    assert "1 of 3 texts, the first in" in error
    assert "begin with two <s>" in error


# What one command writes the other reads.


def two_letters(directory):
    """A policy that answers x or y, each with probability 1/2, and ends."""
    from safetensors.numpy import load_file, save_file

    language_model(directory, {})
    tensors = load_file(directory / "model.safetensors")
    row = np.full_like(tensors["lm_head.weight"], -3.0)
    letters = [letter(c) for c in "xy"]
    row[letters] = 3.0
    row[:, letters] = -3.0
    row[2, letters] = 3.0
    save_file(tensors | {"lm_head.weight": row}, directory / "model.safetensors")
    return tokenizer(directory, template=OPEN)


@pytest.mark.parametrize(
    "row", [{"messages": ask("Choose a letter")}, {"text": "Choose"}, {"prompt": "Choose"}, {"prompt": ask("Choose")}]
)
@pytest.mark.parametrize("length", [1, 4])
def test_draws_are_scored_one_by_one(tmp_path, rm, row, length):
    """Of a dialogue the score is that of the answer's letter, as the RM's template writes it; else that of the last id that
    was drawn, eos included."""
    lm = two_letters(tmp_path / "lm")
    written = draws(tmp_path, lm, [row], draws=8, length=length)
    assert {r["response"] for r in written} == {"x", "y"}
    got = scores(rm, tmp_path, written)
    dialogue = "messages" in row or isinstance(row.get("prompt"), list)
    want = [letter(r["response"]) if dialogue or not r["ended"] else EOS for r in written]
    assert [r["score"] for r in got] == pytest.approx(want, abs=1e-3)
    assert [{k: v for k, v in r.items() if k != "score"} for r in got] == written


def test_a_blank_draw_and_one_that_looks_like_messages_are_scored(tmp_path, rm):
    own = tokenization.fingerprint(tokenizers.load_tokenizer(rm))
    rows = [
        {"prompt": "a", "response": "", "tokens": [2], "vocabulary": own, "ended": True},
        {
            "prompt": "a",
            "response": '[{"role": "user", "content": "x"}]',
            "tokens": [X],
            "vocabulary": own,
            "ended": False,
        },
        {
            "prompt": "a",
            "chosen": "b",
            "rejected": "c",
            "response": " ",
            "tokens": [Y],
            "vocabulary": own,
            "ended": False,
        },
    ]
    assert [row["score"] for row in scores(rm, tmp_path, rows)] == pytest.approx([EOS, X, Y], abs=1e-3)


def test_columns_that_draws_would_write_over(tmp_path):
    lm = two_letters(tmp_path / "lm")
    rows = [{"prompt": "Choose", "response": "mine"}]
    with pytest.raises(tokenization.TextError, match=r"has a column response already.*--replace"):
        draws(tmp_path, lm, rows)
    (row,) = draws(tmp_path, lm, rows, replace=True)
    assert row["response"] in "xy"


def test_an_adapter_takes_its_bases_tokenizer(tmp_path):
    from safetensors.numpy import save_file

    from tests.helpers.known_models import head

    base = tokenizer(language_model(tmp_path / "base", {}), template=OPEN)
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(base), "peft_type": "LORA", "r": 1})
    )
    save_file({"base_model.model.score.weight": head()}, tmp_path / "lora" / "adapter_model.safetensors")
    (row,) = scores(tmp_path / "lora", tmp_path, [{"messages": [*BIRD, say("Heron")]}])
    assert row["score"] == pytest.approx(N, abs=1e-3)
    assert saved_model.tokenizer_place(tmp_path / "lora") == base


def test_names_of_columns():
    texts = row_texts.texts_of("here", {"prompt": "a", "chosen": "b", "rejected": "c", "response": "d"})
    assert row_texts.columns("reward", texts, [1, 2, 3]) == {"reward_chosen": 1, "reward_rejected": 2, "reward": 3}
