"""What direct alignment minimises: a convex function of the margin between a pair's implicit rewards.

The implicit reward of a response is beta * log(policy / reference), its log-probabilities summed over tokens (Rafailov
et al. 2023, eq. 7, where the prompt's own term is left out: it cancels in a pair). With x the preferred response's less
the other's, DPO, IPO and SLiC differ in one function g(x) (Rafailov et al. 2024, arXiv 2406.02900, eq. 4; Tang et al.
2024, arXiv 2402.05749).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def dpo(x: jax.Array) -> jax.Array:
    """-log sigmoid(x): x is taken as the logit of the preference (Rafailov et al. 2023, eq. 7)."""
    return -jax.nn.log_sigmoid(x)


def ipo(x: jax.Array) -> jax.Array:
    """(x - 1)^2: with tau = beta / 2, beta^2 times the loss of Azar et al. (2023, arXiv 2310.12036, eq. 17)."""
    return (x - 1) ** 2


def slic(x: jax.Array) -> jax.Array:
    """max(0, 1 - x): no gradient beyond a margin of 1 (Zhao et al. 2023, arXiv 2305.10425, eq. 1, its ranking term)."""
    return jnp.maximum(0.0, 1 - x)


LOSSES: dict[str, Callable[[jax.Array], jax.Array]] = {"dpo": dpo, "ipo": ipo, "slic": slic}


def pair_loss(which: jax.Array, x_B: jax.Array) -> jax.Array:
    """The loss f32[B] of margins, `which` i32[] being its place in `LOSSES`: members of one program differ in it."""
    return jax.lax.switch(which, list(LOSSES.values()), x_B)


def direct(which: jax.Array, beta: jax.Array, log_ratios_B2: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(mean loss, metrics) of pairs' log(policy / reference), the preferred response's first, in nats.

    Metrics, means over pairs: `margin` x; `accuracy`, how often the preferred one's implicit reward is higher (a tie
    counts half: at the reference all are tied); `preferred` and `other`, their log-ratios.
    """
    x_B = beta * (log_ratios_B2[:, 0] - log_ratios_B2[:, 1])
    preferred, other = jnp.mean(log_ratios_B2, axis=0)
    accuracy = jnp.mean(0.5 + 0.5 * jnp.sign(x_B))
    found = {"margin": jnp.mean(x_B), "accuracy": accuracy, "preferred": preferred, "other": other}
    return jnp.mean(pair_loss(which, x_B)), found
