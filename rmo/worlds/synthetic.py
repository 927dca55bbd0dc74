"""The synthetic world of the offline presets: a small scientific model of prompts, texts and an annotator.

What stands for what in real text:

- **Grammar** (language): a hidden topic walks through `states` topics; each topic prefers some words, and each word
  prefers some successors. The last word of a prompt asks one of `questions` questions, and each question has favourite
  words in the answer. A prompt is the beginning of a text (bos and P/2 to P-1 words), a response its continuation: it
  may end with EOS after `shortest` words and runs out of room at R.
- **Manner** (tone, register, stance): every text draws one number per feature below, and its whole response leans that
  way: words that the feature looks at get `manner` times as much more log-odds. The language model learns the mixture,
  reads a text's manner from its beginning, and can be *steered*: shifting the mixture costs little KL, and that is what
  RL does with real models. Without it selection finds good texts that no policy learns to write.
- **Annotator** (human judgement): features of three difficulties, each a *rate*, so that length by itself pays nothing.
  The words of a set (any RM can learn it: a tone); the words of a set that the prompt's last word selects (needs
  attention to the prompt: to answer what was asked); and a word of one set followed 1 to 3 words on by one of another
  (needs attention between words: to put things together). Length is a feature of its own, best as the corpus has it:
  were longer better, small RMs would know little else and PPO would buy it first. Every feature has a **sweet spot**:
  with z its distance from the corpus mean in standard deviations, its value exp(-((z - optimum) / width)^2 / 2) rises
  to 1 at an optimum above what the corpus does and falls again: more is better, then worse, so that what a proxy learns
  from ordinary text can lead past the optimum (extremal Goodhart). Sweet spots lie between `optimum`'s ends.
- **Guards** (fluency: the log-likelihood of bigrams; variety: the share of distinct words): text that is less fluent or
  less varied than nearly all of the corpus loses what its features are worth. Garbled and collapsed text is bad.
- **Score**: the weighted mean of the values times the guards, so within [0, 1]. `World.weights` shares the whole among
  the kinds, a power law shares each kind among its features.

The world was designed on seed 0 alone, by what gold and the optimiser do, never by a fit or a verdict; what was tried
is told in configs/results/README.md. Everything is numpy and follows from `World.seed`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmo import config
from rmo.checkpoints.tokenizers import make_tokenizer
from rmo.worlds.world import PURPOSES, Need, Prompts, Texts, World, register

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, FIRST = 0, 1, 2, 3


def finish(tokens_BR: np.ndarray, lengths_B: np.ndarray, ended_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows to their lengths, put EOS on the last token of those that ended, pad the rest."""
    slot_1R = np.arange(tokens_BR.shape[1])[None]
    mask_BR = slot_1R < lengths_B[:, None]
    last_BR = (slot_1R == lengths_B[:, None] - 1) & ended_B[:, None]
    return np.where(last_BR, EOS, np.where(mask_BR, tokens_BR, PAD)).astype(np.int32), mask_BR


def shared_out(share: float, features: int, decay: float) -> np.ndarray:
    """A share of the annotator's score among the features of one kind, f64[features]: the i-th has i**-decay parts."""
    parts = np.arange(1.0, features + 1) ** -decay
    return share * parts / parts.sum() if features else parts


# Means and spreads of the features of a world's corpus, which take seconds to find.
REFERENCES: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}


