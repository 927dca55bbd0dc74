"""Where on its way gold is read: on a grid of sqrt(KL)."""

import jax
import jax.numpy as jnp


def grid_above(d_step: float, kl: jax.Array) -> jax.Array:
    """The next of the values of sqrt(KL) at which gold is read, f32[]: multiples of d_step."""
    return (jnp.sqrt(jnp.maximum(kl, 0)) // d_step + 1) * d_step


def next_target(d_step: float, kl: jax.Array, target: jax.Array) -> jax.Array:
    """sqrt(KL) to read at next, once gold was read. Targets lie on one grid and only rise, so that the number of reads
    is bounded."""
    rise = jnp.maximum(grid_above(d_step, kl), target + 0.5 * d_step)
    return jnp.where(kl >= target**2, rise, target)
