"""Checkpoints of the six families: against transformers' own torch models, in and out, and refused.

transformers' answers on small checkpoints are kept in data/hf.npz, so that only `-m parity` needs torch. The
checkpoints are not kept: names, shapes and seeded numbers make them anew.
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rmo import config
from rmo.checkpoints import hf, tokenizers, weights
from rmo.checkpoints.families import FAMILIES, canonical, family_of
from rmo.config import checks
from rmo.models import scoring, transformer
from rmo.models.sampling import sample
from rmo.runtime import sharding
from tests.helpers.checkpoints import CONFIGS, LENGTH, VOCAB, write_checkpoint, write_tokenizer

GOLDEN = Path(__file__).parents[1] / "data" / "hf.npz"
P, NEW = 20, 64
KINDS = [(name, kind) for name in CONFIGS for kind in ("lm", "rm")]
LOAD = {"lm": hf.load_language_model, "rm": hf.load_reward_model}


def prompts():
    """(tokens, mask) i32, bool [3, P], left-padded by 0, 5 and 9."""
    mask = np.arange(P)[None] >= np.array([0, 5, 9])[:, None]
    tokens = np.where(mask, np.random.default_rng(0).integers(3, VOCAB, (3, P)), 0).astype(np.int32)
    tokens[1, -1] = 2  # eos
    return tokens, mask


def ours(directory: Path, kind: str, dtype: str = "float32") -> dict[str, np.ndarray]:
    """What transformers is asked too: logits of the prompts and 64 greedy tokens, or scores."""
    module, params = LOAD[kind](directory, dtype=dtype)
    tokens, mask = prompts()
    if kind == "rm":
        return {"scores": np.asarray(scoring.score(module, params, tokens, mask))}
    logits, _ = transformer.logits(module, params, tokens, mask)
    greedy = sample(module, params, tokens, mask, jax.random.split(jax.random.key(0), 3), NEW, -1, temperature=1e-7)
    return {"logits": np.asarray(logits), "greedy": np.asarray(greedy.tokens)}


def transformers_says(directory: Path, kind: str) -> dict[str, np.ndarray]:
    import torch
    import transformers

    tokens, mask = (torch.tensor(np.asarray(x, np.int64)) for x in prompts())
    with torch.no_grad():
        if kind == "rm":
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                directory, attn_implementation="eager"
            )
            model = model.eval()
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            return {"scores": model(tokens, attention_mask=mask, position_ids=positions).logits[:, 0].numpy()}
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(tokens, attention_mask=mask, position_ids=positions).logits
        out = model.generate(tokens, attention_mask=mask, do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW,
                             eos_token_id=VOCAB + 1)  # fmt: skip
        return {"logits": logits.numpy(), "greedy": out[:, P:].numpy().astype(np.int32)}


def agree(got: dict[str, np.ndarray], want: dict[str, np.ndarray], tolerance: float = 1e-4) -> None:
    """Floats within `tolerance` of their largest size where tokens exist, greedy tokens identical."""
    _, mask = prompts()
    for name, expected in want.items():
        if name == "greedy":
            np.testing.assert_array_equal(got[name], expected)
        else:
            keep = mask if name == "logits" else slice(None)
            assert np.abs(got[name] - expected)[keep].max() <= tolerance * np.abs(expected[keep]).max()


def kept(name: str, kind: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as everything:
        return {key.split("/")[-1]: everything[key] for key in everything.files if key.startswith(f"{name}/{kind}/")}


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_same_as_transformers_before_and_after_export(tmp_path, name, kind):
    """Logits, 64 greedy tokens, scores and names are transformers'; out and in again nothing changes."""
    directory, want = write_checkpoint(tmp_path / "c", name, kind), kept(name, kind)
    names = set(want.pop("names").tolist())
    assert want
    got = ours(directory, kind)
    agree(got, want)
    module, params = LOAD[kind](directory)
    hf.export(module, params, tmp_path / "out")
    a, b = (load_file(d / "model.safetensors") for d in (directory, tmp_path / "out"))
    assert a.keys() == b.keys() == names
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    module2, params2 = LOAD[kind](tmp_path / "out")
    assert module2 == module
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), params, params2))


