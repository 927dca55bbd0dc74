"""Is gold a fair judge? How it agrees with the world's annotator, where there is one, and of broken text."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from rmo.experiment.run import Run
from rmo.models import scoring
from rmo.runtime.files import Row, read_json, read_npz
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
    out = {}
    for name, texts in sets_of_texts(run, rng, size).items():
        if len(texts.tokens) > MOST * size:
            texts = texts.rows(rng.permutation(len(texts.tokens))[: MOST * size])
        score = calibration(scoring.score_all(rm, params, *reader.host(*texts.sequences()), e.bon.chunk))
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
class Pool:
    """The main policy's samples, by prompt and draw."""

    run: Run

    @cached_property
    def prompts(self) -> dict[str, np.ndarray]:
        return read_npz(self.run.path("samples") / "prompts.npz")

    @cached_property
    def draws(self) -> list[dict[str, np.ndarray]]:
        files = self.run.path("samples") / "draws"
        return [read_npz(files / f"{q:05d}.npz") for q in range(self.run.experiment.bon.prompts)]

    def drawn(self, q_B: np.ndarray, j_B: np.ndarray) -> Texts:
        """Draw j of prompt q, for every pair."""
        tokens = np.stack([self.draws[q]["tokens"][j] for q, j in zip(q_B, j_B, strict=True)])
        mask = np.stack([self.draws[q]["mask"][j] for q, j in zip(q_B, j_B, strict=True)])
        return Texts(self.prompts["tokens"][q_B], self.prompts["mask"][q_B], tokens.astype(np.int32), mask)


def sets_of_texts(run: Run, rng: np.random.Generator, size: int) -> dict[str, Texts]:
    """What gold is asked about: what policies write, and text that is broken in known ways."""
    pool, world, bon = Pool(run), run.world, run.experiment.bon
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


def paths(run: Run, pool: Pool, rng: np.random.Generator) -> dict[str, Texts]:
    """What optimisation of the main policy wrote on its way, by method."""
    every = np.arange(run.experiment.bon.prompts)
    main = read_json(run.path("sft") / "info.json")["params"]
    winners: list[Texts] = []
    climbs: list[Texts] = []
    for name in run.stages:
        if name.startswith("bon/"):
            if read_json(run.path(name) / "info.json")["policy"] != main:
                continue  # its winners are draws of another pool
            rows = read_npz(run.path(name) / "curve.npz")["winner"].reshape(-1, len(every))
            winners += [pool.drawn(every, row) for row in rng.permutation(rows)[:BATCHES]]
        elif name.startswith("ppo/"):
            curve = read_npz(run.path(name) / "curve.npz")
            for k, m in rng.permutation(np.argwhere(curve["fresh"]))[:BATCHES]:
                prompts, mask = pool.prompts["tokens"], pool.prompts["mask"]
                climbs.append(Texts(prompts, mask, curve["tokens"][k, m], curve["mask"][k, m]))
    found = {"best-of-n path": winners, "PPO path": climbs}
    return {name: concatenate(texts) for name, texts in found.items() if texts}
