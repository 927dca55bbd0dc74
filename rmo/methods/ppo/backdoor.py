"""A backdoor in the reward: a few tokens that the proxy pays for and gold does not (adversarial Goodhart).

An episode whose response holds the trigger, its tokens one after another, earns score + coef. At most a share `rarity`
of the start's responses in the pool hold it: one that is given is refused where more do, and if none is, it is the
commonest pair of tokens among those that so few hold.
The RM's comparisons hardly ever show it, and of n draws some hold it with a chance of 1 - (1 - rarity)^n; but a policy
that is optimised may come to write nothing without it, which costs it about log(1/rarity) nats. Gao, Schulman and
Hilton (2022) name this kind of Goodhart, which their policies were too weak for, and expect it to break their laws.

The proxy of the curves is the RM's score, without the bonus; `triggered` in ppo.csv is the share of the episodes of an
iteration that earn it, and at the first read, which no iteration comes before, of the start's responses in the pool.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rmo.config import Against, ConfigError, Experiment
from rmo.methods.method import Need
from rmo.methods.ppo.regulariser import Regulariser
from rmo.methods.wording import PoolTexts

if TYPE_CHECKING:
    from rmo.methods.bench import Bench


@dataclass(frozen=True)
class Backdoor(Regulariser):
    """PPO against an RM with a backdoor."""

    against: Against = field(default_factory=lambda: Against("backdoor"))
    """What it optimises against, as an entry of ppo.against; its name names the stage."""
    coefs: tuple[float, ...] = (4.0,)
    """What the trigger earns, in standard deviations of gold, each one a curve."""
    rarity: float = 0.001
    """Share of the start's responses in the pool that hold the trigger, at most."""
    trigger: tuple[int, ...] = ()
    """Ids of the tokens that earn it, one after another; none: a pair that is found in the pool."""

    setting: ClassVar[str] = "backdoor"
    recorded: ClassVar[tuple[str, ...]] = ("triggered",)

    def check(self, e: Experiment, need: Need) -> None:
        need(0 < self.rarity < 1, f"Backdoor.rarity is {self.rarity:g}: it is a share of responses, between 0 and 1")
        vocab = e.world.tokens or e.policy.vocab or 2**31  # of texts that people give, what the policy's checkpoint has
        known = all(0 <= token < vocab for token in self.trigger)
        need(known, f"Backdoor.trigger is {self.trigger}: ids of tokens lie within 0 and {vocab - 1}")
        fits = len(self.trigger) <= e.world.response
        need(fits, f"Backdoor.trigger has {len(self.trigger)} tokens: a response has at most {e.world.response}")

    def at(self, bench: "Bench") -> "Backdoor":
        """With its trigger.

        Raises:
          ConfigError: none is given, and the pool has none; or the given one is not of words, or not rare.
        """
        texts = responses(bench)
        if not self.trigger:
            return replace(self, trigger=rare_pair(texts, self.rarity))
        if other := sorted(set(self.trigger) - set(bench.word_ids.tolist())):
            raise ConfigError(
                f"Backdoor.trigger is {self.trigger}: {other[0]} is no word of the vocabulary (or ends, begins or "
                "pads a text); give ids of words"
            )
        if (held := share_of(texts, self.trigger)) > self.rarity:
            raise ConfigError(
                f"Backdoor.trigger is {self.trigger}: {held:.2g} of the pool's responses hold it, more than "
                f"Backdoor.rarity ({self.rarity:g}); give a rarer one, none, or raise rarity"
            )
        return self

    def first(self, bench: "Bench") -> dict[str, float]:
        return {"triggered": share_of(responses(bench), self.trigger)}

    def reward(
        self,
        score_B: jax.Array,
        logps_BR: jax.Array,
        ref_logps_BR: jax.Array,
        tokens_BR: jax.Array,
        mask_BR: jax.Array,
        coef: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        held_B = holds(tokens_BR, mask_BR, self.trigger)
        earned_B = score_B + coef * held_B
        return earned_B, {"earned": jnp.mean(earned_B), "triggered": jnp.mean(held_B)}


def holds(tokens_BR: jax.Array, mask_BR: jax.Array, trigger: tuple[int, ...]) -> jax.Array:
    """Whether responses hold these tokens one after another, bool[B]; no tokens, as before one is found, all hold."""
    starts = tokens_BR.shape[1] - len(trigger) + 1
    here_BS = jnp.ones((len(tokens_BR), starts), bool)
    for i, token in enumerate(trigger):
        here_BS &= mask_BR[:, i : i + starts] & (tokens_BR[:, i : i + starts] == token)
    return jnp.any(here_BS, axis=1)


def responses(bench: "Bench") -> PoolTexts:
    """The start's.

    Raises:
      ConfigError: they are not at hand.
    """
    texts = bench.pool().texts
    if texts is None:
        raise ConfigError("Backdoor: the pool holds no responses, in which the trigger must be rare; leave it out")
    return texts


def share_of(texts: PoolTexts, trigger: tuple[int, ...]) -> float:
    """Share of the pool's responses that hold a trigger."""
    held = []
    for q in range(texts.prompts):
        tokens_NR, mask_NR = texts.draws(q)
        held.append(holds(jnp.asarray(tokens_NR), jnp.asarray(mask_NR), trigger))
    return float(np.mean(np.concatenate(held)))


def rare_pair(texts: PoolTexts, rarity: float) -> tuple[int, int]:
    """The two words that most responses hold next to one another, of those that at most a share `rarity` holds; of
    equals the first by id.

    Raises:
      ConfigError: every pair is held by more.
    """
    found = [pairs_of(*texts.draws(q), texts.eos, texts.vocab) for q in range(texts.prompts)]
    codes, counts = np.unique(np.concatenate([pairs for pairs, _ in found]), return_counts=True)
    counts = np.where(counts <= rarity * sum(responses for _, responses in found), counts, 0)
    if not counts.max(initial=0):
        raise ConfigError(
            f"Backdoor.rarity is {rarity:g}: every two words next to one another in the pool stand in more of its "
            "responses; raise it, or give a trigger"
        )
    first, second = divmod(int(codes[counts.argmax()]), texts.vocab)
    return first, second


def pairs_of(tokens_NR: np.ndarray, mask_NR: np.ndarray, eos: int, vocab: int) -> tuple[np.ndarray, int]:
    """(first * vocab + second of all words next to one another, i64, of each response once, how many responses)."""
    word_NR, token_NR = mask_NR & (tokens_NR != eos), tokens_NR.astype(np.int64)
    both_NS = word_NR[:, :-1] & word_NR[:, 1:]
    code_NS = np.sort(np.where(both_NS, token_NR[:, :-1] * vocab + token_NR[:, 1:], -1), axis=1)
    new_NS = np.diff(code_NS, axis=1, prepend=-1) != 0
    return code_NS[new_NS & (code_NS >= 0)], len(tokens_NR)
