"""`rmo score` and `rmo sample` on Hugging Face checkpoints and on our own, JSONL in and out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.checkpoints import hf, saved_model, tokenizers
from rmo.cli import main
from rmo.logs import row_stream, score_and_sample
from rmo.models import scoring, transformer
from rmo.models.sampling import response_stats
from rmo.worlds import tokenization
from tests.helpers.checkpoints import write_checkpoint, write_tokenizer

TEXTS = ["the cat sat", "what is the weather in paris?", "it is warm", "the mat", "a", "sunny and warm in paris. " * 3]


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def rm(tmp_path_factory):
    directory = write_checkpoint(tmp_path_factory.mktemp("rm") / "c", "qwen3", "rm")
    return write_tokenizer(directory, chat=True)


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return write_tokenizer(write_checkpoint(tmp_path_factory.mktemp("lm") / "c", "llama"), pad=False)


def score_alone(module, params, rows):
    """Scores of lists of ids, each by itself; padded on the left, where `rmo score` pads on the right."""
    one = jax.jit(lambda tokens, mask: scoring.score(module, params, tokens, mask)[0])
    return [float(one(*tokenization.pad([ids], 96, left=True))) for ids in rows]


def test_scores_are_those_of_each_text_alone(tmp_path, rm):
    """Order kept, columns kept, and neither batch nor padding changes a score."""
    path = write(tmp_path / "t.jsonl", [{"text": t, "id": i} for i, t in enumerate(TEXTS)])
    score_and_sample.score(str(rm), path, tmp_path / "a.jsonl", batch=4, chat=False)
    score_and_sample.score(str(rm), path, tmp_path / "b.jsonl", batch=1, chat=False)
    got, again = read(tmp_path / "a.jsonl"), read(tmp_path / "b.jsonl")
    assert [row["id"] for row in got] == [row["row"] for row in got] == list(range(len(TEXTS)))
    module, params = hf.load_reward_model(rm)
    tokenizer = tokenizers.load_tokenizer(rm)
    wanted = score_alone(module, params, [tokenizer(row["text"])["input_ids"] for row in got])
    for row, other, alone in zip(got, again, wanted, strict=True):
        assert row["score"] == pytest.approx(alone, abs=1e-5)
        assert other["score"] == pytest.approx(alone, abs=1e-5)
    assert len({round(row["score"], 4) for row in got}) == len(TEXTS)


def test_dialogues_go_through_the_template(tmp_path, rm, lm):
    pair = {"prompt": "what is the cat?", "response": "it is warm."}
    messages = [{"role": "user", "content": pair["prompt"]}, {"role": "assistant", "content": pair["response"]}]
    spelled = f"<bos>user: {pair['prompt']}<eos><bos>assistant: {pair['response']}<eos>"
    path = write(tmp_path / "t.jsonl", [{"messages": messages}, pair, {"text": spelled}])
    score_and_sample.score(str(rm), path, tmp_path / "out.jsonl", batch=2, chat=True)
    a, b, c = (row["score"] for row in read(tmp_path / "out.jsonl"))
    assert a == pytest.approx(b, abs=1e-5)
    assert a == pytest.approx(c, abs=1e-5)
    score_and_sample.score(str(rm), path, tmp_path / "plain.jsonl", batch=2, chat=False)
    assert abs(read(tmp_path / "plain.jsonl")[1]["score"] - a) > 1e-4  # joined as they are, without a template
    with pytest.raises(tokenization.TextError, match="line 1: a dialogue, but the tokenizer has no chat template"):
        score_and_sample.sample(str(lm), path, tmp_path / "x.jsonl", 2, True, 1, 8, 1.0, 0)


def test_draws_are_what_their_tokens_say(tmp_path, lm):
    path = write(tmp_path / "p.jsonl", [{"prompt": t} for t in TEXTS])
    go = lambda name, batch, **kw: score_and_sample.sample(
        str(lm), path, tmp_path / name, batch, False, **{"draws": 3, "length": 12, "temperature": 1.0, "seed": 0, **kw}
    )
    go("a.jsonl", 4)
    go("b.jsonl", 1)
    go("c.jsonl", 4, seed=1)
    rows = read(tmp_path / "a.jsonl")
    assert [(row["row"], row["draw"]) for row in rows] == [(i, j) for i in range(len(TEXTS)) for j in range(3)]
    key = lambda name: [row["tokens"] for row in read(tmp_path / name)]
    assert key("a.jsonl") == key("b.jsonl")  # a draw does not depend on its batch
    assert key("a.jsonl") != key("c.jsonl")
    assert len({tuple(t) for t in key("a.jsonl")}) > 15
    module, params = hf.load_language_model(lm)
    tokenizer = tokenizers.load_tokenizer(lm)
    for row in rows[:6]:
        prompt, answer = (jnp.array([ids]) for ids in (tokenizer(row["prompt"])["input_ids"], row["tokens"]))
        masks = jnp.ones_like(prompt, bool), jnp.ones_like(answer, bool)
        stats = response_stats(module, params, prompt, masks[0], answer, masks[1])
        assert row["logp"] == pytest.approx(float(stats["logps"].sum()), abs=1e-3)
        assert row["response"] == tokenizer.decode(row["tokens"][: -1 if row["ended"] else None])
        assert row["ended"] == (row["tokens"][-1] == 2)
        assert 2 not in row["tokens"][:-1]
        assert row["ended"] or len(row["tokens"]) == 12


def test_what_was_sampled_is_what_is_scored(tmp_path, lm, rm):
    """The ids go from one to the other, EOS and all; with another vocabulary the text does."""
    path = write(tmp_path / "p.jsonl", [{"prompt": t, "row": 7} for t in TEXTS])
    score_and_sample.sample(str(lm), path, tmp_path / "s.jsonl", 4, False, 4, 12, 2.0, 0)
    score_and_sample.score(str(rm), tmp_path / "s.jsonl", tmp_path / "scored.jsonl", 4, False)
    module, params = hf.load_reward_model(rm)
    tokenizer, rows = tokenizers.load_tokenizer(lm), read(tmp_path / "scored.jsonl")
    assert [(row["row"], row["draw"]) for row in rows] == [(7, draw) for draw in range(4)] * 6  # both are kept
    assert any(row["ended"] for row in rows)
    want = score_alone(module, params, [tokenizer(row["prompt"])["input_ids"] + row["tokens"] for row in rows])
    np.testing.assert_allclose([row["score"] for row in rows], want, atol=1e-5)
    row = {"prompt": "the cat", "response": " sat", "tokens": [3, 4], "vocabulary": "of another"}
    tokens = lambda **changes: tokenization.encode(
        tokenizer, {**row, **changes}, "here", 61, tokenization.fingerprint(tokenizer)
    )
    joined = tokenizer("the cat")["input_ids"] + tokenizer(" sat")["input_ids"]
    assert tokens() == [*joined, 2]  # a response ends
    assert tokens(ended=False) == joined
    assert tokens(vocabulary=tokenization.fingerprint(tokenizer)) == [*tokenizer("the cat")["input_ids"], 3, 4]
    with pytest.raises(tokenization.TextError, match="here: token 60, but the model has 50"):
        tokenization.encode(tokenizer, {**row, "tokens": [60], "vocabulary": "v"}, "here", 50, "v")


def test_killed_and_continued(tmp_path, rm, monkeypatch):
    """After a kill the same command does only what is left, and the file is the same."""
    path = write(tmp_path / "t.jsonl", [{"text": TEXTS[i % 6] + " cat" * (i % 4)} for i in range(23)])
    score_and_sample.score(str(rm), path, tmp_path / "whole.jsonl", batch=2, chat=False)
    real, calls = row_stream.stream, []
    short = lambda path, out, job: real(path, out, job._replace(batches=3))
    monkeypatch.setattr(row_stream, "stream", short)
    score_and_sample.score(str(rm), path, tmp_path / "windows.jsonl", batch=2, chat=False)

    class Kill(BaseException):
        pass

    pad = tokenization.pad

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == 8:
            raise Kill
        return pad(*args, **kwargs)

    monkeypatch.setattr(tokenization, "pad", dying)
    with pytest.raises(Kill):
        score_and_sample.score(str(rm), path, tmp_path / "out.jsonl", batch=2, chat=False)
    assert not (tmp_path / "out.jsonl").exists()
    (part,) = tmp_path.glob(".out.jsonl.*.part")
    part.write_bytes(part.read_bytes()[:-7])  # the kill came in the middle of a line
    calls.clear()
    calls += [1] * 100
    score_and_sample.score(str(rm), path, tmp_path / "out.jsonl", batch=2, chat=False)
    assert len(calls) - 100 == 9  # windows of 6: the second lost its last line, so 6 rows were kept and 17 left
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "windows.jsonl").read_bytes()
    whole, out = read(tmp_path / "whole.jsonl"), read(tmp_path / "out.jsonl")
    np.testing.assert_allclose([r["score"] for r in whole], [r["score"] for r in out], atol=1e-5)
    assert not list(tmp_path.glob(".*part*"))


def test_our_own_models(tmp_path, monkeypatch, capsys):
    """A stage's directory serves as a model: members, tokenizer and all."""
    shape = config.Model(width=16, layers=1, heads=2)
    vocabulary = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(8))]
    tokenizers.save_tokenizer(tokenizers.make_tokenizer(vocabulary), tmp_path / "sft" / "tokenizer")
    module = transformer.RewardModel(shape, 11, 16)
    params = jax.vmap(lambda key: transformer.init(module, key))(jax.random.split(jax.random.key(0), 2))
    saved_model.save(tmp_path / "proxy", module, params, tmp_path / "sft" / "tokenizer", 2)
    language = transformer.LanguageModel(shape, 11, 16)
    saved_model.save(
        tmp_path / "sft", language, transformer.init(language, jax.random.key(1)), tmp_path / "sft" / "tokenizer"
    )
    path = write(tmp_path / "t.jsonl", [{"text": "<bos> w1 w2"}, {"text": "<bos> w3 <eos>"}])

    def rmo(*args):
        monkeypatch.setattr("sys.argv", ["rmo", *map(str, args)])
        main.main()
        return capsys.readouterr().out

    assert "2 rows scored" in rmo("score", tmp_path / "proxy", path, "--member", "1")
    ids = jnp.array([[1, 4, 5, 0], [1, 6, 2, 0]])
    one = jax.tree.map(lambda x: x[1], params)
    want = scoring.score(module, one, ids, jnp.arange(4)[None] < 3)
    np.testing.assert_allclose([row["score"] for row in read(tmp_path / "t_scores.jsonl")], want, atol=1e-5)
    rmo("sample", tmp_path / "sft", path, "--draws", "2", "--length", "5")
    rows = read(tmp_path / "t_samples.jsonl")
    rmo("sample", tmp_path / "sft", path, "--out", tmp_path / "half.jsonl")  # as many tokens as there is room for
    assert max(len(row["tokens"]) for row in read(tmp_path / "half.jsonl")) <= 8
    (tmp_path / "gold-0123456789").symlink_to(tmp_path / "proxy")
    assert "2 rows scored" in rmo("score", tmp_path / "gold", path, "--out", tmp_path / "gold.jsonl")
    tokenizer = tokenizers.load_tokenizer(tmp_path / "sft" / "tokenizer")
    assert [tokenizer(row["response"])["input_ids"] + [2] * row["ended"] for row in rows] == [
        row["tokens"] for row in rows
    ]
    for args, message in [
        (("score", tmp_path / "proxy", path, "--member", "2"), "members 0 to 1, not 2"),
        (("score", tmp_path / "sft", path), "holds a language model, not a reward model"),
        (("sample", tmp_path / "sft", path, "--length", "16"), "the model takes 16 tokens"),
        (("score", tmp_path / "nowhere", path), "no such directory"),
        (("score", tmp_path / "proxy", tmp_path / "none.jsonl"), "none.jsonl"),
        (("score", tmp_path / "proxy", path, "--batch", "0"), "--batch is 0"),
    ]:
        with pytest.raises(SystemExit):
            rmo(*args)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 1: no JSON"),
        ([{"text": "a"}, "[1]"], "line 2: a list, no object"),
        ([{"tex": "a"}], "line 1: fields tex: known are"),
        ([{"text": 3}], "line 1: text is 3, no text"),
        ([{"text": "the cat " * 60}], "tokens: 1 to 96 are possible"),
        ([{"text": ""}], "line 1: text is '', no text"),
    ],
)
def test_bad_rows_are_named(tmp_path, rm, lines, message):
    with pytest.raises(tokenization.TextError, match=message):
        score_and_sample.score(str(rm), write(tmp_path / "t.jsonl", lines), tmp_path / "out.jsonl", 2, False)
    assert not (tmp_path / "out.jsonl").exists()


def test_buckets_and_padding():
    sizes = [tokenization.bucket(n) for n in range(1, 400)]
    assert all(size >= n for n, size in enumerate(sizes, start=1))
    assert sorted(set(sizes)) == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    assert all(size <= 1.5 * n for n, size in enumerate(sizes, start=1) if n > 16)
    tokens, mask = tokenization.pad([[5, 6], [7]], 3, left=True)
    assert tokens.tolist() == [[0, 5, 6], [0, 0, 7]]
    assert mask.tolist() == [[False, True, True], [False, False, True]]
    tokens, mask = tokenization.pad([[5, 6], [7]], 3, left=False)
    assert tokens.tolist() == [[5, 6, 0], [7, 0, 0]]
