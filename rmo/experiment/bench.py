"""A run as the bench that methods work at (rmo/methods/bench.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from rmo.artifacts.stages import Optimised, Policy, Samples
from rmo.checkpoints import saved_model
from rmo.config import Experiment
from rmo.config.names import of_policy, sweep_named
from rmo.experiment import annotator, retraining
from rmo.experiment.labelled import comparisons_of
from rmo.experiment.pool import Rewarding, Scored
from rmo.experiment.run import Run
from rmo.methods.bench import Arm, Comparisons, Importance, Judge, Pool, RewardRow
from rmo.methods.method import Job, Method
from rmo.models.reader import Reader
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.rewards.reward import Reward, RewardParams
from rmo.runtime.checkpointer import Checkpoints
from rmo.runtime.files import SCRATCH, RunError
from rmo.tracking.jsonl import Log
from rmo.worlds.rm_reader import TextReader


@dataclass
class RunBench:
    """`methods.bench.Bench` for one stage of a method."""

    run: Run
    method: Method
    job: Job
    scored: Rewarding
    out: Path

    @property
    def experiment(self) -> Experiment:
        return self.run.experiment

    @property
    def rewards(self) -> Sequence[RewardRow]:
        return self.scored.files.rows()

    @property
    def mesh(self) -> jax.sharding.Mesh:
        return self.run.mesh

    @property
    def length(self) -> int:
        return self.experiment.world.response

    @property
    def eos(self) -> int:
        return self.run.world.eos

    @property
    def vocab(self) -> int:
        return self.run.world.vocab

    @property
    def word_ids(self) -> np.ndarray:
        return self.run.world.word_ids

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.out)

    def checkpoints_of(self, part: str) -> Checkpoints:
        return Checkpoints(self.out / SCRATCH / part)

    def tracker(self, total: int, unit: str) -> Log:
        return Log(self.out, f"{self.method.name} {self.job.name}", total, unit)

    def rng(self, purpose: str) -> np.random.Generator:
        return self.run.rng(purpose)

    def key(self, purpose: str) -> jax.Array:
        return self.run.key(purpose)

    def pool(self) -> Pool:
        return self.scored.pool()

    def policy(self) -> tuple[LanguageModel, Params]:
        lm = self.run.lm(self.job.policy)
        return lm, self.run.load(of_policy("sft", self.job.policy, self.experiment), lm, master=True)

    def critic(self) -> RewardModel:
        return self.run.rm(self.experiment.policies[self.job.policy])

    def gold(self) -> Judge:
        rm = self.run.gold_rm()
        reader = self.run.reader("gold", self.experiment.gold.model)
        return Judge(rm, self.run.load("gold", rm), self.run.gold_calibration(), reader, self.run.gold_logits)

    def reward(self, chosen: Sequence[int]) -> tuple[Reward, RewardParams]:
        """Raises RunError where an RM reads text and cannot do so inside a program of several devices."""
        reward, params = self.scored.reward(chosen)
        self.can_read_inside(*reward.readers, self.run.reader("gold", self.experiment.gold.model))
        return reward, params

    def can_read_inside(self, *readers: Reader) -> None:
        """Raises RunError where one reads text and cannot do so inside a program of several devices."""
        on_cpu = jax.default_backend() == "cpu"
        alone = self.mesh.size == 1 or (not on_cpu and jax.process_count() == 1)
        if not alone and any(isinstance(reader, TextReader) for reader in readers):
            raise RunError("training against an RM that reads text needs one process, and of CPUs one device")

    def label(self, name: str, chosen: Sequence[int], policies: Params, size: int) -> None:
        retraining.label(self.of_rms(), self.out, name, chosen, policies, size)

    def importance(
        self, name: str, chosen: Sequence[int], policies: Params, clip: float, flatten: float
    ) -> Sequence[Importance]:
        return retraining.importance(self.of_rms(), self.out, name, chosen, policies, clip, flatten)

    def retrained(
        self, name: str, chosen: Sequence[int], labels: Sequence[str], weights: Sequence[Importance] | None = None
    ) -> RewardParams:
        return retraining.retrained(self.of_rms(), self.out, name, chosen, labels, weights)

    def of_rms(self) -> Scored:
        """The rewards as RMs that were trained on labels.

        Raises:
          RunError: they are none.
        """
        if not isinstance(self.scored, Scored):
            raise RunError(f"{self.scored.name} has no reward models that could be trained anew")
        return self.scored

    def annotated(self, tokens_QDR: np.ndarray, mask_QDR: np.ndarray) -> np.ndarray | None:
        return annotator.responses(self.run, tokens_QDR, mask_QDR) if self.run.world.has_annotator else None

    def prompts(self, size: int, method: str = "") -> tuple[np.ndarray, np.ndarray]:
        found = self.run.world.prompts(self.run.rng(f"{method or self.method.name} prompts"), size, "optimise")
        return found.tokens, found.mask

    def read_prompts(self) -> tuple[np.ndarray, np.ndarray]:
        found = Samples(self.run.path("samples")).prompts
        return found.tokens, found.mask

    def comparisons(self, chosen: Sequence[int]) -> Comparisons:
        self.can_read_inside(self.run.reader("gold", self.experiment.gold.model))
        rows = self.rewards
        sweep = sweep_named(self.experiment, self.scored.files.sweep)
        return comparisons_of(self.run, sweep, {i: rows[i] for i in chosen})

    def begin(self, members: Sequence[Arm]) -> None:
        ids = [self.scored.files.id_of(self.method.name, arm) for arm in members]
        Optimised(self.out).write_arms(self.scored.name, members, ids, self.job.after)

    def kept(self, stage: str) -> Params:
        members = len(Optimised(self.run.path(stage)).arms())
        return self.run.load(stage, self.run.lm(self.job.policy), members, master=True)

    def keep_policies(self, params: Params, members: int) -> None:
        lm = self.run.lm(self.job.policy)
        saved_model.save(self.out, lm, params, Policy(self.run.path("sft")).tokenizer, members)
