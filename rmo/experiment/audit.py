"""Is gold a fair judge? How it agrees with the world's annotator, where there is one, and of broken text."""

from typing import Any

import numpy as np
from scipy import stats

from rmo.artifacts.stages import Optimised, Samples, Scores
from rmo.experiment.run import Run
from rmo.methods import method as methods
from rmo.models import scoring
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
    pool = Samples(run.path("samples"))
    prompts, draws = pool.prompts, [pool.draws(q) for q in range(e.bon.prompts)]

    def drawn(q_B: np.ndarray, j_B: np.ndarray) -> Texts:
        """Draw j of prompt q, for every pair."""
        tokens = np.stack([draws[q].tokens[j] for q, j in zip(q_B, j_B, strict=True)])
        mask = np.stack([draws[q].mask[j] for q, j in zip(q_B, j_B, strict=True)])
        return Texts(prompts.tokens[q_B], prompts.mask[q_B], tokens, mask)

    policy = drawn(rng.integers(e.bon.prompts, size=size), rng.integers(e.bon.draws, size=size))
    every = np.arange(e.bon.prompts)
    main = run.policy_info().params["non_embedding"]
    paths: dict[str, list[Texts]] = {}
    for method in methods.every():
        path = paths.setdefault(f"{method.short} path", [])
        for name in run.stages:
            if not name.startswith(f"{method.name}/"):
                continue
            optimised = Optimised(run.path(name))
            record = optimised.record
            if record.draw is not None:
                if Scores(run.path(optimised.scores)).policy_params() != main:
                    continue  # its winners are draws of another pool
                winners = record.draw.reshape(-1, e.bon.prompts)
                path += [drawn(every, row) for row in rng.permutation(winners)[:96]]
            elif record.tokens is not None and record.mask is not None:
                points = [(m, k) for m in range(len(record.arms)) for k in record.points(m)]
                for m, k in rng.permutation(points)[:96]:
                    path.append(Texts(prompts.tokens, prompts.mask, record.tokens[m, k], record.mask[m, k]))
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
