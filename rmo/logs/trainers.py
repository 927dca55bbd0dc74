"""What trainers call their columns, what each KL among them is, and what is dubious about one.

Read in the trainers' sources, state of 2026; a new trainer is a line of `LOGGERS`.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Kl(NamedTuple):
    """What a KL column holds: the sum over a response ("sequence"), a mean ("token"), or nothing of use ("no")."""

    unit: str
    why: str = ""


class Logger(NamedTuple):
    """A trainer's columns, `train/` left off; any of `marks` tells it. Of several, the first that is there is taken."""

    marks: tuple[str, ...]
    kl: dict[str, Kl]
    proxy: tuple[str, ...]
    length: tuple[str, ...] = ()


SUM, TOKEN = Kl("sequence"), Kl("token")
OLD = Kl("no", "is between the policy before and after an update, not from the initial policy")
ENGINE = Kl("no", "is between the sampler's and the trainer's copy of one policy, not from the initial policy")
ROOT = Kl("no", "is the square root of a mean of exp(l) - 1 - l over prompt and response, far above the KL")
COEFFICIENT = Kl("no", "is the penalty's coefficient or target, not a KL")
LOGGERS = {
    "TRL's PPO": Logger(
        ("objective/rlhf_reward", "objective/scores"),
        {"objective/kl": Kl("sequence", "is the policies' KL if you sampled at temperature 1 (TRL's default is 0.7)")},
        ("objective/scores",), ("val/sequence_lengths",),
    ),
    "TRL's GRPO or RLOO": Logger(
        ("completions/mean_length", "completion_length", "frac_reward_zero_std"), {"kl": TOKEN}, ("reward",),
        ("completions/mean_length", "completion_length"),
    ),
    "TRL's PPO before 0.12": Logger(
        ("ppo/mean_non_score_reward", "env/reward_mean"), {"objective/kl": SUM}, ("env/reward_mean", "ppo/mean_scores"),
        ("tokens/responses_len_mean",),
    ),
    "OpenRLHF": Logger(("total_length",), {"kl": TOKEN}, ("reward",), ("response_length",)),
    "verl": Logger(
        ("critic/score/mean", "actor/pg_loss"),
        {"actor/reward_kl_penalty": TOKEN, "critic/kl": TOKEN, "actor/kl_loss": TOKEN, "actor/ppo_kl": OLD},
        ("critic/score/mean",), ("response_length/mean",),
    ),
    "trlx": Logger(
        ("rollout_scores/mean", "policy/sqrt_kl"),
        {"policy/kl": Kl("sequence", "is k2, l²/2, over prompt and response: too high where KL is large"),
         "policy/sqrt_kl": ROOT, "policy/kl_per_token": ROOT},
        ("rollout_scores/mean",),
    ),
    "AlpacaFarm": Logger(
        ("objective/kl_sum_seq",),
        {"objective/kl_sum_seq": Kl("sequence", "leaves out negative log-ratios: too high, most where KL is small")},
        ("objective/rewards",),
    ),
    "open-instruct": Logger(
        ("objective/kl_avg", "objective/verifiable_reward"), {"objective/kl_avg": TOKEN, "objective/kl3_avg": TOKEN},
        ("objective/scores", "scores"), ("val/sequence_lengths",),
    ),
}  # fmt: skip
MEANINGS = (  # by any other name; the first that matches
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


def logger_of(names: Sequence[str]) -> str | None:
    """Which of `LOGGERS` wrote these columns."""
    have = {plain(name) for name in names}
    return next((name for name, logger in LOGGERS.items() if have & set(logger.marks)), None)


def meaning(name: str, logger: str | None) -> Kl:
    """What a KL column holds, by its logger or by its name alone; the sum over a response unless it is known better."""
    known = [LOGGERS[logger]] if logger else []
    known += list(LOGGERS.values()) if "/" in plain(name) else []  # a bare "kl" says nothing
    by_logger = (one.kl[plain(name)] for one in known if plain(name) in one.kl)
    by_name = (kl for pattern, kl in MEANINGS if re.search(pattern, name.lower()))
    return next(by_logger, None) or next(by_name, SUM)


def refusal(name: str, logger: str | None, length: str | None, multiplied: bool) -> str | None:
    """Why a KL column cannot be used, and what to give instead; `length` is the column of mean lengths, if known."""
    what, whose = meaning(name, logger), f" of {logger}" if logger else ""
    if what.unit == "no":
        usable = [other for other, kl in LOGGERS[logger].kl.items() if kl.unit != "no"] if logger else []
        instead = f"--kl {usable[0]}, if it was logged, or" if usable else "instead"
        return f"{name}{whose} {what.why}: give {instead} the sum over a response of log p - log p_initial"
    if what.unit == "token" and not multiplied:
        by = f"--per-token {length or 'MEAN_LENGTH'} to multiply by the mean length (--per-token 1 if yours is a sum)"
        return f"{name}{whose} is a mean per token, not the sum over a response: add {by}"
    return None


def doubts(
    name: str, kl: np.ndarray, steps: np.ndarray, logger: str | None, temperatures: dict[str, float],
    length: tuple[str, float] | None, multiplied: bool,
) -> tuple[bool, list[str]]:  # fmt: skip
    """(whether the KL f64[K] of one run can be used at all, what is dubious about it, a line each).

    `temperatures` and `length` are columns of the same log with their values.
    """
    size, below, zeros = len(kl), kl < 0, int((kl == 0).sum())
    if kl.mean() < 0:
        why = "a wrong sign, or scored at another temperature, length or top-k than it was sampled"
        return False, [f"{name} is negative on average ({kl.mean():.3g}, down to {kl.min():.3g}): {why}"]
    if zeros == size:
        return False, [f"{name} is 0 everywhere: the trainer did not compute it (no KL penalty?)"]
    out = []
    if below.any():
        out.append(f"{name} is negative at {below.sum()} of {size} points, down to {kl.min():.3g}: they are left out")
    if zeros > max(2, size // 5):
        out.append(f"{name} is exactly 0 at {zeros} of {size} points: if it was clamped there, small KL are too high")
    if steps[0] <= (1 if logger else 0) and kl[0] > max(0.1, 0.02 * kl.max()):
        why = "sampled at a temperature or top-k that it is not scored at, dropout, or another reference"
        out.append(f"{name} is {kl[0]:.3g} at step {steps[0]:g}, where the policy should be the initial one: {why}")
    for column, value in temperatures.items():
        if value != 1:
            why = "is a KL only if both policies are scored at it, and then one of other policies than yours"
            out.append(f"{column} is {value:g}, not 1: {name} {why}")
    what = meaning(name, logger)
    if what.why and not ("temperature" in what.why and temperatures):
        out.append(f"{name} {what.why}")
    if what is SUM and not multiplied and kl.max() < 1 and (length is None or length[1] >= 8):
        said = f" over responses of {length[1]:.0f} tokens" if length else ""
        out.append(
            f"{name} reaches only {kl.max():.2g}{said}: if it is a mean per token (as in TRL's GRPO and in OpenRLHF),"
            f" add --per-token {length[0] if length else 'MEAN_LENGTH'}"
        )
    return True, out
