"""What Hugging Face's model families call our fields and our parameters, both ways.

A family turns its config into a `shape.Model` and back, and lists its tensors, each with the leaves of our parameters
that it holds. Nothing here reads a file; `hf.py` does. GPT-2, GPT-NeoX (Pythia), Llama, Qwen2, Qwen3, Gemma 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rmo.config.model import Model

BLOCKS = "trunk/blocks/"
ACTIVATIONS = {
    "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu", "gelu": "gelu_exact", "relu": "relu",
    "silu": "silu",
}  # fmt: skip


class Unsupported(ValueError):
    """What a checkpoint asks for that the trunk cannot do, in one line."""


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
        name, (rows, columns), (leaf,), lambda x: [x.T.reshape(*inside, *outside)],
        lambda y: y.reshape(columns, rows).T,
    )  # fmt: skip


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
        c, {f"{at}.mlp.gate_proj": ("gate", d, f), f"{at}.mlp.up_proj": ("up", d, f),
            f"{at}.mlp.down_proj": ("down", f, d)}, c.bias == "all",
    )  # fmt: skip
    out += norms(c, f"{at}.input_layernorm", f"{BLOCKS}norm_attention", d)
    if c.post_norm:
        out += norms(c, f"{at}.post_attention_layernorm", f"{BLOCKS}norm_attention_out", d)
        out += norms(c, f"{at}.pre_feedforward_layernorm", f"{BLOCKS}norm_mlp", d)
        out += norms(c, f"{at}.post_feedforward_layernorm", f"{BLOCKS}norm_mlp_out", d)
    else:
        out += norms(c, f"{at}.post_attention_layernorm", f"{BLOCKS}norm_mlp", d)
    return out + norms(c, "model.norm", "trunk/norm", d)


def neox_tensors(c: Model, vocab: int, length: int) -> list[Tensor]:
    at, d, f, h, k = "gpt_neox.layers.{i}", c.width, c.hidden_width, c.heads, c.head_width
    qkv = ("query", "key", "value")
    out = [vector("gpt_neox.embed_in.weight", "trunk/embed/embedding", (vocab, d), (vocab, d))]
    # Rows of the fused projection go head by head: query, key and value of head 0, then of head 1, ...
    out.append(Tensor(
        f"{at}.attention.query_key_value.weight", (3 * d, d), tuple(f"{BLOCKS}{n}/kernel" for n in qkv),
        lambda x: [x.reshape(h, 3, k, d)[:, j].transpose(2, 0, 1) for j in range(3)],
        lambda *y: np.stack([part.transpose(1, 2, 0) for part in y], axis=1).reshape(3 * d, d),
    ))  # fmt: skip
    out.append(Tensor(
        f"{at}.attention.query_key_value.bias", (3 * d,), tuple(f"{BLOCKS}{n}/bias" for n in qkv),
        lambda x: [x.reshape(h, 3, k)[:, j] for j in range(3)], lambda *y: np.stack(y, axis=1).reshape(3 * d),
    ))  # fmt: skip
    out.append(linear(f"{at}.attention.dense.weight", f"{BLOCKS}out/kernel", (h, k), (d,)))
    out.append(vector(f"{at}.attention.dense.bias", f"{BLOCKS}out/bias", (d,)))
    mlp = {f"{at}.mlp.dense_h_to_4h": ("up", d, f), f"{at}.mlp.dense_4h_to_h": ("down", f, d)}
    out += projections(c, mlp, True)
    out += norms(c, f"{at}.input_layernorm", f"{BLOCKS}norm_attention", d)
    out += norms(c, f"{at}.post_attention_layernorm", f"{BLOCKS}norm_mlp", d)
    return out + norms(c, "gpt_neox.final_layer_norm", "trunk/norm", d)


def gpt2_tensors(c: Model, vocab: int, length: int) -> list[Tensor]:
    at, d, f, h, k = "transformer.h.{i}", c.width, c.hidden_width, c.heads, c.head_width
    qkv = ("query", "key", "value")
    out = [
        vector("transformer.wte.weight", "trunk/embed/embedding", (vocab, d), (vocab, d)),
        vector("transformer.wpe.weight", "trunk/embed_position/embedding", (length, d), (length, d)),
        Tensor(
            f"{at}.attn.c_attn.weight", (d, 3 * d), tuple(f"{BLOCKS}{n}/kernel" for n in qkv),
            lambda x: [part.reshape(d, h, k) for part in np.split(x, 3, axis=1)],
            lambda *y: np.concatenate([part.reshape(d, d) for part in y], axis=1),
        ),
        Tensor(
            f"{at}.attn.c_attn.bias", (3 * d,), tuple(f"{BLOCKS}{n}/bias" for n in qkv),
            lambda x: [part.reshape(h, k) for part in np.split(x, 3)], lambda *y: np.concatenate(y, axis=None),
        ),
        vector(f"{at}.attn.c_proj.bias", f"{BLOCKS}out/bias", (d,)),
        vector(f"{at}.mlp.c_fc.bias", f"{BLOCKS}up/bias", (f,)),
        vector(f"{at}.mlp.c_proj.bias", f"{BLOCKS}down/bias", (d,)),
        # GPT-2's Conv1D keeps [in, out], as we do.
        vector(f"{at}.attn.c_proj.weight", f"{BLOCKS}out/kernel", (h, k, d), (d, d)),
        vector(f"{at}.mlp.c_fc.weight", f"{BLOCKS}up/kernel", (d, f), (d, f)),
        vector(f"{at}.mlp.c_proj.weight", f"{BLOCKS}down/kernel", (f, d), (f, d)),
    ]  # fmt: skip
    out += norms(c, f"{at}.ln_1", f"{BLOCKS}norm_attention", d) + norms(c, f"{at}.ln_2", f"{BLOCKS}norm_mlp", d)
    return out + norms(c, "transformer.ln_f", "trunk/norm", d)


# Configs. `read` takes the values of config.json as transformers completes them; `write` gives such values.


def need(ok: bool, message: str) -> None:
    if not ok:
        raise Unsupported(message)


def activation(name: str) -> Any:
    need(name in ACTIVATIONS, f"activation {name}: known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def their_activation(c: Model) -> str:
    """transformers' name of ours; of several, the last."""
    return {ours: theirs for theirs, ours in ACTIVATIONS.items() if theirs not in ("gelu_fast", "gelu_pytorch_tanh")}[
        c.activation
    ]


