"""One experiment is one frozen value. A config file exposes `experiment() -> Experiment`.

Every field's docstring is its `--help`; `check` refuses impossible values in one line, before any work starts.
"""

import dataclasses
import hashlib
import importlib.util
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


class ConfigError(ValueError):
    """What is wrong with an experiment and what to do about it, in one line."""


@dataclass(frozen=True)
class Model:
    """Shape of one transformer trunk."""

    width: int = 64
    """D, the width of the residual stream."""
    layers: int = 2
    """L, the number of blocks."""
    heads: int = 4
    """H, the number of query heads; must divide width."""
    kv_heads: int = 0
    """Hkv, the number of key/value heads (grouped queries); 0 means as many as heads."""
    mlp: int = 4
    """Hidden width of the MLP as a multiple of width."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Of the MLP; relu is far cheaper than gelu on a CPU."""
    positions: Literal["rotary", "learned"] = "rotary"
    """How token order enters."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations; parameters and reductions stay float32."""


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


@dataclass(frozen=True)
class World:
    """The synthetic world: where prompts and texts come from and what the annotator likes (see rmo/world.py)."""

    seed: int = 0
    """Draws the world itself: its grammar and its annotator."""
    vocab: int = 64
    """V, tokens including pad, bos and eos."""
    prompt: int = 6
    """P, longest prompt in tokens (left-padded)."""
    response: int = 18
    """R, longest response in tokens, EOS included (right-padded)."""
    states: int = 8
    """Hidden topics of the corpus grammar."""
    questions: int = 4
    """Kinds of prompt: what its last word asks. Sways the corpus's answer and selects what conditionals want."""
    answer: float = 0.7
    """How strongly the corpus's answers depend on the question (standard deviation of log-odds)."""
    shortest: int = 10
    """Words a text has at least."""
    stop: float = 0.12
    """Chance that a text ends at each token after that."""
    counts: int = 3
    """Annotator features that count the words of one set (easy: any RM can learn them)."""
    conditionals: int = 3
    """Annotator features whose word set the prompt's last word selects (harder: needs attention to the prompt)."""
    pairs: int = 8
    """Annotator features that count a word of one set followed by one of another, 1 to 3 words on (hardest)."""
    set_share: float = 0.04
    """Share of the words in a counted set. Small sets are rare, so their counts have long tails."""
    pair_share: float = 0.2
    """Share of the words in either set of a pair feature."""
    weights: tuple[float, float, float, float] = (0.35, 0.25, 0.25, 0.15)
    """Shares of the annotator's score: counts, conditionals, pairs, and the guards (fluency, variety)."""
    decay: float = 0.5
    """Power law of the weights inside each kind: the i-th feature weighs i**-decay."""
    optimum: tuple[float, float] = (0.7, 1.4)
    """Range of the sweet spots, in standard deviations above what the corpus does by default."""
    width: float = 0.6
    """Width of a sweet spot as a multiple of its optimum."""


@dataclass(frozen=True)
class SFT:
    """The initial policy: next-token training on the corpus (paper section 2: two epochs)."""

    texts: int = 40_000
    epochs: int = 2
    batch: int = 128
    optimizer: Optimizer = field(default_factory=Optimizer)


@dataclass(frozen=True)
class Gold:
    """The gold RM, the truth by definition; larger than every proxy."""

    kind: Literal["annotator", "random"] = "annotator"
    """annotator: a RewardModel regressed on the world's annotator; random: a frozen, seeded teacher (a free gold)."""
    model: Model = field(default_factory=lambda: Model(width=128, layers=2, heads=4))
    texts: int = 60_000
    """Broad texts to learn the annotator from: corpus, policy samples hot and cold, mutations, collapsed text."""
    epochs: int = 3
    batch: int = 256
    optimizer: Optimizer = field(default_factory=Optimizer)
    gain: float = 3.0
    """Random teacher only: scale of the weights inside the blocks."""


@dataclass(frozen=True)
class Comparisons:
    """Pairs of the initial policy's responses to one prompt, labelled by gold (paper section 2.1)."""

    prompts: int = 10_000
    pairs: int = 4
    """Pairs per prompt."""
    labels: Literal["hard", "sampled", "flipped"] = "hard"
    """hard: the higher gold score wins; sampled: it wins with probability sigmoid(gap/temperature);
    flipped: hard, then flipped with probability `flip`."""
    temperature: float = 1.0
    """Of sampled labels, in standard deviations of gold on the initial policy."""
    flip: float = 0.0
    held_out: float = 0.1
    """Share of *prompts* whose comparisons are kept for validation."""


@dataclass(frozen=True)
class Proxies:
    """Every size is trained on every number of comparisons with every seed."""

    sizes: tuple[Model, ...] = (Model(width=16, layers=1, heads=2),)
    """Shapes of the proxy RMs."""
    comparisons: tuple[int, ...] = (36_000,)
    """Training comparisons used; must not exceed what the training prompts give."""
    seeds: int = 2
    """RM seeds (head initialisation, data order); trained together in one program."""
    epochs: int = 1
    batch: int = 64
    optimizer: Optimizer = field(default_factory=Optimizer)
    """lr is that of a proxy of width 16; other widths scale it by 16/width (the paper's also falls with size)."""


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
    chunk: int = 1024
    """Sequences sampled or scored at once."""


