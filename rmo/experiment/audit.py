"""Is gold a fair judge? How it agrees with the world's annotator, where there is one, and of broken text."""

from typing import Any

import numpy as np
from scipy import stats

from rmo.experiment.run import Run
from rmo.models import scoring
from rmo.runtime.files import read_json, read_npz
from rmo.worlds.synthetic import Texts, concatenate


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's."""
    return float(stats.spearmanr(x, y)[0])  # type: ignore[arg-type]


def audit(run: Run) -> dict[str, Any]:
    """How gold agrees with the annotator on policy samples and along the paths, and of broken text."""
    e, rng, world = run.experiment, run.rng("audit"), run.world
    size = 4000 if run.synthetic else 1000  # a gold of the hub is far larger
    rm, calibration = run.gold_rm(), run.gold_calibration()
    params, reader = run.load("gold", rm), run.reader("gold", e.gold.model)
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
    words, eos = world.word_ids, world.eos
    garbled = words[rng.integers(len(words), size=policy.tokens.shape)].astype(np.int32)
    one_word = np.broadcast_to(words[rng.integers(len(words), size=(size, 1))], policy.tokens.shape).astype(np.int32)
    keep_eos = lambda tokens: np.where(policy.mask, np.where(policy.tokens == eos, eos, tokens), 0)  # noqa: E731
    sets = {
        "policy samples": policy,
        **{name: concatenate(texts) for name, texts in paths.items() if texts},
        "garbled (random words)": policy._replace(tokens=keep_eos(garbled)),
        "collapsed (one word repeated)": policy._replace(tokens=keep_eos(one_word)),
    }
    if run.synthetic:
        sets["far from the corpus (world.broad)"] = world.broad(rng, policy)
    out = {}
    for name, texts in sets.items():
        if len(texts.tokens) > 4 * size:
            texts = texts.rows(rng.permutation(len(texts.tokens))[: 4 * size])
        score = calibration(scoring.score_all(rm, params, *reader.host(*texts.sequences()), e.bon.chunk))
        truth = world.score(texts) if run.synthetic else None  # people's own judgement of these texts is not known
        # Texts to one prompt are not independent (and winners repeat): errors are over prompts.
        _, prompt = np.unique(texts.prompts, axis=0, return_inverse=True)
        count = np.bincount(prompt.ravel())
        per_prompt = np.bincount(prompt.ravel(), score) / count
        error = float(per_prompt.std(ddof=1) / len(count) ** 0.5)
        out[name] = {
            "texts": len(score), "gold_mean": float(score.mean()), "gold_se": error,
            "annotator_mean": None if truth is None else float(truth.mean()),
            "rank_correlation": None if truth is None else rank_correlation(score, truth),
            "length": float(texts.mask.sum(1).mean()),
        }  # fmt: skip
    return out
