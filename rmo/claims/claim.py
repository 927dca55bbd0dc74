"""Claims: a statistic of evidence, an interval, a threshold, a verdict that can fail.

A claim computes a statistic from a run's curves and reward models; it is evaluated on the data and on every jackknife
row of prompts and RM seeds (`rmo.analysis.bootstrap`), which gives its interval. The claim holds where the whole
interval lies within its region, fails where none of it does, and is undecided where the interval straddles a threshold,
where fewer than `MIN_SEEDS` RM seeds stand behind a curve, or where the run has nothing to judge it by. Regions are
written down here, beside the words they stand for, before any run is looked at; they never depend on one.

Scores are gold standard deviations above the initial policy, KL is in nats, d = sqrt(KL), sizes are parameters without
embeddings, "per decade" is per factor 10.
"""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rmo.analysis.bootstrap import EVERYWHERE, Bounds, percentiles
from rmo.analysis.sweeps import Missing
from rmo.claims.evidence import Evidence, View
from rmo.claims.kinds import ALONE, Estimate, Kind, estimate
from rmo.runtime.types import Row

MIN_SEEDS = 3
MAX_SEEDS = 100  # more are not asked for
INF = float("inf")
# Gold sd: an effect below it counts as none, one above as there. Cohen's small effect (1988, section 2.2); the paper's
# peaks are 0.5 to 1.2 sd high.
SMALL = 0.2


Statistic = Callable[[View], float | Sequence[float]]  # one number, or parts that `kinds` make one of


@dataclass(frozen=True)
class Claim:
    """One testable statement."""

    name: str  # C and the number of the paper's claim, H and a number of those of other papers; a letter for each part
    text: str  # what is claimed
    measured: str  # the statistic in words
    region: tuple[float, float]  # where the statistic must lie for the claim to hold, its ends left out
    figure: str  # of the paper or of this run, where to look
    statistic: Statistic
    kind: Kind = ALONE  # how its parts make one number
    bounds: Bounds = EVERYWHERE  # the range of the statistic, or of each part
    note: str = ""  # what a verdict of it is about, where that is less than the words say
    smooth: bool = True  # else its interval is of percentiles


def of_the_paper(name: str) -> bool:
    """Whether a claim of this name is one of the paper's, which every run lists; others need data of their own."""
    return name.startswith("C")


_CLAIMS: dict[str, Claim] = {}


def claims() -> list[Claim]:
    """All claims, the paper's first, by their numbers: those of this folder, and those registered elsewhere."""
    import rmo.claims as folder

    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"rmo.claims.{module.name}")

    def place(c: Claim) -> tuple[bool, int, str]:
        number = "".join(character for character in c.name if character.isdigit())
        return not of_the_paper(c.name), int(number or 10**6), c.name

    return sorted(_CLAIMS.values(), key=place)


def claim(
    name: str,
    region: tuple[float, float],
    figure: str,
    kind: Kind = ALONE,
    bounds: Bounds = EVERYWHERE,
    note: str = "",
    smooth: bool = True,
) -> Callable[[Statistic], Statistic]:
    """Register a statistic as a claim. Its docstring holds the claim and, as a second paragraph, what is measured.

    A statistic of several parts returns them all, and `kind` says how they make one number. `bounds` are the ends of a
    part's range, if it has any: its interval stays inside. A statistic that jumps (a rank, a count) is not `smooth`.
    A name that is registered again replaces what was there, as when a notebook's cell runs twice.
    """

    def register(statistic: Statistic) -> Statistic:
        text, measured = (words.rstrip(".") for words in sentences(statistic))
        _CLAIMS[name] = Claim(name, text, measured, region, figure, statistic, kind, bounds, note, smooth)
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


def applies(c: Claim, evidence: Evidence) -> bool:
    """Whether a run lists a claim: all of the paper's, those of other papers only where it has their data."""
    try:
        return of_the_paper(c.name) or c.statistic(evidence.view(0)) is not None
    except Missing:
        return False


