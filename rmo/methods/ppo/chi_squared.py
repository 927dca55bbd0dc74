"""PPO penalised by the root of the chi-squared divergence from its start (Laidlaw, Singhal and Dragan 2024).

The objective is E[score] - coef * sqrt(chi2), with chi2 = E_start[(w - 1)^2] and w = policy / start of a response. With
L = log w of its own responses, a batch of the current policy estimates

    chi2 ~ mean of w + 1/w - 2 = mean of 4 sinh(L/2)^2,

which has no bias (E_policy[w] = 1 + chi2, E_policy[1/w] = 1), is never negative and exactly 0 at the start; the mean of
w - 1, as unbiased, is noisier there. The gradient of sqrt(chi2) is E_policy[(w / sqrt(chi2)) grad log policy], so an
episode costs coef * (w - 1) / sqrt(estimate): the policy gradient of this cost is that of the penalty.

Its error: the root of an unbiased estimate is low, to second order by Var / (8 chi2^(3/2)), and w has heavy tails.
chi2 is at least exp(KL) - 1, so that at many nats it rests on responses that a batch never shows, and what is found is
low by orders of magnitude: what holds the policy is the largest w of each batch. |L| above 40 counts as 40 (float32).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp

from rmo.config import Against
from rmo.methods.ppo.regulariser import Regulariser

MOST = 40.0  # of |log w|
LEAST = 1e-6  # of chi2 under the root: at the start log-ratios are rounding, and cost nothing


@dataclass(frozen=True)
class ChiSquared(Regulariser):
    """PPO with a penalty on the root of chi-squared from its start."""

    against: Against = field(default_factory=lambda: Against("chi_squared"))
    """What it optimises against, as an entry of ppo.against; its name names the stage."""
    coefs: tuple[float, ...] = (0.001, 0.01)
    """Coefficients, in units of the score, each one a curve; Laidlaw et al. took 0.0008."""

    setting: ClassVar[str] = "chi2_coef"

    def reward(
        self,
        score_B: jax.Array,
        logps_BR: jax.Array,
        ref_logps_BR: jax.Array,
        tokens_BR: jax.Array,
        mask_BR: jax.Array,
        coef: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        log_ratio_B = jnp.sum((logps_BR - ref_logps_BR) * mask_BR, axis=1)
        earned_B = score_B - coef * cost(log_ratio_B)
        return earned_B, {"earned": jnp.mean(earned_B), "log_chi2": jnp.log1p(chi_squared(log_ratio_B))}


def chi_squared(log_ratio_B: jax.Array) -> jax.Array:
    """chi2 of the policy from its start, f32[], from log(policy / start) of the policy's own responses."""
    half_B = jnp.clip(log_ratio_B, -MOST, MOST) / 2
    return jnp.mean(4 * jnp.sinh(half_B) ** 2)


def cost(log_ratio_B: jax.Array) -> jax.Array:
    """What each response costs, f32[B]: (w - 1) / sqrt(chi2)."""
    root = jnp.sqrt(jnp.maximum(chi_squared(log_ratio_B), LEAST))
    return jnp.expm1(jnp.clip(log_ratio_B, -MOST, MOST)) / root