@pytest.mark.parity
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_transformers_itself(tmp_path, name, kind):
    """What is kept is what transformers says; from what we export it says the same, with identical tensors."""
    import transformers

    directory = write_checkpoint(tmp_path / "c", name, kind)
    auto = transformers.AutoModelForCausalLM if kind == "lm" else transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(directory)
    want = transformers_says(directory, kind)
    model.save_pretrained(tmp_path / "theirs")
    want["names"] = np.array(sorted(load_file(tmp_path / "theirs" / "model.safetensors")))
    if os.environ.get("RMO_KEEP"):  # makes data/hf.npz anew
        everything = dict(np.load(GOLDEN)) if GOLDEN.exists() else {}
        np.savez_compressed(GOLDEN, **everything | {f"{name}/{kind}/{key}": value for key, value in want.items()})
    names = want.pop("names")
    assert kept(name, kind)["names"].tolist() == names.tolist()
    agree(kept(name, kind), want, 1e-5)
    module, params = LOAD[kind](directory)
    tokenizer = tokenizers.load_tokenizer(write_tokenizer(tmp_path / "tokenizer"))
    hf.export(module, params, tmp_path / "out", tokenizer)
    again = auto.from_pretrained(tmp_path / "out")
    assert (again.config.bos_token_id, again.config.eos_token_id, again.config.pad_token_id) == (1, 2, 0)
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all((before[key] == after[key]).all() for key in before)
    agree(transformers_says(tmp_path / "out", kind), want, 1e-6)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_bfloat16(tmp_path, name):
    """Stored and run in bfloat16: what was stored is kept, results are within its rounding."""
    directory = write_checkpoint(tmp_path / "c", name, dtype=ml_dtypes.bfloat16)
    exact, rough = ours(directory, "lm"), ours(directory, "lm", dtype="bfloat16")
    del exact["greedy"]
    agree(rough, exact, 0.05)
    module, params = hf.load_language_model(directory, stored="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    hf.export(module, params, tmp_path / "out")
    a, b = (load_file(d / "model.safetensors") for d in (directory, tmp_path / "out"))
    assert all((a[key] == b[key]).all() and a[key].dtype == b[key].dtype for key in a)


def test_shards_and_meshes(tmp_path, monkeypatch):
    """Many files with an index load as one; parameters land sharded, equal to those on one device."""
    directory = write_checkpoint(tmp_path / "c", "qwen3")
    module, params = hf.load_language_model(directory)
    monkeypatch.setattr(weights, "SHARD", 20_000)
    hf.export(module, params, tmp_path / "many")
    assert len(list((tmp_path / "many").glob("model-*-of-*.safetensors"))) > 3
    monkeypatch.setattr(sharding, "SMALL", 512)
    mesh = sharding.make_mesh(4, 2)
    _, spread = hf.load_language_model(tmp_path / "many", mesh)
    assert jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), params, spread))
    kernel = spread["trunk"]["blocks"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 8
    (tmp_path / "many" / "model-00002-of-00005.safetensors").unlink(missing_ok=True)
    sorted((tmp_path / "many").glob("*.safetensors"))[0].unlink()
    with pytest.raises(hf.CheckpointError, match=r"names model-0000\d-of-.*not there"):
        hf.load_language_model(tmp_path / "many")


def test_a_trunk_without_prefix_and_old_buffers(tmp_path):
    """GPT-2's own files name tensors without `transformer.` and carry causal masks."""
    directory = write_checkpoint(tmp_path / "c", "gpt2")
    want = ours(directory, "lm")
    bare = {k.removeprefix("transformer."): v for k, v in load_file(directory / "model.safetensors").items()}
    bare["h.0.attn.bias"] = np.ones((1, 1, 4, 4), np.float32)
    save_file(bare, directory / "model.safetensors")
    agree(ours(directory, "lm"), want, 0)


def test_a_head_bias_survives(tmp_path):
    module, params = hf.load_reward_model(write_checkpoint(tmp_path / "c", "llama", "rm"))
    params["head"]["bias"] = jnp.array([1.5])
    hf.export(module, params, tmp_path / "out")
    _, back = hf.load_reward_model(tmp_path / "out")
    assert float(back["head"]["bias"][0]) == 1.5


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "has no config.json"),
        (lambda d: (d / "config.json").write_text("{"), "is not JSON"),
        (lambda d: edit_config(d, auto_map={"AutoModel": "x.Y"}), "remote code is never run"),
        (lambda d: edit_config(d, model_type="mamba"), "is of type mamba: known are gpt2, gpt_neox, llama"),
        (lambda d: edit_config(d, hidden_act="mish"), "activation mish"),
        (lambda d: edit_config(d, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}), "type yarn"),
        (lambda d: edit_config(d, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}), "partial_rotary_factor 0.5"),
        (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "pytorch_model.bin, a pickle"),
        (lambda d: (d / "model.safetensors").write_bytes(b"junk" * 9), "is no safetensors file"),
        (lambda d: edit_tensors(d, lambda t: t.pop("model.norm.weight")), "has no tensor model.norm.weight"),
        (lambda d: edit_tensors(d, lambda t: t.update({"model.norm.weight": np.ones(5, np.float32)})), r"is \(5,\), the config says \(32,\)"),
        (lambda d: edit_tensors(d, lambda t: t.update({"model.lora.weight": np.ones(5, np.float32)})), "1 tensors that its config does not explain, e.g. model.lora"),
    ],
)  # fmt: skip
def test_refusals(tmp_path, spoil, message):
    directory = write_checkpoint(tmp_path / "c", "llama")
    spoil(directory)
    with pytest.raises(hf.CheckpointError, match=message) as error:
        hf.load_language_model(directory)
    assert "\n" not in str(error.value)


