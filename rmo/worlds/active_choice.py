"""Active choice of comparisons: which pairs, of many without a label, a label teaches most about.

RMs trained on a first half of the labels say which pairs the second half is spent on (`config.Recipe.choice`); the
labels of other pairs are never looked at. What a choice sees is the gap of scores between the two
responses of a pair, by each of S seeds, as logits of a preference (paper section 2.1).
"""

from collections.abc import Callable

import numpy as np


def uncertain(gap_SC: np.ndarray, seed: int) -> np.ndarray:
    """Uncertainty sampling (Lewis and Gale 1994): most where the RM of this seed itself is least sure."""
    return -np.abs(gap_SC[seed])


def disagreement(gap_SC: np.ndarray, seed: int) -> np.ndarray:
    """Query by committee (Seung et al. 1992; of preferences, Christiano et al. 2017, section 2.2.4): the standard
    deviation over seeds of the probability that the first response is preferred. The same for every seed."""
    return (1 / (1 + np.exp(-np.asarray(gap_SC, np.float64)))).std(axis=0)


CHOICES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"uncertain": uncertain, "disagreement": disagreement}


def spent(how: str, first: np.ndarray, gap_SC: np.ndarray, seed: int, labels: int) -> np.ndarray:
    """Which comparisons are labelled in all, i64[labels] ascending: the `first`, and of the others those with the most
    to tell; of equals those that come first.

    Args:
      first: i64[F], rows of the C that have labels already.
      gap_SC: f[S, C], of all rows.
      labels: how many in all, F to C.
    """
    left = np.setdiff1d(np.arange(gap_SC.shape[1]), first)
    worth = CHOICES[how](gap_SC[:, left], seed)
    return np.sort(np.concatenate([first, left[np.argsort(-worth, kind="stable")[: labels - len(first)]]]))
