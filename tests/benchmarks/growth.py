"""How cost grows: seconds and peak memory against draws, points of n, RMs, sequence length and model size, one at a time.

Draws and their scores are kept on the host in files, prompt by prompt, so memory should be flat in everything but what a
chunk holds; time should be linear in draws, RMs and weights, and nearly free in the number of n.
"""

from pathlib import Path
from typing import Any

import numpy as np

BASE = {"draws": 1024, "points": 60, "members": 1, "response": 32, "width": 64}
GROWS = {
    "pool": {"draws": (1024, 4096, 16384), "response": (32, 64, 128), "width": (64, 128, 256)},
    "bon": {"draws": (1024, 4096, 16384), "points": (15, 60, 240)},
    "rms": {"members": (1, 2, 4, 8), "draws": (1024, 4096)},
}
CHUNK, PROMPT, VOCAB = 256, 32, 512


def cases(top: Path) -> list[dict[str, Any]]:
    out = []
    for what, grows in GROWS.items():
        for name, values in grows.items():
            for value in values:
                case = {"what": what, "alone": True, **BASE, name: value}
                out.append(case | {"name": f"{what}: {name} {value:,}"})
    return out


def ours(case):
    return {"pool": pool, "bon": bon, "rms": rms}[case["what"]](case), dict


def one_prompt(case):
    """Draws of one prompt, scored by `members` RMs: (draw, score)."""
    import jax
    import jax.numpy as jnp

    from rmo import config
    from rmo.models import sampling, scoring, transformer

    shape = config.Model(width=case["width"], layers=2, heads=4)
    length = PROMPT + case["response"]
    lm, rm = transformer.LanguageModel(shape, VOCAB, length), transformer.RewardModel(shape, VOCAB, length)
    policy = jax.jit(lambda: transformer.init(lm, jax.random.key(0)))()
    proxies = [jax.jit(lambda key: transformer.init(rm, key))(jax.random.key(m)) for m in range(case["members"])]
    prompt, there = jnp.full((PROMPT,), 5), jnp.ones((PROMPT,), bool)
    draws, response = case["draws"], case["response"]
    draw = lambda: sampling.sample_n(lm, policy, prompt, there, jax.random.key(1), draws, response, -1, CHUNK)
    scored = lambda s: [np.asarray(scoring.score_n(rm, p, prompt, there, s.tokens, s.mask, CHUNK)) for p in proxies]
    return draw, scored


def pool(case):
    """Drawing responses to one prompt."""
    draw, _ = one_prompt(case)
    return lambda: np.asarray(draw().logps).sum() and None


def rms(case):
    """Scoring one pool by several RMs."""
    draw, scored = one_prompt(case)
    drawn = draw()
    return lambda: len(scored(drawn)) and None


def bon(case):
    """Expected scores at every n, 100 prompts."""
    from rmo.methods import best_of_n as bon

    rng = np.random.default_rng(0)
    proxy, gold = (rng.normal(size=(100, case["draws"])).astype(np.float32) for _ in range(2))
    ns = bon.grid(case["draws"] // 2, case["points"])
    return lambda: bon.best_of_n(proxy, gold, ns)[0].size and None
