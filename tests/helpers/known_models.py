"""Small checkpoints whose outputs can be computed by hand: one-hot embeddings under blocks that add nothing.

Of a reward model the score is the id of the token that it is read at; of a language model every next token is certain.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<end_of_turn>"]
VOCAB, WIDTH = 264, 272  # 7 special tokens, 256 bytes, one to spare
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# One that ends an answer without eos: a score is then that of the answer's last letter.
OPEN = TEMPLATE.replace("{{ eos_token }}", "")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": WIDTH,
    "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-12, "hidden_act": "silu", "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "rope_theta": 10000.0,
}  # fmt: skip
CLASSIFIER = CONFIG | {
    "architectures": ["LlamaForSequenceClassification"],
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
}


def letter(of: str) -> int:
    """The id of a letter."""
    from tokenizers.pre_tokenizers import ByteLevel

    return len(SPECIAL) + sorted(ByteLevel.alphabet()).index(of)


def tokenizer(directory: Path, bos=True, eos=False, template: str = TEMPLATE, pad: str = "<pad>", **changes) -> Path:
    """Bytes as tokens.

    Args:
      bos, eos: whether it puts them around a text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = {token: i for i, token in enumerate(SPECIAL + sorted(ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    if bos or eos:
        around = " ".join(["<s>"] * bos + ["$A"] + ["</s>"] * eos)
        core.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 1), ("</s>", 2)])
    directory.mkdir(parents=True, exist_ok=True)
    core.save(str(directory / "tokenizer.json"))
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": pad,
              "chat_template": template} | changes  # fmt: skip
    kept = {name: value for name, value in values.items() if value}
    (directory / "tokenizer_config.json").write_text(json.dumps(kept))
    return directory


def trunk(prefix: str = "model.") -> dict[str, np.ndarray]:
    """Its tensors."""
    at, d, f = f"{prefix}layers.0.", WIDTH, 32
    zeros = {f"self_attn.{n}_proj": (d, d) for n in "qkvo"} | {
        "mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f),
    }  # fmt: skip
    out = {f"{at}{name}.weight": np.zeros(shape, np.float32) for name, shape in zeros.items()}
    norms = (f"{at}input_layernorm", f"{at}post_attention_layernorm", f"{prefix}norm")
    out |= {f"{name}.weight": np.ones(d, np.float32) for name in norms}
    return out | {f"{prefix}embed_tokens.weight": np.eye(VOCAB, d, dtype=np.float32)}


def head(scale: float = 1.0) -> np.ndarray:
    """A row under which the score is `scale` times the id."""
    row = np.zeros((1, WIDTH), np.float32)
    row[0, :VOCAB] = scale * np.arange(VOCAB) / np.sqrt(WIDTH)
    return row


def write(directory: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, object], name="model.safetensors"):
    """A checkpoint; what is None in `config` is left out of it."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), directory / name, metadata={"format": "pt"})
    kept = {key: value for key, value in config.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(kept))
    return directory


def reward_model(directory: Path, tensors: Mapping[str, np.ndarray] | None = None, **changes) -> Path:
    """A classifier; `tensors` beside the trunk are `score.weight` unless given."""
    return write(directory, trunk() | dict(tensors or {"score.weight": head()}), CLASSIFIER | changes)


def language_model(directory: Path, following: Mapping[int, int], **changes) -> Path:
    """After token i comes following[i], or else </s>."""
    row = np.zeros((VOCAB, WIDTH), np.float32)
    for i in range(VOCAB):
        row[following.get(i, 2), i] = 3.0  # a logit of 3 * sqrt(272) = 49
    return write(directory, trunk() | {"lm_head.weight": row}, CONFIG | changes)


def shards(directory, tensors, moved=(), lost=()):
    """Two shards and their index; `moved` tensors are not where it says, `lost` ones nowhere."""
    names = list(tensors)
    files = {name: f"model-0000{1 + (i >= len(names) // 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(files.values())):
        save_file({n: tensors[n] for n in names if files[n] == file and n not in lost}, directory / file)
    other = dict(zip(sorted(set(files.values())), sorted(set(files.values()), reverse=True), strict=True))
    index = {name: other[file] if name in moved else file for name, file in files.items()}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return sorted(set(files.values()))


def adapter(directory, base, tensors, **changes):
    """A LoRA adapter of rank 2 and alpha 6, trained on `base`."""
    directory.mkdir(parents=True, exist_ok=True)
    values = {
        "base_model_name_or_path": str(base),
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "r": 2,
        "lora_alpha": 6,
    }
    (directory / "adapter_config.json").write_text(json.dumps(values | changes))
    save_file({f"base_model.model.{name}": x for name, x in tensors.items()}, directory / "adapter_model.safetensors")
    return directory
