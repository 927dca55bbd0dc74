"""How the rewards of a batch become the policy's update: advantages and a loss, with a critic or without one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rmo.models import metrics
from rmo.runtime.types import Tree
from rmo.training import losses

if TYPE_CHECKING:
    from rmo.methods.ppo.update import Setup

Values = Tree  # f32[B, R]; () without a critic


@dataclass(frozen=True)
class Estimator:
    """What distinguishes PPO from methods that make their rollouts as it does."""

    # (setup, rewards f32[B, R], values, mask bool[B, R]) -> (advantages f32[B, R], returns that the critic learns)
    advantages: Callable[["Setup", jax.Array, Values, jax.Array], tuple[jax.Array, Values]]
    # As `losses.clipped_policy`: (log-probs, old ones, advantages, mask [B, R], clip) -> (loss, metrics)
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]] = losses.clipped_policy
    critic: bool = True  # whether a value network is held and trained
    responses: int = 1  # to each prompt of a batch, next to one another


def gae(rewards_BR: jax.Array, values_BR: jax.Array, mask_BR: jax.Array, lam: float) -> tuple[jax.Array, jax.Array]:
    """(advantages, returns) f32[B, R] with gamma 1 (Schulman et al. 2015, eq. 16); the episode ends with the mask.

    delta_t = r_t + V_{t+1} - V_t and A_t = delta_t + lam A_{t+1}, with V and A zero after the last token.
    """
    values_BR = values_BR * mask_BR
    after_BR = jnp.concatenate([values_BR[:, 1:], jnp.zeros_like(values_BR[:, :1])], axis=1)
    delta_BR = (rewards_BR + after_BR - values_BR) * mask_BR

    def backwards(advantage_B, delta_B):
        advantage_B = delta_B + lam * advantage_B
        return advantage_B, advantage_B

    _, advantages_RB = jax.lax.scan(backwards, jnp.zeros_like(delta_BR[:, 0]), delta_BR.T, reverse=True)
    advantages_BR = advantages_RB.T * mask_BR
    return advantages_BR, advantages_BR + values_BR


def by_critic(s: "Setup", rewards_BR: jax.Array, values_BR: Values, mask_BR: jax.Array) -> tuple[jax.Array, Values]:
    """Generalised advantages, whitened over the batch; the critic learns the returns."""
    advantages_BR, returns_BR = gae(rewards_BR, values_BR, mask_BR, s.c.lam)
    return metrics.whiten(advantages_BR, mask_BR), returns_BR


BY_CRITIC = Estimator(by_critic)  # PPO's
