"""Masked reductions, KL estimators by name, best-of-n's KL, accuracy and calibration. Pure functions on arrays.

KL is per sequence: summed over response tokens up to and including EOS, in nats, at temperature 1, never clamped.
"""

import jax
import jax.numpy as jnp
import numpy as np


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of x where mask is set; 0 where nothing is."""
    return jnp.sum(x * mask) / jnp.maximum(jnp.sum(mask), 1)


def whiten(x: jax.Array, mask: jax.Array) -> jax.Array:
    """(x - mean) / population standard deviation over the mask, 0 elsewhere (Huang et al. 2024, PPO details)."""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-8) * mask


def token_logps(logits_BRV: jax.Array, tokens_BR: jax.Array) -> jax.Array:
    """Log-probability f32[B, R] of each taken token."""
    taken = jnp.take_along_axis(logits_BRV, tokens_BR[..., None], axis=-1)[..., 0]
    return taken - jax.nn.logsumexp(logits_BRV, axis=-1)


def token_entropy(logits_BRV: jax.Array) -> jax.Array:
    """Entropy f32[B, R] of the next token, in nats."""
    logps = jax.nn.log_softmax(logits_BRV)
    return -jnp.sum(jnp.exp(logps) * logps, axis=-1)


def token_kl(logits_BRV: jax.Array, ref_logits_BRV: jax.Array) -> jax.Array:
    """KL(policy || reference) of the next token over the whole vocabulary, f32[B, R], in nats.

    Its sum over a response, averaged over the policy's own samples, is the sequence KL by the chain rule, with less
    variance than k1 (a Rao-Blackwellisation of it). Never negative, as rounding would have it where two policies are
    one that two programs read; exactly 0 for a policy with itself.
    """
    logps, ref_logps = jax.nn.log_softmax(logits_BRV), jax.nn.log_softmax(ref_logits_BRV)
    return jnp.maximum(jnp.sum(jnp.exp(logps) * (logps - ref_logps), axis=-1), 0.0)


def kl_k1(logps_BR: jax.Array, ref_logps_BR: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """Schulman's k1: the log-ratio summed over the response, f32[B]. Unbiased; a sample may be negative."""
    return jnp.sum((logps_BR - ref_logps_BR) * mask_BR, axis=1)


def kl_k3(logps_BR: jax.Array, ref_logps_BR: jax.Array, mask_BR: jax.Array) -> jax.Array:
    """Schulman's k3 per token, exp(-l) - 1 + l, summed over the response, f32[B]. Unbiased, never negative."""
    ratio = jnp.where(mask_BR > 0, logps_BR - ref_logps_BR, 0.0)  # before exp: a pad's ratio may overflow it
    return jnp.sum(jnp.expm1(-ratio) + ratio, axis=1)


def kl_bon(n: np.ndarray | float) -> np.ndarray:
    """log n - (n-1)/n nats: best-of-n's KL from the initial policy (Stiennon et al. 2020, G.3 fn. 15).

    An upper bound; equality needs unique scores and no repeated responses (Beirami et al. 2024).
    """
    n = np.asarray(n, np.float64)
    return np.log(n) - (n - 1) / n


def kl_bon_given(logp: np.ndarray, n: float) -> np.ndarray:
    """The tighter estimate of best-of-n's KL from the log-probability of the selected response (Beirami et al. 2024).

    With e = exp(logp): (1-e)^n (log n + (n-1) log(1-e) - (n-1)/n) + (1 - (1-e)^n) log[(1 - (1-e)^n) / e]. Its mean over
    best-of-n's winners is below `kl_bon` where single responses are likely to be drawn more than once in n.
    """
    logp = np.minimum(np.asarray(logp, np.float64), -1e-12)
    log_miss = np.log1p(-np.exp(logp))  # log(1 - e)
    none = np.exp(n * log_miss)
    some = -np.expm1(n * log_miss)  # 1 - (1-e)^n
    hit = np.where(some > 0, some * (np.log(np.maximum(some, 1e-300)) - logp), 0.0)
    return none * (np.log(n) + (n - 1) * log_miss - (n - 1) / n) + hit


def agreement(gap: jax.Array, gold_gap: jax.Array) -> dict[str, jax.Array]:
    """How an RM judges pairs, elementwise: `accuracy`, whether it prefers what gold prefers (ties count half);
    `confidence`, the probability sigmoid(|gap|) it gives its choice; `support`, the one gold gives that choice.

    Calibrated means that confidence equals support on average; their difference is overconfidence.
    """
    same = jnp.sign(gap) * jnp.sign(gold_gap)
    support = jax.nn.sigmoid(jnp.sign(gap) * gold_gap)
    return {"accuracy": 0.5 + 0.5 * same, "confidence": jax.nn.sigmoid(jnp.abs(gap)), "support": support}


def explained_variance(values: jax.Array, returns: jax.Array, mask: jax.Array) -> jax.Array:
    """1 - Var(returns - values) / Var(returns) over the mask."""
    error, mean = returns - values, masked_mean(returns, mask)
    residual = masked_mean((error - masked_mean(error, mask)) ** 2, mask)
    return 1 - residual / jnp.maximum(masked_mean((returns - mean) ** 2, mask), 1e-8)


def accuracy(scores_C2: np.ndarray) -> float:
    """Share of comparisons whose preferred response (index 0) scores higher; a tie counts half."""
    gap = scores_C2[:, 0] - scores_C2[:, 1]
    return float(np.mean((gap > 0) + 0.5 * (gap == 0)))


def calibration_error(gap_C: np.ndarray, label_C: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of sigmoid(gap) against labels in [0, 1], over equal-width bins."""
    probability = 1 / (1 + np.exp(-np.asarray(gap_C, np.float64)))
    index = np.minimum((probability * bins).astype(int), bins - 1)
    weight = np.bincount(index, minlength=bins) / len(index)
    gap = np.bincount(index, probability - label_C, minlength=bins) / np.maximum(np.bincount(index, minlength=bins), 1)
    return float(np.sum(weight * np.abs(gap)))
