"""Losses on arrays. A `Loss` of train.py is any `(params, batch) -> (scalar, metrics)` built from these."""

import jax
import jax.numpy as jnp

from rmo.models import metrics


def next_token(logps_BT: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Mean negative log-likelihood per token, in nats."""
    return -metrics.masked_mean(logps_BT, mask_BT)


def preference(
    scores_B2: jax.Array, smoothing: float | jax.Array = 0.0, weight_B: jax.Array | None = None
) -> jax.Array:
    """-log sigmoid(preferred - other), mean over pairs; log 2 at chance (Stiennon et al. 2020, section 3.4).

    `smoothing` is the chance given to the other response being the better one; `weight_B` is how much each pair counts,
    1 on average over all pairs that are trained on.
    """
    gap = scores_B2[:, 0] - scores_B2[:, 1]
    likelihood = (1 - smoothing) * jax.nn.log_sigmoid(gap) + smoothing * jax.nn.log_sigmoid(-gap)
    return -jnp.mean(likelihood if weight_B is None else weight_B * likelihood)


def squared_error(scores_B: jax.Array, targets_B: jax.Array) -> jax.Array:
    """Mean squared error."""
    return jnp.mean((scores_B - targets_B) ** 2)


def clipped_policy(
    logps_BR: jax.Array, old_logps_BR: jax.Array, advantages_BR: jax.Array, mask_BR: jax.Array, clip: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), token mean over the mask.

    Metrics: `clip_fraction`, `approx_kl` (k3 of the update, old against new) and `ratio` over tokens.
    """
    log_ratio = (logps_BR - old_logps_BR) * mask_BR
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    loss = metrics.masked_mean(-jnp.minimum(ratio * advantages_BR, clipped * advantages_BR), mask_BR)
    return loss, {
        "clip_fraction": metrics.masked_mean(jnp.abs(ratio - 1) > clip, mask_BR),
        "approx_kl": metrics.masked_mean(jnp.expm1(log_ratio) - log_ratio, mask_BR),
        "ratio": metrics.masked_mean(ratio, mask_BR),
    }


def clipped_value(
    values_BR: jax.Array, old_values_BR: jax.Array, returns_BR: jax.Array, mask_BR: jax.Array, clip: float
) -> jax.Array:
    """Half the larger of the clipped and unclipped squared errors (Ziegler et al. 2019), token mean."""
    clipped = old_values_BR + jnp.clip(values_BR - old_values_BR, -clip, clip)
    error = jnp.maximum((values_BR - returns_BR) ** 2, (clipped - returns_BR) ** 2)
    return 0.5 * metrics.masked_mean(error, mask_BR)
