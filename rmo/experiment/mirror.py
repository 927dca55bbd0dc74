"""What a stage ended with, sent to wandb beside the logs that went there as they were written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rmo import config
from rmo.artifacts.curves_csv import COLUMNS, to_rows
from rmo.artifacts.measured import curves
from rmo.artifacts.run_files import Fits
from rmo.artifacts.stages import Optimised, Scores, Stage
from rmo.config.names import policy_name, size_names
from rmo.experiment.run import Run
from rmo.methods import method as methods
from rmo.runtime.files import Row, local
from rmo.tracking.wandb_mirror import Wandb, careful
from rmo.worlds.world import world_of


@careful()
def mirror(run: Run, name: str) -> None:
    """The summary, tables and pages of one stage."""
    if Wandb.run is None:
        return
    stage, kind = Stage(run.path(name)), name.split("/")[0]
    tables: Mapping[str, Sequence[Row]] = {}
    pages: dict[str, str] = {}
    if kind in methods.names():
        tables = mirror_curves(run, name)
    elif kind == "fits":
        tables = Fits(stage.directory).tables()
    elif kind == "report":
        out = stage.directory
        pages = {file.stem: file.read_text() for file in [*out.glob("*.html"), *(out / "figures").glob("*.svg")]}
        keep_files(run)
    Wandb.show(summary(stage), tables, pages)


def summary(stage: Stage) -> Row:
    """What is known of a stage in short; of members a list per column."""
    info = stage.info() if stage.has_info() else {}
    members = info.pop("members", None)
    if members:
        info |= {column: [row[column] for row in members] for column in members[0]}
    return info


def keep_files(run: Run) -> None:
    """The files of fits and report as an artifact."""
    found: dict[str, Path] = {}
    for top in (local(run.path("fits")), local(run.path("report"))):
        found |= {str(file.relative_to(top)): file for file in top.rglob("*.*") if file.name != "cost.json"}
    Wandb.keep(found)


def mirror_curves(run: Run, name: str) -> dict[str, list[Row]]:
    """Every member's curve as rows of a log, so that charts have a line per member; returns them as tables too."""
    optimised = Optimised(run.path(name))
    method = methods.find(name.split("/")[0])
    found = curves(method, optimised, Scores(run.path(optimised.scores)))
    logged = optimised.speed()
    step = logged[-1]["step"] if logged else -1  # the last row that was sent as the stage was made
    for i, curve in enumerate(found):
        points = zip(curve.step_or_n, curve.kl, curve.d, curve.gold, curve.proxy, strict=True)
        for at, kl, d, gold, proxy in points:
            step += 1
            row = {"step_or_n": float(at), "kl": float(kl), "sqrt_kl": float(d)}
            Wandb.log(step, {"curve": {**row, "gold": {i: float(gold)}, "proxy": {i: float(proxy)}}}, {})
    return {
        "curve": [{column: row.get(column) for column in COLUMNS} for curve in found for row in to_rows(curve)],
        "members": [{"i": i, **curve.id.cells()} for i, curve in enumerate(found)],
    }


def tags(e: config.Experiment) -> list[str]:
    """Of the run in wandb: the experiment's name and kind of world, shapes of policies and proxies, and its own."""
    return [e.name, world_of(e.world).name, *map(policy_name, e.policies), *size_names(e.proxies.sizes), *e.tags]
