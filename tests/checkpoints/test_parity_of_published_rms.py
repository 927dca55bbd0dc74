"""Against transformers, torch and PEFT on random checkpoints: heads, biases, adapters, pad and eos, chat templates.

`EXTRAS=dev,parity launch/local.sh pytest -m parity`; adapters are compared where PEFT is installed.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rmo.checkpoints import ending, hf, saved_model, tokenizers
from rmo.models import bulk_scoring
from rmo.models.sampling import sample
from rmo.worlds import tokenization
from tests.helpers.checkpoints import VOCAB, write_checkpoint, write_tokenizer
from tests.helpers.known_models import shards

pytestmark = pytest.mark.parity
RNG = np.random.default_rng(3)
NAMES = ["gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "gemma2"]
TOKENS = RNG.integers(3, VOCAB, (3, 12)).astype(np.int32)
LENGTHS = (12, 7, 4)
MASK = np.arange(12)[None] < np.array(LENGTHS)[:, None]
FILLED = np.where(MASK, TOKENS, 0)


def ours(directory, tokens=TOKENS, mask=MASK):
    module, params = hf.load_reward_model(directory)
    return bulk_scoring.score_all(module, params, np.where(mask, tokens, 0), mask, len(tokens))


def theirs(kind, directory, of, mask=MASK, tokens=FILLED):
    """What `of` makes of transformers' output; padding stands in `tokens` as it is."""
    import torch
    import transformers

    model = getattr(transformers, kind).from_pretrained(directory, attn_implementation="eager").eval()
    given = {
        "input_ids": torch.tensor(tokens.astype(np.int64)),
        "attention_mask": torch.tensor(mask),
    }
    with torch.no_grad():
        return of(model(**given, output_hidden_states=kind == "AutoModelForCausalLM"))


def last(x):
    return np.array([x[b, n - 1] for b, n in enumerate(LENGTHS)])


def edit(directory, change, **config):
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((directory / "config.json").read_text()) | config
    (directory / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("name", NAMES)
def test_value_heads(tmp_path, name):
    """hidden . w + b, as TRL's and LLaMA-Factory's heads over a language model's last hidden states; OpenRLHF's norm."""
    directory = write_checkpoint(tmp_path / "c", name)
    hidden = theirs("AutoModelForCausalLM", directory, lambda out: out.hidden_states[-1].numpy())
    weight, bias = RNG.normal(size=(1, hidden.shape[-1])).astype(np.float32), np.array([0.7], np.float32)
    want = last(hidden) @ weight[0] + bias
    save_file({"v_head.summary.weight": weight, "v_head.summary.bias": bias}, directory / "value_head.safetensors")
    np.testing.assert_allclose(ours(directory), want, rtol=1e-4, atol=1e-4)
    (directory / "value_head.safetensors").unlink()
    edit(directory, lambda t: t.update({"value_head.weight": weight}), mean=2.0, std=3.0, normalize_reward=True)
    np.testing.assert_allclose(ours(directory), (want - bias - 2) / 3, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "qwen3", "gemma2"])
def test_a_score_of_every_token_and_its_bias(tmp_path, name):
    directory = write_checkpoint(tmp_path / "c", name, "rm")
    head = "classifier" if name == "gpt2" else "score"

    def change(tensors):
        tensors[f"{head}.weight"] = tensors.pop("score.weight")
        tensors[f"{head}.bias"] = np.array([1.3], np.float32)

    architecture = {"gpt2": "GPT2"}.get(name, name.capitalize()) + "ForTokenClassification"
    edit(directory, change, architectures=[architecture])
    want = theirs("AutoModelForTokenClassification", directory, lambda out: out.logits[..., 0].numpy())
    np.testing.assert_allclose(ours(directory), last(want), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_where_a_classifier_reads(tmp_path, name):
    """Padded by a pad of its own and by eos: transformers reads the last token that is not pad, as `before_pad` does."""
    directory = write_checkpoint(tmp_path / "c", name, "rm", pad_token_id=2)
    texts = [[5, 9, 7, 2], [8, 3, 2, 2], [2, 2, 2], [4, 2, 6]]
    tokens, mask = tokenization.pad(texts, 5, left=False)
    filled = np.where(mask, tokens, 2)
    want = theirs("AutoModelForSequenceClassification", directory, lambda out: out.logits[:, 0].numpy(), mask, filled)
    # transformers hides padding from attention; what it reads comes before all of it.
    cut = [ending.before_pad(text, 2) for text in texts]
    got = ours(directory, *tokenization.pad(cut, 5, left=False))
    keep = [0, 1, 3]  # of nothing but pad it reads the first token, padded rows from another place on
    np.testing.assert_allclose(got[keep], want[keep], rtol=1e-4, atol=1e-4)
    plain = ours(directory, tokens, mask)
    assert abs(plain[0] - want[0]) > 1e-3  # the other reading is another


@pytest.mark.parametrize("eos", [[2, 17], [2, 17, 30, 41], 17, None])
@pytest.mark.parametrize("where", ["generation", "config"])
def test_where_generation_stops(tmp_path, eos, where):
    import torch
    import transformers

    name = "llama"
    directory = write_tokenizer(write_checkpoint(tmp_path / "c", name))
    if where == "generation":
        (directory / "generation_config.json").write_text(json.dumps({} if eos is None else {"eos_token_id": eos}))
    else:
        edit(directory, lambda t: None, eos_token_id=eos)
    ends = saved_model.response_ends(directory, tokenizers.load_tokenizer(directory))
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    module, params = hf.load_language_model(directory)
    import jax

    tokens, keys = TOKENS[:, :5], jax.random.split(jax.random.key(0), 3)
    out = sample(module, params, tokens, np.ones_like(tokens, bool), keys, 24, ends, temperature=1e-7)
    for row in range(3):
        prompt = torch.tensor(tokens[row : row + 1].astype(np.int64))
        with torch.no_grad():
            made = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=24)
        got, want = np.asarray(out.tokens[row])[np.asarray(out.mask[row])].tolist(), made[0, 5:].tolist()
        # We stop at the tokenizer's eos too, where a config leaves it out (as vLLM).
        stop = next((i + 1 for i, token in enumerate(want) if token in ends), len(want))
        assert got == want[:stop]
        if eos is not None and 2 in (eos if isinstance(eos, list) else [eos]):
            assert got == want


