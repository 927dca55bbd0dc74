"""Two processes are one run; one of them is killed in the middle of a stage, in every stage. The other must end and say
why; then both again, and the bytes are those of two that nobody killed.

Where JAX is the first to notice, it ends the other by SIGABRT and says that another task died.

    launch/local.sh python -m tests.faults --part lost --cases 30
"""

import contextlib
import importlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rmo.runtime.hosts import LOST
from tests.faults import kills, one_stage
from tests.faults.case import Case
from tests.faults.one_stage import Finished

CASES = 32
NEVER = -1.0
SILENT, JOINS = 10, 30  # seconds after which a process counts as lost, or as never coming; 30 and 300 outside tests


class Outcome(NamedTuple):
    """How one of the two ended: the signal or the exit code, and what it said."""

    signal: int
    code: int
    said: str

    def refusal(self) -> str:
        """What is wrong with how it ended after the other was killed."""
        ended = f"the other one ended by {self.signal or self.code}: {self.said[-300:]}"
        if self.signal == signal.SIGABRT:  # by JAX itself
            return "" if "another task died" in self.said else ended
        if self.signal or "Traceback" in self.said or self.code not in (0, 2, LOST):
            return ended
        if self.code == 2:  # the other was gone before they met
            return "" if "rmo: cannot join the other processes" in self.said else ended
        return "" if not self.code or "\nrmo: " in f"\n{self.said}" else f"no line says why: {ended}"


class Member:
    """One of the two: a process that has everything imported is copied for every command."""

    def __init__(self, index: int, where: Path):
        self.index, self.said = index, where / f"said-{index}"
        where.mkdir(parents=True, exist_ok=True)
        self.begin()

    def begin(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.lost"],
            cwd=one_stage.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def start(self, runs: Path, only: str, port: int, delay: float) -> None:
        """Begin `rmo run` as this member; it kills itself so many seconds later, or never."""
        assert self.process.stdin
        line = [str(runs), only, port, self.index, delay, str(self.said)]
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def ended(self, limit: float) -> Outcome:
        """Wait for its end; one that does not come in `limit` seconds is killed, and counts as SIGALRM."""
        assert self.process.stdout
        there = select.select([self.process.stdout], [], [], limit)[0]
        line = self.process.stdout.readline() if there else ""
        if line:
            number, code = json.loads(line)
        else:
            self.close()
            self.begin()
            number, code = signal.SIGALRM, 0
        said = self.said.read_text(errors="replace") if self.said.exists() else ""
        return Outcome(number, code, said)

    def close(self) -> None:
        """End it, and what it has begun."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Pair:
    """Both of them."""

    def __init__(self, where: Path):
        self.members = [Member(index, where) for index in range(2)]

    def run(self, runs: Path, stage: str = "", victim: int = 0, delay: float = NEVER) -> list[Outcome]:
        """`rmo run` by both, of one stage or of all; the victim dies after `delay` seconds."""
        limit = kills.HANGS if stage else 8 * kills.HANGS  # all stages take minutes where a machine is slow
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        for member in self.members:
            mine = delay if member.index == victim else NEVER
            member.start(runs, f"--only=={stage}" if stage else "", port, mine)
        return [member.ended(limit) for member in self.members]

    def close(self) -> None:
        for member in self.members:
            member.close()


def campaign(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """Every stage in turn, either process, at any moment."""
    one_stage.prepare(where)
    pair = Pair(where)
    try:
        yield from tried(cases, random.Random(seed), pair, where)
    finally:
        pair.close()


def tried(cases: int, rng: random.Random, pair: Pair, where: Path) -> Iterator[Case]:
    finished = Finished(where / "whole")
    if problem := ended_badly(pair.run(finished.runs)):
        yield Case("lost: a run that nobody disturbs", problem)
        return
    stages = list(finished.stages)
    rng.shuffle(stages)
    seconds: dict[str, float] = {}
    for number in range(cases):
        stage, victim = stages[number % len(stages)], rng.randrange(2)
        if stage not in seconds:
            seconds[stage], problem = undisturbed(finished, pair, where, stage)
            yield Case(f"lost: {stage} by two, undisturbed", problem)
        delay = rng.uniform(0.01, seconds[stage])
        problem = play(finished, pair, where, stage, victim, delay)
        if problem is not None:
            yield Case(f"lost: {stage} process {victim} killed {delay:.2f} s after it began", problem)


def ended_badly(outcomes: list[Outcome]) -> str:
    """Of two that nobody kills, the first that failed; empty where none did."""
    return next((f"ended by {o.signal or o.code}: {o.said[-300:]}" for o in outcomes if o.signal or o.code), "")


def undisturbed(finished: Finished, pair: Pair, where: Path, stage: str) -> tuple[float, str]:
    """(seconds that a stage takes both of them, what is wrong with what they leave)."""
    runs, started = finished.before(stage, kills.fresh(where)), time.monotonic()
    problem = ended_badly(pair.run(runs, stage))
    seconds = time.monotonic() - started
    problem = problem or finished.difference(runs, [stage])
    shutil.rmtree(runs)
    return seconds, problem


def play(finished: Finished, pair: Pair, where: Path, stage: str, victim: int, delay: float) -> str | None:
    """What is wrong after one of two was killed, and both were started again; None where it ended before."""
    runs, began = finished.before(stage, kills.fresh(where)), time.monotonic()
    outcomes = pair.run(runs, stage, victim, delay)
    dead, other = outcomes[victim], outcomes[1 - victim]
    took = time.monotonic() - began
    try:
        if dead.signal != signal.SIGKILL:
            return ended_badly(outcomes) or None
        if wrong := other.refusal():
            return wrong
        if took > delay + JOINS + 30:
            return f"the other one took {took:.0f} s to end"
        if wrong := ended_badly(pair.run(runs, stage)):
            return f"both again: {wrong}"
        return finished.difference(runs, [stage])
    finally:
        shutil.rmtree(runs, ignore_errors=True)


def become(runs: str, only: str, port: int, index: int, delay: float, said: str) -> None:
    """One of two processes of a run, until the end or until it kills itself; never returns."""
    from rmo.runtime import hosts

    hosts.SILENCE = SILENT
    hosts.join.__defaults__ = (JOINS,)
    os.environ |= {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index),
    }  # fmt: skip
    with open(said, "w") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)  # libraries of C++ speak there
    if delay >= 0:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    from rmo.cli.main import main

    sys.argv = ["rmo", "run", str(one_stage.CONFIG), "--runs", runs, *filter(None, [only])]
    code = 0
    with one_stage.often():
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    os._exit(code)


def serve() -> None:
    """A copy of this process for every line on stdin; [signal, exit code] on stdout when it has ended."""
    one_stage.prepare(Path())
    for module in ("orbax.checkpoint", "rmo.cli.main", "rmo.experiment.runner", "rmo.report.run_report"):
        importlib.import_module(module)
    for line in sys.stdin:
        if child := os.fork():
            status = os.waitpid(child, 0)[1]
            killed = os.WIFSIGNALED(status)
            print(
                json.dumps([os.WTERMSIG(status) if killed else 0, 0 if killed else os.WEXITSTATUS(status)]), flush=True
            )
            continue
        try:
            become(*json.loads(line))
        except BaseException:
            with contextlib.suppress(BaseException):
                import traceback

                traceback.print_exc()
            os._exit(1)


if __name__ == "__main__":
    serve()
