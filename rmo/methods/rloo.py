"""RLOO: REINFORCE with a leave-one-out baseline (Kool et al. 2019; Ahmadian et al. 2024, section 2.2).

Of k responses to one prompt each is compared with the mean return of the others: A_i = R_i - mean of R_j over j != i.
R_i is the score less the KL penalty of the whole response, which counts as one action. No critic, no clipping: the loss
is -A_i log pi(y_i), a mean over tokens, so that learning rates are comparable to PPO's. As there is no ratio that could
correct for an older policy, a batch makes one update, whatever `ppo.minibatches` says.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rmo.config import Experiment
from rmo.methods.method import Need, register
from rmo.methods.ppo.without_critic import WithoutCritic, entries, without_critic

if TYPE_CHECKING:
    import jax

    from rmo.methods.ppo.update import Estimator, Setup, Values


@dataclass(frozen=True)
class Rloo(WithoutCritic):
    """REINFORCE with leave-one-out, with the batch, learning rate and reads of `ppo`."""


def leave_one_out(returns_B: "jax.Array", responses: int) -> "jax.Array":
    """Each return less the mean of the others of its prompt, f32[B]; so many `responses` to a prompt stand together."""
    by_prompt = returns_B.reshape(-1, responses)
    others = (by_prompt.sum(axis=1, keepdims=True) - by_prompt) / (responses - 1)
    return (by_prompt - others).reshape(-1)


def reinforce(
    logps_BR: "jax.Array", old_logps_BR: "jax.Array", advantages_BR: "jax.Array", mask_BR: "jax.Array", clip: float
) -> "tuple[jax.Array, dict[str, jax.Array]]":
    """-advantage * log-probability, mean over tokens. Metrics are those of `losses.clipped_policy`; nothing is clipped:
    `clip_fraction` is the share of tokens that PPO would clip."""
    from rmo.models import metrics
    from rmo.training import losses

    _, measured = losses.clipped_policy(logps_BR, old_logps_BR, advantages_BR, mask_BR, clip)
    return metrics.masked_mean(-advantages_BR * logps_BR, mask_BR), measured


def advantages(
    s: "Setup", rewards_BR: "jax.Array", values_BR: "Values", mask_BR: "jax.Array"
) -> "tuple[jax.Array, Values]":
    """The same for every token of a response."""
    advantages_B = leave_one_out(rewards_BR.sum(axis=1), s.estimator.responses)
    return advantages_B[:, None] * mask_BR, ()


def estimator(responses: int) -> "Estimator":
    from rmo.methods.ppo.update import Estimator

    return Estimator(advantages, reinforce, critic=False, responses=responses, whole=True)


def on_policy(e: Experiment, need: Need) -> None:
    """REINFORCE knows no ratio: a batch is learned from once."""
    once = f"ppo.epochs is {e.ppo.epochs}: Rloo has no ratio to correct older samples by, so it must be 1"
    need(not entries(e, Rloo) or e.ppo.epochs == 1, once)


METHOD = register(without_critic(Rloo, estimator, "rloo", "RL (RLOO)", "RLOO", rank=4, more=on_policy))
