"""The gold RM, four ways: regressed on the world's annotator, a random teacher, a checkpoint, or trained on people.

A new way is a function that makes one and a `GoldKind` for it in `KINDS`; config, stage and report know no more of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmo import config
from rmo.checkpoints import hf, saved_model, tokenizers
from rmo.config.names import GOLD_TRUNK
from rmo.experiment import audit
from rmo.experiment.run import Run
from rmo.models import bulk_scoring, metrics, transformer
from rmo.models.sampling import sample
from rmo.models.transformer import Params, RewardModel
from rmo.runtime import hosts
from rmo.runtime.checkpointer import Checkpoints
from rmo.runtime.files import Row, RunError, read_json, write_json
from rmo.tracking.jsonl import Log
from rmo.training import objectives
from rmo.training.loop import train
from rmo.worlds import comparisons, real_text, sources, tokenization
from rmo.worlds.dialogue import Prompt, words
from rmo.worlds.world import Need, Texts, World, concatenate, world_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Maker = Callable[[Run, RewardModel, Path], tuple[Params, Row]]  # (run, module, directory) -> parameters, what is known


def everywhere(world: type[World]) -> bool:
    """Of kinds that work in every world."""
    return True


def nothing(e: config.Experiment, need: Need) -> None:
    """Of kinds that have no settings of their own to check."""


@dataclass(frozen=True)
class GoldKind:
    """One way to have a gold RM."""

    name: str
    """What `gold.kind` calls it."""
    make: Maker
    sentence: str
    """Completes "Gold is ..."; {gold} stands for the experiment's `Gold`, {world} for its world."""
    works_in: Callable[[type[World]], bool] = everywhere
    check: Callable[[config.Experiment, Need], None] = nothing
    logits: bool = False
    """Whether a raw score is a logit of a preference, as that of an RM that was trained on comparisons is."""


KINDS: dict[str, GoldKind] = {}


def register(kind: GoldKind) -> None:
    """Make a kind known by its name."""
    KINDS[kind.name] = kind


def check(e: config.Experiment, need: Need) -> None:
    """Refuse a kind of gold that does not exist, or not in this world, or that lacks what it needs.

    Raises:
      ConfigError: one line that names the field, its value and the remedy.
    """
    name, world = e.gold.kind, world_of(e.world)
    need(name in KINDS, f"gold.kind is {name!r}: there are {', '.join(KINDS)}")
    possible = [kind.name for kind in KINDS.values() if kind.works_in(world)]
    need(name in possible, f"gold.kind is {name!r}: a world of kind {world.name} has {', '.join(possible)}")
    KINDS[name].check(e, need)
    need(
        e.gold.start == "random" or name == "annotator",
        f"gold.start is {e.gold.start!r}: gold of kind {name} starts from its checkpoint or from random weights",
    )


def gold(run: Run, out: Path) -> None:
    """The stage: parameters, the tokenizer where gold has its own, and what is known of it."""
    e, rm = run.experiment, run.gold_rm()
    kind = KINDS[e.gold.kind]
    tokenizer = run.own_tokenizer(e.gold.model, out)
    params, info = kind.make(run, rm, out)
    saved_model.save(out, rm, params, tokenizer)
    sentence = kind.sentence.format(gold=e.gold, world=run.world)
    about = {"kind": kind.name, "sentence": sentence, "params": transformer.count(params)}
    write_json(out / "info.json", {**about, **info})


# Regressed on the world's annotator.


