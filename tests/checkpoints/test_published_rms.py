"""Reward models as people publish them: heads of any name and place, adapters, quantised weights, files as they lie.

The score of every model here is the id of the token that it is read at, but for what its head adds (helpers/known_models).
"""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rmo.checkpoints import hf
from rmo.checkpoints.heads import HEAD_BIAS
from rmo.models import bulk_scoring
from tests.helpers import known_models
from tests.helpers.known_models import CONFIG, VOCAB, WIDTH, adapter, head, reward_model, shards, trunk, write

IDS = np.array([[1, 9, 20], [1, 9, 93]], np.int32)  # read at 20 and at 93


def scores(directory):
    module, params = hf.load_reward_model(directory)
    return bulk_scoring.score_all(module, params, IDS, np.ones_like(IDS, bool), 2)


def says(directory, want, tolerance=1e-3):
    np.testing.assert_allclose(scores(directory), want, atol=tolerance)


def refused(directory, message):
    with pytest.raises(hf.CheckpointError, match=message) as error:
        hf.load_reward_model(directory)
    assert "\n" not in str(error.value)


# Heads.

NAMES = [
    "v_head.summary",
    "value_head",
    "regression_head",
    "rewards.dense",
    "reward_head",
    "rm_head",
    "classifier",
    "score",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [None, -50.0])
def test_a_head_by_any_name(tmp_path, capsys, name, bias):
    tensors = {f"{name}.weight": head()} | ({} if bias is None else {f"{name}.bias": np.array([bias], np.float32)})
    says(reward_model(tmp_path / "rm", tensors, architectures=None), [20 + (bias or 0), 93 + (bias or 0)])
    assert (f"the score is that of {name}.weight" in capsys.readouterr().err) == (name != "score")


@pytest.mark.parametrize("file", ["value_head.safetensors", "score.safetensors", "reward-head.safetensors"])
@pytest.mark.parametrize("name", ["v_head.summary.", ""])
def test_a_head_in_a_file_of_its_own(tmp_path, capsys, file, name):
    unembedding = {"lm_head.weight": np.zeros((VOCAB, WIDTH), np.float32)}
    directory = write(tmp_path / "rm", trunk() | unembedding, CONFIG)
    save_file({f"{name}weight": head(), f"{name}bias": np.array([3], np.float32)}, directory / file)
    says(directory, [23, 96])
    assert f"in {file}" in capsys.readouterr().err


def test_a_language_model_with_a_value_head(tmp_path, capsys):
    """It is both: a reward model by the head, and a policy whose head has no part in what it says."""
    unembedding = {"lm_head.weight": np.zeros((VOCAB, WIDTH), np.float32)}
    directory = write(tmp_path / "m", trunk() | unembedding | {"v_head.summary.weight": head()}, CONFIG)
    says(directory, [20, 93])
    hf.load_language_model(directory)
    assert "v_head.summary.weight, a value head, has no part" in capsys.readouterr().err


def test_an_unembedding_of_one_row_is_a_head(tmp_path):
    says(write(tmp_path / "rm", trunk() | {"lm_head.weight": head()}, CONFIG), [20, 93])


@pytest.mark.parametrize(
    "labels", [{"id2label": None, "label2id": None}, {"id2label": None, "label2id": None, "num_labels": 1}]
)
def test_labels_are_the_tensors_rows(tmp_path, labels):
    says(reward_model(tmp_path / "rm", **labels), [20, 93])


def test_two_heads_and_the_one_that_config_names(tmp_path):
    two = {"score.weight": head(), "value_head.weight": head(2.0)}
    refused(reward_model(tmp_path / "a", two), "has score.weight and value_head.weight: which is the reward")
    says(reward_model(tmp_path / "b", two, value_head_prefix="value_head"), [40, 186])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"score.weight": np.concatenate([head(), -head()])}, r"has 2 labels \(score.weight\): a reward model has one"),
        ({"score.0.weight": np.zeros((8, WIDTH), np.float32), "score.2.weight": np.zeros((1, 8), np.float32)}, "several layers or labels"),
        ({"regression_layer.weight": np.zeros((19, WIDTH), np.float32), "gating.0.weight": np.zeros((9, WIDTH), np.float32)}, "has 19 labels"),
        ({"lm_head.weight": np.zeros((VOCAB, WIDTH), np.float32)}, "no one-label sequence classifier"),
        ({"score.weight": head()[0]}, r"no head of one row of 272 \(score.weight \(272,\)\)"),
        ({"score.weight": head(), "score.bias": np.zeros(2, np.float32)}, r"score.bias is \(2,\), and score.weight has one row"),
        ({"score.weight": head(), "dense.weight": np.zeros((WIDTH, WIDTH), np.float32)}, "1 tensors that its config does not explain"),
    ],
)  # fmt: skip
def test_heads_that_make_no_one_number(tmp_path, tensors, message):
    refused(reward_model(tmp_path / "rm", tensors), message)


