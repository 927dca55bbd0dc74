"""The settings of direct alignment: one entry of `Experiment.methods`."""

from dataclasses import dataclass, field
from typing import Literal

from rmo.config import MethodSettings, Optimizer
from rmo.config.identity import memory


@dataclass(frozen=True)
class Direct(MethodSettings):
    """DPO, IPO and SLiC on the run's own comparisons (Rafailov et al. 2024): every loss with every beta, recipe and
    seed, all in one program."""

    losses: tuple[Literal["dpo", "ipo", "slic"], ...] = ("dpo", "ipo", "slic")
    """What is minimised."""
    betas: tuple[float, ...] = (0.02, 0.05, 0.1, 0.3)
    """What a log-ratio is multiplied by to become a reward: the smaller, the farther from the initial policy."""
    sweep: str = "main"
    """Which of proxies.sweeps names the comparisons: a seed has those of the RM of the same recipe and seed."""
    recipes: tuple[int, ...] = (0,)
    """Which of that sweep's recipes, as indices: their comparisons, prompts and label noise."""
    seeds: int = 0
    """How many seeds, from 0; 0: as many as there are of RMs."""
    epochs: int = 1
    """Passes over the comparisons."""
    batch: int = 64
    """Comparisons of a step."""
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=5e-5, schedule="constant"))
    kl_max: float = 64.0
    """Stop when the policy's exact KL from the initial policy has reached this, in nats."""
    d_step: float = 0.3
    """Gold is read whenever sqrt(KL) has grown by this much, ..."""
    patience: int = 64
    """... or this many steps have passed since the last read."""
    look: int = 8
    """Steps between two looks at the KL, ..."""
    look_draws: int = 4
    """... each of so many samples per held-out prompt."""
    read_draws: int = 32
    """Samples per held-out prompt at every read."""
    chunk: int = memory(0)
    """Samples that are drawn and scored at once, in reads and looks; 0: all."""
