"""The rewards of one `scores` stage: which there are, their parameters, and their scores of the pool.

Single RMs come first, then those that the sweep combines of them. Combined by scores, several RMs are run and their
calibrated scores become one; combined by parameters, they become one RM that is run and calibrated like any other.
Gold as its own proxy is the one reward of a stage of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rmo.analysis.curve_id import GOLD, Settings
from rmo.artifacts.stages import Proxies, ProxyRow, Samples, Scores, Stage
from rmo.config import Combined, Ensemble, Model, Sweep
from rmo.config.names import GOLD_SCORES, of_policy, proxies_name, scores_name
from rmo.experiment import annotator
from rmo.experiment.run import Run
from rmo.methods.bench import Pool, RewardRow
from rmo.methods.wording import PoolTexts
from rmo.models.transformer import Params
from rmo.rewards import combination
from rmo.rewards.calibration import Calibration
from rmo.rewards.reward import Reward, RewardParams, combine_tables
from rmo.training.update import pick


class Rewarding(Protocol):
    """What methods need of a `scores` stage, whatever its rewards are made of."""

    @property
    def name(self) -> str:
        """Of the stage."""
        ...

    @property
    def files(self) -> Scores: ...

    def pool(self) -> Pool:
        """The pool with every reward's scores."""
        ...

    def reward(self, chosen: Sequence[int]) -> tuple[Reward, RewardParams]:
        """The rewards at these places, for optimisers: with a leading axis of as many."""
        ...


