"""Is gold a fair judge? How it agrees with the world's annotator, on and off the policy's distribution."""

from typing import Any

import numpy as np
from scipy import stats

from rmo import reward
from rmo.files import read_npz
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
    q_of = lambda q: (prompts["tokens"][q], prompts["mask"][q])  # noqa: E731
    draws = [read_npz(run.path("samples") / "draws" / f"{q:05d}.npz") for q in range(e.bon.prompts)]
    q, j = rng.integers(e.bon.prompts, size=size), rng.integers(e.bon.draws, size=size)
    policy = Texts(*q_of(q), np.stack([draws[a]["tokens"][b] for a, b in zip(q, j, strict=True)]).astype(np.int32),
                   np.stack([draws[a]["mask"][b] for a, b in zip(q, j, strict=True)]))  # fmt: skip
    paths: dict[str, list[Texts]] = {"best-of-n path": [], "PPO path": []}
    for name in run.stages:
        if name.startswith("bon/"):
            index = read_npz(run.path(name) / "winners.npz")["index"].reshape(-1, e.bon.prompts)
            for row in index:
                paths["best-of-n path"].append(Texts(prompts["tokens"], prompts["mask"],
                    np.stack([draws[a]["tokens"][b] for a, b in enumerate(row)]).astype(np.int32),
                    np.stack([draws[a]["mask"][b] for a, b in enumerate(row)])))  # fmt: skip
        elif name.startswith("ppo/"):
            curve = read_npz(run.path(name) / "curve.npz")
            for k, m in zip(*np.nonzero(curve["fresh"]), strict=True):
                paths["PPO path"].append(
                    Texts(prompts["tokens"], prompts["mask"], curve["tokens"][k, m], curve["mask"][k, m])
                )
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
            texts = Texts(*(x[rng.permutation(len(texts.tokens))[: 4 * size]] for x in texts))
        score, truth = calibration(reward.score_all(rm, params, *texts.sequences(), e.bon.chunk)), world.score(texts)
        out[name] = {
            "texts": len(score), "gold_mean": float(score.mean()), "gold_se": float(score.std() / len(score) ** 0.5),
            "annotator_mean": float(truth.mean()), "rank_correlation": rank_correlation(score, truth),
            "length": float(texts.mask.sum(1).mean()),
        }  # fmt: skip
    return out
