"""`rmo score` and `rmo sample`: every row of a file of texts through one model, JSONL out."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np

from rmo.checkpoints import ending, saved_model
from rmo.logs import row_stream, row_texts
from rmo.models import sampling, scoring
from rmo.runtime.files import Row
from rmo.tracking.progress import say
from rmo.worlds import tokenization

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

At = Literal["last", "before-pad"]
_score = jax.jit(scoring.score, static_argnames="rm")
_sample = jax.jit(sampling.sample, static_argnames=("lm", "length", "eos"))


class Doubts:
    """What is dubious about texts, counted while rows are looked at and said before any work is done."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self.texts, self.counts = 0, Counter[str]()
        self.first: dict[str, str] = {}
        self.said = False

    def look(self, where: str, ids: list[int], pad: int | None) -> None:
        """One text."""
        if self.said:
            return
        self.texts += 1
        bos = self.tokenizer.bos_token_id
        for doubt, found in (("bos", bos is not None and ids[:2] == [bos, bos]), ("pad", ids[-1:] == [pad])):
            if found:
                self.counts[doubt] += 1
                self.first.setdefault(doubt, where)

    def say(self, at: At) -> None:
        """What was found, once."""
        if self.said:
            return
        self.said = True
        if count := self.counts["bos"]:
            say(
                f"rmo: {count:,} of {self.texts:,} texts, the first in {self.first['bos']}, begin with two "
                f"{self.tokenizer.bos_token}: one is in the text, the tokenizer adds another; take it out of the text"
            )
        if (count := self.counts["pad"]) and at == "last":
            say(
                f"rmo: {count:,} of {self.texts:,} texts, the first in {self.first['pad']}, end in the token that is "
                "the model's pad too: scores are read there, as by the attention mask (TRL, OpenRLHF); transformers' "
                "own classifiers read at the last token before it (--at before-pad)"
            )


def score(
    model: str,
    path: Path,
    out: Path,
    batch: int,
    chat: bool,
    member: int = 0,
    dtype: str = "float32",
    name: str = "score",
    at: At = "last",
    skip_long: bool = False,
) -> int:
    """Every row of `path` with the score of each of its responses by a reward model, as the model gives it (not
    calibrated).

    A row with one response, or with a whole text, gets a column `name`; of several each gets its own (`score_chosen`,
    `score_rejected`), and a list of answers a list (`scores`).

    Args:
      model: a stage's directory, a Hugging Face checkpoint or a name of the hub.
      batch: texts worked on at once.
      chat: put prompts and responses through the tokenizer's chat template; dialogues always go through it.
      at: which token a score is read at: the last, or the last that is not the model's pad, as transformers does.
      skip_long: leave out rows that are longer than the model takes.

    Returns the number of rows.

    Raises:
      TextError: a row cannot be scored; says which.
    """
    rm, params, tokenizer = saved_model.load_reward_model(model, member, dtype)
    vocabulary = tokenization.fingerprint(tokenizer)
    pad, doubts = saved_model.pad_id(model, tokenizer), Doubts(tokenizer)
    if at == "before-pad" and pad is None:
        raise tokenization.TextError(f"--at before-pad: {model} has no pad token")

    def ids_of(where: str, text: Row) -> list[int]:
        ids = tokenization.encode(tokenizer, text, where, rm.vocab, vocabulary, chat)
        doubts.look(where, ids, pad)
        return ending.before_pad(ids, pad) if at == "before-pad" else ids

    def prepare(where: str, row: Row) -> row_stream.Prepared[float]:
        texts = row_texts.texts_of(where, row)
        new = tuple({row_texts.column(name, text, texts): None for text in texts})

        def lines(scores: list[float]) -> list[Row]:
            return [row_texts.columns(name, texts, scores)]

        return row_stream.Prepared([ids_of(where, text.row) for text in texts], lines, new)

    def work(items: list[row_stream.Item], length: int) -> list[float]:
        tokens, mask = tokenization.pad([item.ids for item in items], length, left=False)
        return [float(x) for x in np.asarray(_score(rm, params, tokens, mask))]

    key = ("score", model, chat, member, dtype, name, at)
    instead = "give the new column another name (--name)"
    job = row_stream.Job(key, prepare, work, batch, rm.length, instead=instead, skip_long=skip_long)
    return row_stream.stream(path, out, job._replace(looked=partial(doubts.say, at)))


