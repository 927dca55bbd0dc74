"""The points of one run, in the public format of curves, from the rows of its log."""

import re
from typing import NamedTuple

import numpy as np

from rmo.analysis.curve import at_origin
from rmo.logs import gold_in_proxy, no_kl, samples
from rmo.logs.choosing import need, pick, step_column
from rmo.logs.columns import Columns
from rmo.logs.kl_columns import (
    Asked,
    KlSeries,
    doubts,
    doubts_of_values,
    like,
    meaning,
    reached,
    refusal,
    unusable,
    what_it_is,
)
from rmo.logs.no_kl import NoKl, Question, Reads
from rmo.logs.rows import LogError, Rows, number, numeric
from rmo.logs.series import at_or_before, begins_anew, how_to_separate, overwritten, pairs, series
from rmo.logs.trainers import PENALISED, trainer_of
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.models import metrics

FEWEST = 4  # points of a fit
TINY = 1e-300  # against division by 0


class Chosen(NamedTuple):
    """The columns that one run is read from."""

    gold: str
    kl: str | None  # None: KL comes from n of best-of-n
    proxy: str | None
    step: str | None  # None: the order of the rows


def points(rows: Rows, want: Columns, largest: float = np.nan) -> tuple[Rows, list[str]]:
    """(points of one run in the public format, notes on how they were read, a line each).

    Every read of gold takes the KL and the proxy logged at its step or last before it. `largest` is the KL that any run
    of the log reaches, as logged.

    Raises:
      LogError: a column is missing or wrong, fewer than 4 points are left, or where gold starts is not known.
      NoKl: there is no KL, or it is 0 throughout; holds gold by step.
    """
    columns = choose(rows, want)
    want, rows, notes = with_samples(rows, columns, want)
    try:
        reads = series(rows, columns.gold, columns.step)
    except LogError as error:
        raise LogError(str(error), negative_rows(rows, columns.kl)) from error
    steps = np.array(list(reads))
    errors = errors_at(steps, rows, columns, want)
    by_step = Reads(columns.gold, steps, np.array(list(reads.values())), errors)
    notes = [describe(columns), *notes, *note_restart(rows, columns), *doubt_of_gold(rows, columns)]
    if columns.kl is None and not want.n:
        raise NoKl(no_kl.why(numeric(rows), trainer_of(numeric(rows))), {"": by_step}, notes)
    if columns.kl is None:
        kl, more = metrics.kl_bon(steps), []
    else:
        kl, more = kl_at(by_step, notes, rows, columns.kl, columns, want, largest)
    notes = [notes[0], *more, *notes[1:]]
    usable = kl >= 0  # not NaN either
    gold = by_step.value[usable]
    steps, kl = steps[usable], kl[usable]
    check_kl(kl, columns)
    start = gold_start(gold, kl, columns.gold, want)
    if isinstance(start, str):
        raise Question(start, {"": by_step}, notes)
    values = {"step_or_n": steps, "kl": kl, "gold": gold - start}
    notes.append(f"{len(kl)} points, gold counts from {start:.4g}")
    if columns.proxy:
        values["proxy"], more = proxy_at(steps, rows, columns.proxy, columns.step, kl, gold - start)
        notes += more
    if errors is not None:
        values["gold_se"] = errors[usable]
    method = want.method or (BEST_OF_N if want.n else PPO)
    made = [{"method": method, **{name: float(x[k]) for name, x in values.items()}} for k in range(len(kl))]
    return made, notes


def choose(rows: Rows, want: Columns) -> Chosen:
    """Raises LogError where a column is missing, or two roles have the same one; KL may be missing."""
    try:
        gold = need("gold", rows, want)
    except LogError as error:
        raise LogError(str(error), first_doubts(rows, want)) from error
    by_n = bool(want.n) and not pick("kl", rows, want)
    kl = None if by_n else kl_or_none(rows, want)
    if want.proxy:
        proxy = need("proxy", rows, want)
    else:
        proxy = pick("proxy", rows, want)
        if proxy == gold:  # one score, which its user calls gold
            proxy = None
    for role, column in (("KL", kl), ("the proxy", proxy)):
        if column == gold:
            raise LogError(f"gold and {role} are both {gold}: say different columns")
    return Chosen(gold, kl, proxy, step_column(rows, want, gold, kl))


def kl_or_none(rows: Rows, want: Columns) -> str | None:
    """The column of KL; None where the log has none.

    Raises:
      LogError: the one that was named is not there, or several may be it.
    """
    if found := pick("kl", rows, want):
        return found
    names = numeric(rows)
    trainer = trainer_of(names)
    possible = [name for name in names if "kl" in name.lower() and meaning(name, trainer).unit == "unknown"]
    return need("kl", rows, want) if want.kl or len(possible) > 1 else None


