"""One experiment is one frozen value; every field's docstring is its `--help`. `checks.py` refuses bad values."""

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rmo.config.ensembles import Ensemble as Ensemble
from rmo.config.identity import memory
from rmo.config.model import Model as Model
from rmo.config.world import Text as Text
from rmo.config.world import World as World
from rmo.config.world import WorldConfig as WorldConfig


class ConfigError(ValueError):
    """What is wrong with an experiment and what to do about it, in one line."""


@dataclass(frozen=True)
class Optimizer:
    """Adam with warm-up; one rule for SFT, reward models and both halves of PPO."""

    lr: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """What follows the warm-up; cosine and linear end at a tenth of lr."""
    warmup: int = 0
    """Steps of linear warm-up from zero."""
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled (AdamW) weight decay."""
    clip: float = 1.0
    """Largest global norm of the gradient."""
    accumulate: int = memory(1)
    """Parts that a batch is worked on in, one after the other; the step is that of the whole batch."""


@dataclass(frozen=True)
class SFT:
    """The initial policy: next-token training on the corpus (paper section 2: two epochs)."""

    texts: int = 40_000
    """Texts to train on; 0: the policy is its checkpoint as it stands."""
    epochs: int = 2
    batch: int = 128
    optimizer: Optimizer = field(default_factory=Optimizer)


@dataclass(frozen=True)
class Gold:
    """The gold RM, the truth by definition; larger than every proxy."""

    kind: str = "annotator"
    """annotator: a RewardModel regressed on the world's annotator or, of real text, on world.judge; random: a frozen,
    seeded teacher (a free gold); checkpoint: model.checkpoint as it stands; people: trained on human comparisons, from
    model.checkpoint if given."""
    model: Model = field(default_factory=lambda: Model(width=128, layers=2, heads=4))
    comparisons: str = ""
    """Of people: a source of human comparisons (as world.prompts; shapes: rmo/worlds/README.md)."""
    held_out: float = 0.1
    """Of people: share of prompts whose comparisons gold is judged on, never trained."""
    texts: int = 60_000
    """Broad texts to learn the annotator from: corpus, policy samples hot and cold, mutations, collapsed text."""
    epochs: int = 3
    batch: int = 256
    optimizer: Optimizer = field(default_factory=Optimizer)
    start: Literal["random", "language_model"] = "random"
    """Of annotator: random weights, or the trunk of a language model of gold's shape, trained as `trunk` says."""
    trunk: SFT = field(default_factory=lambda: SFT(optimizer=Optimizer(lr=8e-3)))
    """How that language model is trained; lr is that of width 16, as proxies have it."""
    gain: float = 3.0
    """Random teacher only: scale of the weights inside the blocks."""

    @property
    def held_out_texts(self) -> int:
        """Of `texts`, those that gold is judged on."""
        return max(self.texts // 20, 1)

    @property
    def train_texts(self) -> int:
        """Of `texts`, those that gold is trained on."""
        return self.texts - self.held_out_texts


@dataclass(frozen=True)
class Comparisons:
    """Labelled pairs of the initial policy's responses to one prompt (paper section 2.1)."""

    prompts: int = 10_000
    pairs: int = 4
    """Pairs per prompt."""
    labelled_by: Literal["gold", "annotator"] = "gold"
    """annotator: the world's annotator (of real text `world.judge`) labels the pairs itself, and gold is only read.
    Proxies are put on gold's scale all the same."""
    labels: Literal["hard", "sampled", "flipped"] = "hard"
    """hard: the higher score wins; sampled: it wins with probability sigmoid(gap/temperature);
    flipped: hard, then flipped with probability `flip`."""
    temperature: float = 1.0
    """Of sampled labels, in standard deviations of the labeller's scores of the initial policy."""
    flip: float = 0.0
    held_out: float = 0.1
    """Share of *prompts* whose comparisons are kept for validation."""


@dataclass(frozen=True)
class Recipe:
    """How a proxy is trained. As in the paper unless said otherwise: one epoch on clean labels."""

    comparisons: int = 36_000
    """Training comparisons; must not exceed what the training prompts give."""
    prompts: int = 0
    """Distinct prompts they come from, equally many from each; 0: as they come."""
    epochs: int = 0
    """Passes over the comparisons; 0: as many as `proxies.steps` makes, one where that is 0 too."""
    flip: float = 0.0
    """Share of the labels that are flipped."""
    weight_decay: float = 0.0
    dropout: float = 0.0
    """On the output of every attention and MLP."""
    smoothing: float = 0.0
    """Label smoothing: the chance that the loss gives to the other response."""
    stop_early: bool = False
    """Keep the parameters with the lowest loss on 1,000 training comparisons that this recipe leaves out."""
    choice: Literal["", "uncertain", "disagreement"] = ""
    """How half of its comparisons are chosen, once RMs of `Sweep.first` have learned from the other half; empty: at
    random. "uncertain": where the RM is least sure, "disagreement": where those of all seeds differ most."""
    confounded: float = 0.0
    """Share of its comparisons, above one half, in which the preferred response also shows more of a mark that does
    nothing for gold (rmo/worlds/confounding.py); 0: as they come, about one half."""

    @property
    def first_half(self) -> "Recipe":
        """What RMs that choose the other half were trained with."""
        return replace(self, comparisons=self.comparisons // 2, choice="")


@dataclass(frozen=True)
class Combined:
    """Several RMs of one size and recipe, which differ in their seeds, as one reward (rmo/rewards)."""

    name: str = "mean"
    """Part of the names of its stages."""
    how: str = "mean"
    """mean, worst_case, uncertainty_penalised, weight_averaged, median, mean_less_deviation, pessimistic, or what else
    is registered in rmo/rewards."""
    recipe: int = 0
    """Which of the sweep's recipes, as an index."""
    seeds: tuple[int, ...] = ()
    """Which RM seeds; empty means all."""
    coefficient: float = 0.5
    """Of uncertainty_penalised what the variance over RMs is multiplied by, of mean_less_deviation the standard
    deviation; of pessimistic what a nat of reweighting costs."""


@dataclass(frozen=True)
class Sweep:
    """Proxies that share one program: for each size, all recipes and seeds train under one vmap, padded by step masks.

    Recipes of similar length belong together: every member runs for as many steps as the longest.
    """

    name: str = "main"
    recipes: tuple[Recipe, ...] = (Recipe(),)
    sizes: tuple[int, ...] = ()
    """Which of proxies.sizes, as indices; empty means all."""
    best_of_n: bool = True
    """Whether it is optimised against (best-of-n at least), or only the validation comparisons are scored."""
    combined: tuple[Combined, ...] = ()
    """Rewards made of several seeds, measured beside the single RMs."""
    first: str = ""
    """For recipes with a `choice`: an earlier sweep, with the same recipe on half as many comparisons, whose RMs
    choose."""


@dataclass(frozen=True)
class Proxies:
    """Every sweep trains its sizes with its recipes, each with every seed."""

    sizes: tuple[Model, ...] = (Model(width=16, layers=1, heads=2),)
    """Shapes of the proxy RMs."""
    sweeps: tuple[Sweep, ...] = (Sweep(),)
    """The first recipe of the first sweep is the one that RM sizes and policies are compared on."""
    start: Literal["random", "language_model"] = "random"
    """What a size without a checkpoint starts from: random weights, or the trunk of a language model of its own shape,
    trained as `trunk` says and shared by all its seeds (the paper's RMs are fine-tuned language models)."""
    trunk: SFT = field(default_factory=lambda: SFT(optimizer=Optimizer(lr=4e-3)))
    """How those language models are trained; lr is that of width 16, as `optimizer` has it."""
    seeds: int = 2
    """RM seeds (comparisons and their order, head, and other weights where they are random), in one program."""
    batch: int = 64
    steps: int = 0
    """Optimiser steps of every recipe that says no epochs, over its comparisons as often as that takes; 0: one epoch,
    which for few comparisons is few steps. With steps a sweep over comparisons varies the data alone, each RM trained
    for as long as the others; what is one epoch then is a recipe with epochs 1, and called so in tables."""
    stop_early: bool = False
    """Every recipe that says no epochs and flips no labels keeps the parameters with the lowest loss on 1,000 training
    comparisons which no proxy trains on: `steps` enough for many comparisons overfit few."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """lr is that of a proxy of width 16; other widths scale it by 16/width, as GPT-3's own table nearly does."""

    def from_language_model(self, size: Model) -> bool:
        """Whether a size's trunk is that of a language model trained here."""
        return self.start == "language_model" and not size.checkpoint

    def steps_of(self, recipe: Recipe) -> int:
        """Optimiser steps that a recipe is trained for."""
        if self.steps and not recipe.epochs:
            return self.steps
        return (recipe.epochs or 1) * (recipe.comparisons // self.batch)

    def stops_early(self, recipe: Recipe) -> bool:
        """Whether a recipe keeps the parameters of its validation minimum."""
        return recipe.stop_early or (self.stop_early and not recipe.epochs and not recipe.flip)

    def named(self, recipe: Recipe) -> Recipe:
        """A recipe as tables tell it from others: without `steps`, epochs 1 is what every recipe has that says none."""
        return replace(recipe, epochs=0) if recipe.epochs == 1 and not self.steps else recipe


@dataclass(frozen=True)
class BestOfN:
    """One pool of [prompts, draws] samples of the initial policy serves every RM."""

    prompts: int = 32
    """Q, held-out prompts; PPO is read on the same ones."""
    draws: int = 4096
    """N, draws per prompt."""
    max_n: int = 1024
    """Largest n of the curve; far below `draws`, or the estimator's variance explodes."""
    points: int = 32
    """Points of the curve, on a log grid from 1 to max_n."""
    chunk: int = memory(1024)
    """Sequences sampled or scored at once."""


@dataclass(frozen=True)
class Against:
    """What PPO optimises against, for each size in one program: every recipe, KL penalty and RM seed is a member."""

    name: str = "main"
    sweep: str = "main"
    """Which of proxies.sweeps the proxies come from."""
    recipes: tuple[int, ...] = ()
    """Which of that sweep's recipes, as indices; empty means all."""
    combined: tuple[int, ...] = ()
    """Which of that sweep's combined rewards too, as indices; empty means none."""
    ensembles: tuple[int, ...] = ()
    """Which of the experiment's ensembles over RM sizes too, as indices; empty means none."""
    sizes: tuple[int, ...] = ()
    """Which of proxies.sizes, as indices; empty means all that the sweep has."""
    kl_coefs: tuple[float, ...] = (0.0,)
    """Per-token KL penalties added to the reward; 0 as in the paper (but for its section 3.6)."""
    d_per_step: float = 0.0
    """Anchored PPO: the KL penalty rises as sqrt(KL) gets ahead of the path d(t) = d_per_step * iteration; 0: none."""
    lr_scale: float = 1.0
    """Multiplies both learning rates."""


@dataclass(frozen=True)
class PPO:
    """Optimisation of the policy against a proxy (paper section 3, Table 1 where it applies)."""

    against: tuple[Against, ...] = (Against(),)
    kl_max: float = 32.0
    """Stop when the policy's exact KL from the initial policy has reached this, in nats."""
    max_steps: int = 400
    """Stop here in any case."""
    d_step: float = 0.15
    """Gold is read whenever sqrt(KL) has grown by this much, ..."""
    patience: int = 40
    """... or this many steps have passed since the last read."""
    prompts: int = 4096
    """Training prompts, disjoint from every other prompt of the run."""
    batch: int = 256
    """B, episodes per iteration."""
    chunk: int = memory(0)
    """Episodes that are sampled and scored at once, in reads too, for batches that do not fit; 0: all."""
    epochs: int = 1
    """Passes over each batch."""
    minibatches: int = 4
    clip: float = 0.2
    """Clipping range of the policy ratio and of the value change."""
    lam: float = 0.95
    """GAE lambda; gamma is 1."""
    critic_init: Literal["proxy", "sft"] = "sft"
    """Where the critic's weights come from: the proxy where it is a single RM and the shapes agree, else the initial
    policy's trunk."""
    policy_optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-4, schedule="constant"))
    """lr is that of the main policy; another policy's scales with main width / its width."""
    critic_optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-3, schedule="constant"))
    read_draws: int = 8
    """Samples per held-out prompt at every read."""


