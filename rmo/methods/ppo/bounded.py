"""Bounded rewards: a sigmoid of the score, centred on the policy's start (PAR; Fu et al. 2025).

An episode earns sigmoid(s * score). Scores are calibrated: their mean over the start's samples is 0, their unit a
standard deviation of gold. Where that is one logit of a preference (by convention, where gold was taught scores), with
s = 1 an episode earns the probability, by the RM, of being preferred to an average response of the start. Fu et al.
centre on reference responses to the same prompt; here the centre is the mean over all prompts.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp

from rmo.config import Against
from rmo.methods.ppo.regulariser import Regulariser


@dataclass(frozen=True)
class Bounded(Regulariser):
    """PPO with a sigmoid of the score as its reward."""

    against: Against = field(default_factory=lambda: Against("bounded"))
    """What it optimises against, as an entry of ppo.against; its name names the stage."""
    coefs: tuple[float, ...] = (1.0,)
    """Steepnesses s, per standard deviation of gold, each one a curve."""

    setting: ClassVar[str] = "bounded"

    def reward(
        self,
        score_B: jax.Array,
        logps_BR: jax.Array,
        ref_logps_BR: jax.Array,
        tokens_BR: jax.Array,
        mask_BR: jax.Array,
        coef: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        earned_B = bounded(score_B, coef)
        return earned_B, {"earned": jnp.mean(earned_B)}


def bounded(score_B: jax.Array, steepness: float | jax.Array) -> jax.Array:
    """sigmoid(steepness * score) in [0, 1], f32[B]; 1/2 at the start's mean score."""
    return jax.nn.sigmoid(steepness * score_B)
