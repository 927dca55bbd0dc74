"""Rows of anybody's logs -> rows of our public format."""

import difflib
import itertools
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from rmo.analysis.curve import at_origin
from rmo.artifacts.curves_csv import COLUMNS
from rmo.logs.columns import Columns
from rmo.logs.formats import LogError, Rows, load, number, numeric
from rmo.logs.trainers import LOGGERS, PENALISED, doubts, logger_of, plain, refusal
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.models import metrics
from rmo.runtime.files import names_of

STEPS = ("step", "global_step", "train/global_step", "training/global_step", "Step", "_step", "episode", "step_or_n",
         "iteration", "iter", "update", "updates")  # fmt: skip
SPREAD = re.compile(r"(std|_se|/se|min|max|count)$|(std|worst|best)@")
IDS = ("rm_params", "rm_comparisons", "policy_params", "kl_coef")


def match(wanted: str, names: Sequence[str]) -> str | None:
    """The column that is meant: as it is called, or but for `train/`."""
    return wanted if wanted in names else next((name for name in names if plain(name) == plain(wanted)), None)


def pick(role: str, rows: Rows, want: Columns) -> str | None:
    """The column of a role: the one that was named, else that of a known trainer, else one of the role's own name.

    Gold is known by its name alone, and only where a single column has it: nobody's log says what its user wants.
    """
    names, given = numeric(rows), getattr(want, role, None)
    if given is not None:
        return match(given, names)
    if role == "gold":
        gold = [name for name in names if "gold" in name.lower() and not SPREAD.search(name.lower())]
        return gold[0] if len(gold) == 1 else None
    logger = logger_of(names)
    known = getattr(LOGGERS[logger], role) if logger else ()
    if there := [column for name in known if (column := match(name, names))]:
        return there[0]
    if role == "length":
        return next((n for n in names if "length" in n and not re.search("prompt|total|max|min|std", n)), None)
    same = [name for name in names if plain(name).rpartition("/")[2] == role]
    return same[0] if len(same) == 1 else None


def need(role: str, rows: Rows, want: Columns) -> str:
    """As `pick`.

    Raises:
      LogError: there is none, or gold could be several; says which columns there are, the likeliest first.
    """
    if found := pick(role, rows, want):
        return found
    given, words = getattr(want, role), ("gold", "judge", "win", "val", "eval", "test", "acc", "score", "reward")
    close = lambda name: -difflib.SequenceMatcher(None, (given or role).lower(), name.lower()).ratio()  # noqa: E731
    rank = lambda name: next((i for i, word in enumerate(words) if word in name.lower()), len(words))  # noqa: E731
    names = [name for name in numeric(rows) if name not in STEPS and not SPREAD.search(name)]
    names = sorted(names, key=rank if role == "gold" and not given else close)
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    what = f"there are no numbers in a column {given}" if given else f"which column is {role}? It is not guessed"
    line = f"{what}: say --{role.replace('_', '-')} with one of {shown or 'none: no column holds numbers'}"
    if role == "gold" and not given:
        line += "; if none is, score samples of checkpoints by what you want, and log it"
    raise LogError(line)


def pairs(rows: Rows, name: str, step: str | None) -> list[tuple[float, float]]:
    """(step, value) in the order of the file; without a step (place, value)."""
    places = (float(i) if step is None else number(row.get(step)) for i, row in enumerate(rows))
    found = ((x, number(row.get(name))) for x, row in zip(places, rows, strict=True))
    return [(x, y) for x, y in found if x is not None and y is not None]


def overwritten(found: Sequence[tuple[float, float]]) -> list[float]:
    """Steps that have another value later."""
    last = dict(found)
    return [x for x, y in found if last[x] != y]


def series(rows: Rows, name: str, step: str | None) -> dict[float, float]:
    """{step: value}; where a restarted run went back to a step and logged it again, the last.

    Raises:
      LogError: no row has both, or a step has several values.
    """
    found = pairs(rows, name, step)
    if not found:
        raise LogError(f"no row has both {name} and {step}: say another --step")
    parts: list[list[tuple[float, float]]] = [[]]
    for (before, _), point in itertools.pairwise([found[0], *found]):
        parts += [[]] if point[0] < before else []
        parts[-1].append(point)
    # A restart goes back to a checkpoint; what goes back to the beginning is another run.
    anew = any(part[0][0] <= found[0][0] for part in parts[1:])
    if several := [x for part in ([found] if anew else parts) for x in overwritten(part)]:
        raise LogError(f"{name} has several values at {step} {several[0]:g}: {apart(rows, name, step)}")
    return dict(sorted(found))