def describe(columns: Chosen) -> str:
    kl = columns.kl or "log n - (n-1)/n"
    return f"kl = {kl}, gold = {columns.gold}, proxy = {columns.proxy or 'none'}, step = {columns.step or 'order'}"


def with_samples(rows: Rows, columns: Chosen, want: Columns) -> tuple[Columns, Rows, list[str]]:
    """(columns, rows, notes), with the means over samples in place of the samples where gold was logged sample by
    sample."""
    if want.se or not samples.sampled(rows, columns.gold, columns.kl, columns.step) or columns.step is None:
        return want, rows, []
    made, note = samples.averaged(rows, columns.gold, columns.step, ("file", "run"))
    return want, made, [note]


def errors_at(steps: np.ndarray, rows: Rows, columns: Chosen, want: Columns) -> np.ndarray | None:
    """Standard errors of gold at K reads, f64[K]; None where the log knows none."""
    name = need("se", rows, want) if want.se else samples.SE
    if not want.se and not any(name in row for row in rows):
        return None
    errors = series(rows, name, columns.step)
    found = np.array([errors.get(step, np.nan) for step in steps])
    return found if (found > 0).any() else None  # 0 everywhere says nothing of the noise


def doubt_of_gold(rows: Rows, columns: Chosen) -> list[str]:
    """A line where gold is the proxy, or a part of it."""
    found = gold_in_proxy.warning(rows, columns.gold, columns.proxy, columns.step)
    return [found] if found else []


def note_restart(rows: Rows, columns: Chosen) -> list[str]:
    """A note where a run was restarted and logged some steps again."""
    if columns.step is None:
        return []
    again = []
    for column in (columns.gold, columns.proxy, columns.kl):
        if column:
            again += overwritten(pairs(rows, column, columns.step))
    if not again:
        return []
    return [f"{columns.step} goes back to {min(again):g} and repeats: a restarted run, of which the last values count"]


def check_kl(kl: np.ndarray, columns: Chosen) -> None:
    """Raises LogError where the usable KL f64[K] are too few, or all the same."""
    name = columns.kl or "log n - (n-1)/n"
    if len(kl) < FEWEST:
        raise LogError(f"{len(kl)} usable points with {name} and {columns.gold}: a fit needs {FEWEST}")
    if np.ptp(kl) == 0:
        raise LogError(f"{name} is {kl[0]:.4g} at every read of {columns.gold}: that is no KL from the initial policy")


# KL.


def kl_at(
    gold: Reads, said: list[str], rows: Rows, name: str, columns: Chosen, want: Columns, largest: float
) -> tuple[np.ndarray, list[str]]:
    """(KL f64[K] at K reads of gold, NaN where it is not known; notes on it) from column `name`.

    Raises:
      LogError: it is no KL from the initial policy per response, or known at no read.
      Question: its unit is not known. NoKl: it is 0 at every read. Both hold gold by step, and what was said so far.
    """
    steps = gold.step
    names = numeric(rows)
    trainer, length = trainer_of(names), pick("length", rows, want)
    multiplied = want.per_token is not None
    if meaning(name, trainer).unit == "no":
        raise LogError(str(refusal(name, trainer, names, Asked(False, False, length, largest))))
    logged = logged_kl(rows, name, columns)
    kl = at_or_before(steps, logged)
    notes = fill_start(kl, steps, logged, name, columns.gold)
    known = np.isfinite(kl)
    if not known.any():
        raise LogError(f"no read of {columns.gold} has a {name} at its step or before")
    if (kl[known] == 0).all():
        raise NoKl(no_kl.why((), trainer, name), {"": gold}, said)
    asked = Asked(multiplied, want.kl_sum, length, float(np.nanmax([largest, reached(list(logged.values()))])))
    found = KlSeries(name, kl[known], steps[known], trainer, temperatures(rows), mean_length(rows, length), multiplied)
    if why := unusable(found):
        raise LogError(why)
    if why := refusal(name, trainer, names, asked):
        raise Question(why, {"": gold}, [*said, *doubts_of_values(found)])
    if what := what_it_is(found, asked):
        notes.append(what)
    if want.per_token is not None:
        kl = kl * lengths_at(steps, rows, columns.step, want.per_token, want)
        notes.append(f"KL is {name} x {want.per_token}")
    kl[(kl < 0) & (kl > -1e-3 * np.abs(kl[known]).max())] = 0.0  # rounding
    return kl, notes + doubts(found._replace(kl=kl[known]))


def negative_rows(rows: Rows, name: str | None) -> list[str]:
    """A line on rows with a negative KL, of a log that cannot be taken apart yet."""
    kl = np.array([value for _, value in pairs(rows, name, None)]) if name else np.zeros(0)
    if not (kl < 0).any():
        return []
    return [
        f"{name} is negative in {(kl < 0).sum()} of {len(kl)} rows, down to {kl.min():.3g}: no KL can be, on average"
    ]