@dataclass(frozen=True)
class PPO:
    """Optimisation of the policy against a proxy (paper section 3, Table 1 where it applies)."""

    sizes: tuple[int, ...] = ()
    """Which proxies to optimise against, as indices into proxies.sizes; empty means all, largest data size only."""
    kl_max: float = 32.0
    """Stop when the policy's exact KL from the initial policy has reached this, in nats."""
    max_steps: int = 400
    """Stop here in any case."""
    d_step: float = 0.15
    """Gold is read whenever sqrt(KL) has grown by this much."""
    prompts: int = 4096
    """Training prompts, disjoint from every other prompt of the run."""
    batch: int = 256
    """B, episodes per iteration."""
    epochs: int = 1
    """Passes over each batch."""
    minibatches: int = 4
    clip: float = 0.2
    """Clipping range of the policy ratio and of the value change."""
    lam: float = 0.95
    """GAE lambda; gamma is 1."""
    kl_coef: float = 0.0
    """Per-token KL penalty added to the reward; 0 as in the paper."""
    entropy_coef: float = 0.0
    critic_init: Literal["proxy", "sft"] = "sft"
    """Where the critic's weights come from: the proxy where the shapes agree, else the initial policy's trunk."""
    policy_optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-4, schedule="constant"))
    critic_optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-3, schedule="constant"))
    read_draws: int = 8
    """Samples per held-out prompt at every read."""


@dataclass(frozen=True)
class Fits:
    """How curves become coefficients (paper section 3; see rmo/fit.py)."""

    bootstrap: int = 1000
    """Bootstrap resamples, over prompts and RM seeds together."""
    min_d_ppo: float = 0.3
    """RL points with sqrt(KL) below this are left out of the RL fit: the form has infinite slope at 0 (fn. 1)."""
    level: float = 0.95
    """Level of the intervals."""


@dataclass(frozen=True)
class Experiment:
    """Everything that determines a run's numbers."""

    name: str = "experiment"
    """Names the run directory, runs/<name>."""
    seed: int = 0
    """Seed of every stage."""
    world: World = field(default_factory=World)
    policy: Model = field(default_factory=Model)
    sft: SFT = field(default_factory=SFT)
    gold: Gold = field(default_factory=Gold)
    comparisons: Comparisons = field(default_factory=Comparisons)
    proxies: Proxies = field(default_factory=Proxies)
    bon: BestOfN = field(default_factory=BestOfN)
    ppo: PPO = field(default_factory=PPO)
    fits: Fits = field(default_factory=Fits)


