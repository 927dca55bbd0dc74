"""What Hugging Face's model families call the fields of our shapes, both ways.

A family turns its config into a `config.Model` and back, and knows its tensors (tensors.py). Nothing here reads a file;
`hf.py` does. GPT-2, GPT-NeoX (Pythia), Llama, Qwen2, Qwen3, Gemma 2.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from rmo.checkpoints.tensors import Tensor, gpt2_tensors, linear, llama_tensors, neox_tensors, vector
from rmo.config.model import Model

Values = dict[str, Any]  # of a config.json, as transformers completes them
Activation = Literal["gelu", "gelu_exact", "relu", "silu"]
ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_fast": "gelu", "gelu": "gelu_exact", "relu": "relu",
    "silu": "silu",
}  # fmt: skip


class Unsupported(ValueError):
    """What a checkpoint asks for that the trunk cannot do, in one line."""


# `read` takes the values of config.json as transformers completes them; `write` gives such values.


def need(ok: bool, message: str) -> None:
    if not ok:
        raise Unsupported(message)


def activation(name: str) -> Activation:
    need(name in ACTIVATIONS, f"activation {name}: known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def their_activation(c: Model) -> str:
    """transformers' name of ours; of several, the one that its own checkpoints use."""
    aliases = ("gelu_fast", "gelu_pytorch_tanh")
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == c.activation and theirs not in aliases)


def rotary(t: Values, partly: bool = False) -> Values:
    """Our rotary fields; only GPT-NeoX rotates heads `partly` (the others' code does not look at the factor)."""
    rope = t.get("rope_parameters") or {}
    kind = rope.get("rope_type", "default")
    need(kind in ("default", "llama3"), f"rotary positions of type {kind}: known are default and llama3")
    out: Values = {"rotary_base": float(rope.get("rope_theta", 10_000.0))}
    if kind == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        out["rotary_scaling"] = tuple(float(rope[name]) for name in names)
    share = float(rope.get("partial_rotary_factor", 1.0))
    need(partly or share == 1, f"partial_rotary_factor {share:g}: only GPT-NeoX rotates a part of each head")
    return out | {"rotary_share": share}


def their_rotary(c: Model) -> Values:
    rope: Values = {"rope_type": "default", "rope_theta": c.rotary_base}
    if c.rotary_scaling:
        factor, low, high, context = c.rotary_scaling
        rope |= {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": int(context),
        }
    return {"rope_parameters": rope}


def canonical(c: Model) -> Model:
    """The same shape with every width said outright, so that equal shapes are equal."""
    return replace(
        c.shape,
        vocab=0,
        length=0,
        head=c.head_width,
        mlp=4,
        hidden=c.hidden_width,
        kv_heads=c.kv_heads or c.heads,
        query_scale=c.query_scale or c.head_width,
    )


def read_llama(t: Values) -> Model:
    need(not t.get("use_sliding_window"), "use_sliding_window: attention within a window is known of Gemma 2 only")
    bias = "qkv" if t["model_type"] == "qwen2" else "attention" if t.get("attention_bias") else "none"
    if t.get("mlp_bias"):
        need(bias == "attention", "mlp_bias without attention_bias")
        bias = "all"
    heads, width = t["num_attention_heads"], t["hidden_size"]
    head = t.get("head_dim") or width // heads
    return Model(
        width=width,
        layers=t["num_hidden_layers"],
        heads=heads,
        kv_heads=t["num_key_value_heads"],
        head=0 if head * heads == width else head,
        hidden=t["intermediate_size"],
        activation=activation(t["hidden_act"]),
        gated=True,
        norm="rms",
        norm_eps=t["rms_norm_eps"],
        qk_norm=t["model_type"] == "qwen3",
        bias=bias,
        tied=t["tie_word_embeddings"],
        **rotary(t),
    )


def write_llama(c: Model) -> Values:
    return {
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads or c.heads,
        "head_dim": c.head_width,
        "intermediate_size": c.hidden_width,
        "hidden_act": their_activation(c),
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tied,
        "attention_bias": c.bias in ("attention", "all"),
        "mlp_bias": c.bias == "all",
        **their_rotary(c),
    }


