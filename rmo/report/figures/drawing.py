"""What a run's files hold, loaded for drawing, and the registry of everything that the report draws."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from rmo.analysis import sweeps
from rmo.analysis.curve import Curve
from rmo.analysis.curve_id import Settings
from rmo.analysis.fitting import Group, group
from rmo.analysis.sweeps import Missing
from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.tables import Table
from rmo.claims.claim import sentences
from rmo.methods import method as methods
from rmo.methods.method import Method
from rmo.report.figures.style import LABELS, Figure, Overlay
from rmo.runtime.files import Row


@dataclass(frozen=True)
class Files:
    """What the files at the top of a run directory hold."""

    curves: list[Curve]
    summary: Row  # coefficients.json, by method
    reward_models: list[Row] = field(default_factory=list)
    paths: Table = field(default_factory=Table)
    diagnostics: dict[str, Table] = field(default_factory=dict)  # by method
    starts: dict[int | None, float] = field(default_factory=dict)  # each policy's own gold, the main one's being 0
    experiment: Row = field(default_factory=dict)
    split: Table = field(default_factory=Table)  # efficiency.csv: KL and gold by what makes them
    efficiency: Row = field(default_factory=dict)  # efficiency.json: gold beside the frontier at equal KL

    def health(self, method: str) -> Table:
        """A method's diagnostics; no rows where there are none."""
        return self.diagnostics.get(method, Table())

    def all(self, method: str) -> list[Group]:
        """Every group of a method."""
        if method not in self.grouped:
            self.grouped[method] = group(self.curves, method)
        return list(self.grouped[method])

    @cached_property
    def grouped(self) -> dict[str, list[Group]]:
        """What `all` has found so far."""
        return {}

    def methods(self) -> list[Method]:
        """Those that the run has curves of, against RMs of a sweep."""
        there = {curve.method for curve in self.curves if curve.id.against_rm}
        return [method for method in methods.every() if method.name in there]

    def groups(self, method: str, **wanted: object) -> list[Group]:
        """`sweeps.plain` of a method's groups."""
        return sweeps.plain(self.all(method), method, **wanted)

    def sizes(self, method: str) -> list[Group]:
        """The main sweep over RM sizes."""
        return sweeps.main_family(self.all(method), method)

    def gold(self, method: str) -> Group:
        """Gold as its own proxy."""
        return sweeps.gold_group(self.all(method), method)

    def both_policies(self, method: str, params: int) -> list[Group]:
        """Every policy against one RM size with the main number of comparisons, smallest policy first."""
        main = self.sizes(method)[0].id
        wanted = replace(main, rm_params=params, policy_params=None)
        found = [g for g in self.all(method) if replace(g.id, policy_params=None) == wanted]
        if len(found) < 2:
            raise Missing("one initial policy only")
        return sorted(found, key=lambda g: g.policy or 0)

    def two_policy_rms(self, method: str) -> list[int]:
        """RM sizes that more than one policy was optimised against."""
        main = self.sizes(method)[0]
        others = {g.params for g in self.all(method) if g.policy != main.policy}
        if not others:
            raise Missing("one initial policy only")
        return sorted(others)

    def data(self, method: str, params: int) -> list[Group]:
        """One RM size over numbers of comparisons."""
        return sweeps.by_comparisons(self.all(method), method, params, least=2)

    def data_rm(self, method: str) -> int:
        """The smallest RM size with the most numbers of comparisons."""
        return sweeps.most_swept(self.all(method), method)

    def plain_rms(self) -> list[Row]:
        """Reward models that were trained as in the paper."""
        return [row for row in self.reward_models if not row["rm_recipe"]]

    def loss(
        self, params: int, comparisons: int | None, column: str = "validation_loss", recipe: Settings | None = None
    ) -> list[float]:
        """A metric of the reward models of one size, one value per seed."""
        key = (params, comparisons, str(recipe or ""))
        rows = self.reward_models
        return [r[column] for r in rows if (r["rm_params"], r["rm_comparisons"], r["rm_recipe"]) == key]


def load(root: Path) -> Files:
    """Read a run directory's files."""
    files = RunFiles(root)
    fits = files.fits
    starts: dict[int | None, float] = {
        int(row["policy_params"]): float(np.mean(row["gold_per_prompt"])) for row in fits.read("policies")
    }
    return Files(
        curves=fits.curves(),
        summary=fits.read("coefficients"),
        reward_models=list(fits.table("reward_models")),
        paths=fits.table("paths"),
        diagnostics={method.name: fits.table(method.name) for method in methods.every()},
        starts=starts,
        experiment=files.experiment,
        split=fits.table("efficiency"),
        efficiency=fits.read("efficiency") if fits.has("efficiency") else {},
    )


@dataclass(frozen=True)
class Drawing:
    """A figure of the paper, or one of ours."""

    name: str
    title: str
    caption: str
    draw: Callable[[Files], Figure | Overlay]


_DRAWINGS: dict[str, Drawing] = {}


def drawings() -> list[Drawing]:
    """Every figure in the order of the files they stand in: those of this folder, then those registered elsewhere."""
    import rmo.report.figures as folder

    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"rmo.report.figures.{module.name}")
    return list(_DRAWINGS.values())


def drawing(draw: Callable[[Files], Figure | Overlay]) -> Callable[[Files], Figure | Overlay]:
    """Register a function as a figure under its own name: its docstring holds the title and, below it, the caption."""
    title, caption = sentences(draw)
    _DRAWINGS[draw.__name__] = Drawing(draw.__name__, title.rstrip("."), caption, draw)
    return draw


def simple(
    f: Files,
    groups: Sequence[Group],
    by: str,
    title: str,
    starts: dict[int | None, float] | None = None,
    mark_peak: bool = False,
) -> Overlay:
    """Gold and proxy against KL of groups that differ in one thing, `by` (a key of LABELS); `title` is the legend's."""
    return Overlay(groups, f.summary, LABELS[by], title, starts, mark_peak)
