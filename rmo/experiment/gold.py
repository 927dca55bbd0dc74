"""The gold RM, four ways: regressed on the world's annotator, a random teacher, a checkpoint, or trained on people."""

import zlib
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmo.checkpoints import hf, saved_model
from rmo.config import Text
from rmo.experiment import audit
from rmo.experiment.run import Run
from rmo.models import metrics, scoring, transformer
from rmo.models.sampling import sample
from rmo.models.transformer import Params, RewardModel
from rmo.runtime import hosts
from rmo.runtime.files import Checkpoints, RunError, read_json, write_json
from rmo.tracking.jsonl import Log
from rmo.training import objectives
from rmo.training.loop import train
from rmo.worlds import comparisons, sources, tokenization
from rmo.worlds import real_text as corpus
from rmo.worlds.synthetic import EOS, Texts, concatenate


def gold(run: Run, out: Path) -> None:
    """The stage: parameters, the tokenizer where gold has its own, and what is known of it."""
    e, rm = run.experiment, run.gold_rm()
    tokenizer = run.own_tokenizer(e.gold.model, out)
    make = {"annotator": annotator, "random": random, "checkpoint": checkpoint, "people": people}[e.gold.kind]
    params, info = make(run, rm, out)
    saved_model.save(out, rm, params, tokenizer)
    write_json(out / "info.json", {"kind": e.gold.kind, "params": transformer.count(params), **info})


def random(run: Run, rm: RewardModel, out: Path) -> tuple[Params, dict[str, Any]]:
    """A frozen, seeded teacher: a gold that costs nothing."""
    params = jax.jit(lambda: transformer.init(rm, run.key("gold")))()
    return params, judge_annotated(run, rm, params, *annotated(run)) if run.synthetic else {}


def checkpoint(run: Run, rm: RewardModel, out: Path) -> tuple[Params, dict[str, Any]]:
    """A reward model of the hub or of a directory, as it stands; kept in the type that it computes in."""
    name = run.experiment.gold.model.checkpoint
    run.check_checkpoint(rm.shape)
    _, params = hf.load_reward_model(name, run.mesh, rm.shape.dtype, stored=rm.shape.dtype)
    return params, {"checkpoint": name, "from": hf.resolve(name).name}