def rotary(t: dict[str, Any], partly: bool = False) -> dict[str, Any]:
    """Our rotary fields; only GPT-NeoX rotates heads `partly` (the others' code does not look at the factor)."""
    rope = t.get("rope_parameters") or {}
    kind = rope.get("rope_type", "default")
    need(kind in ("default", "llama3"), f"rotary positions of type {kind}: known are default and llama3")
    out: dict[str, Any] = {"rotary_base": float(rope.get("rope_theta", 10_000.0))}
    if kind == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        out["rotary_scaling"] = tuple(float(rope[name]) for name in names)
    share = float(rope.get("partial_rotary_factor", 1.0))
    need(partly or share == 1, f"partial_rotary_factor {share:g}: only GPT-NeoX rotates a part of each head")
    return out | {"rotary_share": share}


def their_rotary(c: Model) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": c.rotary_base}
    if c.rotary_scaling:
        factor, low, high, context = c.rotary_scaling
        rope |= {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                 "original_max_position_embeddings": int(context)}  # fmt: skip
    return {"rope_parameters": rope}


def canonical(c: Model) -> Model:
    """The same shape with every width said outright, so that equal shapes are equal."""
    return replace(
        c.shape, vocab=0, length=0, head=c.head_width, mlp=4, hidden=c.hidden_width, kv_heads=c.kv_heads or c.heads,
        query_scale=c.query_scale or c.head_width,
    )  # fmt: skip


