"""Kill it, fill the disk, damage its files, feed it nonsense: the whole campaign in one command.

    launch/local.sh python -m tests.faults                              # every part; about an hour on two cores
    launch/local.sh python -m tests.faults --part kills --cases 100     # one part, so many cases of it
    launch/local.sh python -m tests.faults --seed 1 --jobs 2            # other cases; processes side by side

A part is a module beside this one with

    def campaign(cases: int, seed: int, where: Path) -> Iterator[Case]     # a working directory of its own

and perhaps CASES, how many are tried unless --cases says, and `summary(where, cases)`, lines about what was covered. It ends
with exit code 1 if anything was found.
"""

import argparse
import importlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.case import Case

HERE = Path(__file__).parent
SILENT = 900  # seconds without a case after which a process counts as hanging
SHOW = 15  # seconds between lines of progress


def parts() -> list[str]:
    """Modules of this folder that are parts of the campaign."""
    return sorted(path.stem for path in HERE.glob("*.py") if "\ndef campaign(" in path.read_text())


def size(part: str, cases: int) -> int:
    return cases or getattr(importlib.import_module(f"tests.faults.{part}"), "CASES", 500)


@dataclass
class Share:
    """What one process tries of a part."""

    part: str
    cases: int
    seed: int
    where: Path
    core: int | None = None
    heard: float = field(default_factory=time.monotonic)

    def start(self, said: "queue.Queue[tuple[Share, Case | None]]") -> None:
        self.where.mkdir(parents=True)
        command = [sys.executable, "-m", "tests.faults", "--worker", self.part, str(self.cases), str(self.seed)]
        env = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(self.where.parent / "compiled"), **os.environ}
        self.log = open(self.where / "stderr", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*command, str(self.where)],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=env,
            cwd=HERE.parents[1],
        )
        if self.core is not None:
            os.sched_setaffinity(self.process.pid, {self.core})
        threading.Thread(target=self.listen, args=(said,), daemon=True).start()

    def listen(self, said: "queue.Queue[tuple[Share, Case | None]]") -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith('["'):
                self.heard = time.monotonic()
                said.put((self, Case(*json.loads(line))))
        self.process.wait()
        said.put((self, None))

    def ended_badly(self) -> str:
        """Why its process ended before all was tried; empty if it did not."""
        if not self.process.returncode:
            return ""
        self.log.flush()
        last = (self.where / "stderr").read_text(errors="replace").strip().splitlines()[-1:]
        return f"the process that tries it ended by {self.process.returncode}: {' '.join(last)}"


def run(part: str, cases: int, seed: int, jobs: int, where: Path) -> Iterator[Case]:
    """Every case of a part, by several processes side by side, each on a core of its own."""
    cores, said = sorted(os.sched_getaffinity(0)), queue.Queue()
    jobs = min(jobs, cases)
    shares = []
    for job in range(jobs):
        mine = cases // jobs + (job < cases % jobs)
        core = cores[job % len(cores)] if jobs > 1 else None
        shares.append(Share(part, mine, seed * jobs + job, where / f"{part}-{job}", core))
        shares[-1].start(said)
    running = set(range(jobs))
    while running:
        try:
            share, case = said.get(timeout=SHOW)
        except queue.Empty:
            for number in list(running):
                if time.monotonic() - shares[number].heard > SILENT:
                    shares[number].process.kill()
                    yield Case(f"{part}, seed {shares[number].seed}", f"no case in {SILENT} s: it hangs")
            continue
        if case is not None:
            yield case
            continue
        running.discard(shares.index(share))
        if problem := share.ended_badly():
            yield Case(f"{part}, seed {share.seed}", problem)


def worker(part: str, cases: str, seed: str, where: str) -> None:
    """The process of a share: a case per line on stdout, which nothing else writes to."""
    mine = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for case in importlib.import_module(f"tests.faults.{part}").campaign(int(cases), int(seed), Path(where)):
        print(json.dumps(list(case)), file=mine, flush=True)
    os._exit(0)  # threads that a played kill left behind wait for what never comes


def shown(part: str, done: list[Case], cases: int, started: float, first: float) -> str:
    """Progress; what is left is told from the time since the first case, before which a part prepares."""
    now, bad = time.monotonic(), sum(bool(case.problem) for case in done)
    left = (now - first) / max(len(done) - 1, 1) * max(cases - len(done), 0)
    return (
        f"{part}: {len(done)} of {cases} tried, {bad} found, {(now - started) / 60:.1f} min, about {left / 60:.0f} left"
    )


def whole_part(part: str, cases: int, seed: int, jobs: int, where: Path) -> list[Case]:
    """Try a part, with progress and what it found as it comes."""
    started = shown_at = first = time.monotonic()
    done: list[Case] = []
    for case in run(part, cases, seed, jobs, where):
        done.append(case)
        first = time.monotonic() if len(done) == 1 else first
        if case.problem:
            print(f"FOUND {part}: {case.what}\n      {case.problem}", flush=True)
        if time.monotonic() - shown_at > SHOW:
            print(shown(part, done, cases, started, first), file=sys.stderr, flush=True)
            shown_at = time.monotonic()
    minutes = (time.monotonic() - started) / 60
    bad = sum(bool(case.problem) for case in done)
    print(f"{part}: {len(done)} tried, {len({c.what for c in done})} different, {bad} found, {minutes:.1f} minutes")
    module = importlib.import_module(f"tests.faults.{part}")
    for line in module.summary(where, done) if hasattr(module, "summary") else ():
        print(f"  {line}")
    sys.stdout.flush()
    return done


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=parts(), help="only this part; may be given again")
    parser.add_argument("--cases", type=int, default=0, help="of every part; each has a number of its own without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes side by side")
    parser.add_argument("--out", type=Path, help="where every case goes, as JSON")
    options = parser.parse_args()
    where = Path(tempfile.mkdtemp(prefix="rmo-faults-"))
    done: dict[str, list[Case]] = {}
    try:
        for part in options.part or parts():
            done[part] = whole_part(part, size(part, options.cases), options.seed, options.jobs, where)
    finally:
        shutil.rmtree(where, ignore_errors=True)
    if options.out:
        options.out.write_text(json.dumps(done, indent=1) + "\n")
    found = sum(bool(case.problem) for cases in done.values() for case in cases)
    print(f"{sum(map(len, done.values()))} cases, {found} found")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
