"""A GGUF file of the Llama family -> a Hugging Face directory that we and transformers load.

llama.cpp keeps rows of query and key in another order than transformers (`unpermuted`), its own names of tensors and
fields, and the tokenizer as lists of tokens and merges. Whatever of a file has no place in transformers' Llama is
refused, so that no number comes out wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import ml_dtypes
import numpy as np

from rmo.checkpoints import hf
from rmo.checkpoints.families import FAMILIES
from rmo.checkpoints.gguf_file import Gguf, read
from rmo.checkpoints.opening import check_sizes
from rmo.checkpoints.tokenizers import SPLITS, BytePairs, make_byte_bpe
from rmo.checkpoints.weight_files import CheckpointError
from rmo.config.model import Model
from rmo.runtime.types import Json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LLAMA = FAMILIES["llama"]
TOKENIZER = "tokenizer.ggml."
# llama.cpp's names of tensors -> transformers'; `{i}` is the layer.
WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
OF_A_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Fields that say how the model computes. Any other `llama.` field must be nought or one of HARMLESS.
KNOWN = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "attention.key_length", "attention.value_length",
    "rope.freq_base", "rope.dimension_count", "vocab_size",
}  # fmt: skip
HARMLESS: dict[str, Json] = {
    "rope.scaling.type": "none",
    "rope.scaling.factor": 1.0,
    "tensor_data_layout": "Meta AI original pth",
}
CONTROL, USER_DEFINED = 3, 4  # tokenizer.ggml.token_type


class Converted(NamedTuple):
    """What was written."""

    shape: Model
    parameters: int


def convert(path: Path, directory: Path, stored: Literal["float32", "bfloat16"] = "float32") -> Converted:
    """Write the Hugging Face directory of a GGUF file: config.json, weights, tokenizer and chat template.

    Args:
      stored: type of the numbers written; float32 is what the file says, bfloat16 rounds and takes half of the disk.

    Raises:
      CheckpointError: the file is damaged or not of the Llama family, or the directory has something in it.
    """
    directory = hf.vacant(directory)
    file = read(path)
    shape = shape_of(file)
    vocab, length = file.shape("token_embd.weight")[0], shape.length
    names = names_of(file, shape)
    check_tensors(file, names, shape, vocab)
    tokenizer = tokenizer_of(file, vocab, length)
    values = {"vocab_size": vocab, LLAMA.length: length, **LLAMA.write(shape), **hf.special_ids(tokenizer)}
    tensors = ((name, value.astype(DTYPES[stored])) for name, value in weights_of(file, names, shape))
    hf.write_checkpoint(directory, LLAMA, LLAMA.causal, values, stored, shape, tensors, tokenizer)
    return Converted(shape, sum(int(np.prod(file.shape(name))) for name in names))


DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


# The shape.


def values_of(file: Gguf) -> dict[str, Json]:
    """The fields of architecture llama, without `llama.` before them.

    Raises:
      CheckpointError: another architecture, or a field that asks for what transformers' Llama does not do.
    """
    kind = file.fields.get("general.architecture")
    if kind != "llama":
        raise CheckpointError(f"{file.path} is of architecture {kind}: only llama can be converted")
    values = {name.removeprefix("llama."): x for name, x in file.fields.items() if name.startswith("llama.")}
    odd = {name: x for name, x in values.items() if name not in KNOWN and x and HARMLESS.get(name) != x}
    if odd:
        name, value = next(iter(odd.items()))
        what = f"llama.{name} = {str(value)[:60]}"
        raise CheckpointError(f"{file.path} has {what}, which transformers' Llama does not do")
    return values


def shape_of(file: Gguf) -> Model:
    """What the fields say of the model.

    Raises:
      CheckpointError: a field is missing or wrong; see also `values_of`.
    """
    values = values_of(file)

    def number(name: str, otherwise: Json = None) -> Json:
        value = values.get(name, otherwise)
        if isinstance(value, bool) or not isinstance(value, int | float):
            what = "is missing" if value is None else f"is {str(value)[:60]}, not one number"
            raise CheckpointError(f"{file.path}: llama.{name} {what}")
        return value

    def size(name: str, otherwise: Json = None) -> int:
        value = number(name, otherwise)
        if not isinstance(value, int) or value <= 0:
            raise CheckpointError(f"{file.path}: llama.{name} is {value}, no size")
        return value

    if "token_embd.weight" not in file.tensors or len(file.shape("token_embd.weight")) != 2:
        raise CheckpointError(f"{file.path} has no tensor token_embd.weight with rows: it is no whole model")
    width, heads = size("embedding_length"), size("attention.head_count")
    head = size("attention.key_length", width // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if size(name, head) != head:
            raise CheckpointError(f"{file.path}: llama.{name} is {values[name]}, and heads have {head}")
    shape = Model(
        width=width,
        layers=size("block_count"),
        heads=heads,
        kv_heads=size("attention.head_count_kv", heads),
        head=0 if head * heads == width else head,
        hidden=size("feed_forward_length"),
        activation="silu",
        gated=True,
        norm="rms",
        norm_eps=number("attention.layer_norm_rms_epsilon"),
        bias="none",
        tied="output.weight" not in file.tensors,
        rotary_base=float(number("rope.freq_base", 10_000.0)),
        length=size("context_length"),
    )
    rows = file.shape("token_embd.weight")[0]
    check_sizes(file.path, shape, {"tokens": rows})
    if size("vocab_size", rows) != rows:
        raise CheckpointError(f"{file.path}: llama.vocab_size is {values['vocab_size']}, and there are {rows} tokens")
    return shape


# The weights.


def names_of(file: Gguf, shape: Model) -> dict[str, str]:
    """llama.cpp's name of every tensor -> transformers'.

    Raises:
      CheckpointError: one is missing, or there is one that Llama does not have.
    """
    layers = {
        f"blk.{i}.{theirs}.weight": f"model.layers.{i}.{ours}.weight"
        for i in range(shape.layers)
        for theirs, ours in OF_A_LAYER.items()
    }
    names = {**WHOLE, **layers}
    if shape.tied:
        del names["output.weight"]
    if lost := [name for name in names if name not in file.tensors]:
        raise CheckpointError(f"{file.path} has no tensor {lost[0]}")
    if left := [name for name in file.tensors if name not in names]:
        what = "positions stretched as in Llama 3.1" if left[0] == "rope_freqs.weight" else "more than Llama has"
        raise CheckpointError(f"{file.path} has {len(left)} tensors that cannot be converted, e.g. {left[0]}: {what}")
    return names


def check_tensors(file: Gguf, names: dict[str, str], shape: Model, vocab: int) -> None:
    """Raises CheckpointError where a tensor's shape is not what the fields say."""
    tensors = LLAMA.tensors(shape, vocab, shape.length, reward=False)
    wanted = {name: t.shape for t in tensors for name in hf.names_of([t], shape.layers)}
    for theirs, ours in names.items():
        if file.shape(theirs) != wanted[ours]:
            found = file.shape(theirs)
            raise CheckpointError(f"{file.path}: {theirs} is {found}, its fields say {wanted[ours]}")