def test_tensors_are_taken_from_where_transformers_takes_them(tmp_path):
    directory = write_checkpoint(tmp_path / "c", "llama", "rm")
    tensors = load_file(directory / "model.safetensors")
    old = {name: -x for name, x in tensors.items()}
    shards(directory, old, moved=list(old)[:2])

    def score(out):
        return out.logits[:, 0].numpy()

    whole = np.ones_like(TOKENS, bool)
    want = theirs("AutoModelForSequenceClassification", directory, score, whole, TOKENS)
    np.testing.assert_allclose(ours(directory, TOKENS, whole), want, rtol=1e-4, atol=1e-4)
    (directory / "model.safetensors").unlink()
    want = theirs("AutoModelForSequenceClassification", directory, score, whole, TOKENS)
    np.testing.assert_allclose(ours(directory, TOKENS, whole), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3, "c_attn": 3}}])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_adapters(tmp_path, name, changes):
    peft = pytest.importorskip("peft")
    import torch
    import transformers

    base = write_checkpoint(tmp_path / "base", name, "rm")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, attn_implementation="eager")
    targets = ["c_attn", "c_proj"] if name == "gpt2" else ["q_proj", "down_proj"]
    made = peft.LoraConfig(
        task_type="SEQ_CLS", r=3, lora_alpha=5, target_modules=targets, modules_to_save=["score"], **changes
    )
    wrapped = peft.get_peft_model(model, made).eval()
    with torch.no_grad():
        for key, value in wrapped.named_parameters():
            if "lora_B" in key or "modules_to_save" in key:
                value.copy_(torch.tensor(RNG.normal(size=value.shape) * 0.1))
        wrapped.save_pretrained(tmp_path / "lora")
        tokens = torch.tensor(TOKENS.astype(np.int64))
        want = wrapped(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[:, 0].numpy()
    got = ours(tmp_path / "lora", TOKENS, np.ones_like(TOKENS, bool))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert np.abs(got - ours(base, TOKENS, np.ones_like(TOKENS, bool))).max() > 1e-3


TEMPLATES = [
    "{% for m in messages %}<bos>{{ m['role'] }}: {{ m['content'] }}<eos>{% endfor %}{% if add_generation_prompt %}<bos>assistant: {% endif %}",
    "{{ bos_token }}{% for m in messages %}{{ m.role }}\n{{ m.content | trim }}{{ eos_token }}{% endfor %}",
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("answer", [True, False])
def test_chat_renderings(tmp_path, template, answer):
    directory = write_tokenizer(tmp_path / "t")
    own = tokenizers.load_tokenizer(directory)
    own.chat_template = template
    messages = [{"role": "system", "content": "be warm"}, {"role": "user", "content": "the cat?"}]
    messages += [{"role": "assistant", "content": "sat on the mat"}] if answer else []
    want = own.apply_chat_template(messages, tokenize=True, add_generation_prompt=not answer, return_dict=False)
    row = {"messages": messages} if not answer else {"prompt": messages[:-1], "response": "sat on the mat"}
    assert tokenization.encode(own, row, "here", VOCAB, "", answer=answer) == list(want)
