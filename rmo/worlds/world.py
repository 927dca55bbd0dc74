"""What stages ask of a world, and which worlds there are.

A new world is one file: a frozen dataclass of `config.WorldConfig` that says what it is made from, a class of `World`
that makes it, and `register`, which ties the two together. tests/worlds/test_world.py holds a small one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from rmo import config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from rmo.worlds.dialogue import Prompt

# What a prompt may be used for, as residues modulo 8 of a hash of it: no prompt ever serves two purposes.
PURPOSES = {"read": (0,), "optimise": (1, 2), "comparisons": (3, 4, 5, 6, 7)}


class Texts(NamedTuple):
    """B prompts (left-padded) with one response each (right-padded)."""

    prompts: np.ndarray  # i32[B, P]
    prompt_mask: np.ndarray  # bool[B, P]
    tokens: np.ndarray  # i32[B, R]
    mask: np.ndarray  # bool[B, R], up to and including EOS

    def sequences(self) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, mask) [B, T]: prompt and response in one row."""
        return np.concatenate([self.prompts, self.tokens], 1), np.concatenate([self.prompt_mask, self.mask], 1)

    def rows(self, index: np.ndarray | slice) -> Texts:
        """Some of the rows."""
        return Texts(*(x[index] for x in self))


class Prompts(NamedTuple):
    """Q prompts, left-padded."""

    tokens: np.ndarray  # i32[Q, P]
    mask: np.ndarray  # bool[Q, P]


def concatenate(parts: list[Texts]) -> Texts:
    """One batch from several."""
    return Texts(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class World(Protocol):
    """What stages ask of a world."""

    name: ClassVar[str]  # for people, in messages and as a tag in wandb
    has_annotator: ClassVar[bool] = False  # whether `score` and `broad` exist: a gold RM can learn from them
    reads_sources: ClassVar[bool] = False  # whether the stage `prompts` first reads texts that people gave

    @classmethod
    def build(cls, c: config.WorldConfig, sources: Path | None) -> World:
        """The world of a config of the type that it is registered with.

        Args:
          sources: directory of the stage `prompts`; None where the world reads no sources.
        """
        ...

    @classmethod
    def chosen(cls, c: config.WorldConfig) -> type[World]:
        """The class that makes the world of a config: this one, or another that a setting of it asks for."""
        return cls

    @property
    def vocab(self) -> int:
        """V: token ids lie in [0, V)."""
        ...

    @property
    def eos(self) -> int:
        """The id that ends a response."""
        ...

    @property
    def word_ids(self) -> np.ndarray:
        """i64[W], the ids that stand for text: neither pad, bos nor eos."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Between ids and text; it is saved beside every policy."""
        ...

    def prompts(self, rng: np.random.Generator, size: int, purpose: str) -> Prompts:
        """`size` distinct prompts for one of `PURPOSES`; whatever the seed, none serves another purpose too.

        Raises:
          ConfigError: the world has too few.
        """
        ...

    def demonstrations(self, rng: np.random.Generator, size: int, held_out: bool = False) -> Texts:
        """Texts as policies should write them before any RM is asked: for SFT or, with `held_out`, to judge it.

        Raises:
          ConfigError: the world has too few.
        """
        ...

    def prompt_text(self, ids: np.ndarray) -> Prompt:
        """The words of the prompt with these ids, i32[at most P], for RMs with a tokenizer of their own."""
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=True))

    def shown(self, prompt: Prompt) -> Prompt:
        """What a policy is shown of a prompt's words, before any chat template."""
        return prompt

    # The annotator, where there is one.

    @property
    def annotator_name(self) -> str:
        """What gold learns from, for people."""
        return "the world's annotator"

    def score(self, texts: Texts) -> np.ndarray:
        """The annotator's score of every response, f64[B]."""
        raise config.ConfigError(f"the world {self.name} has no annotator")

    def broad(self, rng: np.random.Generator, base: Texts) -> Texts:
        """Text unlike any demonstration, one per row of `base`: what optimisation may come to write."""
        raise config.ConfigError(f"the world {self.name} has no annotator")


# The registry.

Need = Callable[[bool, str], None]  # ConfigError with this message where the condition does not hold
C = TypeVar("C", bound=config.WorldConfig)


class Kind(NamedTuple, Generic[C]):
    """A world as it is registered."""

    world: type[World]
    check: Callable[[config.Experiment, C, Need], None]


KINDS: dict[type[config.WorldConfig], Kind] = {}


def register(of: type[C], world: type[World], check: Callable[[config.Experiment, C, Need], None]) -> None:
    """Make experiments possible whose `world` is an `of`.

    Args:
      check: (experiment, its world's config, need) -> refuses what cannot work by `need(condition, message)`.
    """
    KINDS[of] = Kind(world, check)


def kind(c: config.WorldConfig) -> Kind:
    """The world that is registered for a config.

    Raises:
      ConfigError: there is none.
    """
    from rmo.worlds import real_text, synthetic  # noqa: F401  they register themselves

    found = next((KINDS[of] for of in type(c).__mro__ if of in KINDS), None)
    if found is None:
        known = ", ".join(sorted(of.__name__ for of in KINDS))
        raise config.ConfigError(
            f"world is a {type(c).__name__}, for which no world is registered (rmo/worlds/world.py): there are {known}"
        )
    return found


def world_of(c: config.WorldConfig) -> type[World]:
    """The class that makes the world of a config; says what it can do before it is built."""
    return kind(c).world.chosen(c)


def check(e: config.Experiment, need: Need) -> None:
    """Refuse what the experiment's world cannot do.

    Raises:
      ConfigError: one line that names the field, its value and the remedy.
    """
    kind(e.world).check(e, e.world, need)
    need(
        e.comparisons.labelled_by == "gold" or world_of(e.world).has_annotator,
        f"comparisons.labelled_by is {e.comparisons.labelled_by!r}: this world has no annotator (of real text, give "
        "world.judge)",
    )