@dataclass(frozen=True)
class Tilt:
    """Exponential tilts of the pool: the most reward that any policy can have at a given KL (rmo/methods/tilt.py)."""

    points: int = 24
    """Points of the curve, about evenly spaced in sqrt(KL)."""
    least_draws: float = 20.0
    """The curve ends where so few draws count, exp(entropy of their weights): at KL log(draws / this)."""
    every_reward: bool = False
    """Tilt by every reward that best-of-n selects by, and not by gold alone (`gold_as_proxy.pool`)."""


@dataclass(frozen=True)
class GoldAsProxy:
    """Gold as its own proxy, what a perfect reward model would give: one more row of the sweep, at no label cost."""

    pool: bool = True
    """Optimise gold by selection from the pool, which gold has scored already: best-of-n and exponential tilts."""
    ppo_seeds: int = 1
    """PPO runs against gold; 0: none. Each holds gold twice, as reward and as judge."""

    @property
    def optimised(self) -> bool:
        """Whether any method optimises against gold."""
        return self.pool or self.ppo_seeds > 0


@dataclass(frozen=True)
class MethodSettings:
    """Base of the settings of methods that have no field of their own here (rmo/methods/README.md)."""


@dataclass(frozen=True)
class OtherPolicy:
    """A second initial policy, optimised against the same proxies (paper section 3.4)."""

    model: Model = field(default_factory=Model)
    sizes: tuple[int, ...] = ()
    """Which of proxies.sizes, with the main recipe, as indices; empty means all."""


