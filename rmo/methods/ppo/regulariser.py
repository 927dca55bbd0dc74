"""The door for a regulariser of RL: one class in a file of its own, which changes what an episode earns."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from rmo.config import Against, Experiment, MethodSettings
from rmo.methods.method import Need

if TYPE_CHECKING:
    import jax

    from rmo.methods.bench import Bench


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
    recorded: ClassVar[tuple[str, ...]] = ()  # of the numbers that `reward` gives, those that stand in PPO's table too

    def check(self, e: Experiment, need: Need) -> None:
        """Refuse what cannot work, by `need(condition, message)`; `against` and `coefs` are looked at by PPO."""

    def at(self, bench: "Bench") -> "Regulariser":
        """With what is measured of the policy's start, where it needs that."""
        return self

    def first(self, bench: "Bench") -> dict[str, float]:
        """Those of `recorded` that are known of the policy's start: what the first read records, which no iteration
        comes before."""
        return {}

    def reward(
        self,
        score_B: "jax.Array",
        logps_BR: "jax.Array",
        ref_logps_BR: "jax.Array",
        tokens_BR: "jax.Array",
        mask_BR: "jax.Array",
        coef: "jax.Array",
    ) -> "tuple[jax.Array, dict[str, jax.Array]]":
        """(what episodes of the current policy earn instead of their calibrated score f32[B], numbers for the log).

        Log-probabilities of the tokens are those by the policy and by its start, 0 where the mask is unset. A pure
        function.
        """
        raise NotImplementedError(f"{type(self).__name__} says no reward")
