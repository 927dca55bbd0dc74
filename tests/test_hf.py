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
from checkpoints import CONFIGS, VOCAB, write_checkpoint
from safetensors.numpy import load_file, save_file

from rmo import config, hf, models, reward, sharding
from rmo.families import FAMILIES
from rmo.sample import sample

GOLDEN = Path(__file__).with_name("data") / "hf.npz"
P, NEW = 20, 64
KINDS = [(name, kind) for name in CONFIGS for kind in ("lm", "rm")]
LOAD = {"lm": hf.load_language_model, "rm": hf.load_reward_model}


def prompts():
    """(tokens, mask) i32, bool [3, P], left-padded by 0, 5 and 9."""
    mask = np.arange(P)[None] >= np.array([0, 5, 9])[:, None]
    return np.where(mask, np.random.default_rng(0).integers(3, VOCAB, (3, P)), 0).astype(np.int32), mask


def ours(directory: Path, kind: str, dtype: str = "float32") -> dict[str, np.ndarray]:
    """What transformers is asked too: logits of the prompts and 64 greedy tokens, or scores."""
    module, params = LOAD[kind](directory, dtype=dtype)
    tokens, mask = prompts()
    if kind == "rm":
        return {"scores": np.asarray(reward.score(module, params, tokens, mask))}
    logits, _ = models.logits(module, params, tokens, mask)
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


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_same_as_transformers(tmp_path, name, kind):
    with np.load(GOLDEN) as kept:
        want = {key.split("/")[-1]: kept[key] for key in kept.files if key.startswith(f"{name}/{kind}/")}
    assert want
    agree(ours(write_checkpoint(tmp_path / "c", name, kind), kind), want)


@pytest.mark.parity
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_transformers_itself_and_back(tmp_path, name, kind):
    """What is kept is what transformers says; what we export it loads with identical tensors, and as a tokenless twin."""
    import transformers

    directory = write_checkpoint(tmp_path / "c", name, kind)
    want = transformers_says(directory, kind)
    if os.environ.get("RMO_KEEP"):  # makes data/hf.npz anew
        kept = dict(np.load(GOLDEN)) if GOLDEN.exists() else {}
        np.savez_compressed(GOLDEN, **kept | {f"{name}/{kind}/{key}": value for key, value in want.items()})
    with np.load(GOLDEN) as kept:
        agree({key: kept[f"{name}/{kind}/{key}"] for key in want}, want, 1e-5)
    module, params = LOAD[kind](directory)
    hf.export(module, params, tmp_path / "out")
    auto = transformers.AutoModelForCausalLM if kind == "lm" else transformers.AutoModelForSequenceClassification
    before, after = (auto.from_pretrained(d).state_dict() for d in (directory, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all((before[key] == after[key]).all() for key in before)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_load_export_load_is_the_identity(tmp_path, name, kind):
    directory = write_checkpoint(tmp_path / "c", name, kind)
    module, params = LOAD[kind](directory)
    hf.export(module, params, tmp_path / "out")
    a, b = (load_file(d / "model.safetensors") for d in (directory, tmp_path / "out"))
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
    module2, params2 = LOAD[kind](tmp_path / "out")
    assert module2 == module
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), params, params2))


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
    monkeypatch.setattr(hf, "SHARD", 20_000)
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
    with pytest.raises(hf.CheckpointError, match="no such directory"):
        hf.load_language_model(tmp_path / "nowhere")
    with pytest.raises(hf.CheckpointError, match="could not be fetched from the hub"):
        hf.load_language_model("nobody/nothing-here")
    module, params = hf.load_language_model(lm)
    with pytest.raises(hf.CheckpointError, match="not empty"):
        hf.export(module, params, lm)
    own = models.LanguageModel(config.Model(width=16, layers=1, heads=2), 11, 8)
    with pytest.raises(hf.CheckpointError, match=r"no family .* differs in"):
        hf.export(own, models.init(own, jax.random.key(0)), tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_a_name_of_the_hub_is_fetched(tmp_path, monkeypatch):
    import huggingface_hub

    directory = write_checkpoint(tmp_path / "c", "qwen2")
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **kwargs: asked.append((name, kwargs)) or str(directory)
    )
    hf.load_language_model("someone/some-model")
    ((name, kwargs),) = asked
    assert name == "someone/some-model"
    assert not any("bin" in pattern or "py" in pattern for pattern in kwargs["allow_patterns"])


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
    code = (
        "import resource, sys, time\nfrom rmo import hf\nimport jax\njax.devices()\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\nstart = time.perf_counter()\n"
        f"module, params = hf.load_language_model({str(tmp_path)!r}, stored='bfloat16')\njax.block_until_ready(params)\n"
        "print(base, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.perf_counter() - start)"
    )  # fmt: skip
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    base, peak, seconds = map(float, out)
    print(
        f"{size / 2**30:.2f} GiB, peak {(peak - base) / size:.2f} x its size over {base / 2**30:.2f} GiB, {seconds:.1f} s"
    )
    assert peak - base < 1.3 * size