def first_doubts(rows: Rows, want: Columns) -> list[str]:
    """What is dubious about KL before it is known what gold is: worth saying before gold is asked for."""
    try:
        name = pick("kl", rows, want)
        names = numeric(rows)
        trainer = trainer_of(names)
        if name is None or meaning(name, trainer).unit == "no":
            return []
        step = step_column(rows, want, name, name)
        logged = series(rows, name, step)
    except LogError:
        return []
    kl, steps = np.array(list(logged.values())), np.array(list(logged))
    found = KlSeries(name, kl, steps, trainer, temperatures(rows), None, True)
    return doubts(found)


def logged_kl(rows: Rows, name: str, columns: Chosen) -> dict[float, float]:
    """{step: KL} as logged.

    Raises:
      LogError: it is that of several runs.
    """
    logged = series(rows, name, columns.step)
    if columns.step is None:
        again = begins_anew(np.array(list(logged.values())))
        if again is not None:
            row = list(logged)[again] + 1
            how = how_to_separate(rows, name, None)
            raise LogError(
                f"{name} starts again in row {row:g}, and no column of steps is known: {how}, or say --step COLUMN"
            )
    return logged


def fill_start(kl: np.ndarray, steps: np.ndarray, logged: dict[float, float], name: str, gold: str) -> list[str]:
    """Set the KL of step 0 to 0 where none was logged; returns notes on reads of gold without a KL of their own."""
    notes = []
    late = [step for step in steps if step not in logged and step > 0]
    if late:
        notes.append(f"{gold} was read at {len(late)} steps without {name}: they take the last KL before")
    if np.isnan(kl[steps == 0]).any():
        kl[steps == 0] = 0
        notes.append(f"{gold} at step 0 is taken as the initial policy's, KL 0")
    missing = int(np.isnan(kl).sum())
    if missing:
        notes.append(f"{missing} reads of {gold} come before the first {name}: they are left out")
    return notes


def lengths_at(steps: np.ndarray, rows: Rows, step: str | None, per_token: str, want: Columns) -> np.ndarray:
    """Mean response lengths at each of K steps, f64[K]: a number, or a column's; before its first, the first."""
    factor = number(per_token)
    if factor is not None:
        return np.full(len(steps), factor)
    lengths = series(rows, need("per_token", rows, want), step)
    first = next(iter(lengths.values()))
    return np.nan_to_num(at_or_before(steps, lengths), nan=first)


def temperatures(rows: Rows) -> dict[str, float]:
    """Sampling temperatures in the log: column -> its last value."""
    found = {}
    for row in rows:
        for column, cell in row.items():
            value = number(cell)
            if value is not None and 0 < value < 5 and re.search(r"temperature(/value)?$", column.lower()):
                found[column] = value
    return found


def mean_length(rows: Rows, column: str | None) -> tuple[str, float] | None:
    if column is None:
        return None
    return column, float(np.mean([value for _, value in pairs(rows, column, None)]))


# Scores.


def gold_start(gold: np.ndarray, kl: np.ndarray, name: str, want: Columns) -> float | str:
    """Gold of the initial policy: as given, or the mean of the first points, if KL f64[K] is about 0 there; else the
    question where it starts."""
    if want.start is not None:
        return want.start
    origin = at_origin(kl)
    if origin.any():
        return float(gold[origin].mean())
    why = "give the initial policy's as --start VALUE, or --start 0 if it counts from there already"
    return f"no point at KL 0 (the first has {kl[0]:.3g}) tells where {name} starts: {why}"


def proxy_at(
    steps: np.ndarray, rows: Rows, name: str, step: str | None, kl: np.ndarray, gold: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """(proxy f64[K] above its start, in gold's unit if its own is quite another; notes on it) at K reads of gold."""
    logged = series(rows, name, step)
    first = next(iter(logged.values()))
    scores = np.nan_to_num(at_or_before(steps, logged), nan=first)
    origin = at_origin(kl)
    proxy = scores - (scores[origin].mean() if origin.any() else first)
    notes = []
    rise = slice(0, 1 + int(gold.argmax()))
    factor = float(proxy[rise] @ gold[rise] / max(proxy[rise] @ proxy[rise], TINY))
    same_unit = 0.2 < np.ptp(proxy) / max(np.ptp(gold), TINY) < 5
    if factor > 0 and not same_unit:
        proxy = factor * proxy
        notes.append(f"{name} counts {factor:.3g}-fold, as it follows gold up to its highest: the units differ")
    if any(like(name, wanted) for wanted in PENALISED):
        notes.append(f"{name} is the score less the KL penalty: --proxy the score itself, if it was logged")
    return proxy, notes