@dataclass(frozen=True)
class SyntheticWorld(World):
    """The world that `config.World` describes."""

    c: config.World

    name = "synthetic"
    has_annotator = True

    @classmethod
    def build(cls, c: config.WorldConfig, sources: Path | None) -> SyntheticWorld:
        from rmo.worlds.first_edition import FirstEdition  # made of this one

        assert isinstance(c, config.World)
        return FirstEdition(c) if c.edition == 1 else cls(c)

    @property
    def vocab(self) -> int:
        return self.c.vocab

    @property
    def eos(self) -> int:
        return EOS

    @property
    def words(self) -> int:
        return self.c.vocab - FIRST

    @property
    def kinds(self) -> tuple[int, int, int]:
        """How many unigram, conditional and pair features there are."""
        return self.c.unigrams, self.c.conditionals, self.c.pairs

    @property
    def word_ids(self) -> np.ndarray:
        """Ids that stand for text."""
        return np.arange(FIRST, self.c.vocab)

    @cached_property
    def vocabulary(self) -> list[str]:
        """A made-up word for every token, all distinct."""
        syllables = [onset + vowel for onset in "bdfgklmnprstvz" for vowel in "aeiou"]
        words = []
        for i in range(self.words):
            word, rest = syllables[i % 70], i // 70
            while rest:
                word += syllables[(rest * 37 + i) % 70]
                rest //= 70
            words.append(word)
        seen: dict[str, int] = {}
        for i, word in enumerate(words):
            seen[word] = seen.get(word, -1) + 1
            words[i] = word + (str(seen[word]) if seen[word] else "")
        return ["<pad>", "<bos>", "<eos>", *words]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Its tokens are the words of `vocabulary`."""
        return make_tokenizer(self.vocabulary)

    @cached_property
    def grammar(self) -> dict[str, np.ndarray]:
        """Over W words and S topics: transition f[S, S], log_emission f[S, W], log_bigram f[W, W]; question i[W],
        what a prompt's last word asks, and log_answer f[questions, W]."""
        rng, c, w = np.random.default_rng([self.c.seed, 1]), self.c, self.words
        transition = 0.75 * np.eye(c.states) + 0.25 * rng.dirichlet(np.ones(c.states), c.states)
        return {
            "transition": transition,
            "log_emission": rng.normal(0, 1.2, (c.states, w)),
            "log_bigram": rng.normal(0, c.bigram, (w, w)),
            "log_answer": rng.normal(0, c.answer, (c.questions, w)),
            "question": rng.integers(c.questions, size=w),
        }

    def corpus(self, rng: np.random.Generator, size: int) -> Texts:
        """Texts from the grammar: prompts and their natural continuations."""
        c, g = self.c, self.grammar
        total = c.prompt - 1 + c.response
        topic_cdf = np.cumsum(g["transition"], axis=1)
        words_BT = np.empty((size, total), np.int64)
        topic = rng.integers(c.states, size=size)
        word = rng.integers(self.words, size=size)
        answer_BW = np.zeros((size, self.words))
        manner_BF = self.manner(rng, size)
        for t in range(total):
            if t == c.prompt - 1:  # the response begins: it answers what the prompt's last word asks
                asked_B = g["question"][word]
                answer_BW = g["log_answer"][asked_B] + self.swayed(manner_BF, asked_B)
            topic = np.minimum((topic_cdf[topic] < rng.random(size)[:, None]).sum(1), c.states - 1)
            logits = g["log_emission"][topic] + g["log_bigram"][word] + answer_BW
            logits += self.swayed_by_words(manner_BF, words_BT[:, c.prompt - 1 : t])
            word = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
            words_BT[:, t] = word
        prompts = self._prompts(rng, words_BT[:, : c.prompt - 1] + FIRST)
        lengths, ended = self.lengths(rng, size)
        tokens, mask = finish(words_BT[:, c.prompt - 1 :] + FIRST, lengths, ended)
        return Texts(prompts.tokens, prompts.mask, tokens, mask)

    def manner(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """z of every text, f64[B, F]: a standard normal number for each unigram, conditional and pair feature."""
        return rng.normal(size=(size, sum(self.kinds)))

    def swayed(self, manner_BF: np.ndarray, asked_B: np.ndarray) -> np.ndarray:
        """Log-odds f64[B, W] that a text's manner gives to words, wherever they stand."""
        c, a = self.c, self.annotator
        unigram, conditional, _ = np.split(manner_BF, [c.unigrams, c.unigrams + c.conditionals], axis=1)
        answers_FBW = a["conditional"][:, asked_B]
        return c.manner * (unigram @ a["unigram"] + np.einsum("bf,fbw->bw", conditional, answers_FBW))

    def swayed_by_words(self, manner_BF: np.ndarray, before_BT: np.ndarray) -> np.ndarray:
        """Log-odds f64[B, W] that a text's manner gives to words after those of the response `before` them."""
        a, pair_BF = self.annotator, manner_BF[:, self.c.unigrams + self.c.conditionals :]
        follows_BF = np.zeros_like(pair_BF)
        for f, gap in enumerate(a["gap"]):
            if gap <= before_BT.shape[1]:
                follows_BF[:, f] = a["first"][f][before_BT[:, -gap]]
        return (self.c.pair_manner * pair_BF * follows_BF) @ a["second"].astype(np.float64)

    def demonstrations(self, rng: np.random.Generator, size: int, held_out: bool = False) -> Texts:
        """Texts for SFT; every draw is new, so those of another `rng` are held out."""
        return self.corpus(rng, size)

    def lengths(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Response lengths (EOS included) and whether EOS came in time."""
        wanted = self.c.shortest + rng.geometric(max(self.c.stop, 1e-9), size)
        return np.minimum(wanted, self.c.response), wanted <= self.c.response

    def _prompts(self, rng: np.random.Generator, words_BP: np.ndarray) -> Prompts:
        """Keep the last words of each row, P/2 to P-1 of them, with bos in front, left-padded."""
        size, most = words_BP.shape
        kept = rng.integers(max(1, (most + 1) // 2), most + 1, size)
        slot = np.arange(most + 1)[None]
        start = (most - kept)[:, None]
        full = np.concatenate([np.full((size, 1), PAD), words_BP], axis=1)
        tokens = np.where(slot == start, BOS, np.where(slot > start, full, PAD)).astype(np.int32)
        return Prompts(tokens, slot >= start)

    def prompts(self, rng: np.random.Generator, size: int, purpose: str) -> Prompts:
        """Distinct prompts for one purpose. A hash of the prompt decides what it may be used for (`PURPOSES`), so no
        prompt ever serves two, whatever the seeds and sizes are.

        Raises:
          ConfigError: the world has too few prompts.
        """
        tokens: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        for _ in range(200):
            texts = self.corpus(rng, max(2 * size, 256))
            for row, mask in zip(texts.prompts, texts.prompt_mask, strict=True):
                key = row.tobytes()
                if len(tokens) < size and zlib.crc32(key) % 8 in PURPOSES[purpose]:
                    tokens.setdefault(key, (row, mask))
            if len(tokens) == size:
                rows, masks = zip(*tokens.values(), strict=True)
                return Prompts(np.stack(rows), np.stack(masks))
        raise config.ConfigError(
            f"the world has fewer than {size} {purpose} prompts: raise world.vocab or world.prompt"
        )

    def broad(self, rng: np.random.Generator, base: Texts) -> Texts:
        """Text far from the corpus, one per row of `base`: mutated, tilted to some words, few-worded, repetitive, or
        `base` with a few words overused at a random rate (what optimisation makes of it first)."""
        size, r = base.tokens.shape
        w = self.words
        kind = rng.integers(6, size=size)[:, None]
        lengths, ended = self.lengths(rng, size)
        longer = rng.random(size) < 0.3
        lengths, ended = np.where(longer, r, lengths), ended & ~longer
        short = rng.random(size) < 0.1
        lengths, ended = np.where(short, rng.integers(1, r + 1, size), lengths), ended | short
        random = rng.integers(w, size=(size, r)) + FIRST
        mutated = np.where(rng.random((size, r)) < rng.random((size, 1)), random, base.tokens)
        strength = rng.exponential(1.5, (size, 1)) * rng.normal(size=(size, w))
        tilted = np.argmax(strength[:, None] + rng.gumbel(size=(size, r, w)), axis=2) + FIRST
        few_words = rng.integers(w, size=(size, 4)) + FIRST
        few = np.take_along_axis(few_words, rng.integers(rng.integers(1, 5, (size, 1)), size=(size, r)), axis=1)
        period = rng.integers(1, 6, size=(size, 1))
        pattern = np.where(rng.random((size, 1)) < 0.5, tilted, random)
        periodic = np.take_along_axis(pattern, np.arange(r)[None] % period, axis=1)
        overused = np.where(rng.random((size, r)) < rng.uniform(0, 0.6, (size, 1)), few, base.tokens)
        # Overuse is drawn twice as often: sweet spots are passed there, a little at a time.
        tokens = np.choose(kind, [mutated, tilted, few, periodic, overused, overused])
        # A mutation may fall on base's EOS or pads: make every slot a word again, then cut.
        tokens = np.where(tokens < FIRST, random, tokens)
        tokens, mask = finish(tokens, lengths, ended)
        return base._replace(tokens=tokens, mask=mask)

    # The annotator.

    @cached_property
    def annotator(self) -> dict[str, np.ndarray]:
        """Which words each feature looks at, and its sweet spot `optimum`; drawn from the seed alone."""
        rng, c = np.random.default_rng([self.c.seed, 2]), self.c

        def sets(share: float, *shape: int) -> np.ndarray:
            size = max(1, round(share * self.words))
            return np.argsort(np.argsort(rng.random((*shape, self.words)), axis=-1), axis=-1) < size

        # Spread evenly on a log scale inside each kind: every world has early and late sweet spots.
        optima = [rng.permutation(np.geomspace(*c.optimum, n)) for n in self.kinds]
        return {
            "optimum": np.concatenate(optima),
            "unigram": sets(c.set_share, c.unigrams),  # bool[F, W]
            "conditional": sets(c.set_share, c.conditionals, c.questions),  # bool[F, question, W]
            "first": sets(c.pair_share, c.pairs),
            "second": sets(c.pair_share, c.pairs),
            "gap": 1 + np.arange(c.pairs) % 3,
        }

    @cached_property
    def sweet_spots(self) -> dict[str, np.ndarray]:
        """optimum, width and weight of every feature, f64[F], in standard deviations of the corpus; length's last."""
        c, shares = self.c, zip([*self.kinds, 1], self.c.weights, strict=True)
        weight = np.concatenate([shared_out(share, n, c.decay) for n, share in shares])
        optimum = np.append(self.annotator["optimum"], c.length_optimum)
        return {"optimum": optimum, "width": c.width * np.maximum(optimum, 1.0), "weight": weight / weight.sum()}

    def counts(self, texts: Texts) -> tuple[list[np.ndarray], np.ndarray]:
        """How often a response has what each unigram, conditional and pair feature looks at, and how many words it has,
        i[B] each."""
        g, a = self.grammar, self.annotator
        word_BR, index_BR = words_of(texts)
        # Prompts are left-padded, so their last word is the last slot.
        asked_B1 = g["question"][np.maximum(texts.prompts[:, -1:] - FIRST, 0)]
        columns = [(words[index_BR] & word_BR).sum(1) for words in a["unigram"]]
        columns += [(words[asked_B1, index_BR] & word_BR).sum(1) for words in a["conditional"]]
        for first, second, gap in zip(a["first"], a["second"], a["gap"], strict=True):
            first_BR, second_BR = first[index_BR] & word_BR, second[index_BR] & word_BR
            columns.append((first_BR[:, :-gap] & second_BR[:, gap:]).sum(1))
        return columns, word_BR.sum(1)

    def fluency(self, texts: Texts) -> np.ndarray:
        """Mean log-likelihood of a response's bigrams, f64[B], nats."""
        word_BR, index_BR = words_of(texts)
        pair_BR, log_bigram = word_BR[:, 1:] & word_BR[:, :-1], self.grammar["log_bigram"]
        bigram = log_bigram - np.log(np.exp(log_bigram).sum(1, keepdims=True))
        return (bigram[index_BR[:, :-1], index_BR[:, 1:]] * pair_BR).sum(1) / np.maximum(pair_BR.sum(1), 1)

    def features(self, texts: Texts) -> np.ndarray:
        """Raw features f64[B, F + 2]: rates of words, of answers and of pairs, length, then fluency and variety.

        A rate is a share of the response's words, of at least half of `shortest`: a single word is no rate. A response
        that ran out of room would have gone on: half of the room beyond `shortest` is added to its length.
        """
        counts, words_B = self.counts(texts)
        rates = [count / np.maximum(words_B, self.c.shortest / 2) for count in counts]
        guards = [self.fluency(texts), distinct_words(texts) / np.maximum(words_B, 1)]
        cut_B = texts.mask[:, -1] & (texts.tokens[:, -1] != EOS)
        length_B = words_B + cut_B * (self.c.response - self.c.shortest) / 2
        return np.stack([*rates, length_B, *guards], axis=1).astype(np.float64)

    @cached_property
    def _reference(self) -> tuple[np.ndarray, np.ndarray]:
        known = (type(self), repr(self.c))
        if known not in REFERENCES:
            f = self.features(self.corpus(np.random.default_rng([self.c.seed, 3]), 20_000))
            REFERENCES[known] = f.mean(0), np.maximum(f.std(0), 1e-6)
            for shared in REFERENCES[known]:
                shared.flags.writeable = False
        return REFERENCES[known]

    def standardised(self, texts: Texts) -> np.ndarray:
        """`features` in standard deviations above the corpus mean."""
        mean, std = self._reference
        return (self.features(texts) - mean) / std

    def score(self, texts: Texts) -> np.ndarray:
        """The annotator's score f64[B], within [0, 1]."""
        spots, z = self.sweet_spots, self.standardised(texts)
        value = np.exp(-(((z[:, :-2] - spots["optimum"]) / spots["width"]) ** 2) / 2)
        tolerated, width = self.c.guard
        guard = np.exp(-((np.minimum(z[:, -2:] + tolerated, 0) / width) ** 2) / 2)
        return (value @ spots["weight"]) * guard.prod(1)


def words_of(texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """(where a response has words, which they are: i[B, R], 0 elsewhere)."""
    word_BR = texts.mask & (texts.tokens >= FIRST)
    return word_BR, np.where(word_BR, texts.tokens - FIRST, 0)


def distinct_words(texts: Texts) -> np.ndarray:
    """How many different words a response has, i[B]."""
    word_BR, _ = words_of(texts)
    ranked = np.sort(np.where(word_BR, texts.tokens, -1), axis=1)
    return ((ranked[:, 1:] != ranked[:, :-1]) & (ranked[:, 1:] >= 0)).sum(1) + (ranked[:, 0] >= 0)


def check(e: config.Experiment, w: config.World, need: Need) -> None:
    """What the synthetic world asks for."""
    everyone = (*e.policies, e.gold.model, *e.proxies.sizes)
    need(
        not any(m.checkpoint or m.vocab or m.length for m in everyone),
        "world is synthetic, but a model has checkpoint, vocab or length: for real text give world=Text(...)",
    )
    need(0 <= w.stop < 1, f"world.stop is {w.stop}: it is a probability below 1")
    need(w.vocab >= 16, f"world.vocab is {w.vocab}: it must be at least 16")
    need(w.response >= 6, f"world.response is {w.response}: the pair features need at least 6 tokens")
    need(
        0 < w.shortest < w.response,
        f"world.shortest is {w.shortest}: it must lie between 1 and world.response - 1 ({w.response - 1})",
    )
    need(w.prompt >= 2, f"world.prompt is {w.prompt}: it holds bos and at least one token")
    need(
        w.unigrams + w.conditionals + w.pairs > 0,
        "world has no features: the annotator needs some of unigrams, conditionals, pairs",
    )
    need(
        min(w.weights) >= 0 and sum(w.weights) > 0,
        f"world.weights is {w.weights}: shares must be at least 0 and not all 0",
    )
    for name in ("set_share", "pair_share"):
        share = getattr(w, name)
        need(share <= 1, f"world.{name} is {share}: it is a share of the words, at most 1")
    low, high = w.optimum
    need(0 < low <= high, f"world.optimum is {low} to {high}: it must be 0 < low <= high")


register(config.World, SyntheticWorld, check)