def weights_of(file: Gguf, names: dict[str, str], shape: Model) -> Iterator[tuple[str, np.ndarray]]:
    """(transformers' name, f32) of every tensor, one at a time."""
    for theirs, ours in names.items():
        value = file.numbers(theirs)
        if ".attn_q." in theirs:
            value = unpermuted(value, shape.heads)
        elif ".attn_k." in theirs:
            value = unpermuted(value, shape.kv_heads or shape.heads)
        yield ours, value


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection [heads x head, in] in transformers' order.

    llama.cpp turns neighbours (0, 1), (2, 3), ... of a head by one angle, transformers 0 and head/2, 1 and head/2 + 1,
    ...; its converter therefore stores row j of a head's first half as row 2j and row j of its second as row 2j + 1.
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


# The tokenizer.


def tokenizer_of(file: Gguf, vocab: int, length: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a file.

    Raises:
      CheckpointError: it is of another kind than byte-level BPE, or damaged.
    """
    fields = {name.removeprefix(TOKENIZER): x for name, x in file.fields.items() if name.startswith(TOKENIZER)}
    kind, split = fields.get("model"), fields.get("pre")
    if kind != "gpt2":
        what = "SentencePiece" if kind == "llama" else "unknown"
        raise CheckpointError(f"{file.path}: its tokenizer is {kind} ({what}): only byte-level BPE can be converted")
    if split not in SPLITS:
        raise CheckpointError(f"{file.path}: its tokenizer splits texts as {split}: known are {', '.join(SPLITS)}")
    tokens, types, merges = (fields.get(name) or [] for name in ("tokens", "token_type", "merges"))
    if len(tokens) != vocab or len(set(tokens)) != vocab or len(types) not in (0, vocab):
        found = f"{len(tokens)} tokens, {len(set(tokens))} of them different, and {len(types)} types of tokens"
        raise CheckpointError(f"{file.path} has {found} to {vocab} rows of the embedding")
    if odd := [merge for merge in merges if merge.count(" ") != 1]:
        raise CheckpointError(f"{file.path}: merge {odd[0]!r} is no two tokens")
    names = named_tokens(file, fields, tokens)
    begins, ends = bool(fields.get("add_bos_token", split == "llama-bpe")), bool(fields.get("add_eos_token", False))
    for wanted, name in ((begins, "bos_token"), (ends, "eos_token")):
        if wanted and name not in names:
            raise CheckpointError(f"{file.path} asks for {name} around texts, and names none")
    template = file.fields.get("tokenizer.chat_template")
    given = BytePairs(
        tokens=tokens,
        merges=[(a, b) for a, b in (merge.split(" ") for merge in merges)],
        split=split,
        special={t: kind == CONTROL for t, kind in zip(tokens, types) if kind in (CONTROL, USER_DEFINED)},  # noqa: B905
        names=names,
        begins=begins,
        ends=ends,
        chat_template=template if isinstance(template, str) else None,
        length=length,
    )
    try:
        return make_byte_bpe(given)
    except ValueError as error:
        raise CheckpointError(f"{file.path}: its tokenizer cannot be made: {error}") from error


def named_tokens(file: Gguf, fields: dict[str, Json], tokens: list[str]) -> dict[str, str]:
    """transformers' names of special tokens -> the token. pad may be eos."""
    out = {}
    for theirs, ours in (("bos", "bos"), ("eos", "eos"), ("padding", "pad"), ("unknown", "unk")):
        i = fields.get(f"{theirs}_token_id")
        if i is None:
            continue
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < len(tokens):
            raise CheckpointError(f"{file.path}: {TOKENIZER}{theirs}_token_id is {i}, no token's id")
        out[f"{ours}_token"] = tokens[i]
    return out
