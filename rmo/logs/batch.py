"""`rmo score` and `rmo sample`: a file of texts through one model, JSONL in and out."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmo.checkpoints import saved_model
from rmo.checkpoints.tokenizers import eos_of
from rmo.models import scoring
from rmo.models.sampling import sample
from rmo.worlds import tokenization


def score(model: str, path: Path, out: Path, batch: int, chat: bool, member: int = 0, dtype: str = "float32") -> int:
    """Every row of `path` with its `score` by a reward model, raw as the model gives it; returns the number of rows."""
    rm, params, tokenizer = saved_model.load_reward_model(model, member, dtype)
    run, vocabulary = jax.jit(partial(scoring.score, rm)), tokenization.fingerprint(tokenizer)

    def work(items: list[tokenization.Item], length: int) -> list[list[dict[str, Any]]]:
        scores_B = run(params, *tokenization.pad([item.ids for item in items], length, left=False))
        return [[{"score": float(x)}] for x in np.asarray(scores_B)]

    encode = lambda where, row: tokenization.encode(tokenizer, row, where, rm.vocab, vocabulary, chat)  # noqa: E731
    return tokenization.stream(path, out, ("score", model, chat, member, dtype), encode, work, batch, rm.length)


def draw(
    model: str, path: Path, out: Path, batch: int, chat: bool, draws: int, length: int, temperature: float, seed: int,
    member: int = 0, dtype: str = "float32",
) -> int:  # fmt: skip
    """`draws` continuations of every row's prompt, a row each; returns the number of prompts.

    A draw depends on seed, row and number alone. `logp` is that of the whole response under the distribution sampled
    from; `tokens` are its ids, EOS included, so that nobody needs to tokenise the text again: `rmo score` takes them
    where `vocabulary` is its own. `length` 0 is 64 tokens, or half of what the model takes if that is less.
    """
    lm, params, tokenizer = saved_model.load_language_model(model, member, dtype)
    length = length or min(64, lm.length // 2)
    if length >= lm.length:
        raise tokenization.TextError(f"--length {length}: the model takes {lm.length} tokens, prompt included")
    ends = eos_of(tokenizer)
    eos = -1 if ends is None else ends
    run, vocabulary = jax.jit(partial(sample, lm, length=length, eos=eos)), tokenization.fingerprint(tokenizer)

    def work(items: list[tokenization.Item], width: int) -> list[list[dict[str, Any]]]:
        prompts, mask = tokenization.pad([item.ids for item in items], width, left=True)
        rows = jnp.asarray([item.number for item in items])
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(rows)
        made: list[list[dict[str, Any]]] = [[] for _ in items]
        for j in range(draws):
            each = jax.vmap(lambda key: jax.random.fold_in(key, j))(keys)  # noqa: B023
            drawn = jax.device_get(run(params, prompts, mask, each, temperature=jnp.float32(temperature)))
            for b, lines in enumerate(made):
                ids = drawn.tokens[b][drawn.mask[b]].tolist()
                ended = ids[-1] == eos
                said = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
                logp = float(drawn.logps[b].sum())
                line = {"draw": j, "response": said, "tokens": ids, "logp": logp, "ended": ended}
                lines.append({**line, "vocabulary": vocabulary})
        return made

    encode = lambda where, row: tokenization.encode(tokenizer, row, where, lm.vocab, vocabulary, chat, answer=False)  # noqa: E731
    key = ("sample", model, chat, draws, length, temperature, seed, member, dtype)
    return tokenization.stream(path, out, key, encode, work, batch, lm.length - length)
