"""Is gold a fair judge? How it agrees with the world's annotator, on and off the policy's distribution."""

from typing import Any

import numpy as np
from scipy import stats

from rmo import reward
from rmo.files import read_json, read_npz
from rmo.run import Run
from rmo.world import EOS, Texts, concatenate


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's."""
    return float(stats.spearmanr(x, y)[0])  # type: ignore[arg-type]


def audit(run: Run, size: int = 4000) -> dict[str, Any]:
    """How gold agrees with the annotator on policy samples and along the paths, and what it thinks of broken text."""
    e, rng, world = run.experiment, run.rng("audit"), run.world
    rm, calibration = run.gold_rm(), run.gold_calibration()
    params = run.load("gold", rm)
    prompts = read_npz(run.path("samples") / "prompts.npz")
    draws = [read_npz(run.path("samples") / "draws" / f"{q:05d}.npz") for q in range(e.bon.prompts)]

    def drawn(q_B: np.ndarray, j_B: np.ndarray) -> Texts:
        """Draw j of prompt q, for every pair."""
        tokens, mask = ([draws[q][name][j] for q, j in zip(q_B, j_B, strict=True)] for name in ("tokens", "mask"))
        return Texts(prompts["tokens"][q_B], prompts["mask"][q_B], np.stack(tokens).astype(np.int32), np.stack(mask))

    policy = drawn(rng.integers(e.bon.prompts, size=size), rng.integers(e.bon.draws, size=size))
    every = np.arange(e.bon.prompts)
    main = read_json(run.path("sft") / "info.json")["params"]
    paths: dict[str, list[Texts]] = {"best-of-n path": [], "PPO path": []}
    for name in run.stages:
        if name.startswith("bon/"):
            if read_json(run.path(name) / "info.json")["policy"] != main:
                continue  # its winners are draws of another pool
            winners = read_npz(run.path(name) / "curve.npz")["winner"].reshape(-1, e.bon.prompts)
            paths["best-of-n path"] += [drawn(every, row) for row in rng.permutation(winners)[:96]]
        elif name.startswith("ppo/"):
            curve = read_npz(run.path(name) / "curve.npz")
            some = rng.permutation(np.argwhere(curve["fresh"]))[:96]
            tokens, mask = (curve[n][some[:, 0], some[:, 1]] for n in ("tokens", "mask"))
            paths["PPO path"] += [
                Texts(prompts["tokens"], prompts["mask"], t, m) for t, m in zip(tokens, mask, strict=True)
            ]
    garbled = rng.integers(3, e.world.vocab, policy.tokens.shape).astype(np.int32)
    one_word = np.broadcast_to(rng.integers(3, e.world.vocab, (size, 1)), policy.tokens.shape).astype(np.int32)
    keep_eos = lambda tokens: np.where(policy.mask, np.where(policy.tokens == EOS, EOS, tokens), 0)  # noqa: E731
    sets = {
        "policy samples": policy,
        **{name: concatenate(texts) for name, texts in paths.items() if texts},
        "garbled (random words)": policy._replace(tokens=keep_eos(garbled)),
        "collapsed (one word repeated)": policy._replace(tokens=keep_eos(one_word)),
        "far from the corpus (world.broad)": world.broad(rng, policy),
    }
    out = {}
    for name, texts in sets.items():
        if len(texts.tokens) > 4 * size:
            texts = texts.rows(rng.permutation(len(texts.tokens))[: 4 * size])
        score, truth = calibration(reward.score_all(rm, params, *texts.sequences(), e.bon.chunk)), world.score(texts)
        # Texts to one prompt are not independent (and winners repeat): errors are over prompts.
        _, prompt = np.unique(texts.prompts, axis=0, return_inverse=True)
        count = np.bincount(prompt.ravel())
        per_prompt = np.bincount(prompt.ravel(), score) / count
        error = float(per_prompt.std(ddof=1) / len(count) ** 0.5)
        out[name] = {
            "texts": len(score), "gold_mean": float(score.mean()), "gold_se": error,
            "annotator_mean": float(truth.mean()), "rank_correlation": rank_correlation(score, truth),
            "length": float(texts.mask.sum(1).mean()),
        }  # fmt: skip
    return out