def read_gemma2(t: Values) -> Model:
    kinds = ["sliding_attention", "full_attention"] * t["num_hidden_layers"]
    layers = t.get("layer_types") or kinds[: t["num_hidden_layers"]]
    need(layers == kinds[: t["num_hidden_layers"]], "layer_types: windows must be on every second layer from the first")
    need(not t.get("use_bidirectional_attention"), "use_bidirectional_attention: only causal attention is known")
    plain = read_llama(t | {"hidden_act": t["hidden_activation"]})
    return replace(
        plain,
        norm="rms_offset",
        post_norm=True,
        embed_scale=True,
        window=t["sliding_window"] or 0,
        query_scale=float(t["query_pre_attn_scalar"]),
        attention_cap=t["attn_logit_softcapping"] or 0.0,
        logit_cap=t["final_logit_softcapping"] or 0.0,
    )


def write_gemma2(c: Model) -> Values:
    out = write_llama(c)
    del out["hidden_act"], out["mlp_bias"]
    return out | {
        "hidden_activation": {"gelu": "gelu_pytorch_tanh"}.get(c.activation, c.activation),
        "sliding_window": c.window,
        "query_pre_attn_scalar": int(c.query_scale or c.head_width),
        "attn_logit_softcapping": c.attention_cap or None,
        "final_logit_softcapping": c.logit_cap or None,
    }


def read_neox(t: Values) -> Model:
    need(t.get("attention_bias", True), "attention_bias false")
    return Model(
        width=t["hidden_size"],
        layers=t["num_hidden_layers"],
        heads=t["num_attention_heads"],
        hidden=t["intermediate_size"],
        activation=activation(t["hidden_act"]),
        norm="layer",
        norm_eps=t["layer_norm_eps"],
        parallel=t["use_parallel_residual"],
        bias="all",
        tied=t["tie_word_embeddings"],
        **rotary(t, partly=True),
    )


def write_neox(c: Model) -> Values:
    rope = their_rotary(c)["rope_parameters"] | {"partial_rotary_factor": c.rotary_share}  # left out, it would be 0.25
    return {
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "intermediate_size": c.hidden_width,
        "hidden_act": their_activation(c),
        "layer_norm_eps": c.norm_eps,
        "use_parallel_residual": c.parallel,
        "tie_word_embeddings": c.tied,
        "attention_bias": True,
        "rope_parameters": rope,
    }


def read_gpt2(t: Values) -> Model:
    need(t.get("scale_attn_weights", True), "scale_attn_weights false")
    need(not t.get("scale_attn_by_inverse_layer_idx"), "scale_attn_by_inverse_layer_idx")
    need(not t.get("add_cross_attention"), "add_cross_attention")
    return Model(
        width=t["n_embd"],
        layers=t["n_layer"],
        heads=t["n_head"],
        hidden=t["n_inner"] or 4 * t["n_embd"],
        activation=activation(t["activation_function"]),
        norm="layer",
        norm_eps=t["layer_norm_epsilon"],
        bias="all",
        tied=t["tie_word_embeddings"],
        positions="learned",
    )


def write_gpt2(c: Model) -> Values:
    return {
        "n_embd": c.width,
        "n_layer": c.layers,
        "n_head": c.heads,
        "n_inner": c.hidden_width,
        "activation_function": their_activation(c),
        "layer_norm_epsilon": c.norm_eps,
        "tie_word_embeddings": c.tied,
    }


@dataclass(frozen=True)
class Family:
    """How one `model_type` of transformers maps to ours."""

    model_type: str
    classes: str  # GPT2 of GPT2LMHeadModel
    length: str  # the config's name for the longest sequence
    unembedding: str
    read: Callable[[Values], Model]
    write: Callable[[Model], Values]
    trunk: Callable[[Model, int, int], list[Tensor]]
    trunk_embedding: str
    causal: str = "ForCausalLM"

    @property
    def prefix(self) -> str:
        """What the names of the trunk's tensors start with."""
        return self.trunk_embedding.split(".")[0] + "."

    def keeps_in_out(self, name: str) -> bool:
        """Whether a tensor is kept [in, out], as GPT-2's Conv1D does, where torch's Linear keeps [out, in]."""
        return self.model_type == "gpt2" and name.startswith(f"{self.prefix}h.")

    def tensors(self, c: Model, vocab: int, length: int, reward: bool, head: str = "score.weight") -> list[Tensor]:
        """Every tensor of a language model, or of a one-label sequence classifier, whose head is called `head`."""
        out = self.trunk(c, vocab, length)
        if reward:
            return [*out, linear(head, "head/kernel", (c.width,), (1,))]
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
