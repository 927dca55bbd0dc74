"""`rmo fit --watch`: logs that still grow, and the advice whenever it changes."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rmo.analysis.curve import Curve, CurveError
from rmo.cli import by_step
from rmo.logs.folders import OURS
from rmo.logs.no_kl import NoFit, NoKl, Question
from rmo.runtime.files import Json, RunError

TURNED = 78  # exit code: the advice on every curve is to stop
Found = tuple[list[Curve], dict[str, Json], list[str]]  # curves, their fits, notes


def until_stop(paths: Sequence[Path], fit: Callable[[], Found], every: float) -> Found | NoFit:
    """Call `fit` whenever a file has changed, looking every so many seconds, until every curve is to be stopped.
    Logs without KL are judged by step.

    Prints a line per curve whenever the advice on one changed, or why there is none yet: logs begin without gold, and
    are read while a line of them is being written.
    """
    before, said = None, None
    while True:
        now = [state(path) for path in paths]
        if now != before:
            before = now
            found, lines, stops = look(fit)
            for line in lines if lines != said else ():
                print(line, flush=True)
            said = lines
            if found is not None and stops:
                return found
        time.sleep(every)


def look(fit: Callable[[], Found]) -> tuple[Found | NoFit | None, list[str], bool]:
    """(what was fitted, what to say of it, whether every curve is to be stopped)."""
    try:
        found = fit()
    except Question:
        raise  # no row that is still to come answers it
    except NoKl as reads:
        rows = by_step.judged(reads)
        lines = [f"{row['run']}: by step, {row['sentence']}" for row in rows]
        return reads, lines, bool(rows) and all(row["verdict"] == "stop" for row in rows)
    except (RunError, CurveError, OSError) as error:
        return None, [f"waiting: {error}"], False
    groups = [(method, group) for method, part in found[1].items() for group in part["groups"]]
    lines = [f"{group['group']}: {group['advice']['sentence']}" for _, group in groups]
    short = any(part["too_short"] for part in found[1].values())
    return found, lines, not short and all(group["advice"]["verdict"] == "stop" for _, group in groups)


def state(path: Path) -> tuple[int, int] | None:
    """What changes when a file does, or a file in a directory; None while there is none."""
    inside = [p for p in path.rglob("*") if not ours(p.relative_to(path))] if path.is_dir() else []
    try:
        found = [p.stat() for p in (path, *inside)]
    except OSError:
        return None
    return max(one.st_mtime_ns for one in found), sum(one.st_size for one in found)


def ours(path: Path) -> bool:
    """Whether a file below a directory of logs is hidden or one of our own results."""
    return any(part.startswith(".") or part.endswith(OURS) for part in path.parts)