def read_llama(t: dict[str, Any]) -> Model:
    need(not t.get("use_sliding_window"), "use_sliding_window: attention within a window is known of Gemma 2 only")
    bias = "qkv" if t["model_type"] == "qwen2" else "attention" if t.get("attention_bias") else "none"
    if t.get("mlp_bias"):
        need(bias == "attention", "mlp_bias without attention_bias")
        bias = "all"
    heads, width = t["num_attention_heads"], t["hidden_size"]
    head = t.get("head_dim") or width // heads
    return Model(
        width=width, layers=t["num_hidden_layers"], heads=heads, kv_heads=t["num_key_value_heads"],
        head=0 if head * heads == width else head, hidden=t["intermediate_size"],
        activation=activation(t["hidden_act"]), gated=True, norm="rms", norm_eps=t["rms_norm_eps"],
        qk_norm=t["model_type"] == "qwen3", bias=bias, tied=t["tie_word_embeddings"], **rotary(t),
    )  # fmt: skip


def write_llama(c: Model) -> dict[str, Any]:
    return {
        "hidden_size": c.width, "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads or c.heads, "head_dim": c.head_width, "intermediate_size": c.hidden_width,
        "hidden_act": their_activation(c), "rms_norm_eps": c.norm_eps, "tie_word_embeddings": c.tied,
        "attention_bias": c.bias in ("attention", "all"), "mlp_bias": c.bias == "all", **their_rotary(c),
    }  # fmt: skip


def read_gemma2(t: dict[str, Any]) -> Model:
    kinds = ["sliding_attention", "full_attention"] * t["num_hidden_layers"]
    layers = t.get("layer_types") or kinds[: t["num_hidden_layers"]]
    need(layers == kinds[: t["num_hidden_layers"]], "layer_types: windows must be on every second layer from the first")
    need(not t.get("use_bidirectional_attention"), "use_bidirectional_attention: only causal attention is known")
    plain = read_llama(t | {"hidden_act": t["hidden_activation"]})
    return replace(
        plain, norm="rms_offset", post_norm=True, embed_scale=True, window=t["sliding_window"] or 0,
        query_scale=float(t["query_pre_attn_scalar"]), attention_cap=t["attn_logit_softcapping"] or 0.0,
        logit_cap=t["final_logit_softcapping"] or 0.0,
    )  # fmt: skip


def write_gemma2(c: Model) -> dict[str, Any]:
    out = write_llama(c)
    del out["hidden_act"], out["mlp_bias"]
    return out | {
        "hidden_activation": {"gelu": "gelu_pytorch_tanh"}.get(c.activation, c.activation),
        "sliding_window": c.window, "query_pre_attn_scalar": int(c.query_scale or c.head_width),
        "attn_logit_softcapping": c.attention_cap or None, "final_logit_softcapping": c.logit_cap or None,
    }  # fmt: skip


def read_neox(t: dict[str, Any]) -> Model:
    need(t.get("attention_bias", True), "attention_bias false")
    return Model(
        width=t["hidden_size"], layers=t["num_hidden_layers"], heads=t["num_attention_heads"],
        hidden=t["intermediate_size"], activation=activation(t["hidden_act"]), norm="layer",
        norm_eps=t["layer_norm_eps"], parallel=t["use_parallel_residual"], bias="all", tied=t["tie_word_embeddings"],
        **rotary(t, partly=True),
    )  # fmt: skip


def write_neox(c: Model) -> dict[str, Any]:
    rope = their_rotary(c)["rope_parameters"] | {"partial_rotary_factor": c.rotary_share}  # left out, it would be 0.25
    return {
        "hidden_size": c.width, "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "intermediate_size": c.hidden_width, "hidden_act": their_activation(c), "layer_norm_eps": c.norm_eps,
        "use_parallel_residual": c.parallel, "tie_word_embeddings": c.tied, "attention_bias": True,
        "rope_parameters": rope,
    }  # fmt: skip


