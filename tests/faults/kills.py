"""A run killed, or met by an I/O error, at any operation on its files; then the same command again.

    launch/local.sh python -m tests.faults --part kills --cases 1000
    launch/local.sh python -m tests.faults.kills "proxies/w8x1-main 57 kill"     # one case once more

A case starts where everything before one stage is done, and makes that stage: disturbed, then undisturbed. What a stage
leaves is a function of what lies before it, so equal bytes there are equal bytes at the end; the end itself is looked at
for every stage once.
"""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from tests.faults import one_stage
from tests.faults.case import Case
from tests.faults.disk import KILL, POSSIBLE, STALE, Disk, Operation
from tests.faults.one_stage import Ended, Finished, command

HANGS = 240  # seconds after which a command counts as hanging, on a busy machine too
CASES = 1030
Faults = Mapping[str, Sequence[str]]  # by kind of operation


class Hangs(BaseException):
    pass


class Point(NamedTuple):
    """An operation of making one stage."""

    stage: str
    number: int
    operation: Operation


def trace(finished: Finished, where: Path, stages: Sequence[str]) -> tuple[list[Point], dict[str, float]]:
    """Every operation of making every stage undisturbed, and the seconds each took."""
    points, seconds = [], {}
    for stage in stages:
        runs, started = finished.before(stage, fresh(where)), time.monotonic()
        with Disk(runs) as disk:
            got = command(runs, f"--only=={stage}")
        seconds[stage] = time.monotonic() - started
        assert got.code == 0, got
        difference = finished.difference(runs, [stage])
        assert not difference, difference
        points += [Point(stage, number, operation) for number, operation in enumerate(disk.seen)]
        shutil.rmtree(runs)
    return points, seconds


def choose(
    points: list[Point], seconds: dict[str, float], faults: Faults, cases: int, rng: random.Random
) -> Iterator[tuple[Point, str]]:
    """Operations and faults, every pair of their kinds in turn; stages that take long are taken less often."""
    groups: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        for fault in faults[point.operation.kind]:
            groups[point.operation.kind, fault].append(point)
    order = sorted(groups)
    rng.shuffle(order)
    taken: set[tuple[Point, str]] = set()
    for number in range(20 * cases):
        if len(taken) == cases:
            return
        kind, fault = order[number % len(order)]
        weights = [1 / (0.2 + seconds[point.stage]) for point in groups[kind, fault]]
        chosen = (rng.choices(groups[kind, fault], weights)[0], fault)
        if chosen not in taken:
            taken.add(chosen)
            yield chosen


def fresh(where: Path) -> Path:
    """A directory that nobody had before: threads of a killed run may still write to theirs."""
    return Path(tempfile.mkdtemp(prefix="case-", dir=where))


def hanging(number: int, frame: FrameType | None) -> None:
    raise Hangs


def timed(runs: Path | str, *more: str, disk: Disk | None = None) -> Ended:
    """A command that ends in time. Of one that does not, `said` is where it was."""
    before = signal.signal(signal.SIGALRM, hanging)
    signal.alarm(HANGS)
    try:
        return command(runs, *more, disk=disk)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def play(finished: Finished, where: Path, point: Point, fault: str, whole: bool = False) -> str | None:
    """What is wrong after a fault and the same command once more; empty if nothing is, None where the operation did not
    come up. `whole`: all stages after it are made too."""
    runs, left = finished.before(point.stage, fresh(where)), fresh(where) / "left"
    only = [f"--only=={point.stage}"]
    disk = Disk(runs, point.number, fault, left)
    first = timed(runs, *only, disk=disk)
    try:
        if disk.struck is None:
            return None
        if fault == KILL:
            one_stage.as_of_another(left)
            return again(finished, left, point.stage, whole)
        if first.code == 0:
            return after(finished, runs, point.stage, fault)
        return first.refusal(runs) or again(finished, runs, point.stage, whole, fault)
    finally:
        for made in (runs, left.parent):
            shutil.rmtree(made, ignore_errors=True)


def again(finished: Finished, runs: Path, stage: str, whole: bool = False, fault: str = "") -> str:
    """The same command without a fault; what is wrong then."""
    second = timed(runs, *([] if whole else [f"--only=={stage}"]))
    if second.code != 0:
        wrong = second.refusal(runs)
        if fault == STALE and not wrong:
            return ""  # noticed
        return f"the same command again: {wrong or second.line}"
    rest = list(finished.stages)
    return finished.difference(runs, rest[rest.index(stage) :] if whole else [stage])