def judge(c: Claim, evidence: Evidence, level: float = 0.95) -> Row:
    """One row of claims.json: {claim, text, measured, statistic, interval, threshold, verdict, why, n_runs, seeds,
    seeds_needed, figure}; statistic and interval are None where the run cannot give them, seeds_needed where the claim
    is decided, or where no number up to `MAX_SEEDS` would decide it."""
    row: Row = {
        "claim": c.name, "text": c.text, "measured": c.measured, "statistic": None, "interval": None,
        "threshold": [None if np.isinf(x) else x for x in c.region], "verdict": "undecided", "why": "", "n_runs": 0,
        "seeds": 0, "seeds_needed": None, "figure": c.figure,
    }  # fmt: skip
    first = evidence.view(0)
    try:
        values_NP = on_rows(c, evidence, first)
    except Missing as missing:
        return row | {"why": f"this run has {missing}"}
    groups = first.used.values()
    row["seeds"] = seeds = min([len({c.id.seed for c in g.curves}) for g in groups] + first.seeds, default=0)
    row["n_runs"] = len({id(curve) for g in groups for curve in g.curves}) or sum(first.seeds)
    if not np.isfinite(values_NP[evidence.resamples.exact]).all():
        return row | {"why": "the statistic is not finite on every resample"}
    found = estimate(c.kind, values_NP, evidence.resamples, c.bounds)
    low, high = found.interval(level)
    if not c.smooth:
        low, high = percentiles(values_NP[:, 0], evidence.resamples, level, c.bounds)
    row |= {"statistic": found.number, "interval": [low, high]}
    verdict, why = decide(c.region, low, high, seeds)
    if verdict == "undecided" and seeds > 1 and c.smooth:
        row["seeds_needed"] = seeds_needed(found, c.region, seeds, level)
        why += f"; {what_would_decide(found, c.region, row['seeds_needed'], level)}"
    return row | {"verdict": verdict, "why": "; ".join(filter(None, [why, c.note]))}


def on_rows(c: Claim, evidence: Evidence, first: View) -> np.ndarray:
    """The statistic's parts on every row that its interval needs, f64[N, P]; NaN on the others."""
    value = np.atleast_1d(np.asarray(c.statistic(first), np.float64))
    out = np.full((len(evidence.resamples.share_NQ), len(value)), np.nan)
    out[0] = value
    for n in evidence.resamples.exact[1:] if c.smooth else range(1, len(out)):
        out[n] = c.statistic(evidence.view(int(n)))
    return out


def outcome(region: tuple[float, float], low: float, high: float) -> str:
    """The verdict of an interval, however many seeds it rests on."""
    if region[0] < low and high < region[1]:
        return "holds"
    return "fails" if high <= region[0] or low >= region[1] else "undecided"


def decide(region: tuple[float, float], low: float, high: float, seeds: int) -> tuple[str, str]:
    """(verdict, why it is undecided) from the region, the statistic's interval and the number of RM seeds."""
    if seeds < MIN_SEEDS:
        return "undecided", f"{seeds} RM seeds; a verdict needs {MIN_SEEDS}"
    verdict = outcome(region, low, high)
    return verdict, "the interval straddles the threshold" if verdict == "undecided" else ""


def seeds_needed(found: Estimate, region: tuple[float, float], seeds: int, level: float) -> int | None:
    """The least number of RM seeds that would decide the claim, did the statistic and the scatter stay what they are;
    None beyond `MAX_SEEDS`. It is a guess: at that number a verdict is about as likely as not."""
    for more in range(max(seeds, MIN_SEEDS), MAX_SEEDS + 1):
        if outcome(region, *found.interval(level, seeds=more / seeds)) != "undecided":
            return more
    return None


def what_would_decide(found: Estimate, region: tuple[float, float], needed: int | None, level: float) -> str:
    """In words: so many seeds, or so many times the prompts, or that neither would."""
    if needed is not None:
        return f"about {needed} seeds would decide it"
    for times in (2, 4, 8, 16):
        if outcome(region, *found.interval(level, prompts=times)) != "undecided":
            return f"seeds alone would not decide it, {times} times the prompts would"
    return f"too near the threshold for {MAX_SEEDS} seeds"
