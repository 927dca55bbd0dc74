"""The tensors of Hugging Face's model families, and which leaves of our parameters each of them holds, both ways.

Nothing here reads a file. A layer's place in a name is `{i}`; our leaves have an axis of layers instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rmo.config.model import Model

BLOCKS = "trunk/blocks/"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint; `{i}` in its name is the layer."""

    name: str
    shape: tuple[int, ...]
    leaves: tuple[str, ...]  # of our parameters, e.g. trunk/blocks/query/kernel; without the axis of layers
    split: Callable[[np.ndarray], Sequence[np.ndarray]]  # the tensor -> its leaves
    join: Callable[..., np.ndarray]  # its leaves -> the tensor

    @property
    def layered(self) -> bool:
        return "{i}" in self.name


def vector(name: str, leaf: str, shape: tuple[int, ...], theirs: tuple[int, ...] | None = None) -> Tensor:
    """The same numbers in the same order."""
    theirs = theirs or (int(np.prod(shape)),)
    return Tensor(name, theirs, (leaf,), lambda x: [x.reshape(shape)], lambda y: y.reshape(theirs))


def linear(name: str, leaf: str, inside: tuple[int, ...], outside: tuple[int, ...]) -> Tensor:
    """torch's Linear keeps [out, in]; we keep [*in, *out]."""
    rows, columns = int(np.prod(outside)), int(np.prod(inside))
    return Tensor(
        name,
        (rows, columns),
        (leaf,),
        lambda x: [x.T.reshape(*inside, *outside)],
        lambda y: y.reshape(columns, rows).T,
    )


def norms(c: Model, name: str, leaf: str, size: int) -> list[Tensor]:
    """Scale and, of a LayerNorm, bias."""
    out = [vector(f"{name}.weight", f"{leaf}/scale", (size,))]
    return out + ([vector(f"{name}.bias", f"{leaf}/bias", (size,))] if c.norm == "layer" else [])


def attention(c: Model, at: str) -> list[Tensor]:
    """Separate query, key, value and output projections, as in Llama and its kin."""
    heads, kv, head = c.heads, c.kv_heads or c.heads, c.head_width
    out = []
    for ours, theirs, count in (("query", "q_proj", heads), ("key", "k_proj", kv), ("value", "v_proj", kv)):
        out.append(linear(f"{at}.{theirs}.weight", f"{BLOCKS}{ours}/kernel", (c.width,), (count, head)))
        if c.bias != "none":
            out.append(vector(f"{at}.{theirs}.bias", f"{BLOCKS}{ours}/bias", (count, head)))
    out.append(linear(f"{at}.o_proj.weight", f"{BLOCKS}out/kernel", (heads, head), (c.width,)))
    if c.bias in ("attention", "all"):
        out.append(vector(f"{at}.o_proj.bias", f"{BLOCKS}out/bias", (c.width,)))
    if c.qk_norm:
        out += norms(c, f"{at}.q_norm", f"{BLOCKS}norm_query", head)
        out += norms(c, f"{at}.k_norm", f"{BLOCKS}norm_key", head)
    return out


def projections(c: Model, pairs: dict[str, tuple[str, int, int]], bias: bool) -> list[Tensor]:
    """MLP projections: their name -> (ours, in, out)."""
    out = []
    for theirs, (ours, inside, outside) in pairs.items():
        out.append(linear(f"{theirs}.weight", f"{BLOCKS}{ours}/kernel", (inside,), (outside,)))
        out += [vector(f"{theirs}.bias", f"{BLOCKS}{ours}/bias", (outside,))] if bias else []
    return out


def llama_tensors(c: Model, vocab: int, length: int) -> list[Tensor]:
    """Llama, Qwen2, Qwen3 and Gemma 2."""
    at, d, f = "model.layers.{i}", c.width, c.hidden_width
    out = [vector("model.embed_tokens.weight", "trunk/embed/embedding", (vocab, d), (vocab, d))]
    out += attention(c, f"{at}.self_attn")
    out += projections(
        c,
        {
            f"{at}.mlp.gate_proj": ("gate", d, f),
            f"{at}.mlp.up_proj": ("up", d, f),
            f"{at}.mlp.down_proj": ("down", f, d),
        },
        c.bias == "all",
    )
    out += norms(c, f"{at}.input_layernorm", f"{BLOCKS}norm_attention", d)
    if c.post_norm:
        out += norms(c, f"{at}.post_attention_layernorm", f"{BLOCKS}norm_attention_out", d)
        out += norms(c, f"{at}.pre_feedforward_layernorm", f"{BLOCKS}norm_mlp", d)
        out += norms(c, f"{at}.post_feedforward_layernorm", f"{BLOCKS}norm_mlp_out", d)
    else:
        out += norms(c, f"{at}.post_attention_layernorm", f"{BLOCKS}norm_mlp", d)
    return out + norms(c, "model.norm", "trunk/norm", d)