def after(finished: Finished, runs: Path, stage: str, fault: str) -> str:
    """What is wrong although the command ended well. What a stale listing left out may come with the next command."""
    difference = finished.difference(runs, [stage])
    if fault == STALE and difference:
        return again(finished, runs, stage)
    return difference


class Killer:
    """Processes that kill themselves by SIGKILL in the middle: each is a copy of one that has everything imported."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.faults.killed"]
        self.process = subprocess.Popen(
            command,
            cwd=one_stage.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def kill(self, runs: Path, point: Point, delay: float) -> int:
        """Make a stage until an operation, and so many seconds more; the signal that ended it, 0 if it ended before."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{runs}\t{point.stage}\t{point.number}\t{delay}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline() or 0)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def play_really(finished: Finished, where: Path, point: Point, delay: float, killer: Killer) -> str | None:
    """As `play` of a kill, by SIGKILL."""
    runs = finished.before(point.stage, fresh(where))
    if killer.kill(runs, point, delay) != signal.SIGKILL:
        return None
    problem = again(finished, runs, point.stage)
    shutil.rmtree(runs, ignore_errors=True)
    return problem


def described(point: Point, fault: str) -> str:
    kind, path = point.operation
    return f"local: {point.stage} {point.number} {fault} ({kind} {path})"


def finished_run(where: Path) -> Finished:
    """An undisturbed run below `where`."""
    finished = Finished(where / "whole")
    if not (finished.root / "report.html").exists():
        finished.make()
    return finished


def write_points(where: Path, points: list[Point]) -> None:
    """Keep how many operations of every kind there are."""
    (where / "points.json").write_text(json.dumps(Counter(point.operation.kind for point in points)))


def summary(where: Path, cases: list[Case], part: str = "kills") -> list[str]:
    """How many operations of every kind there are, and how many faults were tried at them, of which kinds."""
    counted = next(where.glob(f"{part}-*/points.json"), None)
    if counted is None:
        return ["no process came to the end of an undisturbed run"]
    there = json.loads(counted.read_text())
    at = Counter(found[1] for case in cases if (found := re.search(r" \(([\w ]+?) [^ ]+\)$", case.what)))
    faults = Counter(
        found[1] for case in cases if (found := re.search(r": \S+ \d+ ([A-Za-z0-9 ]+?)(?: after| \()", case.what))
    )
    kinds = ", ".join(f"{kind} {at[kind]} of {count}" for kind, count in sorted(there.items()))
    return [
        f"faults at operations: {sum(at.values())}; there are {sum(there.values())} operations: {kinds}",
        f"faults: {', '.join(f'{fault} {count}' for fault, count in sorted(faults.items()))}",
    ]


def campaign(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """Faults at operations on local files."""
    one_stage.prepare(where)
    with one_stage.often():
        yield from tried(cases, seed, where)


def tried(cases: int, seed: int, where: Path) -> Iterator[Case]:
    finished, rng, whole = finished_run(where), random.Random(seed), set()
    points, seconds = trace(finished, where, list(finished.stages))
    write_points(where, points)
    killer = Killer()
    for number, (point, fault) in enumerate(choose(points, seconds, POSSIBLE, cases, rng)):
        if fault == KILL and number % 2 and rng.random() < 0.5:
            delay = rng.choice([0.0, 0.0, rng.uniform(0, 0.05)])
            problem = play_really(finished, where, point, delay, killer)
            what = described(point, f"SIGKILL after {delay:.3f} s")
        else:
            to_end = point.stage not in whole
            whole.add(point.stage)
            problem = play(finished, where, point, fault, to_end)
            what = described(point, fault)
        if problem is not None:
            yield Case(what, problem)
    killer.close()


def main() -> None:
    """One case once more, as `what` of it says."""
    stage, number, fault = sys.argv[1].removeprefix("local: ").split(" (")[0].split(" ", 2)
    with tempfile.TemporaryDirectory() as made:
        where = Path(sys.argv[2] if len(sys.argv) > 2 else made)
        one_stage.prepare(where)
        with one_stage.often():
            finished = finished_run(where)
            point = trace(finished, where, [stage])[0][int(number)]
            print(described(point, fault), "::", play(finished, where, point, fault))


if __name__ == "__main__":
    main()
