"""What trainers call their columns, what each KL among them is, and what is dubious about one.

Read in the trainers' sources, state of 2026. To add a trainer, add it to `TRAINERS` (see README.md of this folder).
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np


class Kl(NamedTuple):
    """What a KL column holds."""

    unit: Literal["sequence", "token", "no"]  # the sum over a response, a mean per token, or no KL from the start
    why: str = ""  # what is wrong or dubious about it, as the end of a sentence that begins with the column's name


class Trainer(NamedTuple):
    """A trainer's columns, each without `train/` before it. Of several for one role the first in the log is taken."""

    marks: tuple[str, ...]  # columns that only this trainer has: any of them in a log names its trainer
    kl: dict[str, Kl]
    proxy: tuple[str, ...]
    length: tuple[str, ...] = ()  # mean length of a response in tokens


class KlSeries(NamedTuple):
    """KL as one run logged it, and what else its log holds about it."""

    name: str  # of the column
    kl: np.ndarray  # f64[K], nats per response
    steps: np.ndarray  # f64[K]
    trainer: str | None  # a name of TRAINERS
    temperatures: dict[str, float]  # column -> value
    length: tuple[str, float] | None  # (column of response lengths, their mean)
    multiplied: bool  # whether it was a mean per token, and has been multiplied by a length


SUM = Kl("sequence")
TOKEN = Kl("token")
OLD = Kl("no", "is between the policy before and after an update, not from the initial policy")
ENGINE = Kl("no", "is between the sampler's and the trainer's copy of one policy, not from the initial policy")
ROOT = Kl("no", "is the square root of a mean of exp(l) - 1 - l over prompt and response, far above the KL")
COEFFICIENT = Kl("no", "is the penalty's coefficient or target, not a KL")
TRAINERS = {
    "TRL's PPO": Trainer(
        marks=("objective/rlhf_reward", "objective/scores"),
        kl={
            "objective/kl": Kl("sequence", "is the policies' KL if you sampled at temperature 1 (TRL's default is 0.7)")
        },
        proxy=("objective/scores",),
        length=("val/sequence_lengths",),
    ),
    "TRL's GRPO or RLOO": Trainer(
        marks=("completions/mean_length", "completion_length", "frac_reward_zero_std"),
        kl={"kl": TOKEN},
        proxy=("reward",),
        length=("completions/mean_length", "completion_length"),
    ),
    "TRL's PPO before 0.12": Trainer(
        marks=("ppo/mean_non_score_reward", "env/reward_mean"),
        kl={"objective/kl": SUM},
        proxy=("env/reward_mean", "ppo/mean_scores"),
        length=("tokens/responses_len_mean",),
    ),
    "OpenRLHF": Trainer(
        marks=("total_length",),
        kl={"kl": TOKEN},
        proxy=("reward",),
        length=("response_length",),
    ),
    "verl": Trainer(
        marks=("critic/score/mean", "actor/pg_loss"),
        kl={"actor/reward_kl_penalty": TOKEN, "critic/kl": TOKEN, "actor/kl_loss": TOKEN, "actor/ppo_kl": OLD},
        proxy=("critic/score/mean",),
        length=("response_length/mean",),
    ),
    "trlx": Trainer(
        marks=("rollout_scores/mean", "policy/sqrt_kl"),
        kl={
            "policy/kl": Kl("sequence", "is k2, l²/2, over prompt and response: too high where KL is large"),
            "policy/sqrt_kl": ROOT,
            "policy/kl_per_token": ROOT,
        },
        proxy=("rollout_scores/mean",),
    ),
    "AlpacaFarm": Trainer(
        marks=("objective/kl_sum_seq",),
        kl={"objective/kl_sum_seq": Kl("sequence", "leaves out negative log-ratios: too high, most where KL is small")},
        proxy=("objective/rewards",),
    ),
    "open-instruct": Trainer(
        marks=("objective/kl_avg", "objective/verifiable_reward"),
        kl={"objective/kl_avg": TOKEN, "objective/kl3_avg": TOKEN},
        proxy=("objective/scores", "scores"),
        length=("val/sequence_lengths",),
    ),
}
MEANINGS = (  # of a KL column in a log of an unknown trainer, by its name; the first that matches
    (r"approx_?kl|ppo_?kl|policykl|old_?kl", OLD),
    (r"rollout_corr|mismatch", ENGINE),
    (r"kl.*(coef|ctl|ctrl|beta|target)", COEFFICIENT),
    (r"sqrt_?kl", ROOT),
    (r"per_?token|token_?mean|kl_avg", TOKEN),
)
PENALISED = ("objective/rlhf_reward", "critic/rewards/mean", "return", "objective/shaped_rewards")


