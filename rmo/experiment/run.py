"""An experiment made solid: its directory, what is in it, and how to load it."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmo import config
from rmo.artifacts.stages import Comparisons as ComparisonsFiles
from rmo.artifacts.stages import Policy, PolicyInfo, Samples, Stage
from rmo.checkpoints import hf, saved_model, tokenizers
from rmo.config.names import of_policy
from rmo.models import transformer
from rmo.models.reader import IDS, SameIds
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.rewards.calibration import Calibration
from rmo.runtime import sharding
from rmo.runtime.files import RunError
from rmo.training.loop import First
from rmo.training.update import pick
from rmo.worlds import comparisons, tokenization
from rmo.worlds.rm_reader import TextReader
from rmo.worlds.world import World, world_of


@dataclass(frozen=True)
class StageOf:
    """One instance of a stage of an experiment: what makes it, the config it depends on, what comes before it."""

    name: str
    make: Callable[["Run", Path], None]
    depends: tuple[object, ...]
    upstream: tuple["StageOf", ...] = ()

    @cached_property
    def path(self) -> str:
        """`<name>-<digest>`, relative to the run directory."""
        digest = config.digest(self.name, list(self.depends), [stage.path for stage in self.upstream])
        return f"{self.name}-{digest}"


def tokenizer_of(name: str) -> Any:
    """The tokenizer of a checkpoint; its weights are not fetched."""
    return tokenizers.load_tokenizer(hf.resolve(name, hf.SMALL_FILES))


def with_heads(rm: RewardModel, keys: jax.Array, trunk: Params) -> Params:
    """Parameters of as many members as there are keys: one trunk, and a fresh head for each."""
    trunks = jax.tree.map(lambda x: jnp.repeat(x[None], len(keys), axis=0), trunk)
    return {"trunk": trunks, "head": jax.vmap(partial(hf.fresh_head, rm))(keys)}


@dataclass
class Run:
    """An experiment made solid: its directory, its stages, its mesh."""

    experiment: config.Experiment
    root: Path
    stages: dict[str, StageOf]
    mesh: jax.sharding.Mesh

    def path(self, name: str) -> Path:
        """Directory of a stage instance."""
        return self.root / self.stages[name].path

    def done(self, name: str) -> bool:
        return Stage(self.path(name)).done

    def policy_info(self, policy: int = 0) -> PolicyInfo:
        return Policy(self.path(of_policy("sft", policy, self.experiment))).read()

    @cached_property
    def world(self) -> World:
        """Where prompts and texts come from."""
        kind = world_of(self.experiment.world)
        return kind.build(self.experiment.world, self.path("prompts") if kind.reads_sources else None)

    @cached_property
    def annotated_pools(self) -> dict[str, np.ndarray]:
        """What rmo/experiment/annotator.py has scored in this process, by the directory of the pool."""
        return {}

    # Modules, and the parameters that they start from or that are done already.

    def size(self, shape: config.Model) -> tuple[int, int]:
        """(V, longest sequence) of a model."""
        w = self.experiment.world
        return shape.vocab or self.world.vocab, shape.length or w.prompt + w.response

    def lm(self, policy: int = 0) -> LanguageModel:
        shape = self.experiment.policies[policy]
        return LanguageModel(shape, *self.size(shape))

    def trunk_model(self, shape: config.Model) -> LanguageModel:
        """The language model whose trunk an RM of this shape starts from."""
        return LanguageModel(shape.trunk, *self.size(shape))

    def rm(self, shape: config.Model, gain: float = 1.0) -> RewardModel:
        return RewardModel(shape, *self.size(shape), gain)

    def first(self, module: LanguageModel | RewardModel, key: jax.Array, trunk: str = "") -> First:
        """What training starts from: random weights, or those of the module's checkpoint, a RewardModel's under a fresh
        head. Several keys: as many members, which share a checkpoint's trunk, or that of the language model that stage
        `trunk` made.

        Raises (where it is loaded):
          CheckpointError: the checkpoint is not what the config says.
        """
        name = module.shape.checkpoint
        draw = partial(transformer.init, module)

        def load() -> Params:
            if trunk:
                assert isinstance(module, RewardModel)
                lm = self.trunk_model(module.shape)
                made = with_heads(module, jnp.atleast_1d(key), self.load(trunk, lm, master=True)["trunk"])
                return made if key.ndim else pick(made, 0)
            self.check_checkpoint(module.shape)
            if isinstance(module, LanguageModel):
                return hf.load_language_model(name, self.mesh)[1]
            if not key.ndim:
                return hf.load_trunk(name, key, self.mesh)[1]
            return with_heads(module, key, hf.load_trunk(name, key[0], self.mesh)[1]["trunk"])

        return First(lambda: (jax.vmap(draw) if key.ndim else draw)(key), load if name or trunk else None)

    def check_checkpoint(self, shape: config.Model) -> None:
        """Refuse a checkpoint whose shape is not the config's, whose ids are not the policy's where they must be, or
        that reads chat without a template."""
        wrong = hf.differences(shape, hf.shape_of(shape.checkpoint))
        if wrong:
            advice = "take the fields of the experiment's Model from rmo.checkpoints.hf.shape_of"
            raise hf.CheckpointError(f"{shape.checkpoint} has {wrong}: {advice}")
        shared = shape.reads == "ids" and self.experiment.policy != shape
        if shared and not tokenization.extends(tokenizer_of(shape.checkpoint), self.world.tokenizer):
            advice = 'give reads="text" or "chat", so that it reads text through its own'
            raise hf.CheckpointError(f"{shape.checkpoint} has another vocabulary than the policy: {advice}")
        if shape.reads == "chat" and not tokenizer_of(shape.checkpoint).chat_template:
            raise RunError(f'{shape.checkpoint} has no chat template: give reads="text"')

    # How RMs read.

    def own_tokenizer(self, shape: config.Model, out: Path) -> Path:
        """Where the tokenizer of a stage's RM is: the policy's, or one of its own, saved in `out`."""
        if shape.reads == "ids":
            return Policy(self.path("sft")).tokenizer
        tokenizers.save_tokenizer(tokenizer_of(shape.checkpoint), out / "tokenizer")
        return out / "tokenizer"

    def read_length(self, shape: config.Model) -> int:
        """Most tokens of a text for an RM with a tokenizer of its own."""
        return min(self.experiment.world.read_length, shape.length)

    def reader(self, name: str, shape: config.Model) -> SameIds | TextReader:
        """How the RM of stage `name` reads the policy's sequences."""
        if shape.reads == "ids":
            return IDS
        tokenizer = tokenizers.load_tokenizer(Policy(self.path(name)).tokenizer)
        p, chat, most = self.experiment.world.prompt, shape.reads == "chat", self.read_length(shape)
        return TextReader(self.world, p, tokenizer, chat, shape.vocab, most)

    def held_out_comparisons(self, name: str, shape: config.Model) -> comparisons.Comparisons:
        """The validation comparisons as the RM of stage `name` reads them."""
        dataset = ComparisonsFiles(self.path("comparisons")).dataset
        return self.reader(name, shape).comparisons(comparisons.read_comparisons(dataset, "validation"))

    def gold_rm(self) -> RewardModel:
        gold = self.experiment.gold
        return self.rm(gold.model, gold.gain if gold.kind == "random" else 1.0)

    def load(self, name: str, module: LanguageModel | RewardModel, members: int = 0, master: bool = False) -> Params:
        """Parameters of a finished stage, split over all devices: in the type that they are used in or, as `master`
        weights, to train on, in that they were trained in. Decoding gathers them for as long as it takes."""
        place = partial(sharding.shardings_of, mesh=self.mesh)
        return saved_model.restore(self.path(name), module, members, place, "" if master else module.shape.dtype)

    def gold_calibration(self) -> Calibration:
        return Samples(self.path("samples")).calibration()

    @property
    def gold_logits(self) -> float:
        """How many logits of a preference one standard deviation of gold is (paper section 2.2): of an RM trained on
        comparisons its raw score is a logit; a score that was taught otherwise is taken as one, by convention."""
        from rmo.experiment import gold  # whose kinds are made by functions of a Run

        logits = gold.KINDS[self.experiment.gold.kind].logits
        return 1 / float(self.gold_calibration().scale) if logits else 1.0

    def seeds(self, purpose: str) -> tuple[int, int]:
        """Seeds of one purpose: no two purposes share a random stream."""
        return self.experiment.seed, zlib.crc32(purpose.encode())

    def rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(self.seeds(purpose))

    def key(self, purpose: str) -> jax.Array:
        return jax.random.fold_in(jax.random.key(self.experiment.seed), zlib.crc32(purpose.encode()))