def digest(*parts: Any) -> str:
    """Hex digest of any nesting of dataclasses, tuples, numbers and strings."""
    text = json.dumps(parts, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as nested dicts."""
    return dataclasses.asdict(experiment)


def load(path: str | Path) -> Experiment:
    """Run a config file and return its `experiment()`.

    Raises:
      ConfigError: the file is missing, fails, or does not expose `experiment() -> Experiment`.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no config file {path}: give a .py file that defines experiment() -> Experiment")
    spec = importlib.util.spec_from_file_location(f"rmo_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file: configs are .py files that define experiment()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        experiment = module.experiment()
    except AttributeError as error:
        raise ConfigError(f"{path}: {error}; a config file defines experiment() -> Experiment") from error
    except Exception as error:
        raise ConfigError(f"{path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"{path}: experiment() returned {type(experiment).__name__}, not an Experiment")
    check(experiment)
    return experiment


def check(experiment: Experiment) -> None:
    """Refuse what cannot work.

    Raises:
      ConfigError: one line that names the field, its value and the remedy.
    """

    def need(ok: bool, message: str) -> None:
        if not ok:
            raise ConfigError(message)

    may_be_zero = {
        "seed", "world.seed", "world.answer", "world.counts", "world.conditionals", "world.pairs", "world.decay",
        "world.stop", "comparisons.flip", "ppo.kl_coef", "ppo.entropy_coef", "fits.min_d_ppo",
    }  # fmt: skip
    may_be_zero_anywhere = {"kv_heads", "warmup", "weight_decay"}

    def positive(owner: Any, path: str) -> None:
        for item in dataclasses.fields(owner):
            value, where = getattr(owner, item.name), f"{path}{item.name}"
            if dataclasses.is_dataclass(value):
                positive(value, where + ".")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                need(math.isfinite(value), f"{where} is {value}: it must be finite")
                if where in may_be_zero or item.name in may_be_zero_anywhere:
                    need(value >= 0, f"{where} is {value}: it must be at least 0")
                else:
                    need(value > 0, f"{where} is {value}: it must be positive")
            elif isinstance(value, tuple):
                for index, entry in enumerate(value):
                    if dataclasses.is_dataclass(entry):
                        positive(entry, f"{where}.{index}.")

    def model(shape: Model, where: str) -> None:
        need(shape.width % shape.heads == 0, f"{where}.heads is {shape.heads}: it must divide width {shape.width}")
        kv = shape.kv_heads or shape.heads
        need(shape.heads % kv == 0, f"{where}.kv_heads is {kv}: it must divide heads {shape.heads}")
        need(
            shape.positions == "learned" or (shape.width // shape.heads) % 2 == 0,
            f"{where}: rotary positions need an even head size, not {shape.width}/{shape.heads}",
        )

    e = experiment
    positive(e, "")
    need(bool(e.name) and "/" not in e.name, f"name is {e.name!r}: it names a directory, so no slashes and not empty")
    model(e.policy, "policy")
    model(e.gold.model, "gold.model")
    for index, size in enumerate(e.proxies.sizes):
        model(size, f"proxies.sizes.{index}")
    need(bool(e.proxies.sizes), "proxies.sizes is empty: at least one proxy is needed")
    counts = {(s.width, s.layers, s.mlp, (s.kv_heads or s.heads) / s.heads) for s in e.proxies.sizes}
    need(
        len(counts) == len(e.proxies.sizes),
        "proxies.sizes holds two shapes with one parameter count: curves are told apart by it; for repeats use seeds",
    )
    need(bool(e.proxies.comparisons), "proxies.comparisons is empty: a proxy needs comparisons to learn from")
    held_out = round(e.comparisons.prompts * e.comparisons.held_out)
    need(
        0 < held_out < e.comparisons.prompts,
        f"comparisons.held_out is {e.comparisons.held_out}: it must leave prompts on both sides",
    )
    available = (e.comparisons.prompts - held_out) * e.comparisons.pairs
    for count in e.proxies.comparisons:
        need(
            e.proxies.batch <= count <= available,
            f"proxies.comparisons has {count}: it must lie between proxies.batch ({e.proxies.batch}) and the "
            f"{available} training comparisons; raise comparisons.prompts or comparisons.pairs",
        )
    need(0 <= e.comparisons.flip < 0.5, f"comparisons.flip is {e.comparisons.flip}: it must lie in [0, 0.5)")
    need(0 <= e.world.stop < 1, f"world.stop is {e.world.stop}: it is a probability below 1")
    need(e.world.vocab >= 16, f"world.vocab is {e.world.vocab}: it must be at least 16")
    need(e.world.response >= 6, f"world.response is {e.world.response}: the pair features need at least 6 tokens")
    need(
        0 < e.world.shortest < e.world.response,
        f"world.shortest is {e.world.shortest}: it must lie between 1 and world.response - 1 ({e.world.response - 1})",
    )
    need(e.world.prompt >= 2, f"world.prompt is {e.world.prompt}: it holds bos and at least one token")
    need(
        e.world.counts + e.world.conditionals + e.world.pairs > 0,
        "world has no features: the annotator needs some of counts, conditionals, pairs",
    )
    need(e.sft.texts >= e.sft.batch, f"sft.texts is {e.sft.texts}: it must be at least one batch ({e.sft.batch})")
    need(
        e.gold.texts - max(e.gold.texts // 20, 1) >= e.gold.batch,
        f"gold.texts is {e.gold.texts}: less the held-out twentieth it must be at least one batch ({e.gold.batch})",
    )
    need(
        min(e.world.weights) >= 0 and sum(e.world.weights) > 0,
        f"world.weights is {e.world.weights}: shares must be at least 0 and not all 0",
    )
    for name in ("set_share", "pair_share"):
        share = getattr(e.world, name)
        need(share <= 1, f"world.{name} is {share}: it is a share of the words, at most 1")
    low, high = e.world.optimum
    need(0 < low <= high, f"world.optimum is {low} to {high}: it must be 0 < low <= high")
    need(
        e.bon.max_n <= e.bon.draws, f"bon.max_n is {e.bon.max_n}: it is larger than the {e.bon.draws} draws (bon.draws)"
    )
    chunk = min(e.bon.chunk, e.bon.draws)
    need(e.bon.draws % chunk == 0, f"bon.chunk is {chunk}: it must divide bon.draws {e.bon.draws}")
    need(e.bon.prompts >= 2, f"bon.prompts is {e.bon.prompts}: standard errors over prompts need at least 2")
    need(e.bon.points >= 4, f"bon.points is {e.bon.points}: a curve needs at least 4")
    need(e.bon.max_n >= 8, f"bon.max_n is {e.bon.max_n}: a curve needs at least 8")
    need(
        e.ppo.batch % e.ppo.minibatches == 0,
        f"ppo.minibatches is {e.ppo.minibatches}: it must divide ppo.batch {e.ppo.batch}",
    )
    for index in e.ppo.sizes:
        need(
            0 <= index < len(e.proxies.sizes),
            f"ppo.sizes has {index}: proxies.sizes holds indices 0 to {len(e.proxies.sizes) - 1}",
        )
    need(0 < e.ppo.lam <= 1, f"ppo.lam is {e.ppo.lam}: it must lie in (0, 1]")
    need(0 < e.fits.level < 1, f"fits.level is {e.fits.level}: it must lie in (0, 1)")
