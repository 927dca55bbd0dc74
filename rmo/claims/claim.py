"""Claims: a statistic of evidence, an interval, a threshold, a verdict that can fail.

A claim computes a statistic from a run's curves and reward models; it is evaluated on the data and on every resample of
prompts and RM seeds (resample.py), which gives its interval. The claim holds where the whole interval lies within its
region, fails where none of it does, and is undecided where the interval straddles a threshold, where fewer than
`MIN_SEEDS` RM seeds stand behind a curve, or where the run has nothing to judge it by. Regions are written down here,
beside the words they stand for, before any run is looked at; they never depend on one.

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
from typing import Any

import numpy as np

from rmo.analysis.bootstrap import interval
from rmo.analysis.sweeps import Missing
from rmo.claims.evidence import Evidence, View

MIN_SEEDS = 3
INF = float("inf")


@dataclass(frozen=True)
class Claim:
    """One testable statement. `region` is where the statistic must lie for it to hold."""

    name: str
    text: str
    measured: str
    region: tuple[float, float]
    figure: str
    statistic: Callable[[View], float]


_CLAIMS: dict[str, Claim] = {}


def claims() -> list[Claim]:
    """All claims in order of their numbers: those of this folder, and those that were registered elsewhere."""
    import rmo.claims as folder

    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"rmo.claims.{module.name}")

    def number(c: Claim) -> tuple[int, str]:
        return int("".join(x for x in c.name if x.isdigit()) or 10**6), c.name

    return sorted(_CLAIMS.values(), key=number)


def claim(name: str, region: tuple[float, float], figure: str):
    """Register a statistic as a claim. Its docstring holds the claim and, as a second paragraph, what is measured."""

    def register(statistic: Callable[[View], float]):
        text, measured = sentences(statistic)
        _CLAIMS[name] = Claim(name, text.rstrip("."), measured.rstrip("."), region, figure, statistic)
        return statistic

    return register


def sentences(function: Callable[..., object]) -> tuple[str, str]:
    """The two paragraphs of a docstring, from the source where Python dropped it (-OO)."""
    doc = function.__doc__
    if doc is None:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        doc = ast.get_docstring(parsed) if isinstance(parsed, ast.FunctionDef) else ""
    first, second = (" ".join(part.split()) for part in (doc or "").split("\n\n"))
    return first, second


def judge(c: Claim, evidence: Evidence, level: float = 0.95) -> dict[str, Any]:
    """{claim, statistic, interval, threshold, verdict, n_runs, seeds, figure, ...}"""
    row: dict[str, Any] = {
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
    seeds = min([len({c.id.seed for c in g.curves}) for g in groups] + first.seeds, default=0)
    runs = len({id(curve) for g in groups for curve in g.curves}) or sum(first.seeds)
    if not np.isfinite(values).all():
        return row | {"why": "the statistic is not finite on every resample", "n_runs": runs, "seeds": seeds}
    low, high = interval(values, evidence.resamples, level)
    inside = c.region[0] < low and high < c.region[1]
    outside = high <= c.region[0] or low >= c.region[1]
    verdict, why = "holds" if inside else "fails" if outside else "undecided", ""
    if verdict == "undecided":
        why = "the interval straddles the threshold"
    if seeds < MIN_SEEDS:
        verdict, why = "undecided", f"{seeds} RM seeds; a verdict needs {MIN_SEEDS}"
    return row | {
        "statistic": value, "interval": [low, high], "verdict": verdict, "why": why, "n_runs": runs, "seeds": seeds
    }  # fmt: skip
