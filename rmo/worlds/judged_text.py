"""Real text with a judge (judge.py): gold can learn from it, and it is read beside gold along every path.

What gold has to know is more than how people write: optimisation will come to write other things. `broad` makes them
out of people's and the policy's own texts.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rmo.runtime import checksums
from rmo.runtime.files import read_npz
from rmo.worlds import dialogue
from rmo.worlds.dialogue import Prompt
from rmo.worlds.judge import PROBES, Judge, Pair, judge_of, recognise, remember
from rmo.worlds.real_text import ASKED, TextWorld
from rmo.worlds.world import Texts


def said(prompt: Prompt) -> str:
    """A prompt as a judge is given it: its text, or its turns one below the other."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{m.role}: {m.content}" for m in prompt)


class JudgedTextWorld(TextWorld):
    """Real text whose responses a judge scores."""

    has_annotator = True

    @property
    def annotator_name(self) -> str:
        return f"the judge {self.c.judge}"

    @cached_property
    def judge(self) -> Judge:
        """The judge, if it still says what it said when the sources were read.

        Raises:
          RunError: it does not.
        """
        return recognise(judge_of(self.c.judge), self.directory)

    def remember_judge(self) -> None:
        """Ask the judge for the first time, about demonstrations or, without any, prompts that repeat themselves."""
        demonstrations = self.directory / "demonstrations.npz"
        if demonstrations.is_file():
            rows = read_npz(demonstrations)
            columns = (rows[name][:PROBES] for name in ("prompts", "prompt_mask", "tokens", "mask"))
            pairs = self.pairs(Texts(*columns))
        else:
            words = [said(prompt) for prompt in list(self.texts.values())[:PROBES]]
            pairs = list(zip(words, words, strict=True))
        remember(judge_of(self.c.judge), pairs, self.directory)

    @cached_property
    def words(self) -> dict[bytes, str]:
        """What is said in every prompt, also those of demonstrations, by its ids."""
        found = {ids: said(prompt) for ids, prompt in self.texts.items()}
        if checksums.present(self.directory / ASKED):
            rows = read_npz(self.directory / "demonstrations.npz")
            lines = checksums.content(self.directory / ASKED).decode().split("\n")[:-1]
            for tokens, mask, line in zip(rows["prompts"], rows["prompt_mask"], lines, strict=True):
                found.setdefault(tokens[mask].tobytes(), said(dialogue.read_prompt(json.loads(line))))
        return found

    def pairs(self, texts: Texts) -> list[Pair]:
        """Prompts and responses as words, the responses without the EOS that ended them."""
        out = []
        for prompt, there, tokens, mask in zip(*texts, strict=True):
            ids = tokens[mask].tolist()
            ids = ids[:-1] if ids[-1:] == [self.eos] else ids
            response = str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
            out.append((self.words[prompt[there].astype(np.int32).tobytes()], response))
        return out

    def score(self, texts: Texts) -> np.ndarray:
        """The judge's score of every response, f64[B]."""
        return self.judge(self.pairs(texts))

    def broad(self, rng: np.random.Generator, base: Texts) -> Texts:
        """Text that nobody wrote, one per row of `base`: mutated; the answer to another prompt; pieces of answers that
        the judge liked, or did not, joined; periodic; with a few words overused; of a few words only."""
        size, r = base.tokens.shape
        answers = Answers.of(base, self.eos)
        kind = rng.integers(6, size=size)
        joined = answers.joined(rng, self.score(base))
        uniform = self.word_ids[rng.integers(len(self.word_ids), size=(size, r))]
        usual = answers.usual(rng) if answers.length.any() else uniform
        other = rng.permutation(size)
        any_word = np.where(rng.random((size, 1)) < 0.5, usual, uniform)
        rare = rng.random((size, 1)) < 0.25
        few_words = np.where(rare, uniform, joined)[:, :4]
        few = np.take_along_axis(few_words, rng.integers(rng.integers(1, 5, (size, 1)), size=(size, r)), axis=1)
        pattern = np.where(rng.random((size, 1)) < 0.5, joined, any_word)
        periodic = np.take_along_axis(pattern, np.arange(r)[None] % rng.integers(1, 7, (size, 1)), axis=1)
        mutated = np.where(rng.random((size, r)) < rng.random((size, 1)), any_word, answers.tokens)
        overused = np.where(rng.random((size, r)) < rng.uniform(0, 0.6, (size, 1)), few, answers.tokens)
        kinds = [mutated, answers.tokens[other], joined, periodic, overused, few]
        tokens = np.choose(kind[:, None], kinds)
        lengths, ended = lengths_of(rng, answers)
        lengths = np.where(kind == 1, answers.length[other], lengths)
        ended = np.where(kind == 1, answers.ended[other], ended)
        # Where base has ended it has no word: make every slot a word, then cut.
        tokens = np.where(tokens == self.eos, uniform, tokens)
        tokens, mask = cut(tokens, lengths, ended, self.eos)
        return base._replace(tokens=tokens, mask=mask)