def test_refused_kinds_and_places(tmp_path):
    lm, rm = write_checkpoint(tmp_path / "lm", "qwen2"), write_checkpoint(tmp_path / "rm", "qwen2", "rm")
    with pytest.raises(hf.CheckpointError, match="no one-label sequence classifier"):
        hf.load_reward_model(lm)
    with pytest.raises(hf.CheckpointError, match="use it as a reward model"):
        hf.load_language_model(rm)
    edit_config(rm, id2label={"0": "good", "1": "bad"}, label2id={"good": 0, "bad": 1})
    with pytest.raises(hf.CheckpointError, match="has 2 labels: a reward model has one"):
        hf.load_reward_model(rm)
    with pytest.raises(hf.CheckpointError, match="no such directory"):
        hf.load_language_model(tmp_path / "nowhere")
    with pytest.raises(hf.CheckpointError, match="could not be fetched from the hub"):
        hf.load_language_model("nobody/nothing-here")
    module, params = hf.load_language_model(lm)
    with pytest.raises(hf.CheckpointError, match="not empty"):
        hf.export(module, params, lm)
    own = transformer.LanguageModel(config.Model(width=16, layers=1, heads=2), 11, 8)
    with pytest.raises(hf.CheckpointError, match=r"no family .* differs in"):
        hf.export(own, transformer.init(own, jax.random.key(0)), tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_a_name_of_the_hub_is_fetched(tmp_path, monkeypatch):
    import huggingface_hub

    directory = write_checkpoint(tmp_path / "c", "qwen2")
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **kwargs: asked.append((name, kwargs)) or str(directory)
    )
    hf.load_language_model("someone/some-model@v2")
    ((name, kwargs),) = asked
    assert (name, kwargs["revision"]) == ("someone/some-model", "v2")
    assert not any("bin" in pattern or "py" in pattern for pattern in kwargs["allow_patterns"])


