"""Pairs of the initial policy's responses to one prompt, labelled by gold (paper section 2.1) or by the annotator."""

from functools import partial
from pathlib import Path

import jax
import numpy as np

from rmo.artifacts import stages as artifacts
from rmo.experiment import annotator
from rmo.experiment.run import Run
from rmo.models import scoring
from rmo.models.sampling import sample
from rmo.models.transformer import Params
from rmo.runtime import hosts
from rmo.runtime.files import SCRATCH
from rmo.tracking.jsonl import Log, parts
from rmo.worlds import comparisons as data
from rmo.worlds.rm_reader import TextReader
from rmo.worlds.world import Prompts, Texts


def comparisons(run: Run, out: Path) -> None:
    """Draws pairs, labels them, splits validation off by prompt, writes the dataset."""
    c, files = run.experiment.comparisons, artifacts.Comparisons(out)
    tokens, mask, scores = drawn_pairs(run, out)
    prompt = np.repeat(np.arange(c.prompts, dtype=np.int32), c.pairs)
    rng = run.rng("labels")
    gap = score_gap(run, tokens, mask, scores)
    first_wins = data.label(rng, gap, c)
    rows = preferred_first(data.Comparisons(tokens, mask, scores, prompt), first_wins)
    held = np.isin(prompt, rng.permutation(c.prompts)[: round(c.prompts * c.held_out)])
    data.write_comparisons(files.dataset, train=subset(rows, ~held), validation=subset(rows, held))
    agree = float(np.mean(rows.gold[:, 0] > rows.gold[:, 1]))
    ties = float(np.mean(gap == 0))
    info = {"train": int((~held).sum()), "validation": int(held.sum()), "agreement_with_gold": agree, "ties": ties}
    if c.labelled_by != "gold":
        info["labelled_by"] = run.world.annotator_name
    reader = run.reader("gold", run.experiment.gold.model)
    if isinstance(reader, TextReader):
        some = rng.permutation(len(tokens))[:1000]
        info["gold_through_text"] = reader.drift(tokens[some, 0], mask[some, 0])
    files.write_info(info)


def score_gap(run: Run, tokens: np.ndarray, mask: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """By how much whoever labels prefers the first of each pair, f64[C]; sampled labels have it in standard deviations
    of the labeller's scores of the initial policy. `gold` are raw scores [C, 2]."""
    c = run.experiment.comparisons
    if c.labelled_by == "gold":
        return (gold[:, 0] - gold[:, 1]) * run.gold_calibration().scale
    p = run.experiment.world.prompt
    first, second = (
        run.world.score(Texts(tokens[:, side, :p], mask[:, side, :p], tokens[:, side, p:], mask[:, side, p:]))
        for side in (0, 1)
    )
    scale = annotator.calibration(run).scale if c.labels == "sampled" else 1.0  # it is asked about the whole pool
    return (first - second) * scale


def drawn_pairs(run: Run, out: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens [C, 2, T], mask, raw gold scores [C, 2]) of `pairs` pairs per prompt."""
    c = run.experiment.comparisons
    prompts = run.world.prompts(run.rng("comparison prompts"), c.prompts, "comparisons")
    policy, rm = run.load("sft", run.lm()), run.gold_rm()
    gold = run.load("gold", rm)
    return judged_pairs(run, policy, gold, prompts, run.key("comparisons"), out)


def judged_pairs(
    run: Run, policy: Params, gold: Params, prompts: Prompts, key: jax.Array, out: Path, mirrored: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens [C, 2, T], mask, raw gold scores [C, 2]) of `pairs` pairs of a policy's responses to each prompt; made
    part by part in `out`, whose scratch they stay in."""
    e, c, lm, rm = run.experiment, run.experiment.comparisons, run.lm(), run.gold_rm()
    size, draws = len(prompts.tokens), 2 * c.pairs
    per_part = max(1, e.bon.chunk // draws)
    count = -(-size // per_part)
    reader = run.reader("gold", e.gold.model)

    def make(i: int) -> dict[str, np.ndarray]:
        rows = np.repeat(np.minimum(np.arange(i * per_part, (i + 1) * per_part), size - 1), draws)
        ids = i * per_part * draws + np.arange(len(rows))  # each draw has a key of its own, whatever the chunk
        keys = jax.vmap(partial(jax.random.fold_in, key))(ids)
        with log.timed("sample"):
            s = draw(lm, policy, prompts.tokens[rows], prompts.mask[rows], keys, e.world.response, run.world.eos)
            drawn = hosts.fetch((s.tokens, s.mask))
        log.did(drawn[1].sum(), 0)
        tokens, mask = (np.concatenate([x[rows], y], 1) for x, y in zip(prompts, drawn, strict=True))
        keep = min(per_part, size - i * per_part) * draws
        with log.timed("score"):
            scores = hosts.fetch(score(rm, gold, *reader.host(tokens, mask)))
        return {"tokens": tokens[:keep], "mask": mask[:keep], "gold": scores[:keep]}

    log = Log(out, "comparisons", count, "part", mirrored)
    made = list(parts(out / SCRATCH / f"parts-{per_part}", count, make, log))
    columns = (np.concatenate([part[name] for part in made]) for name in ("tokens", "mask", "gold"))
    tokens, mask, scores = (x.reshape(-1, 2, *x.shape[1:]) for x in columns)
    return tokens, mask, scores


draw = jax.jit(sample, static_argnames=("lm", "length", "eos"))
score = jax.jit(scoring.score, static_argnames="rm")


def preferred_first(rows: data.Comparisons, first_wins: np.ndarray) -> data.Comparisons:
    """The same comparisons with the preferred response at index 0."""
    order = np.where(first_wins[:, None], [[0, 1]], [[1, 0]])

    def reordered(x: np.ndarray) -> np.ndarray:
        return np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)

    gold = reordered(rows.gold).astype(np.float32)
    return data.Comparisons(reordered(rows.tokens), reordered(rows.mask), gold, rows.prompt)


def subset(rows: data.Comparisons, keep: np.ndarray) -> data.Comparisons:
    return data.Comparisons(*(x[keep] for x in rows))
