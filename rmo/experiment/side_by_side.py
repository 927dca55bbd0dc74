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

from rmo.experiment.run import Run, StageOf
from rmo.experiment.runner import need_upstream
from rmo.runtime import hosts
from rmo.runtime.files import RunError
from rmo.tracking.progress import say
from rmo.tracking.status import left, look

# In the environment of a job: its run, as `config.replicates` calls it. It is given stages on stdin, and says on stdout
# when one is done.
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
    """Cores of each job; of fewer cores than jobs each serves several."""
    every = sorted(cores)
    if len(every) < jobs:
        return [[every[i % len(every)]] for i in range(jobs)]
    return [every[i::jobs] for i in range(jobs)]


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
                command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1, start_new_session=True,
                env={**os.environ, **threads, JOB: where},
            )  # fmt: skip
        self.news, self.at = news, ""
        self.speaking = threading.Thread(target=self.pass_on, daemon=True)
        self.speaking.start()
        threading.Thread(target=self.listen, daemon=True).start()

    def pass_on(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            print(line, end="", file=sys.stderr, flush=True)

    def listen(self) -> None:
        """Tell of every stage that is done, and at the end of the end."""
        assert self.process.stdout
        for _ in self.process.stdout:
            self.news.put((self, True))
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
    waiting = [name for name in order(run.stages) if name in wanted and not run.done(name)]
    for name in waiting:
        need_upstream(run, name, waiting)
    news: News = queue.Queue()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    every = [Job(where, command, share, news) for share in (shares(cores, jobs) if cores else [[]] * jobs)]
    try:
        make_all(run, waiting, every, news)
        for job in every:
            job.no_more()
        for job in every:
            job.end()
    finally:
        for job in every:
            job.process.kill()


def make_all(run: Run, waiting: list[str], every: Sequence[Job], news: News) -> None:
    """Give stages to jobs that have none until all are done."""
    paths = {name: stage.path for name, stage in run.stages.items()}
    names = list(waiting)
    while waiting or any(job.at for job in every):
        for job in every:
            ready = (n for n in waiting if all(run.done(before.name) for before in run.stages[n].upstream))
            if not job.at and (name := next(ready, None)):
                waiting.remove(name)
                job.give(name)
        try:
            job, alive = news.get(timeout=POLL)
        except queue.Empty:
            if hosts.preempted():
                stop(every)
                raise hosts.Preempted from None
            continue
        if not alive:
            stop(every)
            raise why(job, len(every))
        job.at = ""
        done = sum(run.done(name) for name in names)
        say(f"{done} of {len(names)} stages done{left(look(run.root, paths), names, len(every))}")


def why(job: Job, jobs: int) -> BaseException:
    """What to raise where a job ended before its time; what went wrong it said itself, unless it was killed."""
    code = job.end()
    if code == hosts.PREEMPTED:
        return hosts.Preempted()
    if code >= 0:
        return SystemExit(code)
    killed = f"the process that made {job.at or 'stages'} was killed by signal {-code}"
    return RunError(f"{killed}: the same command continues; if memory ran out, with --jobs {max(jobs - 1, 1)}")


def stop(every: Sequence[Job]) -> None:
    """Have all jobs save and end."""
    for job in every:
        with contextlib.suppress(ProcessLookupError):
            job.process.send_signal(signal.SIGTERM)
    for job in every:
        job.end()


class Given:
    """Names of stages that come on stdin, in the process of a job."""

    def __init__(self) -> None:
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
            print("done", flush=True)