def query_key_value(what: str) -> tuple[str, ...]:
    """Our leaves that one fused projection holds."""
    return tuple(f"{BLOCKS}{name}/{what}" for name in ("query", "key", "value"))


def fused_by_head(name: str, width: int, heads: int, head: int) -> list[Tensor]:
    """GPT-NeoX's fused projection: rows go head by head, query, key and value of head 0, then of head 1, ..."""

    def split_kernel(x: np.ndarray) -> list[np.ndarray]:
        return [x.reshape(heads, 3, head, width)[:, j].transpose(2, 0, 1) for j in range(3)]

    def join_kernel(*parts: np.ndarray) -> np.ndarray:
        return np.stack([part.transpose(1, 2, 0) for part in parts], axis=1).reshape(3 * width, width)

    def split_bias(x: np.ndarray) -> list[np.ndarray]:
        return [x.reshape(heads, 3, head)[:, j] for j in range(3)]

    def join_bias(*parts: np.ndarray) -> np.ndarray:
        return np.stack(parts, axis=1).reshape(3 * width)

    return [
        Tensor(f"{name}.weight", (3 * width, width), query_key_value("kernel"), split_kernel, join_kernel),
        Tensor(f"{name}.bias", (3 * width,), query_key_value("bias"), split_bias, join_bias),
    ]


def fused_in_thirds(name: str, width: int, heads: int, head: int) -> list[Tensor]:
    """GPT-2's fused projection, a Conv1D that keeps [in, out]: all of query, then of key, then of value."""

    def split_kernel(x: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(width, heads, head) for part in np.split(x, 3, axis=1)]

    def join_kernel(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate([part.reshape(width, width) for part in parts], axis=1)

    def split_bias(x: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(heads, head) for part in np.split(x, 3)]

    def join_bias(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate(parts, axis=None)

    return [
        Tensor(f"{name}.weight", (width, 3 * width), query_key_value("kernel"), split_kernel, join_kernel),
        Tensor(f"{name}.bias", (3 * width,), query_key_value("bias"), split_bias, join_bias),
    ]


def neox_tensors(c: Model, vocab: int, length: int) -> list[Tensor]:
    at, d, f, h, k = "gpt_neox.layers.{i}", c.width, c.hidden_width, c.heads, c.head_width
    out = [vector("gpt_neox.embed_in.weight", "trunk/embed/embedding", (vocab, d), (vocab, d))]
    out += fused_by_head(f"{at}.attention.query_key_value", d, h, k)
    out.append(linear(f"{at}.attention.dense.weight", f"{BLOCKS}out/kernel", (h, k), (d,)))
    out.append(vector(f"{at}.attention.dense.bias", f"{BLOCKS}out/bias", (d,)))
    mlp = {f"{at}.mlp.dense_h_to_4h": ("up", d, f), f"{at}.mlp.dense_4h_to_h": ("down", f, d)}
    out += projections(c, mlp, True)
    out += norms(c, f"{at}.input_layernorm", f"{BLOCKS}norm_attention", d)
    out += norms(c, f"{at}.post_attention_layernorm", f"{BLOCKS}norm_mlp", d)
    return out + norms(c, "gpt_neox.final_layer_norm", "trunk/norm", d)


def gpt2_tensors(c: Model, vocab: int, length: int) -> list[Tensor]:
    at, d, f, h, k = "transformer.h.{i}", c.width, c.hidden_width, c.heads, c.head_width
    out = [
        vector("transformer.wte.weight", "trunk/embed/embedding", (vocab, d), (vocab, d)),
        vector("transformer.wpe.weight", "trunk/embed_position/embedding", (length, d), (length, d)),
        *fused_in_thirds(f"{at}.attn.c_attn", d, h, k),
        vector(f"{at}.attn.c_proj.bias", f"{BLOCKS}out/bias", (d,)),
        vector(f"{at}.mlp.c_fc.bias", f"{BLOCKS}up/bias", (f,)),
        vector(f"{at}.mlp.c_proj.bias", f"{BLOCKS}down/bias", (d,)),
        # GPT-2's Conv1D keeps [in, out], as we do.
        vector(f"{at}.attn.c_proj.weight", f"{BLOCKS}out/kernel", (h, k, d), (d, d)),
        vector(f"{at}.mlp.c_fc.weight", f"{BLOCKS}up/kernel", (d, f), (d, f)),
        vector(f"{at}.mlp.c_proj.weight", f"{BLOCKS}down/kernel", (f, d), (f, d)),
    ]
    out += norms(c, f"{at}.ln_1", f"{BLOCKS}norm_attention", d) + norms(c, f"{at}.ln_2", f"{BLOCKS}norm_mlp", d)
    return out + norms(c, "transformer.ln_f", "trunk/norm", d)
