"""Why best-of-n's gold bends, drawn from a table of scores."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rmo.report.figures.style import panels


class Panels(NamedTuple):
    """What one reward model's row of panels shows."""

    title: str
    quantiles: tuple[np.ndarray, np.ndarray, np.ndarray]  # u, gold, its straight part
    curve: tuple[np.ndarray, np.ndarray, np.ndarray]  # n, gold, its regressional part
    tail: tuple[np.ndarray, np.ndarray, np.ndarray] | None  # k, Hill's estimate, its standard error


def anatomy(rows: Sequence[Panels]) -> Figure:
    """Left: gold by the proxy's quantile, and the straight line in the proxy. Middle: best-of-n's gold, and what the
    straight line gives. Right: the Hill plot of the proxy's error. A row for every reward model."""
    figure, axes = panels(3, 4.0, 3.0, rows=len(rows))
    for i, row in enumerate(rows):
        left, middle, right = axes[3 * i : 3 * i + 3]
        u, gold, straight = row.quantiles
        left.plot(u, gold, color="C0", lw=1.6, label="gold")
        left.plot(u, straight, "--", color="0.4", lw=1.0, label="straight in the proxy (regressional)")
        left.set_xlabel("quantile of the proxy")
        left.set_ylabel("gold (standard deviations)")
        left.set_title(row.title, loc="left", fontsize=10)
        left.legend(fontsize=7)
        n, gold, straight = row.curve
        middle.plot(n, gold, color="C0", lw=1.6)
        middle.plot(n, straight, "--", color="0.4", lw=1.0)
        middle.fill_between(n, gold, straight, color="C3", alpha=0.15, lw=0, label="bend (extremal)")
        middle.set_xscale("log")
        middle.set_xlabel("n")
        middle.legend(fontsize=7)
        if row.tail is None:
            right.set_visible(False)
            continue
        k, estimate, error = row.tail
        right.plot(k, estimate, color="C0", lw=1.4)
        right.fill_between(k, estimate - 2 * error, estimate + 2 * error, color="C0", alpha=0.2, lw=0)
        right.axhline(0, color="0.6", lw=0.8)
        right.set_xscale("log")
        right.set_xlabel("largest values used")
        right.set_ylabel("Hill, 1/α of the error's tail")
    return figure
