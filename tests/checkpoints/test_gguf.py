"""`rmo convert`: small GGUF files, as llama.cpp writes them, back to the checkpoints they came from; others refused.

test_real_model.py has a real file.
"""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from rmo.checkpoints import gguf_convert, gguf_file, hf, tokenizers
from rmo.checkpoints.hf import CheckpointError
from rmo.cli import main
from rmo.models import transformer
from rmo.worlds import tokenization
from tests.helpers.checkpoints import LENGTH, VOCAB, write_checkpoint, write_tokenizer
from tests.helpers.gguf_files import write_gguf

PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}}
SHAPES = {
    "grouped": {},
    "tied": {"tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    "wide heads": {"head_dim": 16, "num_key_value_heads": 4},
}
SENTENCES = ("the cat sat on the mat.", " what is the weather  in paris?", "it is <eos>warm", "")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """made(name, kind) -> (checkpoint, its tokenizer, its GGUF file)."""
    base, cache = tmp_path_factory.mktemp("gguf"), {}

    def make(name="tied", kind="F32"):
        if (name, kind) not in cache:
            place = base / f"{name} {kind}"
            checkpoint = write_checkpoint(place / "c", "llama", **PLAIN, **SHAPES[name])
            if SHAPES[name].get("tie_word_embeddings"):
                tied = load_file(checkpoint / "model.safetensors")
                assert "lm_head.weight" not in tied
            tokenizer = write_tokenizer(place / "t")
            cache[name, kind] = checkpoint, tokenizer, write_gguf(place / "x.gguf", checkpoint, tokenizer, kind=kind)
        return cache[name, kind]

    return make


@pytest.mark.parametrize("name", SHAPES)
def test_back_to_the_checkpoint_it_came_from(made, tmp_path, name):
    """Every tensor bit by bit, the same module, the same logits."""
    checkpoint, _, file = made(name)
    done = gguf_convert.convert(file, tmp_path / "out")
    want, got = (load_file(d / "model.safetensors") for d in (checkpoint, tmp_path / "out"))
    assert got.keys() == want.keys()
    for key in want:
        np.testing.assert_array_equal(got[key], want[key])
    assert done.parameters == sum(x.size for x in want.values())
    (module, params), (module2, params2) = (hf.load_language_model(d) for d in (checkpoint, tmp_path / "out"))
    assert module2 == module
    tokens = np.random.default_rng(0).integers(3, VOCAB, (2, 9)).astype(np.int32)
    mask = np.ones((2, 9), bool)
    logits, logits2 = (transformer.logits(module, p, tokens, mask)[0] for p in (params, params2))
    np.testing.assert_array_equal(logits2, logits)


def test_rows_of_a_head_go_back_to_halves():
    """By hand: llama.cpp's file has rows 0, 3, 1, 4, 2, 5 of each head of six."""
    stored = np.array([0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11])[:, None]
    np.testing.assert_array_equal(gguf_convert.unpermuted(stored, 2)[:, 0], np.arange(12))


@pytest.mark.parametrize(("kind", "bound"), [("F16", 2e-3), ("BF16", 1e-2), ("Q8_0", 1e-2), ("Q4_1", 0.15)])
def test_quantised_numbers(made, tmp_path, kind, bound):
    """What is written is what the file's own numbers say, near what they were made from; bfloat16 rounds it."""
    checkpoint, tokenizer, _ = made("grouped")
    changes = {"intermediate_size": 64}  # blocks are of 32 numbers
    checkpoint = write_checkpoint(tmp_path / "c", "llama", **PLAIN, **changes)
    file = write_gguf(tmp_path / "x.gguf", checkpoint, tokenizer, kind=kind)
    gguf_convert.convert(file, tmp_path / "out")
    gguf_convert.convert(file, tmp_path / "half", "bfloat16")
    want, got, half = (load_file(tmp_path / d / "model.safetensors") for d in ("c", "out", "half"))
    exact = gguf_file.read(file).numbers("blk.1.ffn_up.weight")
    np.testing.assert_array_equal(got["model.layers.1.mlp.up_proj.weight"], exact)
    differ = 0.0
    for key, value in want.items():
        away = np.abs(got[key] - value).max() / np.abs(value).max()
        assert away <= bound, key
        differ = max(differ, away)
        np.testing.assert_array_equal(half[key], got[key].astype(half[key].dtype))
        assert half[key].dtype.name == "bfloat16"
    assert differ > 0
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_tokenizer_and_config(made, tmp_path):
    """Ids of sentences are those of the tokenizer it came from; pad is eos; the template writes dialogues."""
    _, tokenizer, file = made()
    gguf_convert.convert(file, tmp_path / "out")
    before, after = tokenizers.load_tokenizer(tokenizer), tokenizers.load_tokenizer(tmp_path / "out")
    for text in SENTENCES:
        ids = after(text)["input_ids"]
        assert ids == before(text)["input_ids"]
        assert after.decode(ids) == text
    assert tokenization.fingerprint(before) == tokenization.fingerprint(after)
    assert (after.bos_token_id, after.eos_token_id, after.pad_token_id) == (1, 2, 2)
    assert after.decode(after("the <eos>cat")["input_ids"], skip_special_tokens=True) == "the cat"
    row = {"prompt": "the cat"}
    ids = tokenization.encode(after, row, "line 1", VOCAB, "", chat=True, answer=False)
    assert after.decode(ids) == "<bos>user the cat<eos><bos>assistant "
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert values["architectures"] == ["LlamaForCausalLM"]
    assert (values["bos_token_id"], values["eos_token_id"], values["pad_token_id"]) == (1, 2, 2)
    assert (values["rms_norm_eps"], values["rope_parameters"]["rope_theta"]) == (1e-5, 100_000.0)
    assert (values["max_position_embeddings"], after.model_max_length) == (LENGTH, LENGTH)


def splitter(split):
    """A tokenizer without merges, but for what its kind splits."""
    byte = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ"]
    given = tokenizers.BytePairs([*byte, "<s>"], [], split, {"<s>": True}, {"bos_token": "<s>"}, split == "llama-bpe")
    return tokenizers.make_byte_bpe(given)


@pytest.mark.parametrize(
    ("split", "pieces"),
    [
        ("gpt-2", ["I", "'m", "Ġborn", "Ġ1984", "ĠĠ", "Ġok", "!?", "Ċ", "Ċ", "x"]),
        ("smollm", ["I", "'m", "Ġborn", "Ġ", "1", "9", "8", "4", "ĠĠ", "Ġok", "!?", "Ċ", "Ċ", "x"]),
        ("llama-bpe", ["I", "'m", "Ġborn", "Ġ", "198", "4", "ĠĠ", "Ġok", "!?ĊĊ", "x"]),
    ],
)
def test_how_texts_are_cut(split, pieces):
    """By hand, from the regular expressions of llama.cpp's pre-tokenizers of these names."""
    core = splitter(split).backend_tokenizer.pre_tokenizer
    assert [piece for piece, _ in core.pre_tokenize_str("I'm born 1984   ok!?\n\nx")] == pieces


def test_llama3_begins_with_bos_and_takes_whole_words():
    tokens = ["a", "b", "c", "Ġ", "ab", "abc", "<s>"]
    given = tokenizers.BytePairs(tokens, [("a", "b")], "llama-bpe", {"<s>": True}, {"bos_token": "<s>"}, True)
    assert tokenizers.make_byte_bpe(given)("abc")["input_ids"] == [6, 5]
    assert tokenizers.make_byte_bpe(given._replace(split="gpt-2", begins=False))("abc")["input_ids"] == [4, 2]


REFUSED = [
    ({"arch": "qwen2"}, "is of architecture qwen2: only llama"),
    ({"llama__block_count": None}, "llama.block_count is missing"),
    ({"llama__block_count": 4}, "has no tensor blk.3.attn_norm.weight"),
    ({"llama__block_count": 2}, "tensors that cannot be converted, e.g. blk.2"),
    ({"llama__feed_forward_length": 96}, "its fields say (96, 32)"),
    ({"llama__attention__head_count": 0}, "llama.attention.head_count is 0, no size"),
    ({"llama__rope__freq_base": float("inf")}, "rotary_base is inf, no number"),
    ({"llama__attention__head_count_kv": 3}, "4 heads cannot share 3"),
    ({"llama__attention__head_count_kv": [2, 2, 1]}, "not one number"),
    ({"llama__rope__dimension_count": 4}, "llama.rope.dimension_count is 4, and heads have 8"),
    ({"llama__expert_count": 8}, "has llama.expert_count = 8, which transformers' Llama does not do"),
    ({"llama__rope__scaling__type": "linear"}, "has llama.rope.scaling.type = linear"),
    ({"llama__vocab_size": 60}, "llama.vocab_size is 60, and there are 61 tokens"),
    ({"split__count": 3}, "is one of 3 parts: merge them first"),
    ({"tensors": {"rope_freqs.weight": np.ones(4, np.float32)}}, "positions stretched as in Llama 3.1"),
    ({"tensors": {"blk.0.attn_q.bias": np.ones(32, np.float32)}}, "e.g. blk.0.attn_q.bias: more than Llama has"),
    ({"tensors": {"token_embd.weight": None}}, "has no tensor token_embd.weight"),
    ({"tensors": {"output_norm.weight": np.full(32, np.nan, np.float32)}}, "output_norm.weight has numbers that are not"),
    ({"tokenizer__ggml__model": "llama"}, "its tokenizer is llama (SentencePiece)"),
    ({"tokenizer__ggml__model": None}, "its tokenizer is None (unknown)"),
    ({"tokenizer__ggml__pre": "qwen2"}, "splits texts as qwen2: known are gpt-2, smollm, llama-bpe"),
    ({"tokenizer__ggml__tokens": ["a"] * VOCAB}, "61 tokens, 1 of them different"),
    ({"tokenizer__ggml__token_type": [1]}, "1 types of tokens to 61 rows"),
    ({"tokenizer__ggml__merges": ["a b c"]}, "merge 'a b c' is no two tokens"),
    ({"tokenizer__ggml__merges": ["a zz"]}, "its tokenizer cannot be made"),
    ({"tokenizer__ggml__eos_token_id": 61}, "eos_token_id is 61, no token's id"),
    ({"tokenizer__ggml__add_bos_token": True, "tokenizer__ggml__bos_token_id": None}, "asks for bos_token around texts"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused_in_one_line_and_nothing_written(made, tmp_path, changes, message):
    checkpoint, tokenizer, _ = made()
    file = write_gguf(tmp_path / "x.gguf", checkpoint, tokenizer, **changes)
    with pytest.raises(CheckpointError) as error:
        gguf_convert.convert(file, tmp_path / "out")
    assert message in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [file]


def test_half_a_file_wherever_it_ends(made, tmp_path):
    _, _, file = made()
    content, short = file.read_bytes(), tmp_path / "short.gguf"
    assert gguf_file.read(file)  # the whole of it
    ends = np.linspace(4, len(content) - 1, 40).astype(int)
    for end in ends:
        short.write_bytes(content[:end])
        with pytest.raises(CheckpointError, match=r"damaged or cut short .*: fetch it again") as error:
            gguf_convert.convert(short, tmp_path / "out")
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [short]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no GGUF file"),
        (b"PK\x03\x04", "is no GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"GGUF" + (99).to_bytes(4, "little") + bytes(64), "damaged or cut short"),
    ],
)
def test_what_is_no_gguf_file(tmp_path, content, message):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        gguf_file.read(tmp_path / "x.gguf")


def test_a_name_of_a_file_where_a_directory_is_wanted(made):
    _, _, file = made()
    with pytest.raises(CheckpointError, match=r"is a GGUF file: make a directory of it \(rmo convert .*x.gguf DIR\)"):
        hf.load_language_model(file)
    with pytest.raises(CheckpointError, match=r"is a directory: give the \.gguf file"):
        gguf_file.read(file.parent)


def test_without_the_package(made, monkeypatch):
    _, _, file = made()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match="needs the package gguf to be read: pip install gguf"):
        gguf_file.read(file)


def test_the_command(made, tmp_path, monkeypatch, capsys):
    """It says what was written; a directory with something in it stays as it is, in one line and exit code 2."""
    _, _, file = made()

    def rmo(*args):
        monkeypatch.setattr("sys.argv", ["rmo", "convert", *map(str, args)])
        main.main()

    (tmp_path / "out").mkdir()  # an empty one is taken
    rmo(file, tmp_path / "out")
    size = sum(x.size for x in load_file(tmp_path / "out" / "model.safetensors").values())
    assert capsys.readouterr().out == f"{size:,} parameters, 3 layers of width 32: {tmp_path / 'out'}\n"
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for args in ((file, tmp_path / "out"), (tmp_path / "none.gguf", tmp_path / "other")):
        with pytest.raises(SystemExit) as end:
            rmo(*args)
        assert end.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("rmo: ")
        assert len(said.strip().splitlines()) == 1
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
