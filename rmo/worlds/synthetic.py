"""The synthetic world of the offline presets: a small scientific model of prompts, texts and an annotator.

What stands for what:

- **Grammar.** A hidden topic walks through `states` topics; each topic prefers some words, and each word prefers some
  successors. The last word of a prompt asks one of `questions` questions, and each question has favourite words in the
  answer. A prompt is the beginning of a text (bos and P/2 to P-1 words), a response its continuation: it may end
  with EOS after `shortest` words and runs out of room at R. This stands for natural language.
- **Annotator.** Counts, in a response: the words of a set (any RM can learn it); the words of a set that the prompt's
  last word selects (needs attention to the prompt); and a word of one set followed 1 to 3 words on by one of another
  (needs attention between words). Each feature has a **sweet spot**: with z its distance from the corpus mean in
  standard deviations, its value exp(-((z - optimum) / width)^2 / 2) rises to 1 at an optimum above what the corpus
  does and falls again. More is better, then worse: what a proxy learns from ordinary text leads past the optimum
  (extremal Goodhart). Two guards, fluency (bigram log-likelihood) and variety (share of distinct words), lose
  value only *below* the corpus mean: garbled and collapsed text is bad. This stands for human judgement.
- **Score.** The weighted mean of the values, so always within [0, 1]. Weights: `World.weights` shares the whole among
  the kinds, a power law shares each kind among its features.

The world is designed so that overoptimization exists and RM sizes differ; it is never tuned on a fit or a verdict.
Everything is numpy and follows from `World.seed`.
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


@dataclass(frozen=True)
class SyntheticWorld(World):
    """The world that `config.World` describes."""

    c: config.World

    name = "synthetic"
    has_annotator = True

    @classmethod
    def build(cls, c: config.WorldConfig, sources: Path | None) -> SyntheticWorld:
        assert isinstance(c, config.World)
        return cls(c)

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
            "log_bigram": rng.normal(0, 1.0, (w, w)),
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
        for t in range(total):
            if t == c.prompt - 1:  # the response begins: it answers what the prompt's last word asks
                answer_BW = g["log_answer"][g["question"][word]]
            topic = np.minimum((topic_cdf[topic] < rng.random(size)[:, None]).sum(1), c.states - 1)
            logits = g["log_emission"][topic] + g["log_bigram"][word] + answer_BW
            word = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
            words_BT[:, t] = word
        prompts = self._prompts(rng, words_BT[:, : c.prompt - 1] + FIRST)
        lengths, ended = self.lengths(rng, size)
        tokens, mask = finish(words_BT[:, c.prompt - 1 :] + FIRST, lengths, ended)
        return Texts(prompts.tokens, prompts.mask, tokens, mask)

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
        """Which words each feature looks at, its sweet spot and weight; drawn from the seed alone."""
        rng, c = np.random.default_rng([self.c.seed, 2]), self.c

        def sets(share: float, *shape: int) -> np.ndarray:
            size = max(1, round(share * self.words))
            return np.argsort(np.argsort(rng.random((*shape, self.words)), axis=-1), axis=-1) < size

        kinds = [c.counts, c.conditionals, c.pairs, 2]
        weight = np.concatenate([shared_out(share, n, c.decay) for n, share in zip(kinds, c.weights, strict=True)])
        # Spread evenly on a log scale inside each kind: every world has early and late sweet spots.
        optimum = np.concatenate([rng.permutation(np.geomspace(*c.optimum, n)) for n in kinds[:3]])
        return {
            "count": sets(c.set_share, c.counts),  # bool[F, W]
            "conditional": sets(c.set_share, c.conditionals, c.questions),  # bool[F, question, W]
            "first": sets(c.pair_share, c.pairs),
            "second": sets(c.pair_share, c.pairs),
            "gap": 1 + np.arange(c.pairs) % 3,
            "optimum": optimum,
            "width": c.width * optimum,
            "weight": weight / weight.sum(),
        }

    def features(self, texts: Texts) -> np.ndarray:
        """Raw features f64[B, F]: counts, conditionals, pairs, fluency, variety."""
        g, a = self.grammar, self.annotator
        word_BR = texts.mask & (texts.tokens >= FIRST)
        index_BR = np.where(word_BR, texts.tokens - FIRST, 0)
        # Prompts are left-padded, so their last word is the last slot.
        asked_B1 = g["question"][np.maximum(texts.prompts[:, -1:] - FIRST, 0)]
        columns = [(words[index_BR] & word_BR).sum(1) for words in a["count"]]
        columns += [(words[asked_B1, index_BR] & word_BR).sum(1) for words in a["conditional"]]
        for first, second, gap in zip(a["first"], a["second"], a["gap"], strict=True):
            first_BR, second_BR = first[index_BR] & word_BR, second[index_BR] & word_BR
            columns.append((first_BR[:, :-gap] & second_BR[:, gap:]).sum(1))
        pair_BR = word_BR[:, 1:] & word_BR[:, :-1]
        bigram = g["log_bigram"] - np.log(np.exp(g["log_bigram"]).sum(1, keepdims=True))
        fluency = (bigram[index_BR[:, :-1], index_BR[:, 1:]] * pair_BR).sum(1) / np.maximum(pair_BR.sum(1), 1)
        ranked = np.sort(np.where(word_BR, texts.tokens, -1), axis=1)
        distinct = ((ranked[:, 1:] != ranked[:, :-1]) & (ranked[:, 1:] >= 0)).sum(1) + (ranked[:, 0] >= 0)
        return np.stack([*columns, fluency, distinct / np.maximum(word_BR.sum(1), 1)], axis=1).astype(np.float64)

    @cached_property
    def _reference(self) -> tuple[np.ndarray, np.ndarray]:
        f = self.features(self.corpus(np.random.default_rng([self.c.seed, 3]), 20_000))
        return f.mean(0), np.maximum(f.std(0), 1e-6)

    def score(self, texts: Texts) -> np.ndarray:
        """The annotator's score f64[B], within [0, 1]."""
        a, (mean, std) = self.annotator, self._reference
        z = (self.features(texts) - mean) / std
        sweet = len(a["optimum"])
        value = np.exp(-(((z[:, :sweet] - a["optimum"]) / a["width"]) ** 2) / 2)
        guard = np.exp(-((np.minimum(z[:, sweet:], 0) / 1.5) ** 2) / 2)
        return np.concatenate([value, guard], axis=1) @ a["weight"]


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
        w.counts + w.conditionals + w.pairs > 0,
        "world has no features: the annotator needs some of counts, conditionals, pairs",
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
