"""What each stage instance of a run directory is at: done, running or stopped and how far, stale, missing."""

import time
from pathlib import Path
from typing import Any

from rmo.artifacts.stages import Stage
from rmo.runtime import code
from rmo.runtime.files import Row, modified
from rmo.runtime.lock import Lock
from rmo.tracking.progress import duration


def look(root: Path, stages: dict[str, str]) -> list[dict[str, Any]]:
    """One row per stage instance, given as {name: path}: `stage`, `state` (done; running or stopped, both begun; stale,
    made for another config; missing), `path`, `seconds` it cost, so far if it is not done, `age` since it was written,
    `step` and `of`, how far it is, `holder`, and `before`: what the same stage cost for the last other config.

    What is not known is None.
    """
    return [{"stage": name, "path": path, **state(root / path)} for name, path in stages.items()]


def state(directory: Path) -> dict[str, Any]:
    """A row of `look` but for its names."""
    row: Row = dict.fromkeys(("seconds", "age", "step", "of", "holder", "before", "other_code"))
    others = [p for p in directory.parent.glob(f"{directory.name.rsplit('-', 1)[0]}-*") if p != directory]
    others = [Stage(p) for p in others if len(p.name) == len(directory.name) and Stage(p).done]
    stage = Stage(directory)
    if stage.done:
        cost, age = stage.cost(), time.time() - modified(stage.done_file)
        other_code = cost.get("code", "") != code.code_hash()
        return row | {"state": "done", "seconds": cost["seconds"], "age": age, "other_code": other_code}
    if others:
        last = max(others, key=lambda other: modified(other.done_file))
        row["before"] = last.cost()["seconds"]
    if not directory.exists():
        return row | {"state": "stale" if others else "missing"}
    lock = Lock(directory)
    holder, silent = lock.holder()
    held = bool(holder) and not lock.gone(holder, silent)
    written, speed = stage.written(), stage.speed()
    return row | {
        "state": "running" if held else "stopped", "holder": holder if held else None,
        "seconds": sum(line["seconds"] for line in speed) if speed else None,
        "age": time.time() - modified(written[0]) if written else None,
        "step": speed[-1]["step"] + 1 if speed else None, "of": speed[-1].get("of") if speed else None,
    }  # fmt: skip


def lines(found: list[dict[str, Any]]) -> list[str]:
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


def at(row: dict[str, Any]) -> str:
    """How far a begun stage is, and who works on it."""
    said = "before its first step" if row["step"] is None else f"{row['step']} of {row['of'] or '?'}"
    if row["holder"]:
        job = f" (job {row['holder']['job']})" if row["holder"]["job"] else ""
        return (
            f"{said}; by {row['holder']['host']}, process {row['holder']['pid']}{job}, since {row['holder']['since']}"
        )
    return f"{said}; nobody works on it, the same command continues"


def total(found: list[dict[str, Any]], root: Path) -> str:
    """`12 of 31 done, 1 running, 2.3 h so far, in runs/tiny`."""
    count = lambda state: sum(row["state"] == state for row in found)  # noqa: E731
    begun = "".join(f", {count(state)} {state}" for state in ("running", "stopped") if count(state))
    seconds = sum(row["seconds"] or 0 for row in found)
    return f"{count('done')} of {len(found)} done{begun}, {duration(seconds)} so far, in {root}"


def left(found: list[dict[str, Any]], names: list[str]) -> str:
    """`; about 12 min left, until Tue 16:42`, where it can be said how long stages take; else empty.

    Each as long as it took for another config, else as the mean of those of its kind, where two or more are done and
    none took twice as long as another. Fits and report, alone of their kind, may be left out; then it says so.
    """
    kinds: dict[str, list[float]] = {}
    for row in found:
        if row["state"] == "done":
            kinds.setdefault(row["stage"].split("/")[0], []).append(row["seconds"])
    seconds, without = 0.0, ""
    for row in found:
        if row["stage"] not in names or row["state"] == "done":
            continue
        kind = row["stage"].split("/")[0]
        alike = kinds.get(kind, [])
        if row["before"] is not None:
            seconds += row["before"]
        elif len(alike) > 1 and max(alike) <= 2 * min(alike):
            seconds += sum(alike) / len(alike)
        elif kind in ("fits", "report"):
            without = " before fits and report"
        else:
            return ""
    until = time.strftime("%a %H:%M", time.localtime(time.time() + seconds))
    return f"; about {duration(seconds)} left{without}, until {until}" if seconds > 60 else ""