def annotator(run: Run, rm: RewardModel, out: Path) -> tuple[Params, dict[str, Any]]:
    """Regressed on the annotator over broad text."""
    e, (texts, target) = run.experiment, annotated(run)

    held = e.gold.held_out_texts
    rows = comparisons.epochs(e.gold.train_texts, e.gold.batch, run.seeds("gold order"))
    kept = texts.rows(slice(held, None))
    pick = lambda i: (kept.rows(i), target[held:][i])  # noqa: E731
    steps = e.gold.epochs * (e.gold.train_texts // e.gold.batch)
    params = train(
        lambda: transformer.init(rm, run.key("gold")), objectives.regression(rm), lambda s: pick(rows(s)), steps,
        e.gold.optimizer, run.mesh,
        Checkpoints(out), Log(out, "gold", steps),
    )  # fmt: skip
    return params, judge_annotated(run, rm, params, texts, target)


def annotated(run: Run) -> tuple[Texts, np.ndarray]:
    """Broad texts and the annotator's standardised scores; the first twentieth is held out."""
    texts = broad_texts(run, run.rng("gold"), run.experiment.gold.texts)
    raw = run.world.score(texts)
    return texts, ((raw - raw.mean()) / raw.std()).astype(np.float32)


def judge_annotated(run: Run, rm: RewardModel, params: Params, texts: Texts, target: np.ndarray) -> dict[str, Any]:
    """How gold agrees with the annotator on the held-out texts."""
    e, held = run.experiment, run.experiment.gold.held_out_texts
    predicted = scoring.score_all(rm, params, *texts.rows(slice(held)).sequences(), e.bon.chunk)
    r2 = float(1 - np.mean((predicted - target[:held]) ** 2) / target[:held].var())
    correlation = audit.rank_correlation(predicted, target[:held])
    return {"texts": e.gold.texts, "held_out_broad_text": {"r2": r2, "rank_correlation": correlation}}


def broad_texts(run: Run, rng: np.random.Generator, size: int) -> Texts:
    """A quarter each: corpus; policy samples at temperatures 0.3 to 2.5; corpus made broad; policy samples made broad.

    Broad text is what teaches gold that collapsed text is bad, which no proxy trained on-policy can know.
    """
    quarter = -(-size // 4)
    corpus = run.world.corpus(rng, quarter)
    params, lm = run.load("sft", run.lm()), run.lm()
    prompts = run.world.corpus(rng, quarter)
    temperatures = np.exp(rng.uniform(np.log(0.3), np.log(2.5), 16))
    draw = jax.jit(partial(sample, lm, length=run.experiment.world.response, eos=EOS))
    sampled = []
    for i, block in enumerate(np.array_split(np.arange(quarter), 16)):
        pad = quarter // 16 + 1 - len(block)  # equal shapes: one compilation
        rows = np.concatenate([block, block[:pad]])
        keys = jax.random.split(jax.random.fold_in(run.key("broad"), i), len(rows))
        s = draw(
            params, prompts.prompts[rows], prompts.prompt_mask[rows], keys, temperature=jnp.float32(temperatures[i])
        )
        tokens, mask = (x[: len(block)] for x in hosts.fetch((s.tokens, s.mask)))
        sampled.append(Texts(prompts.prompts[block], prompts.prompt_mask[block], tokens, mask))
    policy = concatenate(sampled)
    everything = concatenate([corpus, policy, run.world.broad(rng, corpus), run.world.broad(rng, policy)])
    order = rng.permutation(len(everything.tokens))[:size]
    return everything.rows(order)


def people(run: Run, rm: RewardModel, out: Path) -> tuple[Params, dict[str, Any]]:
    """Trained on human comparisons with the preference loss, judged on those of held-out prompts."""
    e, g = run.experiment, run.experiment.gold
    tokens, mask, length, prompt, held, left_out = human_comparisons(run, rm, out)

    learn, seen = np.flatnonzero(~held), np.flatnonzero(held)
    if len(learn) < g.batch or not len(seen):
        counts = f"{len(learn)} comparisons to learn from and {len(seen)} to be judged on"
        raise RunError(f"{g.comparisons} gives {counts}; gold.batch is {g.batch}: give more, or change gold.held_out")
    rows = comparisons.epochs(len(learn), g.batch, run.seeds("gold order"))
    steps = g.epochs * (len(learn) // g.batch)
    params = train(
        run.first(rm, run.key("gold")), objectives.preference(rm),
        lambda s: (tokens[learn[rows(s)]], mask[learn[rows(s)]]), steps, g.optimizer, run.mesh, Checkpoints(out),
        Log(out, "gold", steps),
    )  # fmt: skip
    flat = tokens[seen].reshape(-1, tokens.shape[-1]), mask[seen].reshape(-1, mask.shape[-1])
    scores = scoring.score_all(rm, params, *flat, e.bon.chunk).reshape(-1, 2)
    found = {"comparisons": {"train": len(learn), "held_out": len(seen), **left_out}, "steps": steps}
    return params, {
        **found,
        "held_out_people": agreement(scores, length[seen], prompt[seen], run.rng("gold bootstrap")),
    }


def human_comparisons(run: Run, rm: RewardModel, out: Path):
    """(tokens i32[C, 2, S], mask, response lengths i64[C, 2], prompt's number i64[C], held out bool[C], what was left
    out); preferred first.

    A prompt is shown as the policy meets it, or, to an RM that reads chat, through its own template. Which comparisons
    are held out follows from the prompt's text.
    """
    g, w = run.experiment.gold, run.experiment.world
    assert isinstance(w, Text)
    source = run.path("prompts") / "people.jsonl"
    found = sources.load_comparisons(source, 0)
    own = comparisons.load_tokenizer(out / "tokenizer") if g.model.reads != "ids" else run.world.tokenizer
    limit = w.prompt + w.response if g.model.reads == "ids" else run.read_length(rm.shape)

    def encode(prompt: str, response: str) -> list[int]:
        where = f"{g.comparisons}: response {response[:40]!r}"
        if g.model.reads == "ids":
            shown = corpus.encode_prompt(w, own, prompt, where, rm.vocab)
            return shown + corpus.encode_response(own, response, where, rm.vocab)
        chat = g.model.reads == "chat"
        row = {"prompt": prompt if chat else corpus.shown(w, prompt), "response": response}
        return tokenization.encode(own, row, where, rm.vocab, "", chat)

    rows, lengths, prompts, held = [], [], [], []
    for prompt, chosen, rejected in found.rows:
        pair = [encode(prompt, response) for response in (chosen, rejected)]
        if max(map(len, pair)) <= limit:
            rows.append(pair)
            lengths.append([len(own(r, add_special_tokens=False)["input_ids"]) for r in (chosen, rejected)])
            prompts.append(prompt)
            held.append(zlib.crc32(prompt.encode()) % 10_000 < 10_000 * g.held_out)
    if not rows:
        raise RunError(f"{g.comparisons}: every comparison has more than {limit} tokens; raise world.response")
    tokens, mask = tokenization.pad([ids for pair in rows for ids in pair], limit, left=False)
    tokens, mask = (x.reshape(-1, 2, limit) for x in (tokens, mask))
    left_out = {"rows": read_json(source.with_suffix(".json"))["rows"], "too_long": len(found.rows) - len(rows)}
    return tokens, mask, np.array(lengths), np.unique(prompts, return_inverse=True)[1], np.array(held), left_out


def agreement(
    scores_C2: np.ndarray, length_C2: np.ndarray, prompt_C: np.ndarray, rng: np.random.Generator, draws: int = 1000
) -> dict[str, Any]:
    """How an RM agrees with people on comparisons that it has not seen, the preferred one at index 0.

    `calibration_error` compares the probability given to its choice with how often people chose it;
    `length_correlation` is between score and response length (Spearman), `longer_wins` how often people preferred the
    longer response and `scores_longer` how often it did. The interval (95%) is over prompts.
    """
    gap = scores_C2[:, 0] - scores_C2[:, 1]
    longer = np.sign(length_C2[:, 0] - length_C2[:, 1])
    right = (gap > 0) + 0.5 * (gap == 0)
    unequal = longer != 0
    _, prompt_C = np.unique(prompt_C, return_inverse=True)
    count, sums = np.bincount(prompt_C), np.bincount(prompt_C, right)
    times = rng.multinomial(len(count), np.full(len(count), 1 / len(count)), size=draws)
    interval = np.percentile((times @ sums) / np.maximum(times @ count, 1), [2.5, 97.5])
    return {
        "accuracy": float(right.mean()), "accuracy_interval": interval,
        "loss": float(np.mean(np.logaddexp(0, -gap))),
        "calibration_error": metrics.calibration_error(np.abs(gap), right),
        "length_correlation": audit.rank_correlation(scores_C2.ravel(), length_C2.ravel()),
        "longer_wins": float(np.mean(longer[unequal] > 0)) if unequal.any() else float("nan"),
        "scores_longer": float(np.mean(longer[unequal] * np.sign(gap[unequal]) > 0)) if unequal.any() else float("nan"),
    }  # fmt: skip
