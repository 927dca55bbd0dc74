"""Stages side by side: `rmo run --jobs N` starts N processes, each with its share of the cores, and gives them stages.

Programs of small models gain little from several cores, so on a machine without an accelerator a grid of them is made
sooner by several processes. All end with the one that started them; the same command continues.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import NoReturn

from rmo.artifacts.run_files import GATHERERS
from rmo.experiment.run import Run, StageOf
from rmo.experiment.runner import need_upstream, tidy
from rmo.runtime import hosts
from rmo.runtime.files import RunError
from rmo.tracking.progress import say
from rmo.tracking.status import left, look

# In the environment of a job: its run, as `config.replicates` calls it. It is given stages on stdin, and says the name
# of one on stdout when it is done.
JOB = "RMO_JOB"
POLL = 0.5  # seconds between two looks whether to stop


def order(stages: dict[str, StageOf]) -> list[str]:
    """Names of stages, most urgent first: those with the longest chain of stages behind them, then those with the most
    stages, then the last of the plan, whose models are the largest. Large ones at the end would leave cores idle."""
    chain = dict.fromkeys(stages, 0)
    behind: dict[str, set[str]] = {name: set() for name in stages}
    for name in reversed(stages):
        for before in stages[name].upstream:
            chain[before.name] = max(chain[before.name], chain[name] + 1)
            behind[before.name] |= {name} | behind[name]
    return sorted(reversed(list(stages)), key=lambda name: (-chain[name], -len(behind[name])))  # noqa: C414, it is stable


def shares(cores: Collection[int], jobs: int) -> list[list[int]]:
    """Cores of each job, equally many, so that it is no matter which of them makes a stage; of fewer cores than jobs
    each serves several."""
    every = sorted(cores)
    if len(every) < jobs:
        return [[every[i % len(every)]] for i in range(jobs)]
    size = len(every) // jobs
    return [every[i * size : (i + 1) * size] for i in range(jobs)]


@contextlib.contextmanager
def on(cores: Sequence[int]) -> Iterator[None]:
    """What is started inside runs on these cores, where the system can say so."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Job:
    """A process that makes one stage at a time; what it says goes to stderr line by line."""

    def __init__(self, where: str, command: Sequence[str], cores: Sequence[int], news: "News"):
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(max(len(cores), 1)))
        pipe = subprocess.PIPE
        with on(cores):
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace", bufsize=1,
                start_new_session=True, env={**os.environ, **threads, JOB: where},
            )  # fmt: skip
        self.news, self.at = news, ""
        self.speaking = threading.Thread(target=self.pass_on, daemon=True)
        self.speaking.start()
        threading.Thread(target=self.listen, daemon=True).start()

    def pass_on(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with contextlib.suppress(OSError):  # nobody reads ours any more; the job must not wait for that
                print(line, end="", file=sys.stderr, flush=True)

    def listen(self) -> None:
        """Tell when the stage that it was given is done, and at the end of the end."""
        assert self.process.stdout
        try:
            for line in self.process.stdout:
                if line.strip() == self.at:
                    self.news.put((self, True))
        finally:
            self.news.put((self, False))

    def give(self, name: str) -> None:
        self.at = name
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it ended; `listen` tells
            print(name, file=self.process.stdin, flush=True)

    def no_more(self) -> None:
        """There is nothing left to do; in the middle of a stage it would take this for the end of who started it."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def end(self) -> int:
        """Its exit code, once it has ended and said all."""
        code = self.process.wait()
        self.speaking.join()
        return code


News = queue.Queue[tuple[Job, bool]]  # that a job has made its stage or, if not, that it has ended


def execute(run: Run, where: str, wanted: Collection[str], command: Sequence[str], jobs: int) -> None:
    """Make the wanted stages that are not done, up to `jobs` of them at a time.

    Args:
      command: what starts a job: `rmo run` as it was called, whose run `where` this is.

    Raises:
      RunError: a stage needs another that is neither done nor wanted, or a job was killed.
      Preempted: the run was asked to stop; what is made is saved.
      SystemExit: a job ended on an error, which it said; with its exit code.
    """
    waiting = to_make(run, wanted)
    for name in waiting:
        need_upstream(run, name, waiting)
    news: News = queue.Queue()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    jobs = min(jobs, len(waiting))
    every = [Job(where, command, share, news) for share in (shares(cores, jobs) if cores else [[]] * jobs)]
    try:
        make_all(run, waiting, every, news)
        for job in every:
            job.no_more()
        for job in every:
            if job.end():
                fail(job, len(every))
    finally:
        for job in every:
            job.process.kill()
    if left_out := [name for name in waiting if not run.done(name)]:
        raise RunError(f"{', '.join(left_out)} was not made although nothing failed: the same command continues")


def to_make(run: Run, wanted: Collection[str]) -> list[str]:
    """The wanted stages that are not done, most urgent first; with them those that gather what they leave, since those
    are made again. What a kill left beside a stage that is done goes."""
    for name in wanted:
        if run.done(name):
            tidy(run, name)
    names = [name for name in order(run.stages) if name in wanted and not run.done(name)]
    return [name for name in order(run.stages) if name in names or (names and name in wanted and name in GATHERERS)]


def make_all(run: Run, names: Sequence[str], every: Sequence[Job], news: News) -> None:
    """Give stages to jobs that have none until all are done."""
    paths = {name: stage.path for name, stage in run.stages.items()}
    waiting, made = list(names), 0
    while waiting or any(job.at for job in every):
        for job in every:
            if not job.at and (name := ready(run, waiting, every)):
                waiting.remove(name)
                job.give(name)
        try:
            job, alive = news.get(timeout=POLL)
        except queue.Empty:
            job, alive = None, True
        if hosts.preempted():
            stop(every)
            raise hosts.Preempted
        if not alive and job:
            stop(every)
            fail(job, len(every))
        if job:
            job.at, made = "", made + 1
            say(f"{made} of {len(names)} stages done{left(look(run.root, paths), list(names), len(every))}")


def ready(run: Run, waiting: Sequence[str], every: Sequence[Job]) -> str:
    """The most urgent stage of which all that it needs is made; empty if none is."""
    unmade = {*waiting, *(job.at for job in every)}
    for name in waiting:
        if not any(before.name in unmade for before in run.stages[name].upstream):
            return name
    return ""


def fail(job: Job, jobs: int) -> NoReturn:
    """End as a job did that ended before its time; what went wrong it said itself, unless it was killed.

    Raises:
      RunError: it was killed.
      Preempted: it was asked to stop.
    """
    code = job.end()
    if code == hosts.PREEMPTED:
        raise hosts.Preempted
    if code < 0:
        killed = f"the process that made {job.at or 'nothing yet'} was killed by signal {-code}"
        raise RunError(f"{killed}: the same command continues; if memory ran out, with --jobs {max(jobs - 1, 1)}")
    hosts.leave(code or 1, f"{job.at} was not made: see above" if job.at else "a job failed: see above")
    raise AssertionError  # not reached


def stop(every: Sequence[Job]) -> None:
    """Have all jobs save and end."""
    for job in every:
        with contextlib.suppress(ProcessLookupError):
            job.process.send_signal(signal.SIGTERM)
    for job in every:
        job.end()


class Given:
    """Names of stages that come on stdin, in the process of a job. What else it prints on stdout goes to stderr."""

    def __init__(self) -> None:
        self.told = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.names: queue.Queue[str] = queue.Queue()
        self.busy = False
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        begun = b""
        while found := os.read(0, 4096):  # not sys.stdin, whose lock an interpreter that ends would wait for
            *lines, begun = (begun + found).split(b"\n")
            for line in lines:
                self.names.put(line.decode())
        if self.busy:  # whoever started this process is gone in the middle of a stage: what is written is whole
            os._exit(hosts.LOST)
        self.names.put("")

    def __iter__(self) -> Iterator[str]:
        """Until stdin is closed.

        Raises:
          Preempted: asked to stop between two stages.
        """
        while True:
            try:
                name = self.names.get(timeout=POLL)
            except queue.Empty:
                if hosts.preempted():
                    raise hosts.Preempted from None
                continue
            if not name:
                return
            self.busy = True
            yield name
            self.busy = False
            sys.stdout.flush()
            print(name, file=self.told, flush=True)
