"""What each stage instance of a run directory is at: done, running or stopped and how far, stale, missing."""

import glob
import time
from pathlib import Path

from rmo.artifacts.run_files import GATHERERS
from rmo.artifacts.stages import Stage
from rmo.runtime import code
from rmo.runtime.files import Row, modified
from rmo.runtime.lock import Lock
from rmo.tracking.progress import duration

NOT_KNOWN: Row = dict.fromkeys(("seconds", "age", "step", "of", "holder", "before", "other_code"))


def look(root: Path, stages: dict[str, str]) -> list[Row]:
    """One row per stage instance, given as {name: path}. What is not known is None.

    - `stage`, `path`: its name and its directory in `root`;
    - `state`: done; running or stopped, both begun; stale, made for another config only; missing;
    - `seconds`: what it cost, so far if it is not done;
    - `age`: seconds since it was written;
    - `step`, `of`: how far it is;
    - `holder`: who works on it;
    - `before`: seconds that the same stage cost for the last other config;
    - `other_code`: of a stage that is done, whether other code than this made it.
    """
    return [{"stage": name, "path": path, **state(root / path)} for name, path in stages.items()]


def state(directory: Path) -> Row:
    """A row of `look` but for its names."""
    stage = Stage(directory)
    if stage.done:
        return NOT_KNOWN | done(stage)
    others = for_other_configs(directory)
    row = NOT_KNOWN | {"before": seconds_of_newest(others)}
    if directory.exists():
        return row | begun(stage)
    return row | {"state": "stale" if others else "missing"}


def done(stage: Stage) -> Row:
    """What is known of a stage that is done."""
    return {
        "state": "done",
        "seconds": stage.cost()["seconds"],
        "age": age(stage.done_file),
        "other_code": stage.made_by() != code.code_hash(),
    }


def age(file: Path) -> float:
    """Seconds since it was written; 0 where the clock has been set back since."""
    return max(time.time() - modified(file), 0.0)


def begun(stage: Stage) -> Row:
    """What is known of a stage that is running or was stopped."""
    lock = Lock(stage.directory)
    holder, silent = lock.holder()
    held = bool(holder) and not lock.gone(holder, silent)
    written, speed = stage.written(), stage.speed()
    row: Row = {"state": "running" if held else "stopped", "holder": holder if held else None}
    if written:
        row["age"] = age(written[0])
    if speed:
        row["seconds"] = sum(line["seconds"] for line in speed)
        row["step"], row["of"] = speed[-1]["step"] + 1, speed[-1].get("of")
    return row


def for_other_configs(directory: Path) -> list[Stage]:
    """The same stage instance, done for other configs: directories that differ in the digest alone."""
    name = directory.name.rsplit("-", 1)[0]
    alike = [path for path in directory.parent.glob(f"{glob.escape(name)}-*") if len(path.name) == len(directory.name)]
    return [Stage(path) for path in alike if path != directory and Stage(path).done]


def seconds_of_newest(stages: list[Stage]) -> float | None:
    """What the stage that was done last cost."""
    if not stages:
        return None
    newest = max(stages, key=lambda stage: modified(stage.done_file))
    return newest.cost()["seconds"]


def lines(found: list[Row]) -> list[str]:
    """The rows for people, aligned; below those that are begun, how far they are and who works on them."""
    width, out = max(len(row["stage"]) for row in found), []
    for row in found:
        cost = duration(row["seconds"]) if row["seconds"] is not None else ""
        age = duration(row["age"]) + " ago" if row["age"] is not None else ""
        state = row["state"] + ("*" if row["other_code"] else "")
        out.append(f"{state:8}{row['stage']:{width}}{cost:>9}{age:>14}  {row['path']}")
        if row["state"] in ("running", "stopped"):
            out.append(" " * 8 + at(row))
    if any(row["other_code"] for row in found):
        out.append(" " * 8 + "*: made by other code than this; `rmo run CONFIG --remake` makes those again")
    if any(row["state"] == "stale" for row in found):
        out.append(" " * 8 + "stale: done for other settings, whose results stay; for these it is still to be done")
    return out


def at(row: Row) -> str:
    """How far a begun stage is, and who works on it."""
    how_far = "before its first step" if row["step"] is None else f"{row['step']} of {row['of'] or '?'}"
    holder = row["holder"]
    if not holder:
        return f"{how_far}; nobody works on it, the same command continues"
    job = f" (job {holder['job']})" if holder["job"] else ""
    return f"{how_far}; by {holder['host']}, process {holder['pid']}{job}, since {holder['since']}"


def total(found: list[Row], root: Path) -> str:
    """`12 of 31 done, 1 running, 2.3 h so far, in runs/tiny`."""
    states = [row["state"] for row in found]
    begun = "".join(f", {states.count(state)} {state}" for state in ("running", "stopped") if state in states)
    seconds = sum(row["seconds"] or 0 for row in found)
    return f"{states.count('done')} of {len(found)} done{begun}, {duration(seconds)} so far, in {root}"


def left(found: list[Row], names: list[str], at_once: int = 1) -> str:
    """`; about 12 min left, until Tue 16:42`, where it can be said how long stages take; else empty.

    `at_once` are made side by side.

    Each as long as it took for another config, else as the mean of those of its kind, where two or more are done and
    none took twice as long as another. Fits and report, alone of their kind, may be left out; then it says so.
    """
    kinds: dict[str, list[float]] = {}
    for row in found:
        if row["state"] == "done":
            kinds.setdefault(row["stage"].split("/")[0], []).append(row["seconds"])
    each, without = [], ""
    for row in found:
        if row["stage"] not in names or row["state"] == "done":
            continue
        kind = row["stage"].split("/")[0]
        alike = kinds.get(kind, [])
        if row["before"] is not None:
            each.append(row["before"])
        elif len(alike) > 1 and max(alike) <= 2 * min(alike):
            each.append(sum(alike) / len(alike))
        elif kind in GATHERERS:
            without = " before fits and report"
        else:
            return ""
    seconds = max([sum(each) / at_once, *each])
    until = time.strftime("%a %H:%M", time.localtime(time.time() + seconds))
    return f"; about {duration(seconds)} left{without}, until {until}" if seconds > 60 else ""
