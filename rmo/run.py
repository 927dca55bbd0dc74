"""An experiment made solid: its directory, what is in it, and how to load it."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rmo import config, reward, store
from rmo.files import read_json
from rmo.models import LanguageModel, Params, RewardModel
from rmo.world import SyntheticWorld


@dataclass(frozen=True)
class Stage:
    """One instance of a stage: what makes it, the config it depends on, what comes before it."""

    name: str
    make: Callable[..., None]
    depends: tuple[Any, ...]
    upstream: tuple["Stage", ...] = ()

    @cached_property
    def path(self) -> str:
        """`<name>-<digest>`, relative to the run directory."""
        digest = config.digest(self.name, list(self.depends), [stage.path for stage in self.upstream])
        return f"{self.name}-{digest}"


def stage_name(kind: str, policy: int, e: config.Experiment) -> str:
    """`sft` and `samples` of the main policy; another's shape follows a slash."""
    shape = e.policies[policy]
    return kind if policy == 0 else f"{kind}/{shape.width}x{shape.layers}"


@dataclass
class Run:
    """An experiment made solid: its directory, its stages, its mesh."""

    experiment: config.Experiment
    root: Path
    stages: dict[str, Stage]
    mesh: jax.sharding.Mesh

    def path(self, name: str) -> Path:
        """Directory of a stage instance."""
        return self.root / self.stages[name].path

    def done(self, name: str) -> bool:
        return (self.path(name) / "DONE").exists()

    @cached_property
    def world(self) -> SyntheticWorld:
        return SyntheticWorld(self.experiment.world)

    # Modules and parameters of what is done already.

    def lm(self, policy: int = 0) -> LanguageModel:
        w = self.experiment.world
        return LanguageModel(self.experiment.policies[policy], w.vocab, w.prompt + w.response)

    def rm(self, shape: config.Model, gain: float = 1.0) -> RewardModel:
        w = self.experiment.world
        return RewardModel(shape, w.vocab, w.prompt + w.response, gain)

    def gold_rm(self) -> RewardModel:
        gold = self.experiment.gold
        return self.rm(gold.model, gold.gain if gold.kind == "random" else 1.0)

    def load(self, name: str, module: LanguageModel | RewardModel, members: int = 0) -> Params:
        """Parameters of a finished stage, replicated over the mesh."""
        everywhere = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        return store.restore(self.path(name), module, members, everywhere)

    def gold_calibration(self) -> reward.Calibration:
        return reward.Calibration(**read_json(self.path("samples") / "calibration.json"))

    def seeds(self, purpose: str) -> tuple[int, int]:
        """Seeds of one purpose: no two purposes share a random stream."""
        return self.experiment.seed, zlib.crc32(purpose.encode())

    def rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(self.seeds(purpose))

    def key(self, purpose: str) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.experiment.seed), zlib.crc32(purpose.encode()))