@dataclass(frozen=True)
class Scored:
    """One `scores` stage: an RM size of a sweep, on one policy's pool."""

    run: Run
    size: int
    sweep: Sweep
    policy: int = 0

    @property
    def shape(self) -> Model:
        return self.run.experiment.proxies.sizes[self.size]

    @property
    def name(self) -> str:
        """Of the stage."""
        return f"scores/{scores_name(self.run.experiment, self.size, self.sweep, self.policy)}"

    @property
    def proxies_stage(self) -> str:
        return f"proxies/{proxies_name(self.run.experiment, self.size, self.sweep)}"

    @property
    def files(self) -> Scores:
        return Scores(self.run.path(self.name))

    @cached_property
    def proxies(self) -> Proxies:
        return Proxies(self.run.path(self.proxies_stage))

    @cached_property
    def samples(self) -> Samples:
        return Samples(self.run.path(of_policy("samples", self.policy, self.run.experiment)))

    @cached_property
    def singles(self) -> list[tuple[int, ProxyRow]]:
        """(its place among the proxies, what is known of it) of every single RM; other policies: the main recipe's."""
        rows = enumerate(self.proxies.rows())
        return [(m, row) for m, row in rows if not self.policy or row.recipe_index == 0]

    @property
    def combined(self) -> tuple[Combined, ...]:
        return () if self.policy else self.sweep.combined

    def parts_of(self, c: Combined | Ensemble) -> list[int]:
        """Places among the single RMs of those that are combined."""
        of_recipe = [i for i, (_, row) in enumerate(self.singles) if row.recipe_index == c.recipe]
        return [i for i in of_recipe if not c.seeds or self.singles[i][1].seed in c.seeds]

    def rows(self) -> list[RewardRow]:
        """What is known of every reward."""
        out = [RewardRow(str(m), row.comparisons, row.recipe, row.recipe_index, row.seed) for m, row in self.singles]
        for c in self.combined:
            parts = self.parts_of(c)
            one = self.singles[parts[0]][1]
            label = f"{c.name}: {c.how} of {len(parts)}"  # names are distinct within a sweep
            out.append(RewardRow(c.name, one.comparisons, one.recipe, c.recipe, None, label))
        return out

    # Parameters.

    def all_params(self, master: bool = False) -> Params:
        """Of every proxy of the stage, a leading axis of members."""
        rm, members = self.run.rm(self.shape), len(self.proxies.rows())
        return self.run.load(self.proxies_stage, rm, members, master)

    def averaged(self) -> list[Combined]:
        """Those that are combined by their parameters: RMs of their own."""
        return [c for c in self.combined if combination.find(c.how).params is not None]

    def average(self, params: Params, c: Combined) -> Params:
        """The one RM that several make, from the parameters of every proxy of the stage."""
        of_params = combination.find(c.how).params
        assert of_params is not None
        return of_params(pick(params, self.places(self.parts_of(c))))

    def places(self, singles: Sequence[int]) -> np.ndarray:
        """Places among the proxies of some single RMs."""
        return np.array([self.singles[i][0] for i in singles])

    def run_params(self) -> Params:
        """Of every RM that is run: the single ones, then averages."""
        parts = [pick(self.all_params(), self.places(range(len(self.singles))))]
        master = self.all_params(master=True) if self.averaged() else None
        for c in self.averaged():
            one = self.average(master, c)  # as `reward` does: rounded once, to the type that it computes in
            parts.append(jax.tree.map(lambda x, like: x[None].astype(like.dtype), one, parts[0]))
        return parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

    # Scores.

    def calibrated(self, raw_M: Sequence[np.ndarray], calibrations: Sequence[Calibration]) -> Iterator[np.ndarray]:
        """Calibrated scores f[...] of the first rewards, as many as calibrations are given, from the raw ones of those
        RMs that were run. Combined rewards stand after those that they are made of."""
        out: list[np.ndarray] = []
        raw = iter(raw_M[len(self.singles) :])
        for i, calibration in enumerate(calibrations):
            out.append(calibration(self.uncalibrated(i, raw_M, out, raw)))
            yield out[-1]

    def uncalibrated(
        self, i: int, raw_M: Sequence[np.ndarray], before: Sequence[np.ndarray], averages: Iterator[np.ndarray]
    ) -> np.ndarray:
        """What reward i's own calibration is applied to."""
        if i < len(self.singles):
            return raw_M[i]
        c = self.combined[i - len(self.singles)]
        if combination.find(c.how).scores is None:
            return next(averages)
        return combine_tables(c.how, np.stack([before[part] for part in self.parts_of(c)]), c.coefficient)

    def raw_tables(self) -> list[np.ndarray]:
        """f64[Q, N] of every RM that was run."""
        prompts = range(self.run.experiment.bon.prompts)
        tables = [self.files.raw(q) for q in prompts]
        return [np.stack([table[m] for table in tables]).astype(np.float64) for m in range(len(tables[0]))]

    def gold_table(self) -> np.ndarray:
        """f64[Q, N], calibrated."""
        return gold_table(self.run, self.samples)

    def pool(self) -> Pool:
        """The pool with every reward's scores."""
        calibrations = [found.calibration for found in self.files.calibrations()]
        tables = list(self.calibrated(self.raw_tables(), calibrations))
        spreads = [spread_of([tables[part] for part in self.parts_of(c)]) for c in self.combined]
        found = pool_of(self.run, self.samples, tables)
        return found._replace(spread_MQN=[*(None for _ in self.singles), *spreads]) if spreads else found

    # Rewards for optimisers.

    def reward(self, chosen: Sequence[int]) -> tuple[Reward, RewardParams]:
        """The rewards at these places, with a leading axis of as many: single RMs, or one combined one."""
        rm, reader = self.run.rm(self.shape), self.run.reader(self.proxies_stage, self.shape)
        every, found = self.all_params(master=True), self.files.calibrations()
        outer = stacked([found[i].calibration for i in chosen])
        combined = [i >= len(self.singles) for i in chosen]
        if any(combined) and not all(combined):
            raise ValueError(f"rewards {list(chosen)}: single and combined ones are no members of one program")
        if not any(combined):
            return Reward(rm, reader), RewardParams(pick(every, self.places(chosen)), outer)
        kinds = {self.combined[i - len(self.singles)] for i in chosen}
        if len(kinds) != 1:
            raise ValueError(f"rewards {list(chosen)}: a program serves one combination")
        c = kinds.pop()
        if combination.find(c.how).scores is None:
            return Reward(rm, reader), RewardParams(repeated(self.average(every, c), len(chosen)), outer)
        parts = self.parts_of(c)
        each = stacked([found[i].calibration for i in parts])
        params = repeated(pick(every, self.places(parts)), len(chosen))
        return Reward(rm, reader, c.how, c.coefficient), RewardParams(params, outer, repeated(each, len(chosen)))

    def write_rows(self) -> None:
        policy = self.run.policy_info(self.policy).params
        samples = of_policy("samples", self.policy, self.run.experiment)
        self.files.write(samples, self.sweep.name, self.proxies.params(), policy, self.rows())