@dataclass(frozen=True)
class Fits:
    """How curves become coefficients (paper section 3; see rmo/analysis/fitting.py)."""

    bootstrap: int = 1000
    """Bootstrap resamples, over prompts and RM seeds together."""
    min_d: float = 0.3
    """Points with sqrt(KL) below this are left out of fits of a form that has infinite slope at 0, as RL's has (paper
    footnote 1)."""
    level: float = 0.95
    """Level of the intervals."""


@dataclass(frozen=True)
class Experiment:
    """Everything that determines a run's numbers."""

    name: str = "experiment"
    """Names the run directory, runs/<name>."""
    note: str = ""
    """What readers of its report should know first; nothing depends on it."""
    seed: int = 0
    """Seed of every stage."""
    world: WorldConfig = field(default_factory=World)
    """Where prompts and texts come from: the synthetic world, real text, or another that is registered."""
    policy: Model = field(default_factory=Model)
    other_policies: tuple[OtherPolicy, ...] = ()
    sft: SFT = field(default_factory=SFT)
    gold: Gold = field(default_factory=Gold)
    comparisons: Comparisons = field(default_factory=Comparisons)
    proxies: Proxies = field(default_factory=Proxies)
    bon: BestOfN = field(default_factory=BestOfN)
    ppo: PPO = field(default_factory=PPO)
    tilt: Tilt = field(default_factory=Tilt)
    gold_as_proxy: GoldAsProxy = field(default_factory=GoldAsProxy)
    methods: tuple[MethodSettings, ...] = ()
    """Settings of further methods: which ones there are is for rmo/methods to say."""
    ensembles: tuple[Ensemble, ...] = ()
    """Rewards made of RMs of several sizes, measured beside the others; those of one size are `Sweep.combined`."""
    fits: Fits = field(default_factory=Fits)
    tags: tuple[str, ...] = ()
    """Tags of the run in wandb; nothing depends on them."""
    worlds: tuple[int, ...] = ()
    """Seeds of the worlds to run in, one after another (rmo/config/replicates.py), each in runs/<name>/world-<seed>,
    in the place of world.seed; empty: in that one alone, in runs/<name>."""

    @property
    def policies(self) -> tuple[Model, ...]:
        """Shapes of all initial policies, the main one first."""
        return self.policy, *(other.model for other in self.other_policies)


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as nested dicts."""
    return dataclasses.asdict(experiment)
