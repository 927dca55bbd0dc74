"""`scores/ensemble-...`: an ensemble over RM sizes, the one reward of its stage, from what each size scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rmo.claims.ensemble_table import Cost
from rmo.config import Ensemble, Experiment, Recipe
from rmo.config.checks import STOPPING, held_out_prompts
from rmo.config.names import ensemble_name, scored, sizes_of_ensemble, sweep_named
from rmo.experiment.pool import OnMainPool, Scored, pool_of, repeated, spread_of, stacked
from rmo.experiment.run import Run
from rmo.methods.bench import Pool, RewardRow
from rmo.rewards import combination
from rmo.rewards.calibration import Calibration
from rmo.rewards.reward import Reward, RewardParams, combine_tables
from rmo.rewards.several import Several
from rmo.training.update import pick


@dataclass(frozen=True)
class EnsembleScored(OnMainPool):
    """RMs of several sizes as one reward, on the main policy's pool. No RM is run for it: their scores are there."""

    which: Ensemble

    @property
    def name(self) -> str:
        """Of the stage."""
        return f"scores/{ensemble_name(self.which)}"

    @cached_property
    def parts(self) -> list[Scored]:
        """The stage of every size."""
        e = self.run.experiment
        sweep = sweep_named(e, self.which.sweep)
        return [Scored(self.run, size, sweep) for size in sizes_of_ensemble(e, self.which)]

    @property
    def members(self) -> int:
        return sum(len(part.parts_of(self.which)) for part in self.parts)

    def calibrations(self) -> list[list[Calibration]]:
        """Of every RM, size by size."""
        found = [part.files.calibrations() for part in self.parts]
        return [
            [f[i].calibration for i in part.parts_of(self.which)] for f, part in zip(found, self.parts, strict=True)
        ]

    def tables(self) -> list[np.ndarray]:
        """Calibrated scores of the pool, f64[Q, N], by every RM."""
        out = []
        for part, calibrations in zip(self.parts, self.calibrations(), strict=True):
            raw = part.raw_tables()
            out += [c(raw[i]) for c, i in zip(calibrations, part.parts_of(self.which), strict=True)]
        return out

    def on_validation(self) -> list[np.ndarray]:
        """Calibrated scores of the held-out comparisons, f64[C, 2], by every RM."""
        out = []
        for part, calibrations in zip(self.parts, self.calibrations(), strict=True):
            scores_MC2, places = part.proxies.validation().scores, part.places(part.parts_of(self.which))
            out += [c(scores_MC2[m].astype(np.float64)) for c, m in zip(calibrations, places, strict=True)]
        return out

    def combined(self, tables: Sequence[np.ndarray]) -> np.ndarray:
        """One table of those of all RMs, in its own unit."""
        return combine_tables(self.which.how, np.stack(tables), self.which.coefficient)

    def pool(self) -> Pool:
        """The pool, with the ensemble's scores and how far its RMs are apart."""
        tables = self.tables()
        proxy_QN = self.files.calibrations()[0].calibration(self.combined(tables))
        return pool_of(self.run, self.samples, [proxy_QN])._replace(spread_MQN=[spread_of(tables)])

    def reward(self, chosen: Sequence[int]) -> tuple[Reward, RewardParams]:
        """The ensemble, as often as it is chosen."""
        rms = [self.run.rm(part.shape) for part in self.parts]
        readers = [self.run.reader(part.proxies_stage, part.shape) for part in self.parts]
        params = [pick(part.all_params(master=True), part.places(part.parts_of(self.which))) for part in self.parts]
        each = [stacked(calibrations) for calibrations in self.calibrations()]
        outer = stacked([self.files.calibrations()[0].calibration] * len(chosen))
        reward = Several.of(rms, readers, self.which.how, self.which.coefficient)
        return reward, RewardParams(repeated(tuple(params), len(chosen)), outer, repeated(tuple(each), len(chosen)))

    def row(self) -> RewardRow:
        """What is known of it."""
        c, first = self.which, self.parts[0]
        one = first.singles[first.parts_of(c)[0]][1]
        label = f"{c.name}: {c.how} of {self.members} in {len(self.parts)} sizes"
        return RewardRow(c.name, one.comparisons, one.recipe, c.recipe, None, label)

    def write_rows(self) -> None:
        """Its size is that of its largest RM, against which it is to be compared."""
        largest = max((part.proxies.params() for part in self.parts), key=lambda params: params["non_embedding"])
        self.files.write("samples", "", largest, self.run.policy_info().params, [self.row()])


def costs(run: Run) -> dict[tuple, Cost]:
    """What every combined reward of a run costs, by what identifies it (`rm_of`)."""
    e, out = run.experiment, {}
    for size, sweep, policy in scored(e):
        found = Scored(run, size, sweep, policy)
        rows = found.rows()[len(found.singles) :]
        for c, row in zip(found.combined, rows, strict=True):
            params = found.proxies.params()["non_embedding"]
            many = len(found.parts_of(c))
            runs = params if combination.find(c.how).scores is None else many * params
            cost = Cost(labels(run.experiment, sweep.recipes[c.recipe], many), many * params, runs)
            out[params, row.comparisons, row.recipe, row.combined] = cost
    for c in e.ensembles:
        found = EnsembleScored(run, c)
        row, sizes = found.row(), [part.proxies.params()["non_embedding"] for part in found.parts]
        seeds = found.members // len(sizes)
        of_all, recipe = seeds * sum(sizes), sweep_named(e, c.sweep).recipes[c.recipe]
        out[max(sizes), row.comparisons, row.recipe, row.combined] = Cost(labels(e, recipe, seeds), of_all, of_all)
    return out


def labels(e: Experiment, recipe: Recipe, seeds: int) -> int:
    """Labels that RMs of so many seeds are trained on, and watched by. Every seed draws its comparisons from one stock,
    so some serve several (as many as is expected of independent draws); noisy labels are each seed's own. RMs of
    several sizes share those of a seed."""
    watched = STOPPING if e.proxies.stops_early(recipe) else 0
    stock = (e.comparisons.prompts - held_out_prompts(e)) * e.comparisons.pairs - watched
    if recipe.flip:
        return seeds * recipe.comparisons + watched
    return round(stock * (1 - (1 - recipe.comparisons / stock) ** seeds)) + watched
