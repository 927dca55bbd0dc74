"""Importance weights: rows that one policy wrote, counted as often as another would have written them."""

import numpy as np


def importance_weights(log_ratio_C: np.ndarray, clip: float, flatten: float = 1.0) -> np.ndarray:
    """Weights f32[C] of mean 1, in proportion to exp(flatten * log ratio) with its logarithm clipped.

    With `flatten` 1 a weighted mean over rows of the old policy is, without the clip, a mean over rows of the new one
    (Shimodaira 2000); below 1 there is less variance and less correction (Sugiyama, Krauledat and Mueller 2007). The
    logarithm is clipped at `clip` from its median over rows, so that no row counts more than exp(2 clip) times another:
    of whole responses all ratios may be far below 1 together, and what they share is lost in the mean anyway.

    Args:
      log_ratio_C: log-probability of every row under the new policy less that under the old one, nats.
      clip: nats, above 0.
      flatten: 0 to 1; with 0 every weight is exactly 1.
    """
    log_C = flatten * np.asarray(log_ratio_C, np.float64)
    weight_C = np.exp(np.clip(log_C - np.median(log_C), -clip, clip))
    return (weight_C / weight_C.mean()).astype(np.float32)


def effective_sample_size(weight_C: np.ndarray) -> float:
    """How many rows of equal weight give a mean as exact as these do (Kish 1965): between 1 and C."""
    weight_C = np.asarray(weight_C, np.float64)
    return float(weight_C.sum() ** 2 / np.sum(weight_C**2))
