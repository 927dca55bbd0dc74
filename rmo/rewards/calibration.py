"""The paper's recalibration of scores (section 2.2): where an RM's zero and unit lie."""

from typing import NamedTuple

import jax
import numpy as np
from scipy import optimize


class Calibration(NamedTuple):
    """score = (raw - shift) * scale. Kept beside the RM; with scale > 0 it never changes pairwise accuracy."""

    shift: float | jax.Array = 0.0
    scale: float | jax.Array = 1.0

    def __call__(self, raw):
        """Calibrated scores, of the shape and kind of `raw`."""
        return (raw - self.shift) * self.scale


def soft_label_scale(gap_C: np.ndarray, gold_gap_C: np.ndarray) -> float:
    """The positive scale s that minimises CE(sigmoid(gold gap), sigmoid(s * proxy gap)) (paper section 2.2).

    Both gaps are preferred minus other. Gold is a network taught scores, not a logit: its standard deviation on the
    initial policy is taken as one logit, so that proxy and gold come out in the same unit. Convex in s, which is
    searched over 1e-4 to 1e4 of the proxy's own spread.
    """
    target = 1 / (1 + np.exp(-gold_gap_C.astype(np.float64)))
    spread = float(gap_C.std(dtype=np.float64)) or 1.0  # whatever unit the proxy has
    gap_C = gap_C.astype(np.float64) / spread

    def loss(log_s: float) -> float:
        logit = np.exp(log_s) * gap_C
        return float(np.mean(np.logaddexp(0, logit) - target * logit))

    found = optimize.minimize_scalar(loss, bounds=(np.log(1e-4), np.log(1e4)), method="bounded")
    return float(np.exp(found.x)) / spread  # type: ignore[attr-defined]
