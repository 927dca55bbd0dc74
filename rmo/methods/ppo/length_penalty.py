"""Length-penalised rewards: every token of a response beyond the start's mean length costs (Singhal et al. 2023).

An episode earns score - coef * max(length - free, 0), coef in calibrated units of the score per token. The EOS counts.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rmo.config import Against
from rmo.methods.ppo.regulariser import Regulariser

if TYPE_CHECKING:
    from rmo.methods.bench import Bench


@dataclass(frozen=True)
class LengthPenalty(Regulariser):
    """PPO with a penalty on long responses."""

    against: Against = field(default_factory=lambda: Against("length"))
    """What it optimises against, as an entry of ppo.against; its name names the stage."""
    coefs: tuple[float, ...] = (0.05,)
    """Costs of a token, each one a curve."""
    free: float = 0.0
    """Tokens that cost nothing; 0: the mean length of the start's responses in the pool."""

    setting: ClassVar[str] = "length_coef"

    def at(self, bench: "Bench") -> "LengthPenalty":
        """With the start's mean length.

        Raises:
          ValueError: it is asked for, and the pool holds no responses.
        """
        if self.free:
            return self
        texts = bench.pool().texts
        if texts is None:
            raise ValueError(
                "LengthPenalty.free is 0, and the pool holds no responses to take their mean length: give it"
            )
        lengths = [texts.draws(q)[1].sum(axis=1).mean() for q in range(texts.prompts)]
        return replace(self, free=float(np.mean(lengths)))

    def reward(
        self,
        score_B: jax.Array,
        logps_BR: jax.Array,
        ref_logps_BR: jax.Array,
        tokens_BR: jax.Array,
        mask_BR: jax.Array,
        coef: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        earned_B = penalised(score_B, mask_BR, coef, self.free)
        return earned_B, {"earned": jnp.mean(earned_B)}


def penalised(score_B: jax.Array, mask_BR: jax.Array, coef: float | jax.Array, free: float) -> jax.Array:
    """score - coef * (tokens beyond `free`), f32[B]."""
    return score_B - coef * jnp.maximum(jnp.sum(mask_BR, axis=1) - free, 0.0)
