"""Scores of a table [Q, N] of responses: `rmo.models.scoring.score_n` against a transformers sequence classifier."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.sample import SHAPES, weights

PROMPTS, DRAWS, P, R, CHUNK = 2, 128, 64, 32, 64


def cases(top: Path) -> list[dict[str, Any]]:
    from tests.helpers.checkpoints import write_checkpoint

    family, values = SHAPES["8.9M"]
    write_checkpoint(top / "rm", family, "rm", **values)
    name = f"8.9M, {PROMPTS} prompts of {P} x {DRAWS} responses of {R}"
    flops = 2 * weights("8.9M")[0] * PROMPTS * (P + DRAWS * R)  # a prompt is read once
    return [{"name": name, "checkpoint": str(top / "rm"), "flops": flops}]


def table() -> tuple[np.ndarray, np.ndarray]:
    """(prompts [Q, P], responses [Q, N, R])."""
    rng, vocab = np.random.default_rng(0), SHAPES["8.9M"][1]["vocab_size"]
    return rng.integers(3, vocab, (PROMPTS, P)), rng.integers(3, vocab, (PROMPTS, DRAWS, R))


def ours(case):
    import jax.numpy as jnp

    from rmo.checkpoints import hf
    from rmo.models import scoring

    rm, params = hf.load_reward_model(case["checkpoint"])
    prompts, responses = (jnp.asarray(x, jnp.int32) for x in table())
    every, all_of_it = jnp.ones((P,), bool), jnp.ones((DRAWS, R), bool)

    def scores() -> np.ndarray:
        rows = zip(prompts, responses, strict=True)
        return np.stack([scoring.score_n(rm, params, p, every, r, all_of_it, CHUNK) for p, r in rows])

    return lambda: scores().size and None, lambda: {"scores": scores()}


def peer(case):
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(case["checkpoint"]).eval()
    prompts, responses = table()
    rows = np.concatenate([np.repeat(prompts[:, None], DRAWS, axis=1), responses], axis=2).reshape(-1, P + R)
    batches = torch.tensor(rows).split(CHUNK)

    def scores() -> np.ndarray:
        with torch.inference_mode():
            found = [model(batch, attention_mask=torch.ones_like(batch)).logits[:, 0] for batch in batches]
        return torch.cat(found).numpy().reshape(PROMPTS, DRAWS)

    return lambda: scores().size and None, lambda: {"scores": scores()}
