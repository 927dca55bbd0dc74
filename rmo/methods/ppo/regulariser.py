"""The door for a regulariser of RL: one class in a file of its own, which changes what an episode earns."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rmo.config import Against, MethodSettings

if TYPE_CHECKING:
    import jax

    from rmo.methods.bench import Bench


class Episodes(NamedTuple):
    """What a batch of episodes of the current policy shows of itself; log-probabilities are 0 where mask is unset."""

    score: "jax.Array"  # f32[B], the reward model's, calibrated
    logps: "jax.Array"  # f32[B, R], of the policy
    ref_logps: "jax.Array"  # f32[B, R], of the policy at its start
    mask: "jax.Array"  # bool[B, R]


@dataclass(frozen=True)
class Regulariser(MethodSettings):
    """Base of the settings, in `Experiment.methods`, of PPO with another reward than the RM's score.

    Its curves are PPO's, with the coefficient among their settings; every coefficient is a member beside the KL
    penalties of `against`."""

    against: Against = field(default_factory=Against)
    """What it optimises against, as an entry of ppo.against; its name names the stage."""
    coefs: tuple[float, ...] = (1.0,)
    """Coefficients, each one a curve."""

    setting: ClassVar[str] = ""  # what the coefficient is called in curves.csv

    def at(self, bench: "Bench") -> "Regulariser":
        """With what is measured of the policy's start, where it needs that."""
        return self

    def reward(self, episodes: Episodes, coef: "jax.Array") -> "tuple[jax.Array, dict[str, jax.Array]]":
        """(what the episodes earn instead of their score f32[B], numbers for the log). A pure function."""
        raise NotImplementedError(f"{type(self).__name__} says no reward")