def read_gpt2(t: dict[str, Any]) -> Model:
    need(t.get("scale_attn_weights", True), "scale_attn_weights false")
    need(not t.get("scale_attn_by_inverse_layer_idx"), "scale_attn_by_inverse_layer_idx")
    need(not t.get("add_cross_attention"), "add_cross_attention")
    return Model(
        width=t["n_embd"], layers=t["n_layer"], heads=t["n_head"], hidden=t["n_inner"] or 4 * t["n_embd"],
        activation=activation(t["activation_function"]), norm="layer", norm_eps=t["layer_norm_epsilon"], bias="all",
        tied=t["tie_word_embeddings"], positions="learned",
    )  # fmt: skip


def write_gpt2(c: Model) -> dict[str, Any]:
    return {
        "n_embd": c.width, "n_layer": c.layers, "n_head": c.heads, "n_inner": c.hidden_width,
        "activation_function": their_activation(c), "layer_norm_epsilon": c.norm_eps, "tie_word_embeddings": c.tied,
    }  # fmt: skip


@dataclass(frozen=True)
class Family:
    """How one `model_type` of transformers maps to ours."""

    model_type: str
    classes: str  # GPT2 of GPT2LMHeadModel
    length: str  # the config's name for the longest sequence
    unembedding: str
    read: Callable[[dict[str, Any]], Model]
    write: Callable[[Model], dict[str, Any]]
    trunk: Callable[[Model, int, int], list[Tensor]]
    trunk_embedding: str
    causal: str = "ForCausalLM"

    @property
    def prefix(self) -> str:
        """What the names of the trunk's tensors start with."""
        return self.trunk_embedding.split(".")[0] + "."

    def tensors(self, c: Model, vocab: int, length: int, reward: bool) -> list[Tensor]:
        """Every tensor of a language model, or of a one-label sequence classifier."""
        out = self.trunk(c, vocab, length)
        if reward:
            return [*out, linear("score.weight", "head/kernel", (c.width,), (1,))]
        return out if c.tied else [*out, vector(self.unembedding, "unembed", (vocab, c.width), (vocab, c.width))]


LONGEST, HEAD, EMBED = "max_position_embeddings", "lm_head.weight", "model.embed_tokens.weight"
FAMILIES = {
    family.model_type: family for family in (
        Family("gpt2", "GPT2", "n_positions", HEAD, read_gpt2, write_gpt2, gpt2_tensors, "transformer.wte.weight",
               "LMHeadModel"),
        Family("gpt_neox", "GPTNeoX", LONGEST, "embed_out.weight", read_neox, write_neox, neox_tensors,
               "gpt_neox.embed_in.weight"),
        Family("llama", "Llama", LONGEST, HEAD, read_llama, write_llama, llama_tensors, EMBED),
        Family("qwen2", "Qwen2", LONGEST, HEAD, read_llama, write_llama, llama_tensors, EMBED),
        Family("qwen3", "Qwen3", LONGEST, HEAD, read_llama, write_llama, llama_tensors, EMBED),
        Family("gemma2", "Gemma2", LONGEST, HEAD, read_gemma2, write_gemma2, llama_tensors, EMBED),
    )
}  # fmt: skip


def family_of(c: Model) -> Family:
    """The family that can hold a shape: the one whose config says just this shape.

    Raises:
      Unsupported: none can.
    """
    closest: list[tuple[int, str]] = []
    for family in FAMILIES.values():
        written = {"model_type": family.model_type, **family.write(c)}
        try:
            back = canonical(family.read(written))
        except Unsupported:
            continue
        ours = canonical(c)
        differ = [n for n in vars(ours) if getattr(ours, n) != getattr(back, n)]
        if not differ:
            return family
        closest.append((len(differ), f"{family.model_type} differs in {', '.join(differ)}"))
    raise Unsupported(f"no family of transformers has this shape; the nearest, {min(closest)[1]}")
