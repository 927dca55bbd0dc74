"""GRPO: PPO's clipped loss with returns normalised among k responses to one prompt (Shao et al. 2024, section 4.1).

A_i = (R_i - mean) / (standard deviation + 1e-4) over the k returns of a prompt, the same for every token, and the loss
is a mean over tokens of each response, then over responses. No critic. The paper adds its KL penalty to the loss, by k3
per token; here it is part of the return, as of every method here, so that `kl_coefs` mean one thing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rmo.methods.method import register
from rmo.methods.ppo.without_critic import WithoutCritic, without_critic

if TYPE_CHECKING:
    import jax

    from rmo.methods.ppo.update import Estimator, Setup, Values

LEAST = 1e-4  # is added to the standard deviation: equal returns give no advantage, not 0 / 0


@dataclass(frozen=True)
class Grpo(WithoutCritic):
    """Group-relative policy optimisation, with the batch, clip, learning rate and reads of `ppo`."""


def normalised(returns_B: "jax.Array", responses: int) -> "jax.Array":
    """Each return among those of its prompt: less their mean, over their population standard deviation, f32[B]."""
    by_prompt = returns_B.reshape(-1, responses)
    left = by_prompt - by_prompt.mean(axis=1, keepdims=True)
    return (left / (by_prompt.std(axis=1, keepdims=True) + LEAST)).reshape(-1)


def clipped_by_response(
    logps_BR: "jax.Array", old_logps_BR: "jax.Array", advantages_BR: "jax.Array", mask_BR: "jax.Array", clip: float
) -> "tuple[jax.Array, dict[str, jax.Array]]":
    """PPO's clipped surrogate, mean over the tokens of each response and then over responses (Shao et al. 2024, eq. 3).
    Metrics are those of `losses.clipped_policy`; parts of a batch weigh by their responses."""
    import jax.numpy as jnp

    from rmo.training import losses

    _, measured = losses.clipped_policy(logps_BR, old_logps_BR, advantages_BR, mask_BR, clip)
    ratio = jnp.exp((logps_BR - old_logps_BR) * mask_BR)
    gain_BR = jnp.minimum(ratio * advantages_BR, jnp.clip(ratio, 1 - clip, 1 + clip) * advantages_BR) * mask_BR
    gain_B = gain_BR.sum(axis=1) / jnp.maximum(mask_BR.sum(axis=1), 1)
    return -gain_B.mean(), {**measured, "tokens": jnp.float32(len(gain_B))}


def advantages(
    s: "Setup", rewards_BR: "jax.Array", values_BR: "Values", mask_BR: "jax.Array"
) -> "tuple[jax.Array, Values]":
    """The same for every token of a response."""
    advantages_B = normalised(rewards_BR.sum(axis=1), s.estimator.responses)
    return advantages_B[:, None] * mask_BR, ()


def estimator(responses: int) -> "Estimator":
    from rmo.methods.ppo.update import Estimator

    return Estimator(advantages, clipped_by_response, critic=False, responses=responses)


METHOD = register(without_critic(Grpo, estimator, "grpo", "RL (GRPO)", "GRPO", rank=5))
