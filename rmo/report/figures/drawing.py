"""What a run's files hold, loaded for drawing, and the registry of everything that the report draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rmo.analysis import sweeps
from rmo.analysis.curve import Curve, from_rows
from rmo.analysis.fitting import Group, group
from rmo.analysis.sweeps import Missing
from rmo.report.figures.style import Figure, Overlay, label_by
from rmo.runtime.files import read_csv, read_json


@dataclass(frozen=True)
class Files:
    """What the files at the top of a run directory hold."""

    curves: list[Curve]
    summary: dict[str, Any]  # coefficients.json
    reward_models: list[dict[str, Any]]
    paths: list[dict[str, Any]]
    ppo: list[dict[str, Any]]
    starts: dict[int | None, float]  # each policy's own gold, the main one's being 0
    experiment: dict[str, Any]

    def all(self, method: str) -> list[Group]:
        """Every group of a method."""
        return group(self.curves, method)

    def groups(self, method: str, **wanted: Any) -> list[Group]:
        """`selection.plain` of a method's groups."""
        return sweeps.plain(self.all(method), method, **wanted)

    def sizes(self, method: str) -> list[Group]:
        """The main sweep over RM sizes."""
        return sweeps.main_family(self.all(method), method)

    def both_policies(self, method: str, params: int) -> list[Group]:
        """Every policy against one RM size with the main number of comparisons, smallest policy first."""
        main = self.sizes(method)[0]
        found = [
            g for g in self.all(method)
            if (g.params, g.comparisons, g.kl_coef, g.variant) == (params, main.comparisons, main.kl_coef, "")
        ]  # fmt: skip
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

    def loss(
        self, params: int, comparisons: int | None, column: str = "validation_loss", variant: str = ""
    ) -> list[float]:
        """A metric of the reward models of one size, one value per seed."""
        key = (params, comparisons, variant)
        return [r[column] for r in self.reward_models if (r["rm_params"], r["rm_comparisons"], r["variant"]) == key]


def numbers(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Rows of a CSV with everything but `method` and `variant` as numbers."""
    text = ("method", "variant")
    return [{k: v if k in text else float(v) if v else np.nan for k, v in row.items()} for row in rows]


def load(root: Path) -> Files:
    """Read a run directory's files."""
    policies = read_json(root / "policies.json")
    gold: dict[int | None, float] = {
        int(row["policy_params"]): float(np.mean(row["gold_per_prompt"])) for row in policies
    }
    return Files(
        from_rows(read_csv(root / "curves.csv"), str(root / "curves.csv")), read_json(root / "coefficients.json"),
        numbers(read_csv(root / "reward_models.csv")), numbers(read_csv(root / "paths.csv")),
        numbers(read_csv(root / "ppo.csv")), gold, read_json(root / "experiment.json"),
    )  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """A figure of the paper, or one of ours."""

    name: str
    title: str
    caption: str
    draw: Callable[[Files], Figure | Overlay]


DRAWINGS: list[Drawing] = []


def drawing(draw: Callable[[Files], Any]) -> Callable[[Files], Any]:
    """Register a function as a figure under its own name: its docstring holds the title and, below it, the caption."""
    title, caption = (" ".join(part.split()) for part in (draw.__doc__ or "").split("\n\n"))
    DRAWINGS.append(Drawing(draw.__name__, title.rstrip("."), caption, draw))
    return draw


def simple(f: Files, groups: Sequence[Group], by: str, title: str, **options: Any) -> Overlay:
    """Gold and proxy against KL of groups that differ in one thing; the page's answers to a pointer."""
    return Overlay(groups, f.summary, label_by(by), title, **options)
