"""report.html and figures, from the run directory's files alone; and what people open, at the top of it."""

from pathlib import Path

from rmo.artifacts.run_files import Fits, RunFiles
from rmo.experiment.run import Run
from rmo.report import run_report
from rmo.runtime import hosts
from rmo.runtime.checksums import all_present, content
from rmo.runtime.files import Row, naming, need_inside, write_bytes
from rmo.tracking.status import look


def report(run: Run, out: Path) -> None:
    """The page and its pictures."""
    publish(run)
    if hosts.writer():
        run_report.write(run.root, out)


def status(run: Run) -> list[Row]:
    """Every stage instance: its name, state (rmo/tracking/status.py), the seconds that it cost, its directory."""
    found = look(run.root, {name: stage.path for name, stage in run.stages.items()})
    for row in found:
        if row["state"] != "done":
            row["seconds"] = None
    return [{name: row[name] for name in ("stage", "state", "seconds", "path")} for row in found]


def publish(run: Run) -> None:
    """Write what people open to the top of the run directory, all of it of one experiment: copies of the fits' files
    and the report, and which stage is where. Nothing is touched before this experiment's fits are done."""
    if not (hosts.writer() and run.done("fits")):
        return
    need_inside(run.root, run.root / "figures")
    RunFiles(run.root).publish(run.experiment, status(run))
    tables = sources = Fits(run.path("fits")).files()
    if run.done("report"):
        made = run.path("report")
        sources = [*tables, made / "report.html", made / "results.md", *(made / "figures").glob("*.svg")]
    for directory in {source.parent for source in sources if source.suffix != ".svg"}:
        all_present(directory)
    for source in sources:
        target = run.root / ("figures" if source.suffix == ".svg" else "") / source.name
        with naming(target):
            text = content(source)
            if not target.is_file() or target.read_bytes() != text:
                write_bytes(target, text)
    RunFiles(run.root).seal(run.experiment, [path.name for path in tables])
