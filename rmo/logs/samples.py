"""Gold that was logged sample by sample: many rows a step become their mean, with its standard error."""

import re
from collections.abc import Sequence

import numpy as np

from rmo.logs.rows import Rows, number, numeric
from rmo.logs.series import pairs, separating

SAMPLE = re.compile(  # what a column of samples is called
    r"(^|[_/])(sample|prompt|question|problem|example|item|task|draw|completion|response|generation|idx|index|uid|qid)"
    r"(s?_?(id|idx|index|no|num|number|hash))?$",
    re.I,
)
FEW = 8  # samples of a step below which its spread is taken from all steps
SE = "standard error over samples"  # the column that is added


def sampled(rows: Rows, gold: str, kl: str | None, step: str | None) -> bool:
    """Whether gold has many values a step because they are of one policy's samples, not of several runs.

    So it is where steps never go back and either a column is called a sample's and counts them, or KL is the same for
    all rows of a step, as it is for one policy, and no column of a few values tells the rows of a step apart.
    """
    points = pairs(rows, gold, step)
    steps = [at for at, _ in points]
    if step is None or len(set(steps)) * 2 > len(steps) or steps != sorted(steps):
        return False
    used = [row for row in rows if number(row.get(gold)) is not None]
    named = [name for name in used[0] if SAMPLE.search(name) and name not in (gold, kl, step)]
    if any(counts(used, name, step) for name in named):
        return True
    alike: dict[float, set[float]] = {}
    for at, value in pairs(rows, kl, step) if kl else []:
        alike.setdefault(at, set()).add(value)
    return bool(alike) and all(len(values) == 1 for values in alike.values()) and not separating(rows, gold, step)


def counts(rows: Rows, name: str, step: str) -> bool:
    """Whether a column has many values within a step."""
    values: dict[object, set[str]] = {}
    for row in rows:
        values.setdefault(row.get(step), set()).add(str(row.get(name)))
    return float(np.mean([len(found) for found in values.values()])) > 1.5


def averaged(rows: Rows, gold: str, step: str, keep: Sequence[str]) -> tuple[Rows, str]:
    """(a row per step with the means of all numbers and the standard error of gold's, a note)."""
    names = [name for name in numeric(rows) if name != step]
    cells: dict[float, dict[str, list[float]]] = {}
    texts: dict[float, dict[str, object]] = {}
    for row in rows:
        at = number(row.get(step))
        if at is None:
            continue
        texts.setdefault(at, {name: row[name] for name in keep if name in row})
        for name in names:
            value = number(row.get(name))
            if value is not None:
                cells.setdefault(at, {}).setdefault(name, []).append(value)
    errors = standard_errors({at: found[gold] for at, found in cells.items() if gold in found})
    made = []
    for at in sorted(cells):
        means = {name: float(np.mean(values)) for name, values in cells[at].items()}
        error = {SE: errors[at]} if at in errors else {}
        made.append({**texts[at], step: at, **means, **error})
    sizes = [len(found[gold]) for found in cells.values() if gold in found]
    many = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    note = f"{gold} has {many} values at every {step}: their mean counts, with its standard error as if they were drawn"
    return made, f"{note} independently"


def standard_errors(samples: dict[float, list[float]]) -> dict[float, float]:
    """{step: standard error of the mean}; of few samples from the spread within all steps."""
    squares = sum(float(np.var(values)) * len(values) for values in samples.values())
    freedom = sum(len(values) - 1 for values in samples.values())
    pooled = (squares / max(freedom, 1)) ** 0.5
    found = {}
    for at, values in samples.items():
        own = float(np.std(values, ddof=1)) if len(values) >= FEW else pooled
        found[at] = (own or pooled) / len(values) ** 0.5
    return found
