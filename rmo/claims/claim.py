"""Claims: a statistic of evidence, an interval, a threshold, a verdict that can fail.

A claim computes a statistic from a run's curves and reward models; it is evaluated on the data and on every resample of
prompts and RM seeds (`rmo.analysis.bootstrap`), which gives its interval. The claim holds where the whole interval lies
within its region, fails where none of it does, and is undecided where the interval straddles a threshold, where fewer
than `MIN_SEEDS` RM seeds stand behind a curve, or where the run has nothing to judge it by. Regions are written down
here, beside the words they stand for, before any run is looked at; they never depend on one.

Scores are gold standard deviations above the initial policy, KL is in nats, d = sqrt(KL), sizes are parameters without
embeddings, "per decade" is per factor 10.
"""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmo.analysis.bootstrap import interval
from rmo.analysis.sweeps import Missing
from rmo.claims.evidence import Evidence, View
from rmo.runtime.types import Row

MIN_SEEDS = 3
INF = float("inf")


@dataclass(frozen=True)
class Claim:
    """One testable statement."""

    name: str  # C and the number of the paper's claim, and a letter where it has several parts
    text: str  # what is claimed
    measured: str  # the statistic in words
    region: tuple[float, float]  # where the statistic must lie for the claim to hold, its ends left out
    figure: str  # of the paper or of this run, where to look
    statistic: Callable[[View], float]


_CLAIMS: dict[str, Claim] = {}


def claims() -> list[Claim]:
    """All claims in order of their numbers: those of this folder, and those that were registered elsewhere."""
    import rmo.claims as folder

    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"rmo.claims.{module.name}")

    def place(c: Claim) -> tuple[int, str]:
        number = "".join(character for character in c.name if character.isdigit())
        return int(number or 10**6), c.name

    return sorted(_CLAIMS.values(), key=place)


def claim(
    name: str, region: tuple[float, float], figure: str
) -> Callable[[Callable[[View], float]], Callable[[View], float]]:
    """Register a statistic as a claim. Its docstring holds the claim and, as a second paragraph, what is measured.

    A name that is registered again replaces what was there, as when a notebook's cell runs twice.
    """

    def register(statistic: Callable[[View], float]) -> Callable[[View], float]:
        text, measured = sentences(statistic)
        _CLAIMS[name] = Claim(name, text.rstrip("."), measured.rstrip("."), region, figure, statistic)
        return statistic

    return register


def sentences(function: Callable[..., object]) -> tuple[str, str]:
    """The two paragraphs of a docstring, from the source where Python dropped it (-OO).

    Raises:
      ValueError: it has another number of paragraphs.
    """
    doc = function.__doc__
    if doc is None:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        doc = ast.get_docstring(parsed) if isinstance(parsed, ast.FunctionDef) else ""
    paragraphs = [" ".join(part.split()) for part in (doc or "").split("\n\n")]
    if len(paragraphs) != 2:
        name = getattr(function, "__name__", "the function")
        raise ValueError(f"{name}: its docstring needs two paragraphs, a statement and what is measured or shown")
    return paragraphs[0], paragraphs[1]


def judge(c: Claim, evidence: Evidence, level: float = 0.95) -> Row:
    """One row of claims.json: {claim, text, measured, statistic, interval, threshold, verdict, why, n_runs, seeds,
    figure}; statistic and interval are None where the run cannot give them."""
    row: Row = {
        "claim": c.name, "text": c.text, "measured": c.measured, "statistic": None, "interval": None,
        "threshold": [None if np.isinf(x) else x for x in c.region], "verdict": "undecided", "why": "", "n_runs": 0,
        "seeds": 0, "figure": c.figure,
    }  # fmt: skip
    first = evidence.view(0)
    try:
        value = float(c.statistic(first))
        values = np.array([value, *(c.statistic(evidence.view(n)) for n in range(1, len(evidence.resamples.share_NQ)))])
    except Missing as missing:
        return row | {"why": f"this run has {missing}"}
    groups = first.used.values()
    row["seeds"] = seeds = min([len({c.id.seed for c in g.curves}) for g in groups] + first.seeds, default=0)
    row["n_runs"] = len({id(curve) for g in groups for curve in g.curves}) or sum(first.seeds)
    if not np.isfinite(values).all():
        return row | {"why": "the statistic is not finite on every resample"}
    low, high = interval(values, evidence.resamples, level)
    verdict, why = decide(c.region, low, high, seeds)
    return row | {"statistic": value, "interval": [low, high], "verdict": verdict, "why": why}


def decide(region: tuple[float, float], low: float, high: float, seeds: int) -> tuple[str, str]:
    """(verdict, why it is undecided) from the region, the statistic's interval and the number of RM seeds."""
    if seeds < MIN_SEEDS:
        return "undecided", f"{seeds} RM seeds; a verdict needs {MIN_SEEDS}"
    if region[0] < low and high < region[1]:
        return "holds", ""
    if high <= region[0] or low >= region[1]:
        return "fails", ""
    return "undecided", "the interval straddles the threshold"
