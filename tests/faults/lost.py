"""Two processes are one run; one of them is killed in the middle of a stage, in every stage. The other must end and say
why; then both again, and the bytes are those of two that nobody killed.

Where process 0 dies, which the others meet at, JAX itself ends them by SIGABRT and says that another task died.

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

from rmo.runtime.hosts import LOST, PREEMPTED
from tests.faults import kills, one_stage
from tests.faults.case import Case
from tests.faults.one_stage import Finished

CASES = 32
NEVER = -1.0
SILENT, JOINS = 5, 30  # seconds after which a process counts as lost, or as never coming; 30 and 300 outside tests


class Outcome(NamedTuple):
    """How one of the two ended: the signal or the exit code, and what it said."""

    signal: int
    code: int
    said: str

    def refusal(self) -> str:
        """What is wrong with how it ended after the other was killed."""
        if self.signal == signal.SIGABRT:
            return "" if "another task died" in self.said else f"it ended by SIGABRT: {self.said[-300:]}"
        if self.code == 2 and "rmo: cannot join the other processes" in self.said:
            return ""
        if self.signal or self.code not in (0, PREEMPTED, LOST):
            return f"the other one ended by {self.signal or self.code}: {self.said[-300:]}"
        return "" if not self.code or "\nrmo: " in f"\n{self.said}" else f"no line says why: {self.said[-300:]}"


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

    def ended(self) -> Outcome:
        """Wait for its end; one that does not come is killed, and counts as SIGALRM."""
        assert self.process.stdout
        if select.select([self.process.stdout], [], [], kills.HANGS)[0]:
            number, code = json.loads(self.process.stdout.readline())
        else:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.begin()
            number, code = signal.SIGALRM, 0
        said = self.said.read_text(errors="replace") if self.said.exists() else ""
        return Outcome(number, code, said)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


class Pair:
    """Both of them."""

    def __init__(self, where: Path):
        self.members = [Member(index, where) for index in range(2)]

    def run(self, runs: Path, stage: str = "", victim: int = 0, delay: float = NEVER) -> list[Outcome]:
        """`rmo run` by both, of one stage or of all; the victim dies after `delay` seconds."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        for member in self.members:
            mine = delay if member.index == victim else NEVER
            member.start(runs, f"--only=={stage}" if stage else "", port, mine)
        return [member.ended() for member in self.members]

    def close(self) -> None:
        for member in self.members:
            member.close()


def campaign(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """Every stage in turn, either process, at any moment."""
    one_stage.prepare(where)
    rng, pair = random.Random(seed), Pair(where)
    finished = Finished(where / "whole")
    made = pair.run(finished.runs)
    assert [o.code for o in made] == [0, 0], made
    stages = list(finished.stages)
    rng.shuffle(stages)
    seconds = {stage: undisturbed(finished, pair, where, stage) for stage in stages[:cases]}
    for number in range(cases):
        stage, victim = stages[number % len(stages)], rng.randrange(2)
        delay = rng.uniform(0.01, max(seconds[stage], 0.2))
        problem = play(finished, pair, where, stage, victim, delay)
        yield Case(f"lost: {stage} process {victim} killed {delay:.2f} s after it began", problem)
    pair.close()


def undisturbed(finished: Finished, pair: Pair, where: Path, stage: str) -> float:
    """Seconds that a stage takes both of them; it is made to the same bytes."""
    runs, started = finished.before(stage, kills.fresh(where)), time.monotonic()
    outcomes = pair.run(runs, stage)
    assert [o.code for o in outcomes] == [0, 0], (stage, outcomes)
    seconds = time.monotonic() - started
    assert not (wrong := finished.difference(runs, [stage])), wrong
    shutil.rmtree(runs)
    return seconds


def play(finished: Finished, pair: Pair, where: Path, stage: str, victim: int, delay: float) -> str:
    """What is wrong after one of two was killed, and both were started again."""
    runs = finished.before(stage, kills.fresh(where))
    began = time.monotonic()
    other = pair.run(runs, stage, victim, delay)[1 - victim]
    took = time.monotonic() - began
    try:
        if wrong := other.refusal():
            return wrong
        if took > delay + 60:
            return f"the other one took {took:.0f} s to end"
        if bad := [o for o in pair.run(runs, stage) if o.signal or o.code]:
            return f"both again: {bad[0]}"
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
