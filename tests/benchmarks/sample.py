"""Sampling from one checkpoint: `rmo.models.sampling` against transformers' `generate`, the same weights, prompts and lengths."""

from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {
    "8.9M": ("gpt_neox", {
        "vocab_size": 8192, "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8,
        "intermediate_size": 1024, "max_position_embeddings": 512,
    }),
    "124M": ("gpt2", {
        "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 512,
    }),
    "tiny": ("gpt_neox", {  # configs/tiny.py
        "vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 24, "hidden_act": "relu",
    }),
}  # fmt: skip
THEIRS = 256  # rows of one prompt that `generate` is asked for: it reads the prompt for each, minutes for 1,024
# name, shape, batch, prompt tokens, new tokens; one prompt for all rows?
CASES = [
    ("8.9M, batch 8", "8.9M", 8, 64, 64, False),
    ("8.9M, batch 32", "8.9M", 32, 64, 64, False),
    ("8.9M, batch 256", "8.9M", 256, 64, 64, False),
    ("8.9M, 1,024 of one prompt of 256", "8.9M", 1024, 256, 16, True),
    ("124M, batch 8", "124M", 8, 64, 32, False),
    ("124M, batch 256", "124M", 256, 64, 8, False),
]


def cases(top: Path) -> list[dict[str, Any]]:
    from tests.helpers.checkpoints import write_checkpoint

    for shape in {case[1] for case in CASES}:
        family, values = SHAPES[shape]
        write_checkpoint(top / shape, family, **values)
    names, out = ("name", "shape", "batch", "prompt", "new", "one_prompt"), []
    for values in CASES:
        case = dict(zip(names, values, strict=True))
        blocks, table = weights(case["shape"])
        prompts = 1 if case["one_prompt"] else case["batch"]
        flops = 2 * blocks * (prompts * case["prompt"] + case["batch"] * case["new"])
        flops += 2 * table * (prompts + case["batch"] * case["new"])
        read = 4 * (blocks + table) * case["new"]  # weights alone, once a token
        # Random weights of 12 layers: torch's own float32 is 1e-3 from its float64.
        out.append(
            case
            | {"checkpoint": str(top / case["shape"]), "flops": flops, "bytes": read, "rows": True}
            | {"share": THEIRS / case["batch"] if case["one_prompt"] else 1.0}
            | ({"tolerance": 5e-3} if case["shape"] == "124M" else {})
        )
    return out


def weights(shape: str) -> tuple[int, int]:
    """Weights of the blocks' projections, and of the unembedding."""
    v = SHAPES[shape][1]
    width, layers = v.get("hidden_size") or v["n_embd"], v.get("num_hidden_layers") or v["n_layer"]
    hidden = v.get("intermediate_size") or 4 * width
    return layers * width * (4 * width + 2 * hidden), v["vocab_size"] * width


def words(shape: str) -> Any:
    """A tokenizer that TRL's trainers are content with; nothing is tokenized."""
    import tokenizers
    import transformers

    vocab = {f"w{i}": i for i in range(SHAPES[shape][1]["vocab_size"])}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="w1"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="w0", eos_token="w2", padding_side="left"
    )


def prompts(case: dict[str, Any]) -> np.ndarray:
    """i64[B, P]; the model's inputs in both."""
    vocab = SHAPES[case["shape"]][1]["vocab_size"]
    rows = 1 if case["one_prompt"] else case["batch"]
    return np.random.default_rng(0).integers(3, vocab, (rows, case["prompt"]))


def ours(case):
    import jax
    import jax.numpy as jnp

    from rmo.checkpoints import hf
    from rmo.models import sampling, transformer

    lm, params = hf.load_language_model(case["checkpoint"])
    if jax.device_count() > 1:
        params = jax.device_put(params, jax.NamedSharding(jax.sharding.get_mesh(), jax.P()))
    tokens = jnp.asarray(prompts(case), jnp.int32)
    mask = jnp.ones(tokens.shape, bool)
    draw = jax.jit(sampling.sample, static_argnames=("lm", "length", "eos"))
    keys = jax.random.split(jax.random.key(0), case["batch"])

    def run():
        if case["one_prompt"]:
            out = sampling.sample_n(lm, params, tokens[0], mask[0], keys[0], case["batch"], case["new"], -1, CHUNK)
        else:
            out = draw(lm, params, tokens, mask, keys, case["new"], -1)
        assert out.tokens.block_until_ready().shape == (case["batch"], case["new"])

    read = jax.jit(lambda params: transformer.logits(lm, params, tokens[:8], mask[:8], (), slice(-1, None))[0][:, 0])
    return run, lambda: {"logits": np.asarray(read(params))}


CHUNK = 256  # draws of one prompt at a time


def peer(case):
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(case["checkpoint"]).eval()
    tokens, rows = torch.tensor(prompts(case)), round(case["batch"] * case["share"])
    settings = transformers.GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=case["new"], eos_token_id=None,
        pad_token_id=0, num_return_sequences=rows if case["one_prompt"] else 1,
    )  # fmt: skip

    def run():
        with torch.inference_mode():
            out = model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=settings)
        assert out.shape == (rows, case["prompt"] + case["new"])

    def answers():
        with torch.inference_mode():
            return {"logits": model(tokens[:8]).logits[:, -1].numpy()}

    return run, answers
