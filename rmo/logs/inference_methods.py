"""Every method that chooses among draws by their scores, on a table of scores that exist already.

It gives curves, and rules that choose how hard to optimise. No model is needed.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rmo.analysis import inference_rules
from rmo.analysis.curve import Curve, from_prompts
from rmo.logs import score_tables
from rmo.logs.score_rows import TableError
from rmo.logs.score_tables import ScoreTable
from rmo.methods import best_of_n, best_of_poisson, pessimism, soft_best_of_n
from rmo.methods.bench import Pool, Record
from rmo.methods.best_of_poisson import BestOfPoisson
from rmo.methods.pessimism import Pessimism, PessimismOverN
from rmo.methods.soft_best_of_n import COLDEST, SoftBestOfN
from rmo.runtime.types import Row

BEST_OF_N = "best_of_n"
EDGE = inference_rules.EDGE


@dataclass(frozen=True)
class Asked:
    """What of a table is asked for."""

    methods: Sequence[str] = (BEST_OF_N,)
    max_n: int = 0  # 0: a quarter of the draws
    points: int = 32
    temperatures: tuple[float, ...] = (0.1, 0.3)
    betas: tuple[float, ...] = (0.01, 0.1)

    def largest_n(self, draws: int) -> int:
        return self.max_n or score_tables.default_max_n(draws)

    def check(self) -> None:
        """Raises TableError where no curve can be made so."""
        if "soft_best_of_n" in self.methods and not all(COLDEST <= t < np.inf for t in self.temperatures or (0,)):
            raise TableError(f"--temperatures {spelled(self.temperatures)}: each must be {COLDEST:g} or more, finite")
        if "pessimism_n" in self.methods and not all(0 < beta < np.inf for beta in self.betas or (0,)):
            raise TableError(f"--betas {spelled(self.betas)}: each must be more than 0, and finite")


def spelled(numbers: Sequence[float]) -> str:
    return " ".join(f"{x:g}" for x in numbers)


def curves(table: ScoreTable, asked: Asked) -> list[Curve]:
    """The curves of every method asked for, in gold standard deviations above the initial policy.

    Raises:
      TableError: the table is too small, a score does not vary, or a setting cannot work.
    """
    asked.check()
    max_n = asked.largest_n(table.gold_QN.shape[1])
    out = []
    if BEST_OF_N in asked.methods:
        out.append(score_tables.curve(*table, max_n=max_n, points=asked.points))
    others = [name for name in dict.fromkeys(asked.methods) if name != BEST_OF_N]
    if others:
        proxy_QN, gold_QN = score_tables.calibrated(table.proxy_QN, table.gold_QN, max_n, asked.points)
        pool = Pool([proxy_QN], gold_QN, np.zeros(gold_QN.shape, np.float32), 1.0)
        for name in others:
            out += from_record(table.meta, name, record(name, pool, asked, max_n))
    return out


def record(name: str, pool: Pool, asked: Asked, max_n: int) -> Record:
    """What a method measures on a table's pool."""
    draws, points = pool.gold_QN.shape[1], asked.points
    if name == soft_best_of_n.METHOD.name:
        return soft_best_of_n.of_pool(pool, [""], SoftBestOfN(asked.temperatures, max_n, points), rng)
    if name == best_of_poisson.METHOD.name:
        largest = best_of_poisson.largest_n(draws)
        if largest < 4:
            raise TableError(f"{draws} draws: best-of-Poisson needs 16 at least, as its number of draws is random")
        return best_of_poisson.of_pool(pool, BestOfPoisson(min(max_n, largest), points))
    if name == pessimism.METHOD.name:
        return pessimism.of_pool(pool, [""], Pessimism(points, min(EDGE, draws / 8)), rng)
    return pessimism.of_pool_over_n(pool, [""], PessimismOverN(asked.betas, max_n, points), rng)


def rng(purpose: str) -> np.random.Generator:
    """The same for the same purpose, whatever the table."""
    return np.random.default_rng(zlib.crc32(purpose.encode()))


def from_record(meta: Row, method: str, found: Record) -> list[Curve]:
    """Curves of a record, each prompt relative to its own start."""
    id = score_tables.id_of(meta, method)
    return [
        from_prompts(
            replace(id, settings=arm.settings), found.step_or_n[m], found.kl[m], found.proxy[m] - found.proxy[m, :1],
            found.gold[m] - found.gold[m, :1],
        )
        for m, arm in enumerate(found.arms)
    ]  # fmt: skip


def rules(table: ScoreTable, asked: Asked, bootstrap: int, level: float) -> list[Row]:
    """One row per rule for the methods asked for (`inference_rules.rules`), the RM's own columns first.

    Raises:
      TableError: the table has too few prompts, or cannot give curves.
    """
    max_n = asked.largest_n(table.gold_QN.shape[1])
    proxy_QN, gold_QN = score_tables.calibrated(table.proxy_QN, table.gold_QN, max_n, asked.points)
    names = [name for name in dict.fromkeys(asked.methods) if name in inference_rules.FAMILIES]
    try:
        rows = inference_rules.rules(proxy_QN, gold_QN, max_n, names, bootstrap, level)
    except ValueError as error:
        raise TableError(str(error)) from error
    return [{**table.meta, **row} for row in rows]


TITLES = {BEST_OF_N: best_of_n.METHOD.title, **{
    method.name: method.title for method in (soft_best_of_n.METHOD, best_of_poisson.METHOD, pessimism.METHOD)
}}  # fmt: skip


def shown(x: float) -> str:
    """Three digits, and all of a number of thousands."""
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def line(row: Row) -> str:
    """A rule's row in words."""
    chosen = f"{row['parameter']} = {shown(row['chosen'])}"
    if row["parameter"].startswith("1/T"):
        temperature = shown(1 / row["chosen"]) if row["chosen"] else "infinite"
        chosen = f"T = {temperature}{row['parameter'].removeprefix('1/T')}"
    regret = f"regret {row['regret']:.2g} [{row['regret_low']:.2g}, {row['regret_high']:.2g}]"
    return f"{TITLES[row['method']]}, {row['rule']}: {chosen}, gold {row['gold']:.3g}, {regret}; {row['why']}"
