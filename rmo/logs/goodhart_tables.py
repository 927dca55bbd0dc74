"""Why best-of-n's gold bends on a table of scores: its regressional and extremal parts, and the tail of the error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmo.analysis.goodhart import Split, split
from rmo.analysis.tails import Hill, hill, proxy_error
from rmo.logs import score_tables
from rmo.logs.inference_methods import Asked
from rmo.logs.score_tables import ScoreTable
from rmo.methods.best_of_n import grid
from rmo.runtime.types import Row

GOODHART = ["n", "gold", "regressional", "extremal"]
QUANTILES = ["quantile", "gold", "straight"]
HILL = ["k", "hill", "hill_se"]
BINS = 50  # of the proxy's quantile


@dataclass(frozen=True)
class Anatomy:
    """What best-of-n's gold is made of, for one reward model; gold in its standard deviations."""

    meta: Row
    ns: np.ndarray  # i64[K]
    parts: Split
    tail: Hill | None  # None where there are too few draws

    def curve_rows(self) -> list[Row]:
        """Gold at every n, and its two parts."""
        columns = self.ns.tolist(), self.parts.gold_K, self.parts.regressional_K, self.parts.extremal_K
        return [{**self.meta, **dict(zip(GOODHART, row, strict=True))} for row in zip(*columns, strict=True)]

    def quantile_rows(self) -> list[Row]:
        """m(u): gold by the proxy's quantile, means over up to BINS bins of ranks."""
        u_B, gold_B, straight_B = self.binned()
        return [
            {**self.meta, **dict(zip(QUANTILES, row, strict=True))} for row in zip(u_B, gold_B, straight_B, strict=True)
        ]

    def binned(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(quantile, gold, its straight part) f64[B] each."""
        draws = len(self.parts.gold_N)
        bins = np.array_split(np.arange(draws), min(BINS, draws))
        u_N = (np.arange(draws) + 0.5) / draws
        found = [[float(x[b].mean()) for b in bins] for x in (u_N, self.parts.gold_N, self.parts.straight_N)]
        return tuple(np.array(x) for x in found)  # type: ignore[return-value]

    def tail_rows(self) -> list[Row]:
        """The Hill plot."""
        if self.tail is None:
            return []
        rows = zip(self.tail.k.tolist(), self.tail.estimate, self.tail.error, strict=True)
        return [{**self.meta, **dict(zip(HILL, row, strict=True))} for row in rows]

    def line(self) -> str:
        """In words, at the largest n."""
        text = f"at n = {self.ns[-1]:,} a straight line in the proxy gives {self.parts.regressional_K[-1]:.3g} of gold"
        text += f" and its bend {self.parts.extremal_K[-1]:+.3g}"
        if self.tail is None:
            return text
        total = 10 * self.tail.k[-1]  # a tenth of all values is the most that it uses
        many, few = (int(np.argmin(np.abs(self.tail.k - share * total))) for share in (0.01, 0.001))
        text += f"; Hill of the proxy's error {self.tail.estimate[many]:.2f} at the largest {self.tail.k[many]:,}"
        text += f" and {self.tail.estimate[few]:.2f} (standard error {self.tail.error[few]:.1g}) at the largest"
        return f"{text} {self.tail.k[few]:,}: toward 0 is a light tail"


def anatomy(table: ScoreTable, asked: Asked) -> Anatomy:
    """Of one reward model's table.

    Raises:
      TableError: as for its curve.
    """
    max_n = asked.largest_n(table.gold_QN.shape[1])
    proxy_QN, gold_QN = score_tables.calibrated(table.proxy_QN, table.gold_QN, max_n, asked.points)
    ns = grid(max_n, asked.points)
    try:
        tail = hill(proxy_error(proxy_QN, gold_QN))
    except ValueError:
        tail = None
    return Anatomy(table.meta, ns, split(proxy_QN, gold_QN, ns), tail)


def columns(found: Sequence[Anatomy], own: list[str]) -> list[str]:
    """Those that tell the reward models apart, then a table's own."""
    return [*dict.fromkeys(name for one in found for name in one.meta), *own]
