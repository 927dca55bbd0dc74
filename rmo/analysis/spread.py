"""A stopping rule without gold: stop where the reward models of an ensemble have come apart.

Members of an ensemble agree on what they were trained on and differ elsewhere (Lakshminarayanan et al. 2017), so the
standard deviation of their calibrated scores says how far an optimiser has left the data that they know.
"""

import numpy as np

# On the initial policy's own responses the spread is what finite data and luck leave open. Where the variance has
# doubled, as much of it is new as was there when the scores were calibrated. Chosen before any run was looked at.
DOUBLED = 2**0.5


def stop_at(spread_K: np.ndarray, factor: float = DOUBLED) -> int | None:
    """Index of the first point at which the spread, a standard deviation, is `factor` times that of the first point,
    the initial policy; None where it never is, or where the RMs agree from the start.

    Raises:
      ValueError: the factor is not above 1.
    """
    if not factor > 1:
        raise ValueError(f"factor is {factor:g}: the spread has grown by it, so give one above 1")
    grown = np.asarray(spread_K) >= factor * spread_K[0]
    return int(np.argmax(grown)) if spread_K[0] > 0 and grown.any() else None