def test_a_config_that_contradicts_the_tensor(tmp_path):
    refused(reward_model(tmp_path / "rm", id2label={"0": "bad", "1": "good"}), "has 2 labels: a reward model has one")


def test_scores_of_every_token_are_read_at_the_last_and_that_is_said(tmp_path, capsys):
    says(reward_model(tmp_path / "rm", architectures=["LlamaForTokenClassification"]), [20, 93])
    assert "which scores every token: the score is that of the last" in capsys.readouterr().err


# Normalised scores.


def test_mean_and_std_are_applied_where_config_asks(tmp_path, capsys):
    asked = {"mean": 100.0, "std": 4.0, "normalize_reward": True}
    says(reward_model(tmp_path / "a", **asked), [(20 - 100) / 4, (93 - 100) / 4])
    assert "less 100, over 4" in capsys.readouterr().err
    with_bias = {"score.weight": head(), "score.bias": np.array([8], np.float32)}
    says(reward_model(tmp_path / "b", with_bias, **asked), [(28 - 100) / 4, (101 - 100) / 4])
    says(reward_model(tmp_path / "c", **asked, **{HEAD_BIAS: 4.0}), [(24 - 100) / 4, (97 - 100) / 4])


def test_mean_and_std_that_nobody_asks_for_are_named(tmp_path, capsys):
    says(reward_model(tmp_path / "a", mean=100.0, std=4.0), [20, 93])
    assert "mean 100 and std 4 of scores and does not ask for them" in capsys.readouterr().err
    says(reward_model(tmp_path / "b", mean=0.0, std=1.0, normalize_reward=True), [20, 93])
    assert "mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [({"std": 0.0}, "std is 0, by which"), ({"mean": "x"}, "mean is 'x', no number"), ({"std": -1.0}, "std is -1")],
)
def test_no_mean_and_std(tmp_path, values, message):
    refused(reward_model(tmp_path / "rm", **{"mean": 1.0, "std": 2.0, "normalize_reward": True} | values), message)


# Names of tensors.


@pytest.mark.parametrize("before", ["module.", "base_model.model.", "_orig_mod.module.", "pretrained_model."])
def test_wrappers_before_every_name(tmp_path, before):
    tensors = {before + name: x for name, x in (trunk() | {"score.weight": head()}).items()}
    says(write(tmp_path / "rm", tensors, known_models.CLASSIFIER), [20, 93])


def test_a_bare_trunk_and_a_backbone(tmp_path):
    for k, prefix in enumerate(("", "backbone.", "llm.model.")):
        says(write(tmp_path / str(k), trunk(prefix) | {"v_head.summary.weight": head()}, CONFIG), [20, 93])


def test_two_models_in_one_file_are_not_guessed_at(tmp_path):
    both = trunk() | {f"reference.{name}": x for name, x in trunk().items()} | {"score.weight": head()}
    refused(write(tmp_path / "rm", both, known_models.CLASSIFIER), "tensors that its config does not explain")


# Files.


OLD = trunk() | {"score.weight": head(-1.0)}


def test_a_single_file_counts_before_an_index(tmp_path, capsys):
    directory = reward_model(tmp_path / "rm")
    files = shards(directory, OLD)
    says(directory, [20, 93])
    assert f"the index beside it, which names {files[0]}, is not" in capsys.readouterr().err
    (directory / files[0]).unlink()
    says(directory, [20, 93])
    (directory / "model.safetensors").unlink()
    refused(directory, f"names {files[0]}, which is not there")