def plain(name: str) -> str:
    """Without what trainers put before names: the Trainer's `eval_x` is `eval/x` in wandb, its `x` is `train/x`."""
    return re.sub("^eval_", "eval/", name.removeprefix("train/"))


def trainer_of(names: Sequence[str]) -> str | None:
    """Which of `TRAINERS` wrote a log with these columns."""
    have = {plain(name) for name in names}
    for trainer, columns in TRAINERS.items():
        if have & set(columns.marks):
            return trainer
    return None


def meaning(name: str, trainer: str | None) -> Kl:
    """What a KL column holds, by its trainer or by its name alone; if neither is known, the sum over a response."""
    known = [TRAINERS[trainer]] if trainer else []
    if "/" in plain(name):  # a bare "kl" can be any trainer's
        known += TRAINERS.values()
    for one in known:
        if plain(name) in one.kl:
            return one.kl[plain(name)]
    for pattern, kl in MEANINGS:
        if re.search(pattern, name.lower()):
            return kl
    return SUM


def refusal(name: str, trainer: str | None, length: str | None, multiplied: bool) -> str | None:
    """Why a KL column cannot be used, and what to give instead; None if it can.

    `length` is the column of mean lengths, if known; `multiplied`, whether --per-token is given.
    """
    kl = meaning(name, trainer)
    whose = f"{name} of {trainer}" if trainer else name
    if kl.unit == "no":
        usable = [other for other, its in TRAINERS[trainer].kl.items() if its.unit != "no"] if trainer else []
        instead = f"--kl {usable[0]}, if it was logged, or" if usable else "instead"
        return f"{whose} {kl.why}: give {instead} the sum over a response of log p - log p_initial"
    if kl.unit == "token" and not multiplied:
        by = f"--per-token {length or 'MEAN_LENGTH'} to multiply by the mean length (--per-token 1 if yours is a sum)"
        return f"{whose} is a mean per token, not the sum over a response: add {by}"
    return None


def unusable(series: KlSeries) -> str | None:
    """Why the values of a column cannot be a KL at all; None if they can."""
    name, kl = series.name, series.kl
    if kl.mean() < 0:
        why = "a wrong sign, or scored at another temperature, length or top-k than it was sampled"
        return f"{name} is negative on average ({kl.mean():.3g}, down to {kl.min():.3g}): {why}"
    if (kl == 0).all():
        return f"{name} is 0 everywhere: the trainer did not compute it (no KL penalty?)"
    return None


def doubts(series: KlSeries) -> list[str]:
    """What is dubious about a KL that can be used, a line each."""
    return [*doubts_of_values(series), *doubts_of_meaning(series)]


def doubts_of_values(series: KlSeries) -> list[str]:
    """By the values alone: negative ones, clamped ones, a start that is not 0."""
    name, kl, size = series.name, series.kl, len(series.kl)
    lines = []
    below = int((kl < 0).sum())
    if below:
        lines.append(f"{name} is negative at {below} of {size} points, down to {kl.min():.3g}: they are left out")
    zeros = int((kl == 0).sum())
    if zeros > max(2, size // 5):
        lines.append(f"{name} is exactly 0 at {zeros} of {size} points: if it was clamped there, small KL are too high")
    first_step = 1 if series.trainer else 0  # known trainers count the first update as 1
    if series.steps[0] <= first_step and kl[0] > max(0.1, 0.02 * kl.max()):
        start = f"{name} is {kl[0]:.3g} at step {series.steps[0]:g}, where the policy should be the initial one"
        why = "sampled at a temperature or top-k that it is not scored at, dropout, or another reference"
        lines.append(f"{start}: {why}")
    return lines


def doubts_of_meaning(series: KlSeries) -> list[str]:
    """By what the column is: another temperature, an estimator with a flaw, perhaps a mean per token."""
    name, kl = series.name, series.kl
    lines = []
    for column, value in series.temperatures.items():
        if value != 1:
            why = "is a KL only if both policies are scored at it, and then one of other policies than yours"
            lines.append(f"{column} is {value:g}, not 1: {name} {why}")
    what = meaning(name, series.trainer)
    temperature_is_logged = "temperature" in what.why and series.temperatures
    if what.why and not temperature_is_logged:
        lines.append(f"{name} {what.why}")
    long = series.length is None or series.length[1] >= 8
    if what is SUM and not series.multiplied and kl.max() < 1 and long:
        over = f" over responses of {series.length[1]:.0f} tokens" if series.length else ""
        by = series.length[0] if series.length else "MEAN_LENGTH"
        lines.append(
            f"{name} reaches only {kl.max():.2g}{over}: if it is a mean per token (as in TRL's GRPO and in OpenRLHF),"
            f" add --per-token {by}"
        )
    return lines
