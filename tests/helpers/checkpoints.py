"""Small Hugging Face checkpoints and a real BPE tokenizer, for tests."""

import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rmo.checkpoints.families import FAMILIES

VOCAB, LENGTH = 61, 96
COMMON = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 80, "max_position_embeddings": LENGTH}  # fmt: skip
STRETCH = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip
CONFIGS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LENGTH},
    "gpt_neox": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
                 "max_position_embeddings": LENGTH, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    "gpt_neox serial": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
                        "max_position_embeddings": LENGTH, "use_parallel_residual": False, "tie_word_embeddings": True},
    "gpt_neox full": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "hidden_act": "relu",
                      "max_position_embeddings": LENGTH, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 1.0}},
    "llama": LLAMA | {"rope_parameters": STRETCH},
    "llama biased": LLAMA | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    "qwen2": LLAMA | {"tie_word_embeddings": True},
    "qwen3": LLAMA | {"head_dim": 16},
    "gemma2": LLAMA | {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 8, "num_hidden_layers": 4,
                       "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
}  # fmt: skip


def write_checkpoint(directory: Path, name: str, kind: str = "lm", dtype=np.float32, **changes) -> Path:
    """A checkpoint of transformers' names and shapes, with numbers that depend on the names alone."""
    from transformers import AutoConfig

    family = FAMILIES[name.split()[0]]
    values = AutoConfig.for_model(family.model_type, **(COMMON | CONFIGS[name] | changes))
    values.architectures = [family.classes + (family.causal if kind == "lm" else "ForSequenceClassification")]
    if kind == "rm":
        values.num_labels = 1
    values.save_pretrained(directory)
    c = family.read(values.to_dict())
    tensors = {}
    length = getattr(values, family.length)
    for t in family.tensors(c, values.vocab_size, length, kind == "rm"):
        for i in range(c.layers if t.layered else 1):
            full = t.name.format(i=i)
            x = np.random.default_rng(zlib.crc32(full.encode())).normal(size=t.shape) * (
                0.25 if len(t.shape) > 1 else 0.1
            )
            norm = "norm" in full or ".ln_" in full
            tensors[full] = (x + (norm and full.endswith("weight") and c.norm != "rms_offset")).astype(dtype)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


TEXTS = ("the cat sat on the mat.", "what is the weather in paris?", "it is warm and sunny.")


def write_tokenizer(
    directory: Path, size: int = VOCAB, chat: bool = False, pad: bool = True, texts: tuple[str, ...] = TEXTS
) -> Path:
    """A byte-level BPE tokenizer trained here: <pad> 0 (unless `pad` is unset), <bos> 1, <eos> 2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    letters = sorted(set("abcdefghilmnoprstuvwy Ġ.?\n<>|"))
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<pad>", "<bos>", "<eos>"], initial_alphabet=letters, show_progress=False
    )
    core.train_from_iterator([*texts] * 20, trainer)
    names = {"bos_token": "<bos>", "eos_token": "<eos>"} | ({"pad_token": "<pad>"} if pad else {})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    if chat:
        tokenizer.chat_template = (
            "{% for m in messages %}<bos>{{ m['role'] }}: {{ m['content'] }}<eos>{% endfor %}"
            "{% if add_generation_prompt %}<bos>assistant: {% endif %}"
        )
    tokenizer.save_pretrained(directory)
    return directory
