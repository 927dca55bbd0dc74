"""The top of a run directory: copies of the fits' files, for people, and which stage is where."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rmo.analysis.curve import Curve
from rmo.artifacts import tables
from rmo.artifacts.curves_csv import COLUMNS, curves_of, to_rows
from rmo.artifacts.stages import Optimised, Stage
from rmo.artifacts.tables import Table
from rmo.config import Experiment, to_json
from rmo.methods import method as methods
from rmo.runtime.checksums import PUBLISHED, present, sealed
from rmo.runtime.files import Json, Row, RunError, read_json, unlink, write_csv, write_json, write_text

# Kinds of stages, in order; every method's come between.
BEFORE_METHODS = ("prompts", "sft", "gold", "samples", "comparisons", "trunks", "proxies", "scores")
GATHERERS = ("fits", "report")  # only gather what others made, and are made again with any of it
PLANNED = "planned.json"  # {stage: its path} of what the last `rmo run` was asked for


@dataclass(frozen=True)
class Fits:
    """The files of the `fits` stage; they stand at the top of a run directory too."""

    directory: Path

    def write_curves(self, curves: list[Curve]) -> None:
        write_csv(self.directory / "curves.csv", COLUMNS, [row for curve in curves for row in to_rows(curve)])

    def curves(self) -> list[Curve]:
        return curves_of(self.directory / "curves.csv")

    def write_table(self, name: str, columns: list[str], rows: list[Row]) -> None:
        write_csv(self.directory / f"{name}.csv", columns, rows)

    def table(self, name: str) -> Table:
        """The rows of a table; none where there is none."""
        path = self.directory / f"{name}.csv"
        return tables.read(path) if present(path) else Table()

    def tables(self) -> dict[str, Table]:
        return {path.stem: self.table(path.stem) for path in sorted(self.directory.glob("*.csv"))}

    def write(self, name: str, value: object) -> None:
        write_json(self.directory / f"{name}.json", value)

    def read(self, name: str) -> Json:
        """coefficients, claims, policies, nested or gold."""
        return read_json(self.directory / f"{name}.json")

    def has(self, name: str) -> bool:
        return present(self.directory / f"{name}.json")

    def files(self) -> list[Path]:
        """What is for people."""
        found = [*self.directory.glob("*.csv"), *self.directory.glob("*.json")]
        return [path for path in found if path.name not in ("cost.json", PLANNED, "stages.json", "experiment.json")]


def curves_at(path: Path) -> list[Curve]:
    """The curves of a run directory, of a directory of kept results, or of one table.

    Raises:
      RunError: there is none; says what to give.
    """
    if path.suffix == ".csv":
        return curves_of(path)
    if not present(path / "curves.csv"):
        what = "has no curves.csv (a run has one once its fits are done)" if path.exists() else "does not exist"
        raise RunError(f"{path} {what}: give a run directory, a directory of results or a table of curves")
    return Fits(path).curves()


@dataclass(frozen=True)
class RunFiles:
    """A run directory, looked at through its files alone."""

    root: Path

    @property
    def fits(self) -> Fits:
        return Fits(self.root)

    @property
    def finished(self) -> bool:
        """Whether it is the directory of a run whose fits are done."""
        return self.fits.has("coefficients") and present(self.root / "stages.json")

    def publish(self, experiment: Experiment, stages: list[Row]) -> None:
        unlink(self.root / PUBLISHED)  # what follows is not what it lists
        write_json(self.root / "experiment.json", to_json(experiment))
        write_json(self.root / "stages.json", stages)

    def seal(self, experiment: Experiment, names: list[str]) -> None:
        """Last of all: what the tables and JSON at the top are, so that one that is damaged is noticed."""
        text = sealed(self.root, experiment.name, {*names, "experiment.json", "stages.json"})
        write_text(self.root / PUBLISHED, text)

    @cached_property
    def experiment(self) -> Row:
        return read_json(self.root / "experiment.json")

    @cached_property
    def stages(self) -> list[Row]:
        """What was published last: {stage, path, state, seconds} of every stage instance."""
        return read_json(self.root / "stages.json")

    def known_stages(self) -> dict[str, str]:
        """{stage: its path} of what was asked for last, else published last; empty where neither is known."""
        if (self.root / PLANNED).exists():
            return read_json(self.root / PLANNED)
        if (self.root / "stages.json").exists():
            return {row["stage"]: row["path"] for row in self.stages}
        return {}

    @cached_property
    def where(self) -> dict[str, Path]:
        return {row["stage"]: self.root / row["path"] for row in self.stages}

    def stage(self, name: str) -> Stage:
        return Stage(self.where[name])

    def optimised(self) -> list[tuple[methods.Method, str, Optimised]]:
        """(method, stage, its files) of every method's stages."""
        out = []
        for method in methods.every():
            mine = [name for name in self.where if name.startswith(f"{method.name}/")]
            out += [(method, name, Optimised(self.where[name])) for name in mine]
        return out