class Answers(NamedTuple):
    """Responses as words."""

    tokens: np.ndarray  # i32[B, R], words first
    length: np.ndarray  # i64[B], words: what is masked, but for the EOS
    ended: np.ndarray  # bool[B], whether EOS ended them

    @classmethod
    def of(cls, texts: Texts, eos: int) -> Answers:
        """Those of some texts."""
        shown = texts.mask.sum(1)
        last = np.take_along_axis(texts.tokens, np.maximum(shown - 1, 0)[:, None], axis=1)[:, 0]
        ended = (shown > 0) & (last == eos)
        return cls(np.where(texts.mask, texts.tokens, eos), shown - ended, ended)

    def usual(self, rng: np.random.Generator) -> np.ndarray:
        """Words as often as they are here, in any order, [B, R]."""
        words = self.tokens[np.arange(self.tokens.shape[1]) < self.length[:, None]]
        return words[rng.integers(len(words), size=self.tokens.shape)]

    def joined(self, rng: np.random.Generator, score: np.ndarray) -> np.ndarray:
        """Pieces of one to several words, one after the other, [B, R]: a row is made of texts of all scores, or of the
        higher or lower ones, more or less strictly. EOS where a piece's text has no words."""
        size, r = self.tokens.shape
        order = np.argsort(score, kind="stable")
        strict = rng.integers(0, 7, size)  # 0: all texts alike
        up = rng.random(size) < 0.5
        out = np.empty((size, r), self.tokens.dtype)
        text = place = np.zeros(size, np.int64)
        for slot in range(r):
            rank = (size * rng.random(size) ** (1 + strict)).astype(np.int64)
            begins = (rng.random(size) < 0.4) | (slot == 0) | (place + 1 >= self.length[text])
            text = np.where(begins, order[np.where(up, size - 1 - rank, rank)], text)
            within = rng.integers(np.maximum(self.length[text], 1))
            place = np.where(begins, within, place + 1)
            out[:, slot] = self.tokens[text, place]
        return out


def lengths_of(rng: np.random.Generator, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """(words i64[B], whether EOS comes after them bool[B]): as they are, in another order; a third fills the room, a
    tenth has any length."""
    (size, r), other = answers.tokens.shape, rng.permutation(len(answers.length))
    lengths, ended = answers.length[other], answers.ended[other]
    full = rng.random(size) < 0.3
    lengths, ended = np.where(full, r, lengths), ended & ~full
    free = rng.random(size) < 0.1
    return np.where(free, rng.integers(1, r, size), lengths), ended | free


def cut(tokens: np.ndarray, lengths: np.ndarray, ended: np.ndarray, eos: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens i32, mask bool) [B, R]: rows of so many words, EOS behind those that ended, 0 where nothing is."""
    slot = np.arange(tokens.shape[1])[None]
    words = slot < lengths[:, None]
    end = (slot == lengths[:, None]) & ended[:, None]
    return np.where(end, eos, np.where(words, tokens, 0)).astype(np.int32), words | end