# config.json files as the hub has them, older spellings included, and what they must come to.
HUB = {
    "EleutherAI/pythia-1.4b": (
        {"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu", "hidden_size": 2048,
         "initializer_range": 0.02, "intermediate_size": 8192, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
         "model_type": "gpt_neox", "num_attention_heads": 16, "num_hidden_layers": 24, "rotary_emb_base": 10000, "rotary_pct": 0.25,
         "tie_word_embeddings": False, "torch_dtype": "float16", "use_cache": True, "use_parallel_residual": True, "vocab_size": 50304},
        config.Model(width=2048, layers=24, heads=16, hidden=8192, activation="gelu_exact", norm="layer", norm_eps=1e-5, bias="all",
                     parallel=True, tied=False, rotary_share=0.25),
    ),
    "openai-community/gpt2": (
        {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "bos_token_id": 50256, "eos_token_id": 50256,
         "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
         "n_positions": 1024, "vocab_size": 50257},
        config.Model(width=768, layers=12, heads=12, hidden=3072, norm="layer", norm_eps=1e-5, bias="all", positions="learned"),
    ),
    "meta-llama/Llama-2-7b": (
        {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
         "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
         "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
         "vocab_size": 32000},
        config.Model(width=4096, layers=32, heads=32, kv_heads=32, hidden=11008, activation="silu", gated=True, norm_eps=1e-5, tied=False),
    ),
    "Skywork/Skywork-Reward-V2-Llama-3.1-8B": (
        {"architectures": ["LlamaForSequenceClassification"], "attention_bias": False, "bos_token_id": 128000, "eos_token_id": 128009,
         "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "id2label": {"0": "LABEL_0"}, "intermediate_size": 14336,
         "label2id": {"LABEL_0": 0}, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama",
         "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pad_token_id": 128256, "rms_norm_eps": 1e-05,
         "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
         "rope_theta": 500000.0, "tie_word_embeddings": False, "vocab_size": 128256},
        config.Model(width=4096, layers=32, heads=32, kv_heads=8, hidden=14336, activation="silu", gated=True, norm_eps=1e-5, tied=False,
                     rotary_base=500000.0, rotary_scaling=(8.0, 1.0, 4.0, 8192.0)),
    ),
    "Qwen/Qwen2.5-0.5B": (
        {"architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
         "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
         "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
         "tie_word_embeddings": True, "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936},
        config.Model(width=896, layers=24, heads=14, kv_heads=2, hidden=4864, activation="silu", gated=True, bias="qkv", rotary_base=1e6),
    ),
    "Qwen/Qwen3-0.6B": (
        {"architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
         "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
         "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None,
         "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 151936},
        config.Model(width=1024, layers=28, heads=16, kv_heads=8, head=128, hidden=3072, activation="silu", gated=True, qk_norm=True, rotary_base=1e6),
    ),
    "google/gemma-2-2b": (
        {"architectures": ["Gemma2ForCausalLM"], "attention_bias": False, "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
         "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
         "hidden_size": 2304, "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2",
         "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256,
         "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 256000},
        config.Model(width=2304, layers=26, heads=8, kv_heads=4, head=256, hidden=9216, activation="gelu", gated=True, norm="rms_offset",
                     post_norm=True, embed_scale=True, window=4096, query_scale=256.0, attention_cap=50.0, logit_cap=30.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HUB)
def test_configs_of_the_hub(tmp_path, name):
    values, shape = HUB[name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    family, got, _ = hf.read_config(tmp_path)
    assert family.model_type == values["model_type"]
    assert canonical(got) == canonical(shape)
    assert family_of(shape) is family


def test_a_head_that_is_stored_counts_although_the_config_ties(tmp_path):
    directory = write_checkpoint(tmp_path / "c", "qwen2")
    tied = ours(directory, "lm")["logits"]
    edit_tensors(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
    np.testing.assert_array_equal(ours(directory, "lm")["logits"], tied)
    edit_tensors(directory, lambda t: t.update({"lm_head.weight": 2 * t["model.embed_tokens.weight"]}))
    np.testing.assert_allclose(ours(directory, "lm")["logits"], 2 * tied, rtol=1e-5, atol=1e-5)


def test_neox_head_by_either_name(tmp_path):
    directory = write_checkpoint(tmp_path / "c", "gpt_neox")
    want = ours(directory, "lm")
    edit_tensors(directory, lambda t: t.update({"lm_head.weight": t.pop("embed_out.weight")}))
    agree(ours(directory, "lm"), want, 0)


def test_special_tokens_of_an_export_are_the_tokenizers(tmp_path):
    module, params = hf.load_reward_model(write_checkpoint(tmp_path / "c", "llama", "rm"))
    ids = lambda directory: [
        json.loads((directory / "config.json").read_text()).get(f"{n}_token_id") for n in ("bos", "eos", "pad")
    ]
    hf.export(module, params, tmp_path / "a", tokenizers.load_tokenizer(write_tokenizer(tmp_path / "t")))
    assert ids(tmp_path / "a") == [1, 2, 0]
    assert tokenizers.load_tokenizer(tmp_path / "a").pad_token == "<pad>"
    hf.export(module, params, tmp_path / "b")
    assert ids(tmp_path / "b") == [None, None, None]
    with pytest.raises(hf.CheckpointError, match="no pad token besides eos"):
        hf.export(
            module, params, tmp_path / "d", tokenizers.load_tokenizer(write_tokenizer(tmp_path / "t2", pad=False))
        )


def test_too_many_tokens_for_learned_positions(tmp_path):
    module, params = hf.load_language_model(write_checkpoint(tmp_path / "c", "gpt2"))
    tokens = jnp.ones((1, LENGTH + 1), jnp.int32)
    with pytest.raises(ValueError, match="97 tokens: this model has learned positions for 96"):
        transformer.logits(module, params, tokens, tokens > 0)


def test_each_layer_is_read_once_however_it_is_sharded(tmp_path, monkeypatch):
    directory = write_checkpoint(tmp_path / "c", "qwen3")
    monkeypatch.setattr(sharding, "SMALL", 512)
    real, read = hf.Weights.__getitem__, []
    monkeypatch.setattr(hf.Weights, "__getitem__", lambda self, name: read.append(name) or real(self, name))
    hf.load_language_model(directory, sharding.make_mesh(4, 2))
    assert sorted(read) == sorted(load_file(directory / "model.safetensors"))


@pytest.mark.slow
def test_a_large_checkpoint_peaks_below_1_3_times_its_size(tmp_path):
    """Pythia-1.4B's shape, random, bfloat16 (2.8 GB): peak host memory of a process that loads it."""
    import subprocess
    import sys

    shape = {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 8192,
             "max_position_embeddings": 2048, "vocab_size": 50304}  # fmt: skip
    family = FAMILIES["gpt_neox"]
    from transformers import AutoConfig

    values = AutoConfig.for_model("gpt_neox", **shape)
    values.architectures = ["GPTNeoXForCausalLM"]
    values.save_pretrained(tmp_path)
    c = family.read(values.to_dict())
    block = np.random.default_rng(0).normal(size=2**20).astype(ml_dtypes.bfloat16)
    fill = lambda size: np.resize(block, size)
    names = (
        (t.name.format(i=i), t)
        for t in family.tensors(c, 50304, 2048, False)
        for i in range(c.layers if t.layered else 1)
    )
    hf.write_shards(tmp_path, ((name, fill(int(np.prod(t.shape))).reshape(t.shape)) for name, t in names))
    size = sum(p.stat().st_size for p in tmp_path.glob("*.safetensors"))
    # VmHWM is this process's own peak; ru_maxrss would begin at that of the process which started it.
    code = (
        "import re, time\nfrom rmo.checkpoints import hf\nimport jax\njax.devices()\n"
        "peak = lambda: int(re.search('VmHWM:\\\\s+(\\\\d+)', open('/proc/self/status').read())[1]) * 1024\n"
        "base, start = peak(), time.perf_counter()\n"
        f"module, params = hf.load_language_model({str(tmp_path)!r}, stored='bfloat16')\njax.block_until_ready(params)\n"
        "print(base, peak(), time.perf_counter() - start)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    base, peak, seconds = map(float, out)
    print(
        f"{size / 2**30:.2f} GiB, peak {(peak - base) / size:.2f} x its size over {base / 2**30:.2f} GiB, {seconds:.1f} s"
    )
    assert 0.9 * size < peak - base < 1.3 * size


def test_shipped_configs_say_the_shapes_of_the_hub(tmp_path):
    """What configs/*.py write of a checkpoint whose config.json is known here is what the hub has."""
    known = set()
    for path in sorted((Path(__file__).parents[2] / "configs").glob("*.py")):
        e = checks.load(path)
        for shape in (*e.policies, e.gold.model, *e.proxies.sizes):
            if shape.checkpoint in HUB:
                (tmp_path / "config.json").write_text(json.dumps(HUB[shape.checkpoint][0]))
                assert hf.differences(shape, hf.shape_of(tmp_path)) == ""
                known.add(shape.checkpoint)
    assert known == {"EleutherAI/pythia-1.4b", "Skywork/Skywork-Reward-V2-Llama-3.1-8B"}


@pytest.mark.parametrize("pooling", ["unnormed", "sum", "mean"])
def test_an_rm_that_pools_over_tokens_is_not_exported(pooling, tmp_path):
    module = transformer.RewardModel(config.Model(pooling=pooling), 11, 8)
    with pytest.raises(
        hf.CheckpointError, match=f"read the last token behind a norm, and this RM's pooling is {pooling}"
    ):
        hf.export(module, {}, tmp_path / "new")
