"""`rmo score` and `rmo sample`: every row of a file of texts through one model, JSONL in and out."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rmo.checkpoints import saved_model
from rmo.logs import row_stream
from rmo.models import sampling, scoring
from rmo.runtime.files import Row
from rmo.worlds import tokenization


def score(model: str, path: Path, out: Path, batch: int, chat: bool, member: int = 0, dtype: str = "float32") -> int:
    """Every row of `path` with its `score` by a reward model, as the model gives it (not calibrated).

    `model` is a stage's directory, a Hugging Face checkpoint or a name of the hub; `batch` rows are worked on at once;
    `chat` puts rows through the tokenizer's chat template.

    Returns the number of rows.

    Raises:
      TextError: a row cannot be scored; says which.
    """
    rm, params, tokenizer = saved_model.load_reward_model(model, member, dtype)
    vocabulary = tokenization.fingerprint(tokenizer)
    score_batch = jax.jit(partial(scoring.score, rm))

    def encode(where: str, row: Row) -> list[int]:
        return tokenization.encode(tokenizer, row, where, rm.vocab, vocabulary, chat)

    def work(items: list[row_stream.Item], length: int) -> list[list[Row]]:
        tokens, mask = tokenization.pad([item.ids for item in items], length, left=False)
        scores_B = score_batch(params, tokens, mask)
        return [[{"score": float(x)}] for x in np.asarray(scores_B)]

    key = ("score", model, chat, member, dtype)
    return row_stream.stream(path, out, key, encode, work, batch, rm.length)


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
) -> int:
    """`draws` responses to every row's prompt, a row each, of at most `length` tokens (0: 64, or half of what the model
    takes if that is less).

    A draw depends on seed, row and number alone. `logp` is that of the whole response under the distribution sampled
    from. `tokens` are its ids, EOS included: `rmo score` takes them as they are where `vocabulary` is its own, so that
    the text need not be tokenised again.

    Returns the number of prompts.

    Raises:
      TextError: a row has no prompt, or the model has no room for prompt and response.
    """
    lm, params, tokenizer = saved_model.load_language_model(model, member, dtype)
    length = length or min(64, lm.length // 2)
    if length >= lm.length:
        raise tokenization.TextError(f"--length {length}: the model takes {lm.length} tokens, prompt included")
    vocabulary = tokenization.fingerprint(tokenizer)
    eos = -1 if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)  # type: ignore[arg-type]
    sample_batch = jax.jit(partial(sampling.sample, lm, length=length, eos=eos))

    def encode(where: str, row: Row) -> list[int]:
        return tokenization.encode(tokenizer, row, where, lm.vocab, vocabulary, chat, answer=False)

    def work(items: list[row_stream.Item], width: int) -> list[list[Row]]:
        prompts, mask = tokenization.pad([item.ids for item in items], width, left=True)
        numbers = jnp.asarray([item.number for item in items])
        row_keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(numbers)
        lines: list[list[Row]] = [[] for _ in items]
        for draw in range(draws):
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, draw)
            responses = sample_batch(params, prompts, mask, keys, temperature=jnp.float32(temperature))
            for of_item, line in zip(lines, response_rows(jax.device_get(responses)), strict=True):
                of_item.append({"draw": draw, **line, "vocabulary": vocabulary})
        return lines

    def response_rows(responses: sampling.Sampled) -> list[Row]:
        rows = []
        for tokens, mask, logps in zip(responses.tokens, responses.mask, responses.logps, strict=True):
            ids = tokens[mask].tolist()
            ended = ids[-1] == eos
            text = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
            rows.append({"response": text, "tokens": ids, "logp": float(logps.sum()), "ended": ended})
        return rows

    key = ("sample", model, chat, draws, length, temperature, seed, member, dtype)
    return row_stream.stream(path, out, key, encode, work, batch, lm.length - length)