@dataclass(frozen=True)
class OnMainPool:
    """A `scores` stage about the main policy's pool, which gold has scored; the rest is for its kinds to say."""

    run: Run

    @property
    def name(self) -> str:
        """Of the stage."""
        raise NotImplementedError

    @property
    def files(self) -> Scores:
        return Scores(self.run.path(self.name))

    @cached_property
    def samples(self) -> Samples:
        return Samples(self.run.path("samples"))

    def gold_table(self) -> np.ndarray:
        """f64[Q, N], calibrated."""
        return gold_table(self.run, self.samples)


@dataclass(frozen=True)
class GoldScored(OnMainPool):
    """`scores/gold`: gold as its own proxy, the one reward of its stage, on the main policy's pool that it has scored.

    Its calibration is gold's own, so that proxy and gold are one score."""

    @property
    def name(self) -> str:
        """Of the stage."""
        return f"scores/{GOLD_SCORES}"

    def pool(self) -> Pool:
        """The pool, in which gold is proxy too."""
        return pool_of(self.run, self.samples, [self.gold_table()])

    def reward(self, chosen: Sequence[int]) -> tuple[Reward, RewardParams]:
        """Gold, as often as it is chosen; in the type that it judges in, so that both read the same score."""
        rm, reader = self.run.gold_rm(), self.run.reader("gold", self.run.experiment.gold.model)
        params = repeated(self.run.load("gold", rm), len(chosen))
        return Reward(rm, reader), RewardParams(params, stacked([self.run.gold_calibration()] * len(chosen)))

    def write_rows(self) -> None:
        gold, policy = Stage(self.run.path("gold")).info()["params"], self.run.policy_info().params
        self.files.write("samples", "", gold, policy, [RewardRow(GOLD, None, Settings(), 0, 0, GOLD)])


def gold_table(run: Run, samples: Samples) -> np.ndarray:
    """Gold's scores of a pool, f64[Q, N], calibrated."""
    raw = np.stack([samples.draws(q).gold for q in range(run.experiment.bon.prompts)])
    return run.gold_calibration()(raw.astype(np.float64))


def pool_of(run: Run, samples: Samples, proxy_MQN: list[np.ndarray]) -> Pool:
    """A pool of draws with some rewards' scores."""
    prompts = range(run.experiment.bon.prompts)
    logps = np.stack([samples.draws(q).logps for q in prompts])
    judged = annotator.pool(run, samples) if run.world.has_annotator else None

    def texts(q: int) -> tuple[np.ndarray, np.ndarray]:
        return samples.draws(q).tokens, samples.draws(q).mask

    pool_texts = PoolTexts(texts, len(prompts), run.world.eos, run.world.vocab)
    return Pool(proxy_MQN, gold_table(run, samples), logps, run.gold_logits, judged, pool_texts)


def spread_of(tables: Sequence[np.ndarray]) -> np.ndarray:
    """How far several RMs are apart, f64[Q, N], from their calibrated tables."""
    return np.asarray(combination.spread(np.stack(tables)))  # type: ignore[arg-type]


def stacked(calibrations: Sequence[Calibration]) -> Calibration:
    """Several as one, f32[M]."""
    shift, scale = zip(*calibrations, strict=True)
    return Calibration(jnp.asarray(shift, jnp.float32), jnp.asarray(scale, jnp.float32))


@partial(jax.jit, static_argnames="times")
def repeated(tree: Params, times: int) -> Params:
    """With a new leading axis."""
    return jax.tree.map(lambda x: jnp.repeat(x[None], times, axis=0), tree)