def sample(
    model: str,
    path: Path,
    out: Path,
    batch: int,
    chat: bool,
    draws: int,
    length: int,
    temperature: float,
    seed: int,
    member: int = 0,
    dtype: str = "float32",
    skip_long: bool = False,
    replace: bool = False,
) -> int:
    """`draws` responses to every row's prompt, a row each, of at most `length` tokens (0: 64, or half of what the model
    takes if that is less).

    A draw depends on seed, row and number alone. It ends at any token that ends a response for transformers
    (generation_config.json, config.json) or is the tokenizer's eos. `logp` is that of the whole response under the
    distribution sampled from. `tokens` are its ids, the last included: `rmo score` takes them as they are where
    `vocabulary` is its own, so that the text need not be tokenised again.

    Args:
      replace: write over columns of these names that rows have already.

    Returns the number of prompts.

    Raises:
      TextError: a row has no prompt, or the model has no room for prompt and response.
    """
    lm, params, tokenizer = saved_model.load_language_model(model, member, dtype)
    length = length or min(64, lm.length // 2)
    if length >= lm.length:
        raise tokenization.TextError(f"--length {length}: the model takes {lm.length} tokens, prompt included")
    vocabulary, doubts = tokenization.fingerprint(tokenizer), Doubts(tokenizer)
    ends = saved_model.response_ends(model, tokenizer)

    def prepare(where: str, row: Row) -> row_stream.Prepared[list[Row]]:
        prompt = {"prompt": row_texts.asked_of(where, row, row_texts.DRAWN)}
        ids = tokenization.encode(tokenizer, prompt, where, lm.vocab, vocabulary, chat, answer=False)
        doubts.look(where, ids, None)
        return row_stream.Prepared([ids], lambda made: made[0], row_texts.DRAWN)

    def work(items: list[row_stream.Item], width: int) -> list[list[Row]]:
        prompts, mask = tokenization.pad([item.ids for item in items], width, left=True)
        numbers = jnp.asarray([item.number for item in items])
        row_keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(numbers)
        lines: list[list[Row]] = [[] for _ in items]
        for draw in range(draws):
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, draw)
            responses = _sample(lm, params, prompts, mask, keys, length, ends, jnp.float32(temperature))
            for of_item, line in zip(lines, response_rows(tokenizer, ends, responses), strict=True):
                of_item.append({"draw": draw, **line, "vocabulary": vocabulary})
        return lines

    key = ("sample", model, chat, draws, length, temperature, seed, member, dtype)
    instead = "take it out, or have it written over (--replace)"
    job = row_stream.Job(key, prepare, work, batch, lm.length - length, instead=instead, skip_long=skip_long)
    job = job._replace(replaces=row_texts.DRAWN if replace else (), looked=partial(doubts.say, "last"))
    return row_stream.stream(path, out, job)


def response_rows(tokenizer: PreTrainedTokenizerFast, ends: tuple[int, ...], responses: sampling.Sampled) -> list[Row]:
    """Each response as columns: its text, without the token that ended it, and its ids."""
    rows = []
    for tokens, mask, logps in zip(*jax.device_get((responses.tokens, responses.mask, responses.logps)), strict=True):
        ids = tokens[mask].tolist()
        ended = ids[-1] in ends
        kept = ids[:-1] if ended else ids
        text = tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        rows.append({"response": text, "tokens": ids, "logp": float(logps.sum()), "ended": ended})
    return rows
