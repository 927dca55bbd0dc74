"""Is gold a fair judge? How it agrees with the world's annotator, where there is one, and of broken text."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from rmo.artifacts.stages import Draws, Optimised, Prompts, Samples, Scores
from rmo.experiment.run import Run
from rmo.methods import method as methods
from rmo.models import bulk_scoring
from rmo.runtime.files import Row
from rmo.worlds.world import Texts, concatenate

BATCHES = 96  # batches of texts that each stage gives to its path
MOST = 4  # sets of texts are cut to this many times the policy samples


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's."""
    return float(stats.spearmanr(x, y)[0])  # type: ignore[arg-type]


def audit(run: Run) -> dict[str, Row]:
    """How gold agrees with the annotator on policy samples and along the paths, and of broken text."""
    e, rng, world = run.experiment, run.rng("audit"), run.world
    size = 4000 if world.has_annotator else 1000  # a gold of the hub is far larger
    rm, calibration = run.gold_rm(), run.gold_calibration()
    params, reader = run.load("gold", rm), run.reader("gold", e.gold.model)
    out, sets = {}, sets_of_texts(run, rng, size)
    chunk = min(e.bon.chunk, max(64, min(len(texts.tokens) for texts in sets.values())))  # one program for all sets
    for name, texts in sets.items():
        if len(texts.tokens) > MOST * size:
            texts = texts.rows(rng.permutation(len(texts.tokens))[: MOST * size])
        score = calibration(bulk_scoring.score_all(rm, params, *reader.host(*texts.sequences()), chunk))
        truth = world.score(texts) if world.has_annotator else None
        out[name] = compare(texts, score, truth)
    return out


def compare(texts: Texts, score: np.ndarray, truth: np.ndarray | None) -> Row:
    """What gold says of some texts (its `score`), and the annotator (`truth`), if there is one.

    Texts to one prompt are not independent, and winners repeat: the standard error is over prompts.
    """
    _, prompt = np.unique(texts.prompts, axis=0, return_inverse=True)
    count = np.bincount(prompt.ravel())
    per_prompt = np.bincount(prompt.ravel(), score) / count
    return {
        "texts": len(score),
        "gold_mean": float(score.mean()),
        "gold_se": float(per_prompt.std(ddof=1) / len(count) ** 0.5),
        "annotator_mean": None if truth is None else float(truth.mean()),
        "rank_correlation": None if truth is None else rank_correlation(score, truth),
        "length": float(texts.mask.sum(1).mean()),
    }


@dataclass(frozen=True)
class MainPool:
    """The main policy's samples, by prompt and draw."""

    run: Run

    @cached_property
    def prompts(self) -> Prompts:
        return Samples(self.run.path("samples")).prompts

    @cached_property
    def draws(self) -> list[Draws]:
        samples = Samples(self.run.path("samples"))
        return [samples.draws(q) for q in range(self.run.experiment.bon.prompts)]

    def drawn(self, q_B: np.ndarray, j_B: np.ndarray) -> Texts:
        """Draw j of prompt q, for every pair."""
        tokens = np.stack([self.draws[q].tokens[j] for q, j in zip(q_B, j_B, strict=True)])
        mask = np.stack([self.draws[q].mask[j] for q, j in zip(q_B, j_B, strict=True)])
        return Texts(self.prompts.tokens[q_B], self.prompts.mask[q_B], tokens, mask)


def sets_of_texts(run: Run, rng: np.random.Generator, size: int) -> dict[str, Texts]:
    """What gold is asked about: what policies write, and text that is broken in known ways."""
    pool, world, bon = MainPool(run), run.world, run.experiment.bon
    policy = pool.drawn(rng.integers(bon.prompts, size=size), rng.integers(bon.draws, size=size))
    out = {"policy samples": policy, **paths(run, pool, rng)}
    words, shape = world.word_ids, policy.tokens.shape
    garbled = words[rng.integers(len(words), size=shape)]
    one_word = np.broadcast_to(words[rng.integers(len(words), size=(size, 1))], shape)
    out["garbled (random words)"] = with_words(policy, garbled, world.eos)
    out["collapsed (one word repeated)"] = with_words(policy, one_word, world.eos)
    if world.has_annotator:
        out["far from the corpus (world.broad)"] = world.broad(rng, policy)
    return out


def with_words(texts: Texts, words_BR: np.ndarray, eos: int) -> Texts:
    """Texts of the same lengths with other words, ended where they were."""
    tokens = np.where(texts.tokens == eos, eos, words_BR)
    return texts._replace(tokens=np.where(texts.mask, tokens, 0).astype(np.int32))


def paths(run: Run, pool: MainPool, rng: np.random.Generator) -> dict[str, Texts]:
    """What optimisation wrote on its way, by method: draws that won of the main policy, and policies' own texts."""
    every, main = np.arange(run.experiment.bon.prompts), run.policy_info().params["non_embedding"]
    found: dict[str, list[Texts]] = {}
    for method in methods.every():
        texts = found.setdefault(f"{method.short} path", [])
        for name in run.stages:
            if not name.startswith(f"{method.name}/"):
                continue
            optimised = Optimised(run.path(name))
            record = optimised.record
            if optimised.ids()[0].against_gold:
                continue  # how gold stands up to optimisation is asked where something else was optimised
            if record.draw is not None:
                if Scores(run.path(optimised.scores)).policy_params() != main:
                    continue  # its winners are draws of another pool
                rows = np.stack([record.draw[m, k] for m in range(len(record.arms)) for k in record.points(m)])
                texts += [pool.drawn(every, row) for row in rng.permutation(rows)[:BATCHES]]
            elif record.tokens is not None and record.mask is not None:
                points = [(m, k) for m in range(len(record.arms)) for k in record.points(m)]
                for m, k in rng.permutation(points)[:BATCHES]:
                    texts.append(Texts(*pool.prompts, record.tokens[m, k], record.mask[m, k]))
    return {name: concatenate(texts) for name, texts in found.items() if texts}
