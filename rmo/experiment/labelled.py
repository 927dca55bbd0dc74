"""No reward model: the run's own comparisons as what a method learns from, and their one `scores` stage per sweep.

Its rows are the comparisons that the RMs of a sweep are trained on, recipe by recipe and seed by seed, so that a policy
trained on a row's labels and the RM of that recipe and seed have seen the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from rmo.analysis.curve_id import NO_RM, Settings
from rmo.artifacts.stages import Comparisons
from rmo.config import Proxies, Recipe, Sweep
from rmo.config.checks import STOPPING
from rmo.config.names import comparisons_name
from rmo.experiment.pool import OnMainPool, pool_of
from rmo.experiment.run import Run
from rmo.methods import bench
from rmo.methods.bench import Pool, RewardRow
from rmo.rewards.reward import Reward, RewardParams
from rmo.runtime.files import RunError
from rmo.worlds import comparisons as data


class Labels(NamedTuple):
    """What one recipe and seed have of the training comparisons."""

    used: np.ndarray  # i64[recipe.comparisons], rows of the training comparisons
    sides: np.ndarray  # i64[C, 2], where the preferred and the other response are; flipped labels are noise


def usable(p: Proxies, recipe: Recipe, count: int) -> int:
    """How many of `count` training comparisons a recipe may train on: those that it watches come after them."""
    return count - (STOPPING if p.stops_early(recipe) else 0)


def labels_of(run: Run, prompt_C: np.ndarray, recipe: Recipe, seed: int) -> Labels:
    """Of the training comparisons to these prompts: a seed draws its own, and its own label noise. Where RMs choose
    comparisons, those that are drawn before."""
    end = usable(run.experiment.proxies, recipe, len(prompt_C))
    asked = recipe.first_half if recipe.choice else recipe
    used = data.chosen_rows(prompt_C[:end], asked, run.rng(f"comparisons of seed {seed}"))
    flipped = run.rng(f"flipped labels {seed}").random(len(prompt_C)) < recipe.flip
    return Labels(used, np.where(flipped[:, None], [[1, 0]], [[0, 1]]))


def chosen(recipe: Recipe) -> bool:
    """Whether its comparisons are not drawn by chance."""
    return bool(recipe.choice or recipe.confounded)


def labels_alone(recipe: Recipe) -> Recipe:
    """A recipe without what is about training an RM and not about its labels."""
    return Recipe(recipe.comparisons, prompts=recipe.prompts, flip=recipe.flip)


def rows_of(p: Proxies, sweep: Sweep) -> list[RewardRow]:
    """Row r * seeds + s, as the proxies of the sweep."""
    return [
        RewardRow(
            name=str(r * p.seeds + seed),
            comparisons=recipe.comparisons,
            recipe=Settings.differing(labels_alone(recipe), Recipe(recipe.comparisons)),
            recipe_index=r,
            seed=seed,
            combined=NO_RM,
        )
        for r, recipe in enumerate(sweep.recipes)
        for seed in range(p.seeds)
    ]


@dataclass(frozen=True)
class Labelled(OnMainPool):
    """`scores/comparisons-main`: there is no reward to score by, only gold's start of the main policy's pool."""

    sweep: Sweep

    @property
    def name(self) -> str:
        """Of the stage."""
        return f"scores/{comparisons_name(self.sweep)}"

    def pool(self) -> Pool:
        """The pool with gold's scores; no reward has any."""
        return pool_of(self.run, self.samples, [])

    def reward(self, chosen: Sequence[int]) -> tuple[Reward, RewardParams]:
        raise RunError(f"{self.name} holds no reward model: a method that needs one names another stage in its jobs")

    def write_rows(self) -> None:
        nothing, policy = {"total": 0, "non_embedding": 0}, self.run.policy_info().params
        rows = rows_of(self.run.experiment.proxies, self.sweep)
        self.files.write("samples", self.sweep.name, nothing, policy, rows)


def comparisons_of(run: Run, sweep: Sweep, rows: Mapping[int, RewardRow]) -> bench.Comparisons:
    """The run's comparisons with the labels of these rows.

    Raises:
      RunError: a row is of several seeds or of gold, or its comparisons are not drawn by chance.
    """
    if any(
        row.seed is None or row.comparisons is None or chosen(sweep.recipes[row.recipe_index]) for row in rows.values()
    ):
        raise RunError(
            "labels are those of one recipe and seed, drawn by chance: of gold, of combined rewards and where RMs "
            "choose the comparisons, or a mark does, there are none"
        )
    dataset, calibration = Comparisons(run.path("comparisons")).dataset, run.gold_calibration()
    train, held = (data.read_comparisons(dataset, split) for split in ("train", "validation"))
    labels = {
        i: labels_of(run, train.prompt, sweep.recipes[row.recipe_index], row.seed or 0) for i, row in rows.items()
    }
    return bench.Comparisons(
        train=bench.Pairs(train.tokens, train.mask, calibration(train.gold)),
        held_out=bench.Pairs(held.tokens, held.mask, calibration(held.gold)),
        used={i: found.used for i, found in labels.items()},
        sides={i: found.sides for i, found in labels.items()},
    )


def slice_of_labels(p: Proxies, sweep: Sweep) -> tuple:
    """What the stage of a sweep's labels depends on, beside the comparisons themselves."""
    recipes = tuple(replace(labels_alone(r), stop_early=p.stops_early(r)) for r in sweep.recipes)
    return recipes, p.seeds
