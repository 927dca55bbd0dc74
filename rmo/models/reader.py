"""How an RM meets a policy's sequences: what scoring and PPO ask, and the plain case of one vocabulary.

An RM with a tokenizer of its own reads through `rmo.worlds.rm_reader.TextReader`.
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


class Reader(Protocol):
    """From a policy's (tokens, mask) to those of an RM. It is static in jitted functions: equal to itself alone."""

    def __call__(self, tokens_BT: jax.Array, mask_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(tokens i32[B, S], mask bool[B, S]) as the RM takes them, inside a jitted function."""
        ...

    def cut(self, mask_BS: jax.Array) -> jax.Array:
        """Which of the texts that the RM was given, f32[B], were too long inside a program and lost their beginning."""
        ...


@dataclass(frozen=True, eq=False)
class SameIds(Reader):
    """The RM shares the policy's vocabulary: ids are passed as they are, and nothing is ever cut."""

    def __call__(self, tokens_BT: jax.Array, mask_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        return tokens_BT, mask_BT

    def cut(self, mask_BS: jax.Array) -> jax.Array:
        return jnp.zeros(mask_BS.shape[:-1], jnp.float32)

    def host(self, tokens_BT: np.ndarray, mask_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of host arrays."""
        return tokens_BT, mask_BT

    def rows(self, prompt_P: T, prompt_mask_P: T, tokens_NR: T, mask_NR: T) -> tuple[T, T, T, T]:
        """The same of N responses to one prompt, as `scoring.score_n` takes them."""
        return prompt_P, prompt_mask_P, tokens_NR, mask_NR

    def comparisons(self, rows: T) -> T:
        """The same of comparisons."""
        return rows


IDS = SameIds()
