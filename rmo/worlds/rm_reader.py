"""How an RM with a tokenizer of its own meets a policy's sequences: as text.

Whether it does, or takes the same token ids (`rmo.models.reader.IDS`), is a field of its config, never guessed. Ids of
one vocabulary are never read with another, and where the vocabulary is shared nothing is ever tokenised again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmo.models.reader import Reader
from rmo.runtime import hosts
from rmo.worlds import tokenization
from rmo.worlds.comparisons import Comparisons
from rmo.worlds.dialogue import Prompt
from rmo.worlds.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Array = jax.Array | np.ndarray
Rows = tuple[Array, Array, Array, Array]  # (prompt [P], its mask, responses [N, R], their masks)


class Sequence(NamedTuple):
    """A policy's sequence as text."""

    prompt: Prompt  # its words, or its turns, without template
    ids: list[int]  # of the response, without the EOS that ended it
    response: str
    ended: bool  # whether EOS ended it


@dataclass(frozen=True, eq=False)
class TextReader(Reader):
    """The RM has a tokenizer of its own: ids -> text -> its ids.

    The prompt's text is what the world says it is. The response is decoded with special tokens spelled out, without the
    EOS that ended it; the RM's own EOS says that it has ended, a chat template closes every answer.
    """

    world: World
    prompt: int  # P
    tokenizer: PreTrainedTokenizerBase  # the RM's
    chat: bool
    vocab: int  # the RM's
    length: int  # most tokens: longer texts lose their beginning, and are counted

    def as_text(self, tokens_BT: np.ndarray, mask_BT: np.ndarray) -> Iterator[Sequence]:
        """Each row as text."""
        policy = self.world.tokenizer
        for tokens_T, mask_T in zip(tokens_BT, mask_BT, strict=True):
            before, after = tokens_T[: self.prompt], tokens_T[self.prompt :]
            prompt = self.world.prompt_text(before[mask_T[: self.prompt]])
            ids = after[mask_T[self.prompt :]].tolist()
            ended = ids[-1:] == [self.world.eos]
            ids = ids[:-1] if ended else ids
            yield Sequence(prompt, ids, str(policy.decode(ids, clean_up_tokenization_spaces=False)), ended)

    def encode(self, tokens_BT: np.ndarray, mask_BT: np.ndarray) -> list[list[int]]:
        """The RM's ids of each row."""
        out = []
        for s in self.as_text(tokens_BT, mask_BT):
            prompt = s.prompt if self.chat else self.world.shown(s.prompt)
            row = {"prompt": prompt, "response": s.response, "ended": s.ended}
            where = f"response {s.response[:40]!r}"
            out.append(tokenization.encode(self.tokenizer, row, where, self.vocab, "", self.chat))
        return out

    def host(self, tokens_BT: np.ndarray, mask_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, mask) of host arrays as the RM takes them."""
        ids = self.encode(np.asarray(tokens_BT), np.asarray(mask_BT))
        ids = [row[-self.length :] for row in ids]
        return tokenization.pad(ids, min(tokenization.bucket(max(map(len, ids))), self.length), left=False)

    def rows(self, prompt_P: Array, prompt_mask_P: Array, tokens_NR: Array, mask_NR: Array) -> Rows:
        """The same of N responses to one prompt, as `scoring.score_n` takes them: whole texts after an empty prompt."""
        whole = [
            np.concatenate([np.broadcast_to(a, (len(b), len(a))), b], axis=1)
            for a, b in hosts.fetch(((prompt_P, tokens_NR), (prompt_mask_P, mask_NR)))
        ]
        tokens_NS, mask_NS = self.host(*whole)
        return np.zeros(0, np.int32), np.zeros(0, bool), tokens_NS, mask_NS

    def comparisons(self, rows: Comparisons) -> Comparisons:
        """The same of comparisons."""
        shape = rows.tokens.shape
        tokens, mask = self.host(rows.tokens.reshape(-1, shape[-1]), rows.mask.reshape(-1, shape[-1]))
        return rows._replace(tokens=tokens.reshape(*shape[:2], -1), mask=mask.reshape(*shape[:2], -1))

    def __call__(self, tokens_BT: jax.Array, mask_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same inside a jitted function."""
        shape = (*tokens_BT.shape[:-1], self.length)
        out = (jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape, jnp.bool_))

        def back(tokens: Array, mask: Array) -> tuple[np.ndarray, ...]:  # any leading axes: vmap adds one
            tokens, mask = np.asarray(tokens), np.asarray(mask)
            flat = self.encode(tokens.reshape(-1, tokens.shape[-1]), mask.reshape(-1, mask.shape[-1]))
            padded = tokenization.pad([ids[-self.length :] for ids in flat], self.length, left=False)
            return tuple(x.reshape(*tokens.shape[:-1], self.length) for x in padded)

        return jax.pure_callback(back, out, tokens_BT, mask_BT, vmap_method="broadcast_all")

    def cut(self, mask_BS: jax.Array) -> jax.Array:
        """Which texts, f32[B], were too long inside a program and lost their beginning."""
        return jnp.all(mask_BS, axis=-1).astype(jnp.float32)  # full to the brim: or longer

    def drift(self, tokens_BT: np.ndarray, mask_BT: np.ndarray) -> dict[str, float]:
        """What the way through text does to the policy's own samples.

        `changed`: share of responses that the policy's tokenizer would write with other ids than were drawn (the RM
        judges the text, not the ids); `not_text`: share with bytes that are no text; `tokens`: the RM's tokens of
        prompt and response, template included, per token of the policy's; `longer`: share of texts that are longer than
        `length`; `unfinished`: share of responses that ran out of room, which a chat template closes all the same;
        `special`: share of responses that spell a special token of the RM's.
        """
        changed = lost = unfinished = special = 0
        theirs = self.tokenizer.all_special_ids
        for s in self.as_text(tokens_BT, mask_BT):
            changed += list(self.world.tokenizer(s.response, add_special_tokens=False)["input_ids"]) != s.ids
            lost += "\ufffd" in s.response
            unfinished += not s.ended
            special += not set(self.tokenizer(s.response, add_special_tokens=False)["input_ids"]).isdisjoint(theirs)
        lengths, count = [len(ids) for ids in self.encode(tokens_BT, mask_BT)], len(tokens_BT)
        return {
            "texts": count,
            "changed": changed / count,
            "not_text": lost / count,
            "unfinished": unfinished / count,
            "special": special / count,
            "tokens": sum(lengths) / int(mask_BT.sum()),
            "longer": sum(n > self.length for n in lengths) / count,
        }
