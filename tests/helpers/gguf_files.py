"""GGUF files as llama.cpp's converter writes them, for tests: of small checkpoints made by helpers/checkpoints.py."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<bos>{{ m['role'] }} {{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant {% endif %}"
)


def permute(weights: np.ndarray, n_head: int) -> np.ndarray:
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    return (
        weights.reshape(n_head, 2, weights.shape[0] // n_head // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def their_name(name: str) -> str:
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole or name == "lm_head.weight":
        return whole.get(name, "output.weight")
    _, _, layer, *middle, last = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(middle)]}.{last}"


def fields_of(config: dict, tokenizer: dict, split: str) -> dict:
    """Every field of the file; a test may change them."""
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = [token["content"] for token in tokenizer["added_tokens"]]
    fields = {
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.rope.freq_base": float(config["rope_parameters"]["rope_theta"]),
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.vocab_size": config["vocab_size"],
        "llama.rope.dimension_count": config["head_dim"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": split,
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in vocabulary],
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": vocabulary.index("<bos>"),
        "tokenizer.ggml.eos_token_id": vocabulary.index("<eos>"),
        "tokenizer.ggml.padding_token_id": vocabulary.index("<eos>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    if config["head_dim"] * config["num_attention_heads"] != config["hidden_size"]:
        fields["llama.attention.key_length"] = fields["llama.attention.value_length"] = config["head_dim"]
    return fields


def write_gguf(
    path: Path, checkpoint: Path, tokenizer: Path, split: str = "gpt-2", kind: str = "F32", arch: str = "llama",
    tensors: dict | None = None, **changes,
) -> Path:  # fmt: skip
    """A checkpoint's GGUF file.

    Args:
      kind: type of matrices, as `gguf` calls it; vectors are F32.
      tensors: more of them, or in place of the checkpoint's (None takes one away), by llama.cpp's names.
      changes: fields in place of the checkpoint's, with `__` for a point; None takes one away.
    """
    import gguf

    config = json.loads((checkpoint / "config.json").read_text())
    fields = fields_of(config, json.loads((tokenizer / "tokenizer.json").read_text()), split)
    fields |= {name.replace("__", "."): value for name, value in changes.items()}
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    writer = gguf.GGUFWriter(path, arch)
    put = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for name, value in fields.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        elif value is not None:
            put[type(value)](name, value)
    all_tensors = {}
    for name, value in load_file(checkpoint / "model.safetensors").items():
        part = name.split(".")[-2]
        all_tensors[their_name(name)] = permute(value, heads[part]) if part in heads else value
    for name, value in {**all_tensors, **(tensors or {})}.items():
        if value is None:
            continue
        qtype = gguf.GGMLQuantizationType[kind if value.ndim > 1 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(value), qtype), raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
