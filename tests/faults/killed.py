"""Processes that die in the middle of a stage: one that has everything imported is copied for each.

A line `runs, stage, operation, seconds` on stdin makes a copy that makes the stage until that operation, and so many
seconds more; the signal that it ended by is a line on stdout.
"""

import importlib
import os
import signal
import sys
import threading
from pathlib import Path

from tests.faults import one_stage
from tests.faults.disk import KILL, Disk


class Doomed(Disk):
    """Kills its process so many seconds after the operation."""

    def __init__(self, root: Path, at: int, delay: float):
        super().__init__(root, at, "" if delay else KILL, really=True)
        self.delay = delay

    def step(self, kind: str, path: str) -> bool:
        half = super().step(kind, path)
        if self.delay and len(self.seen) == self.at + 1:
            threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return half


def main() -> None:
    one_stage.prepare(Path())
    for module in ("orbax.checkpoint", "rmo.cli.main", "rmo.experiment.runner", "rmo.report.run_report"):
        importlib.import_module(module)
    for line in sys.stdin:
        runs, stage, number, delay = line.rstrip("\n").split("\t")
        if child := os.fork():
            status = os.waitpid(child, 0)[1]
            print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
            continue
        with one_stage.often():
            one_stage.command(runs, f"--only=={stage}", disk=Doomed(Path(runs), int(number), float(delay)))
        os._exit(0)


if __name__ == "__main__":
    main()