def annotator(run: Run, rm: RewardModel, out: Path) -> tuple[Params, Row]:
    """Regressed on the annotator over broad text."""
    e, (texts, target) = run.experiment, annotated(run)
    held = e.gold.held_out_texts
    kept, wanted = texts.rows(slice(held, None)), target[held:]
    order = comparisons.epochs(len(wanted), e.gold.batch, run.seeds("gold order"))
    steps = e.gold.epochs * (len(wanted) // e.gold.batch)

    def batch(step: int) -> tuple[Texts, np.ndarray]:
        rows = order(step)
        return kept.rows(rows), wanted[rows]

    start = run.first(rm, run.key("gold"), f"trunks/{GOLD_TRUNK}" if e.gold.start == "language_model" else "")
    log = Log(out, "gold", steps)
    params = train(start, objectives.regression(rm), batch, steps, e.gold.optimizer, run.mesh, Checkpoints(out), log)
    return params, judge_annotated(run, rm, params, texts, target)


def check_annotator(e: config.Experiment, need: Need) -> None:
    need(
        e.gold.train_texts >= e.gold.batch,
        f"gold.texts is {e.gold.texts}: less the held-out twentieth it must be at least one batch ({e.gold.batch})",
    )
    need(
        e.gold.model.reads == "ids",
        f"gold.model.reads is {e.gold.model.reads!r}: gold that learns from an annotator reads the policy's own ids",
    )


register(
    GoldKind(
        "annotator",
        annotator,
        "a network regressed on {world.annotator_name}",
        attrgetter("has_annotator"),
        check_annotator,
    )
)


def annotated(run: Run) -> tuple[Texts, np.ndarray]:
    """Broad texts and the annotator's standardised scores, f32[B]; the first of them are held out."""
    texts = broad_texts(run, run.rng("gold"), run.experiment.gold.texts)
    raw = run.world.score(texts)
    return texts, ((raw - raw.mean()) / raw.std()).astype(np.float32)


def judge_annotated(run: Run, rm: RewardModel, params: Params, texts: Texts, target: np.ndarray) -> Row:
    """How gold agrees with the annotator on the held-out texts."""
    e, held = run.experiment, run.experiment.gold.held_out_texts
    truth = target[:held]
    predicted = bulk_scoring.score_all(rm, params, *texts.rows(slice(held)).sequences(), e.bon.chunk)
    r2 = float(1 - np.mean((predicted - truth) ** 2) / truth.var())
    correlation = audit.rank_correlation(predicted, truth)
    return {"texts": e.gold.texts, "held_out_broad_text": {"r2": r2, "rank_correlation": correlation}}


def broad_texts(run: Run, rng: np.random.Generator, size: int) -> Texts:
    """A quarter each: demonstrations; policy samples, hot and cold; the first made broad; the second made broad.

    Broad text is what teaches gold that collapsed text is bad, which no proxy trained on-policy can know.
    """
    quarter, world = -(-size // 4), run.world
    plain = world.demonstrations(rng, quarter)
    policy = hot_and_cold(run, world.demonstrations(rng, quarter), rng)
    everything = concatenate([plain, policy, world.broad(rng, plain), world.broad(rng, policy)])
    return everything.rows(rng.permutation(len(everything.tokens))[:size])


def hot_and_cold(run: Run, prompts: Texts, rng: np.random.Generator, temperatures: int = 16) -> Texts:
    """The policy's responses to the prompts of `prompts`, at so many temperatures from 0.3 to 2.5."""
    lm = run.lm()
    params, size = run.load("sft", lm), len(prompts.tokens)
    draw = jax.jit(partial(sample, lm, length=run.experiment.world.response, eos=run.world.eos))
    sampled = []
    drawn_at = np.exp(rng.uniform(np.log(0.3), np.log(2.5), temperatures))
    for i, block in enumerate(np.array_split(np.arange(size), temperatures)):
        pad = size // temperatures + 1 - len(block)  # equal shapes: one compilation
        rows = np.concatenate([block, block[:pad]])
        keys = jax.random.split(jax.random.fold_in(run.key("broad"), i), len(rows))
        temperature = jnp.float32(drawn_at[i])
        s = draw(params, prompts.prompts[rows], prompts.prompt_mask[rows], keys, temperature=temperature)
        tokens, mask = hosts.fetch((s.tokens, s.mask))
        count = len(block)
        sampled.append(Texts(prompts.prompts[block], prompts.prompt_mask[block], tokens[:count], mask[:count]))
    return concatenate(sampled)


# A random teacher.


def random(run: Run, rm: RewardModel, out: Path) -> tuple[Params, Row]:
    """A frozen, seeded teacher: a gold that costs nothing."""
    params = jax.jit(lambda: transformer.init(rm, run.key("gold")))()
    return params, judge_annotated(run, rm, params, *annotated(run)) if run.world.has_annotator else {}


register(GoldKind("random", random, "a random teacher"))


# A checkpoint.


def checkpoint(run: Run, rm: RewardModel, out: Path) -> tuple[Params, Row]:
    """A reward model of the hub or of a directory, as it stands; kept in the type that it computes in."""
    name = run.experiment.gold.model.checkpoint
    run.check_checkpoint(rm.shape)
    _, params = hf.load_reward_model(name, run.mesh, rm.shape.dtype, stored=rm.shape.dtype)
    return params, {"checkpoint": name, "from": hf.resolve(name).name}


def check_checkpoint(e: config.Experiment, need: Need) -> None:
    need(bool(e.gold.model.checkpoint), "gold.kind is checkpoint: give gold.model.checkpoint")


register(
    GoldKind(
        "checkpoint",
        checkpoint,
        "the checkpoint {gold.model.checkpoint}",
        attrgetter("reads_sources"),
        check_checkpoint,
        logits=True,
    )
)


# Trained on people.


class HumanComparisons(NamedTuple):
    """C comparisons of people as gold reads them, the preferred response at index 0."""

    tokens: np.ndarray  # i32[C, 2, S]
    mask: np.ndarray  # bool[C, 2, S]
    length: np.ndarray  # i64[C, 2], of the responses, in tokens
    prompt: np.ndarray  # i64[C], the prompt's number
    held_out: np.ndarray  # bool[C], follows from the prompt's text
    left_out: Row  # what was not read, and why


def people(run: Run, rm: RewardModel, out: Path) -> tuple[Params, Row]:
    """Trained on human comparisons with the preference loss, judged on those of held-out prompts."""
    e, g = run.experiment, run.experiment.gold
    given = human_comparisons(run, rm, out)
    learn, seen = np.flatnonzero(~given.held_out), np.flatnonzero(given.held_out)
    if len(learn) < g.batch or not len(seen):
        counts = f"{len(learn)} comparisons to learn from and {len(seen)} to be judged on"
        raise RunError(f"{g.comparisons} gives {counts}; gold.batch is {g.batch}: give more, or change gold.held_out")
    order = comparisons.epochs(len(learn), g.batch, run.seeds("gold order"))
    steps = g.epochs * (len(learn) // g.batch)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        rows = learn[order(step)]
        return given.tokens[rows], given.mask[rows]

    first, log = run.first(rm, run.key("gold")), Log(out, "gold", steps)
    params = train(first, objectives.preference(rm), batch, steps, g.optimizer, run.mesh, Checkpoints(out), log)
    width = given.tokens.shape[-1]
    flat = given.tokens[seen].reshape(-1, width), given.mask[seen].reshape(-1, width)
    scores = bulk_scoring.score_all(rm, params, *flat, e.bon.chunk).reshape(-1, 2)
    judged = agreement(scores, given.length[seen], given.prompt[seen], run.rng("gold bootstrap"))
    counts = {"train": len(learn), "held_out": len(seen), **given.left_out}
    return params, {"comparisons": counts, "steps": steps, "held_out_people": judged}


def check_people(e: config.Experiment, need: Need) -> None:
    need(bool(e.gold.comparisons), "gold.kind is people: give gold.comparisons, a source of human comparisons")
    need(0 < e.gold.held_out < 1, f"gold.held_out is {e.gold.held_out}: it is a share, between 0 and 1")


register(
    GoldKind("people", people, "trained on human comparisons", attrgetter("reads_sources"), check_people, logits=True)
)


def human_comparisons(run: Run, rm: RewardModel, out: Path) -> HumanComparisons:
    """The comparisons that the stage `prompts` read, but for those that are too long.

    Raises:
      RunError: all are too long.
    """
    g = run.experiment.gold
    source = run.path("prompts") / "people.jsonl"
    found = real_text.read_comparisons(source)
    shared, limit = g.model.reads == "ids", longest_comparison(run)
    own = run.world.tokenizer if shared else tokenizers.load_tokenizer(out / "tokenizer")
    pairs, lengths, prompts, held = [], [], [], []
    for prompt, *responses in found:
        pair = [as_gold_reads(run, own, rm.vocab, prompt, response) for response in responses]
        if max(map(len, pair)) <= limit:
            pairs += pair
            lengths.append([len(own(response, add_special_tokens=False)["input_ids"]) for response in responses])
            prompts.append(words(prompt))
            held.append(zlib.crc32(words(prompt).encode()) % 10_000 < 10_000 * g.held_out)
    if not pairs:
        raise RunError(too_long(run))
    tokens, mask = (x.reshape(-1, 2, limit) for x in tokenization.pad(pairs, limit, left=False))
    number = np.unique(prompts, return_inverse=True)[1]
    left_out = {"rows": read_json(source.with_suffix(".json"))["rows"], "too_long": len(found) - len(held)}
    return HumanComparisons(tokens, mask, np.array(lengths), number, np.array(held), left_out)


def longest_comparison(run: Run) -> int:
    """Most tokens of a prompt and a response for a gold of kind `people`."""
    g, w = run.experiment.gold, run.experiment.world
    return w.prompt + w.response if g.model.reads == "ids" else run.read_length(g.model)


def too_long(run: Run) -> str:
    """What is wrong where no comparison is short enough."""
    longest = longest_comparison(run)
    return f"{run.experiment.gold.comparisons}: every comparison has more than {longest} tokens; raise world.response"


def check_comparisons(run: Run, own: PreTrainedTokenizerBase, rows: list[sources.Comparison]) -> None:
    """Refuse human comparisons none of which gold could be trained on; called before anything is trained.

    Args:
      own: the tokenizer that gold reads through.

    Raises:
      RunError: all are too long.
      TextError: one cannot be shown to gold.
    """
    vocab, longest = run.experiment.gold.model.vocab or len(own), longest_comparison(run)
    for row in rows:
        pair = [as_gold_reads(run, own, vocab, row.prompt, text) for text in (row.chosen, row.rejected)]
        if max(map(len, pair)) <= longest:
            return
    raise RunError(too_long(run))


def as_gold_reads(run: Run, own: PreTrainedTokenizerBase, vocab: int, prompt: Prompt, response: str) -> list[int]:
    """Ids of a prompt and a response: as the policy meets them or, of a gold that reads chat, through its template.

    Args:
      own: the tokenizer that gold reads through.
      vocab: gold's.
    """
    g, w = run.experiment.gold, run.experiment.world
    where = f"{g.comparisons}: response {response[:40]!r}"
    if g.model.reads == "ids":
        assert isinstance(w, config.Text)  # `people` works in no other world
        ids = real_text.encode_prompt(w, own, prompt, where, vocab)
        return ids + real_text.encode_response(own, response, where, vocab)
    chat = g.model.reads == "chat"
    row = {"prompt": prompt if chat else run.world.shown(prompt), "response": response}
    return tokenization.encode(own, row, where, vocab, "", chat)


def agreement(
    scores_C2: np.ndarray, length_C2: np.ndarray, prompt_C: np.ndarray, rng: np.random.Generator, draws: int = 1000
) -> Row:
    """How an RM agrees with people on comparisons that it has not seen, the preferred one at index 0.

    `calibration_error` compares the probability given to its choice with how often people chose it;
    `length_correlation` is between score and response length (Spearman), `longer_wins` how often people preferred the
    longer response and `scores_longer` how often it did. The interval (95%) is over prompts.
    """
    gap = scores_C2[:, 0] - scores_C2[:, 1]
    right = (gap > 0) + 0.5 * (gap == 0)
    _, prompt_C = np.unique(prompt_C, return_inverse=True)
    count, sums = np.bincount(prompt_C), np.bincount(prompt_C, right)
    times = rng.multinomial(len(count), np.full(len(count), 1 / len(count)), size=draws)
    longer = np.sign(length_C2[:, 0] - length_C2[:, 1])
    unequal = longer != 0
    longer_wins = scores_longer = float("nan")
    if unequal.any():
        longer_wins = float(np.mean(longer[unequal] > 0))
        scores_longer = float(np.mean(longer[unequal] * np.sign(gap[unequal]) > 0))
    return {
        "accuracy": float(right.mean()),
        "accuracy_interval": np.percentile((times @ sums) / np.maximum(times @ count, 1), [2.5, 97.5]),
        "loss": float(np.mean(np.logaddexp(0, -gap))),
        "calibration_error": metrics.calibration_error(np.abs(gap), right),
        "length_correlation": audit.rank_correlation(scores_C2.ravel(), length_C2.ravel()),
        "longer_wins": longer_wins,
        "scores_longer": scores_longer,
    }
