"""Runs that want one stage while clocks jump, holders die, hang and come back: processes of their own, forked from one
that has touched no device.

    python tests/faults/holders.py DIRECTORY CASES SEED

prints a line of JSON per case: [what, problem]. Two machines are made of one by other host names; a machine's clock is
shifted or set by days. A holder that is stopped stops itself between two writes, and is woken later.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rmo.runtime import files, lock

lock.BEAT, lock.SILENCE, lock.WATCH = 0.15, 0.9, 0.45
CLOCKS = (0.0, 0.0, 400.0, -400.0, 3 * 86400.0, -3 * 86400.0)
ENDS = ("leaves", "is killed", "hangs and comes back", "its clock is set")


@dataclass(frozen=True)
class Actor:
    """One process: when it first wants the stage, its machine, its clock, and what becomes of it as the holder."""

    name: str
    host: str
    begins: float  # seconds
    clock: float  # seconds that it is ahead
    end: str
    later: float  # seconds that its clock is set by

    def __str__(self) -> str:
        set_by = f" by {self.later:.0f} s" if self.end == "its clock is set" else ""
        return f"{self.name} on {self.host} from {self.begins:.2f} s, clock {self.clock:+.0f} s: {self.end}{set_by}"


def drawn(rng: random.Random) -> list[Actor]:
    """Two or three processes of one case."""
    return [
        Actor(name, rng.choice("AB"), rng.uniform(0, 0.4), rng.choice(CLOCKS), rng.choice(ENDS), rng.choice(CLOCKS))
        for name in "XYZ"[: rng.choice((2, 3))]
    ]


def note(log: Path, *what: object) -> None:
    """A line with the time that no clock changes, whole or not at all."""
    with open(log, "ab", buffering=0) as file:
        file.write((json.dumps([lock.since_boot(), *what]) + "\n").encode())


def set_clock(seconds: float) -> None:
    """This process's, and what its files say."""
    real_time, real_utime = REAL
    time.time = lambda: real_time() + seconds
    os.utime = lambda path, *_: real_utime(path, (real_time() + seconds,) * 2)


REAL = time.time, os.utime


def act(actor: Actor, stage: Path, log: Path) -> None:
    """Want the stage for some seconds, hold it, write to it, and end as it is drawn."""
    socket.gethostname = lambda: actor.host
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    set_clock(actor.clock)
    time.sleep(actor.begins)
    until = lock.since_boot() + 3.0
    while lock.since_boot() < until:
        try:
            with lock.Lock(stage):
                if actor.clock:
                    os.utime(stage / lock.FILE)  # its machine wrote it
                note(log, "has", actor.name)
                hold(actor, stage, log)
                note(log, "leaves", actor.name)
            return
        except lock.Held:
            time.sleep(0.05)


def hold(actor: Actor, stage: Path, log: Path) -> None:
    """Write for a while; in the middle of it, what is drawn happens."""
    for k in range(30):
        before = lock.since_boot()
        files.need_hold()
        allowed = lock.since_boot()
        files.write_text(stage / "work", f"{actor.name} {k}")
        if lock.since_boot() - before < 0.5 * lock.BEAT:  # else the machine let it sleep in the middle
            note(log, "wrote", actor.name, allowed)
        time.sleep(0.02)
        if k == 10:
            if actor.end == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif actor.end == "hangs and comes back":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif actor.end == "its clock is set":
                set_clock(actor.clock + actor.later)


def run_case(actors: list[Actor], where: Path) -> str:
    """What went wrong, empty where nothing did."""
    stage, log = where / "stage", where / "log"
    where.mkdir(parents=True)
    children = {}
    for actor in actors:
        if not (pid := os.fork()):
            try:
                act(actor, stage, log)
            finally:
                os._exit(0)
        children[pid] = actor
    codes, woken = {}, lock.since_boot() + 2.5
    while len(codes) < len(children):
        for pid in children.keys() - codes.keys():
            got, status = os.waitpid(pid, os.WNOHANG)
            if got:
                codes[pid] = status
            elif lock.since_boot() > woken:
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.02)
        if lock.since_boot() > woken + 12:
            for pid in children.keys() - codes.keys():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return "it hangs: a process neither got the stage nor gave up"
    return two_at_once(log) or left_behind(stage)


def two_at_once(log: Path) -> str:
    """Whether one wrote after another had taken the stage."""
    rows = sorted(json.loads(line) for line in log.read_text().splitlines()) if log.exists() else []
    if not any(row[1] == "has" for row in rows):
        return "nobody ever got the stage"
    for at, what, who, *_ in rows:
        if what == "has":
            left = [row[0] for row in rows if row[1:3] == ["leaves", who]]
            for row in rows:
                if (
                    row[1] == "wrote"
                    and row[2] != who
                    and at < row[3] < min(left, default=row[3])
                    and earlier(rows, row, at)
                ):
                    return f"{row[2]} wrote {row[3] - at:.2f} s after {who} had taken the stage from it"
    return ""


def earlier(rows: list, row: list, at: float) -> bool:
    """Whether the writer of a row got the stage before `at`, and not again between."""
    return max(r[0] for r in rows if r[1] == "has" and r[2] == row[2] and r[0] <= row[3]) < at


def left_behind(stage: Path) -> str:
    """Whether the stage can be had after all of it, and nothing lies beside it."""
    lock.Lock.dead, real = lambda *_: True, lock.Lock.dead
    try:
        with lock.Lock(stage):
            names = sorted(path.name for path in stage.iterdir())
    finally:
        lock.Lock.dead = real
    return "" if names == [lock.FILE, "work"] else f"left behind: {names}"


def main() -> None:
    where, cases, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for i in range(cases):
        actors = drawn(random.Random(f"{seed} {i}"))
        problem = run_case(actors, where / str(i))
        print(json.dumps([f"holders {seed} {i}: {'; '.join(map(str, actors))}", problem]), flush=True)


if __name__ == "__main__":
    main()
