"""Where to stop without gold: rules that see KL, the proxy, and what else a run shows of itself, never its own gold.

A rule gives the d = sqrt(KL) at which a run stops; its regret is the best gold on the curve less gold there. Karwowski
et al. (2024) stop where the proxy gains less per distance than an angle to the true reward allows: here a share of its
first gain.
"""

from collections.abc import Sequence

import numpy as np


def where_gain_fades(d_K: np.ndarray, proxy_K: np.ndarray, share: float = 0.5) -> float:
    """The first d from which on the proxy gains less per d, over an eighth of the range, than `share` of what it gained
    from the start on; the last d if it never does, or gained nothing at the start. `d_K` rises.

    Raises:
      ValueError: `share` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}: a gain fades to a share of the first one, between 0 and 1")
    window = (d_K[-1] - d_K[0]) / 8
    starts = d_K[d_K <= d_K[-1] - window * (1 - 1e-9)]
    gain = np.interp(starts + window, d_K, proxy_K) - np.interp(starts, d_K, proxy_K)
    faded = gain < share * gain[0]
    return float(starts[faded.argmax()]) if gain[0] > 0 and faded.any() else float(d_K[-1])


def where_moved(d_K: np.ndarray, shown_K: np.ndarray, by: float) -> float:
    """The first d at which what a run shows of itself (entropy, length, the spread of an ensemble) has moved from its
    start by more than the share `by`, either way; the last d if it never does.

    Raises:
      ValueError: `by` is not positive, or the start shows 0.
    """
    if not by > 0 or shown_K[0] == 0:
        raise ValueError(f"by is {by}, the start shows {shown_K[0]:g}: a share of it must be positive")
    moved = np.abs(shown_K / shown_K[0] - 1) > by
    return float(d_K[moved.argmax()]) if moved.any() else float(d_K[-1])


def where_others_peaked(end: float, peaks: Sequence[float]) -> float:
    """The median d of the peaks of other runs, which gold did judge; no farther than this run goes, its `end`.

    Raises:
      ValueError: there are no others.
    """
    if not len(peaks):
        raise ValueError("no other runs: a rule that stops where others peaked needs at least one")
    return min(float(np.median(peaks)), end)