def test_tensors_are_taken_from_where_they_are(tmp_path):
    directory = reward_model(tmp_path / "rm")
    shards(directory, OLD, moved=list(OLD)[:2])
    (directory / "model.safetensors").unlink()
    says(directory, [-20, -93])


def spoilt_index(text):
    def spoil(directory):
        shards(directory, OLD)
        (directory / "model.safetensors.index.json").write_text(text)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: shards(d, OLD, lost=["score.weight"]), "names score.weight, which no file of it has"),
        (lambda d: (shards(d, OLD), (d / "model.safetensors.index.json").unlink()), "has model-00001-of-00002.safetensors but no model.safetensors.index.json"),
        (spoilt_index("{"), "is not JSON"),
        (spoilt_index("[]"), "holds a list, no object"),
        (spoilt_index("{}"), "has no weight_map"),
        (spoilt_index('{"weight_map": {"a": 3}}'), "names 3, no file beside it"),
        (spoilt_index('{"weight_map": {"a": "../x.safetensors"}}'), "no file beside it"),
        (lambda d: (d / "model-fp16.safetensors").write_bytes(b"x"), "go by another name"),
        (lambda d: (d / "pytorch_model-00001-of-00002.bin").write_bytes(b"x"), "pytorch_model-00001-of-00002.bin, a pickle, which is never opened"),
        (lambda d: [(d / name).write_bytes(b"x") for name in ("optimizer.pt", "pytorch_model.bin", "training_args.bin")], "has pytorch_model.bin, a pickle"),
        (lambda d: (d / "model.Q4_K_M.gguf").write_bytes(b"x"), "model.Q4_K_M.gguf, another format: convert it .rmo convert "),
        (lambda d: (d / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "a pointer of Git LFS"),
        (lambda d: (d / "model.safetensors").write_bytes(b""), "is no safetensors file"),
        (lambda d: (d / "model.safetensors").mkdir(), "cannot be read"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_are_named(tmp_path, spoil, message):
    directory = reward_model(tmp_path / "rm")
    (directory / "model.safetensors").unlink()
    spoil(directory)
    refused(directory, message)


def test_half_a_file(tmp_path):
    file = reward_model(tmp_path / "rm") / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refused(tmp_path / "rm", "not all of one")


# Types and quantised weights.


@pytest.mark.parametrize(("kind", "tolerance"), [(np.float64, 1e-3), (np.float16, 0.1), (ml_dtypes.bfloat16, 0.5)])
def test_types_of_weights(tmp_path, kind, tolerance):
    tensors = {name: x.astype(kind) for name, x in (trunk() | {"score.weight": head()}).items()}
    says(write(tmp_path / "rm", tensors, known_models.CLASSIFIER), [20, 93], tolerance)


LINEAR = [name for name in trunk() if "proj" in name]


def quantised(change, names=LINEAR):
    return {name: change(x) if name in names else x for name, x in (trunk() | {"score.weight": head()}).items()}


def beside(suffix, tensors):
    return {name.replace(".weight", suffix): np.ones(4, np.float32) for name in LINEAR if name in tensors}


FP8 = quantised(lambda x: x.astype(ml_dtypes.float8_e4m3fn))
INT8 = quantised(lambda x: x.astype(np.int8))
PACKED = {(f"{name}.qweight" if name in LINEAR else name): x for name, x in FP8.items()}


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (FP8, {"quantization_config": {"quant_method": "fp8"}}, r"is quantised \(fp8\)"),
        (FP8, {}, r"is quantised \(model.layers.0.self_attn.q_proj.weight is F8_E4M3\)"),
        (FP8 | beside(".weight_scale_inv", FP8), {}, r"is quantised"),
        (INT8 | beside(".SCB", INT8), {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, r"bitsandbytes, 8 bits"),
        (INT8 | beside(".SCB", INT8), {}, r"is quantised \(model.layers.0"),
        (quantised(lambda x: np.zeros((x.size // 2, 1), np.uint8)), {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "4 bits"),
        (PACKED, {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        (PACKED, {}, "is quantised"),
        (trunk() | {"score.weight": head()}, {"quantization_config": "strange"}, "strange"),
    ],
)  # fmt: skip
def test_quantised_weights_are_named(tmp_path, tensors, config, message):
    directory = write(tmp_path / "rm", tensors, known_models.CLASSIFIER | config)
    refused(directory, message)


def test_a_config_that_says_nothing_is_quantised(tmp_path):
    says(reward_model(tmp_path / "rm", quantization_config={"load_in_8bit": False, "load_in_4bit": False}), [20, 93])


# Adapters.


RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, WIDTH)).astype(np.float32), RNG.normal(size=(WIDTH, 2)).astype(np.float32)
Q = "model.layers.0.self_attn.q_proj"
LORA = {f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B}


def merged(directory, name):
    _, params = hf.load_reward_model(directory)
    return np.asarray(params["trunk"]["blocks"][name]["kernel"])[0].reshape(WIDTH, -1).T


def base(tmp_path):
    return write(tmp_path / "base", trunk() | {"lm_head.weight": np.zeros((VOCAB, WIDTH), np.float32)}, CONFIG)


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, 6 / 2),
        ({"use_rslora": True}, 6 / 2**0.5),
        ({"alpha_pattern": {"q_proj": 10}}, 10 / 2),
        ({"r": 64, "rank_pattern": {r"layers\.0\.self_attn\.q_proj": 2}}, 6 / 2),
        ({"alpha_pattern": {"k_proj": 10}}, 6 / 2),
    ],
)
def test_a_lora_adapter_is_merged(tmp_path, capsys, changes, scale):
    """W + alpha / r * B A, and the head that came with the adapter."""
    directory = adapter(tmp_path / "lora", base(tmp_path), LORA | {"score.weight": head()}, **changes)
    np.testing.assert_allclose(merged(directory, "query"), scale * (B @ A), rtol=1e-5, atol=1e-5)
    assert not merged(directory, "key").any()
    assert "a LoRA adapter, merged into" in capsys.readouterr().err
    says(directory, [20, 93])  # keys and values are 0, so queries change nothing


def test_where_the_base_is_looked_for(tmp_path, monkeypatch):
    base(tmp_path)
    tensors = LORA | {"score.weight": head()}
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    says(adapter(tmp_path / "in" / "a", "../../base", tensors), [20, 93])
    monkeypatch.chdir(tmp_path)
    says(adapter(tmp_path / "b", "base", tensors), [20, 93])


def test_a_value_head_beside_an_adapter(tmp_path):
    directory = adapter(tmp_path / "lora", base(tmp_path), LORA, task_type="CAUSAL_LM")
    save_file(
        {"v_head.summary.weight": head(), "v_head.summary.bias": np.array([1], np.float32)},
        directory / "value_head.safetensors",
    )
    says(directory, [21, 94])
    hf.load_language_model(directory)


def test_an_adapter_of_a_classifier_is_no_language_model(tmp_path):
    directory = adapter(tmp_path / "lora", base(tmp_path), LORA | {"score.weight": head()})
    with pytest.raises(hf.CheckpointError, match="is a SEQ_CLS: no language model"):
        hf.load_language_model(directory)


def test_gpt2s_projections_are_kept_the_other_way(tmp_path):
    """GPT-2's Conv1D keeps [in, out]: what is added to it is the transpose."""
    from tests.helpers.checkpoints import write_checkpoint

    whole = write_checkpoint(tmp_path / "base", "gpt2", "rm")
    a, b = RNG.normal(size=(2, 32)).astype(np.float32), RNG.normal(size=(32, 2)).astype(np.float32)
    name = "transformer.h.0.attn.c_proj"
    directory = adapter(
        tmp_path / "lora", whole, {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, fan_in_fan_out=True
    )
    want = load_file(whole / "model.safetensors")[f"{name}.weight"] + 3 * (b @ a).T
    _, params = hf.load_reward_model(directory)
    np.testing.assert_allclose(
        np.asarray(params["trunk"]["blocks"]["out"]["kernel"])[0].reshape(32, 32), want, atol=1e-5
    )


def test_an_embedding_is_merged_too(tmp_path):
    a, b = RNG.normal(size=(2, VOCAB)).astype(np.float32), RNG.normal(size=(WIDTH, 2)).astype(np.float32)
    tensors = {
        "model.embed_tokens.lora_embedding_A": a,
        "model.embed_tokens.lora_embedding_B": b,
        "score.weight": head(),
    }
    _, params = hf.load_reward_model(adapter(tmp_path / "lora", base(tmp_path), tensors))
    want = np.eye(VOCAB, WIDTH) + 3 * (b @ a).T
    np.testing.assert_allclose(np.asarray(params["trunk"]["embed"]["embedding"]), want, atol=1e-4)


@pytest.mark.parametrize(
    ("tensors", "changes", "message"),
    [
        (LORA, {"peft_type": "IA3"}, "of kind IA3 for .*: only LORA is merged"),
        (LORA, {"use_dora": True}, "with use_dora, unknown here"),
        (LORA, {"init_lora_weights": "pissa"}, "with init_lora_weights pissa"),
        (LORA, {"r": 4}, r"A \(2, 272\), B \(272, 2\), rank 4"),
        (LORA, {"lora_alpha": "x"}, "lora_alpha of .* is 'x', no number"),
        (LORA, {"alpha_pattern": ["x"]}, "no object"),
        (LORA, {"alpha_pattern": {"(": 1}}, "alpha_pattern has '\\('"),
        (LORA, {"base_model_name_or_path": None}, "names no base"),
        (LORA, {"base_model_name_or_path": "/nowhere/at/all"}, "its base is not at hand: /nowhere/at/all: no such directory"),
        ({f"{Q}.lora_A.weight": A}, {}, "has lora_A: A and B are needed"),
        ({"model.layers.7.x.lora_A.weight": A, "model.layers.7.x.lora_B.weight": B}, {}, "changes model.layers.7.x, which its base .* does not have"),
        (LORA | {f"{Q}.lora_magnitude_vector": A[0]}, {}, "lora_magnitude_vector is unknown here"),
        (LORA | {"surprise.weight": A}, {}, "1 tensors that its config does not explain"),
        (LORA, {}, "no one-label sequence classifier"),
    ],
)  # fmt: skip
def test_adapters_that_cannot_be_merged(tmp_path, tensors, changes, message):
    if "classifier" not in message:
        tensors = tensors | {"score.weight": head()}
    refused(adapter(tmp_path / "lora", base(tmp_path), tensors, **changes), message)


def test_an_adapter_beside_whole_weights_is_not_passed_over(tmp_path):
    directory = adapter(reward_model(tmp_path / "rm"), "owner/base", LORA)
    refused(directory, "has whole weights and an adapter of owner/base: which is meant cannot be told")
    (directory / "adapter_config.json").unlink()
    refused(directory, "has adapter_model.safetensors but no adapter_config.json")


def test_an_adapter_that_is_a_pickle(tmp_path):
    directory = adapter(tmp_path / "lora", base(tmp_path), LORA)
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    refused(directory, "adapter_model.bin is a pickle, which is never opened")


def test_an_adapter_of_an_adapter(tmp_path):
    first = adapter(tmp_path / "one", base(tmp_path), LORA)
    refused(adapter(tmp_path / "two", first, LORA), "is an adapter for .*, which is one itself")


# Configs.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": None}, "model.embed_tokens.weight is|vocab_size"),
        ({"num_hidden_layers": 10**9}, "has no tensor model.layers.1."),
        ({"num_hidden_layers": 0}, "layers is 0, no size"),
        ({"hidden_size": -1}, "no size|config.json"),
        ({"hidden_size": "wide"}, "config.json"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"num_key_value_heads": 3}, "cannot share 3 key and value heads|config.json"),
        ({"max_position_embeddings": None, "model_type": "gpt2"}, "config.json|has no tensor"),
        ({"model_type": ["llama"]}, r"is of type \['llama'\]"),
    ],
)
def test_configs_without_sense(tmp_path, changes, message):
    refused(reward_model(tmp_path / "rm", **changes), message)


def test_a_revision_may_hold_a_slash(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    directory = reward_model(tmp_path / "rm")
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **kw: asked.append((name, kw["revision"])) or str(directory)
    )
    says("owner/name@refs/pr/3", [20, 93])
    assert asked == [("owner/name", "refs/pr/3")]