def apart(rows: Rows, *used: str | None) -> str:
    """How several runs in one table are told apart, with the columns that might do it."""
    cells = {column: {str(row.get(column)) for row in rows} for column in dict.fromkeys(c for r in rows for c in r)}
    few = [c for c, values in cells.items() if 1 < len(values) <= min(20, len(rows) // 2) and c not in used]
    return f"tell the runs apart by --group COLUMN or --seeds COLUMN{', e.g. ' + ', '.join(few[:6]) if few else ''}"


def at_or_before(steps: np.ndarray, values: dict[float, float]) -> np.ndarray:
    """The value logged at each step or last before it; NaN before the first."""
    at = np.searchsorted(list(values), steps, side="right") - 1
    return np.where(at >= 0, np.array(list(values.values()))[at], np.nan)


def step_of(rows: Rows, want: Columns, *used: str | None) -> str | None:
    """The column of steps: the one that was named, else a usual one that every row with something used has.

    Raises:
      LogError: there is none, and the rows with gold are not the rows with KL.
    """
    has = lambda row, name: number(row.get(name)) is not None  # noqa: E731
    rows = [row for row in rows if any(has(row, name) for name in used if name)]
    if want.n or want.step:
        return need("n" if want.n else "step", rows, want)
    for name in STEPS:
        if all(has(row, name) for row in rows):
            return name
    if all(has(row, name) for row in rows for name in used if name):
        return None
    raise LogError(f"rows with {' and with '.join(filter(None, used))} share no column of steps: say --step COLUMN")


def begins_anew(kl_K: np.ndarray) -> int | None:
    """The place where KL, in the order of a file, falls from near its highest so far to near nothing, and does not come
    back at once: another run."""
    top = np.maximum.accumulate(kl_K)[2:-2]
    before, now, after = kl_K[2:-2], kl_K[3:-1], kl_K[4:]
    found = np.flatnonzero((before > 0.5 * top) & (now < 0.1 * top) & (after < 0.5 * top))
    return int(found[0]) + 3 if len(found) else None


def kl_of(rows: Rows, steps: np.ndarray, step: str | None, gold: str, want: Columns) -> tuple[np.ndarray, list[str]]:
    """KL f64[K] at every read of gold, NaN where it is not known, and what is to be said of it.

    Raises:
      LogError: it is no KL from the initial policy per response.
    """
    name, names = need("kl", rows, want), numeric(rows)
    logger, length = logger_of(names), pick("length", rows, want)
    if why := refusal(name, logger, length, want.per_token is not None):
        raise LogError(why)
    logged, notes = series(rows, name, step), []
    if step is None and (again := begins_anew(np.array(list(logged.values())))):
        says = f"{name} starts again in row {list(logged)[again] + 1:g}, and no column of steps is known"
        raise LogError(f"{says}: {apart(rows, name, gold)}, or say --step COLUMN")
    kl = at_or_before(steps, logged)
    if late := [s for s in steps if s not in logged and s > 0]:
        notes.append(f"{gold} was read at {len(late)} steps without {name}: they take the last KL before")
    if np.isnan(kl[steps == 0]).any():
        kl[steps == 0] = 0
        notes.append(f"{gold} at step 0 is taken as the initial policy's, KL 0")
    if np.isnan(kl).any():
        notes.append(f"{np.isnan(kl).sum()} reads of {gold} come before the first {name}: they are left out")
    if want.per_token is not None:
        factor = number(want.per_token)
        lengths = {0.0: factor} if factor is not None else series(rows, need("per_token", rows, want), step)
        kl = kl * np.nan_to_num(at_or_before(steps, lengths), nan=next(iter(lengths.values())))
        notes.append(f"KL is {name} x {want.per_token}")
    known = np.isfinite(kl)
    if not known.any():
        raise LogError(f"no read of {gold} has a {name} at its step or before")
    kl[(kl < 0) & (kl > -1e-3 * np.abs(kl[known]).max())] = 0.0  # rounding
    heat = {
        column: value for row in rows for column, cell in row.items()
        if re.search(r"temperature(/value)?$", column.lower()) and (value := number(cell)) is not None and 0 < value < 5
    }  # fmt: skip
    mean = (length, float(np.mean(list(series(rows, length, None).values())))) if length else None
    usable, said = doubts(name, kl[known], steps[known], logger, heat, mean, want.per_token is not None)
    if not usable:
        raise LogError(said[0])
    return kl, notes + said


def points(rows: Rows, want: Columns) -> tuple[Rows, list[str]]:
    """The points of one run in the public format, and what is to be said of them.

    Every read of gold takes the KL and the proxy logged at its step or last before it.

    Raises:
      LogError: a column is missing or wrong, fewer than 4 points are left, or nothing says where gold starts.
    """
    gold, by_n = need("gold", rows, want), bool(want.n) and not pick("kl", rows, want)
    name = "log n - (n-1)/n" if by_n else need("kl", rows, want)
    proxy = need("proxy", rows, want) if want.proxy else pick("proxy", rows, want)
    proxy = None if proxy == gold and not want.proxy else proxy  # one score, which its user calls gold
    for role, column in (("KL", name), ("the proxy", proxy)):
        if column == gold:
            raise LogError(f"gold and {role} are both {gold}: say different columns")
    step = step_of(rows, want, gold, None if by_n else name)
    reads = series(rows, gold, step)
    steps = np.array(list(reads))
    notes = [f"kl = {name}, gold = {gold}, proxy = {proxy or 'none'}, step = {step or 'order'}"]
    kl, said = (metrics.kl_bon(steps), []) if by_n else kl_of(rows, steps, step, gold, want)
    notes += said
    used = [column for column in (gold, proxy, name) if column and step]
    if again := [x for column in used for x in overwritten(pairs(rows, column, step))]:
        notes.append(f"{step} goes back to {min(again):g} and repeats: a restarted run, of which the last values count")
    steps, kl = steps[kl >= 0], kl[kl >= 0]
    if len(kl) < 4:
        raise LogError(f"{len(kl)} usable points with {name} and {gold}: a fit needs 4")
    if np.ptp(kl) == 0:
        raise LogError(f"{name} is {kl[0]:.4g} at every read of {gold}: that is no KL from the initial policy")
    origin, value = at_origin(kl), {"step_or_n": steps, "kl": kl}
    value["gold"] = np.array([reads[s] for s in steps])
    start = want.start
    if start is None and origin.any():
        start = float(value["gold"][origin].mean())
    elif start is None:
        why = "give the initial policy's as --start VALUE, or --start 0 if it counts from there already"
        raise LogError(f"no point at KL 0 (the first has {kl[0]:.3g}) tells where {gold} starts: {why}")
    value["gold"] = value["gold"] - start
    notes.append(f"{len(kl)} points, gold counts from {start:.4g}")
    if proxy:
        logged = series(rows, proxy, step)
        first = next(iter(logged.values()))
        scores = np.nan_to_num(at_or_before(steps, logged), nan=first)
        value["proxy"] = scores - (scores[origin].mean() if origin.any() else first)
        rise, top = value["proxy"], 1 + int(value["gold"].argmax())
        factor = float(rise[:top] @ value["gold"][:top] / max(rise[:top] @ rise[:top], 1e-300))
        if factor > 0 and not 0.2 < np.ptp(rise) / max(np.ptp(value["gold"]), 1e-300) < 5:
            value["proxy"] = factor * rise
            notes.append(f"{proxy} counts {factor:.3g}-fold, as it follows gold up to its highest: the units differ")
        if plain(proxy) in PENALISED:
            notes.append(f"{proxy} is the score less the KL penalty: --proxy the score itself, if it was logged")
    if want.se:
        errors = series(rows, need("se", rows, want), step)
        value["gold_se"] = np.array([errors.get(s, np.nan) for s in steps])
    method = want.method or (BEST_OF_N if want.n else PPO)
    return [{"method": method, **{n: float(x[k]) for n, x in value.items()}} for k in range(len(kl))], notes


def split(tables: dict[str, Rows], want: Columns) -> dict[tuple[tuple[str, str], ...], Rows]:
    """Rows by what tells runs apart, as (our column, value) pairs: files and wandb's runs, --group and --seeds.

    Raises:
      LogError: there is no such column.
    """
    rows = [{"file": name, **row} for name, table in tables.items() for row in table]
    groups = [name.strip() for name in want.group.split(",")] if want.group else []
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for name in [*groups, *filter(None, [want.seeds])]:
        if name not in columns:
            raise LogError(f"no column {name} to tell runs apart by: there are {', '.join(columns[:12])}")
    apart = [name for name in ("file", "run") if name not in (*groups, want.seeds)]
    apart = [name for name in apart if len({row.get(name) for row in rows} - {None}) > 1]
    out: dict[tuple[tuple[str, str], ...], Rows] = {}
    for row in rows:
        said = [str(row.get(name, "")) for name in apart]
        said += [f"{name}={row.get(name, '')}" for name in groups if name not in IDS]
        key = [("variant", " ".join(said).replace(",", ";"))] + [(n, str(row.get(n, ""))) for n in groups if n in IDS]
        key += [("seed", str(row.get(want.seeds, "")))] if want.seeds else []
        out.setdefault(tuple(key), []).append(row)
    return out


def ours(loaded: dict[str, Rows], want: Columns) -> tuple[Rows, list[str]]:
    """Rows that are in the public format already."""
    out, notes = [], []
    for name, rows in loaded.items():
        if rows and "method" not in rows[0]:
            taken = want.method or f"{BEST_OF_N}; say --method {PPO} if it is RL"
            notes.append(f"{name} has no column method: taken as {taken}")
        for row in rows:
            file = [name] if len(loaded) > 1 else []
            variant = " ".join([*file, *filter(None, [row.get("variant")])])
            out.append({"method": want.method or BEST_OF_N, **row, "variant": variant})
    return out, notes


def read(paths: Sequence[Path], want: Columns) -> tuple[Rows, list[str]]:
    """(rows for `curve.from_rows`, lines for people) of any logs.

    Several files are several runs, but files that lack KL or gold are parts of one table.

    Raises:
      LogError: a file cannot be read, or no run can be used.
    """
    bare = [path.with_suffix("") for path in paths]
    names = names_of(bare if len(set(bare)) == len(bare) else paths)
    loaded = {name.replace(",", ";"): load(path) for name, path in zip(names, paths, strict=True)}
    named = [getattr(want, field.name) for field in fields(Columns) if field.name != "method"]
    known = all({"kl", "gold"} <= {*row} <= {*COLUMNS} for rows in loaded.values() for row in rows[:1])
    if known and all(value is None for value in named):
        return ours(loaded, want)
    tables, parts = {}, {}
    for name, rows in loaded.items():
        has = pick("gold", rows, want) and (pick("kl", rows, want) or want.n)
        (tables if has else parts)[name] = rows
    if parts:
        tables[" + ".join(parts)] = [row for rows in parts.values() for row in rows]
    out, notes, failed, seeds = [], {}, [], {}
    runs = split(tables, want)
    for key, rows in runs.items():
        meta = dict(key)
        place = [f"{want.seeds}={v}" if n == "seed" else f"{n}={v}" if n in IDS else v for n, v in key if v]
        place = " ".join(place) or paths[0].name
        try:
            made, lines = points(rows, want)
        except LogError as error:
            failed.append(f"{place}: {error}")
            continue
        if want.seeds:
            meta["seed"] = seeds.setdefault(meta["seed"], len(seeds))
        out += [{**row, **meta} for row in made]
        for line in lines:
            notes.setdefault(line, []).append(place)
    if not out:
        raise LogError(failed[0])
    where = lambda places: "all runs" if 1 < len(places) == len(runs) else ", ".join(places)  # noqa: E731
    return out, [f"{where(places)}: {line}" for line, places in notes.items()] + [
        f"left out: {line}" for line in failed
    ]
