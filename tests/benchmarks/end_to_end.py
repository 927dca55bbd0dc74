"""A whole experiment by stage: where its time goes, compiling for the first time and with a warm cache of programs."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.race import ROOT

CONFIGS = ("smoke", "tiny")


def run(name: str, runs: Path) -> tuple[float, list[dict[str, Any]]]:
    """(seconds from start to end, what each kind of stage cost)."""
    from rmo.report.page.costs import costs
    from rmo.runtime.files import read_json

    code = "from rmo.cli.main import main; main()"
    command = [sys.executable, "-c", code, "run", f"configs/{name}.py", "--runs", str(runs)]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    stages = read_json(runs / name / "stages.json")
    return seconds, costs(stages, {row["stage"]: runs / name / row["path"] for row in stages})


def table(seconds: float, kinds: list[dict[str, Any]]) -> str:
    """Seconds of every kind of stage, and shares of the whole: compiling, and what the logs tell apart."""
    lines = ["| stage | seconds | compiling | of its time |", "|---|---|---|---|"]
    for kind in kinds:
        spent = sorted(kind["spent"].items(), key=lambda item: -item[1])
        parts = ", ".join(f"{what} {value / kind['logged']:.0%}" for what, value in spent if value > 0.005)
        lines.append(f"| {kind['stage']} | {kind['seconds']:.1f} | {kind['compile']:.1f} | {parts or '–'} |")
    staged, compiling = (sum(kind[what] for kind in kinds) for what in ("seconds", "compile"))
    lines.append(f"| all | {staged:.1f}; {seconds:.1f} with starting | {compiling:.1f} ({compiling / seconds:.0%}) | |")
    return "\n".join(lines)


def rows(only: str, top: Path) -> Iterator[dict[str, Any]]:
    """Every config twice; the second time its programs are in the cache."""
    for name in (n for n in CONFIGS if only in n):
        for cache in ("cold", "warm"):
            seconds, kinds = run(name, top)
            print(f"\n{name}, {cache} cache\n\n{table(seconds, kinds)}", flush=True)
            yield {"benchmark": "end_to_end", "case": f"{name}, {cache} cache", "seconds": seconds, "stages": kinds}
            shutil.rmtree(top / name)
