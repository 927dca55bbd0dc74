"""What a KL column holds, why it cannot be used and what to give instead, and what is dubious about one that can."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rmo.logs.trainers import (
    COEFFICIENT,
    ENGINE,
    LARGEST,
    OLD,
    RATIO,
    ROOT,
    SUM,
    TOKEN,
    TRAINERS,
    UNKNOWN,
    Kl,
    known,
    plain,
)
from rmo.logs.trainers import like as like

MEANINGS = (  # of a KL column in a log of an unknown trainer, by its name; the first that matches
    (r"approx_?kl|ppo_?kl|policykl|old_?kl|kl_?old|pre_?post|behave", OLD),
    (r"rollout_corr|mismatch|sample_train|gen_kl|vllm|sampler", ENGINE),
    (r"ent_?ratio", RATIO),
    (r"kl.*(coef|ctl|ctrl|beta|target|weight|lambda)|^(beta|kl_?beta)$", COEFFICIENT),
    (r"sqrt_?kl", ROOT),
    (r"kl_?max|max_?kl", LARGEST),
    (r"per_?token|token_?mean|token_?kl|kl_?token", TOKEN),
    (r"kl_?sum|sum_?kl|per_?(seq|response|sample|completion)|seq(uence)?_?kl|kl_?seq", SUM),
)
LARGEST_TOKEN_KL = 12.5  # nats, the log of a vocabulary of 270,000: no mean per token is larger
SHORT = 8  # tokens of a response below which a small sum is no surprise


class KlSeries(NamedTuple):
    """KL as one run logged it, and what else its log holds about it."""

    name: str  # of the column
    kl: np.ndarray  # f64[K], nats per response
    steps: np.ndarray  # f64[K]
    trainer: str | None  # a name of TRAINERS
    temperatures: dict[str, float]  # column -> value
    length: tuple[str, float] | None  # (column of response lengths, their mean)
    multiplied: bool  # whether it was a mean per token, and has been multiplied by a length


class Asked(NamedTuple):
    """What the user said of the unit, and what the log says of it."""

    multiplied: bool  # --per-token is given
    sum: bool  # --kl-sum is given
    length: str | None  # the column of mean response lengths, if known
    largest: float  # KL that any run of the log reaches


def reached(values: Sequence[float]) -> float:
    """The largest KL of a run, but for spikes: two values beyond what a mean per token can be are an estimator's."""
    ordered = sorted(values)
    if len(ordered) > 2 and ordered[-3] <= LARGEST_TOKEN_KL:
        ordered = [value for value in ordered if value <= LARGEST_TOKEN_KL] or ordered
    return ordered[-1]


def meaning(name: str, trainer: str | None) -> Kl:
    """What a KL column holds, by its trainer or by its name alone; its unit may be unknown."""
    candidates = [trainer] if trainer else []
    if "/" in plain(name):  # a bare "kl" can be any trainer's
        candidates += TRAINERS
    for one in candidates:
        if found := known(name, one):
            return found
    for pattern, kl in MEANINGS:
        if re.search(pattern, name.lower()):
            return kl
    return UNKNOWN


def usable(names: Sequence[str], trainer: str | None) -> list[str]:
    """Columns of a log that a trainer calls a KL from the initial policy, the best first."""
    wanted = [column for column, kl in TRAINERS[trainer].kl.items() if kl.unit != "no"] if trainer else []
    return [name for column in wanted for name in names if like(name, column)]


def refusal(name: str, trainer: str | None, names: Sequence[str], asked: Asked) -> str | None:
    """Why a KL column cannot be used, and what to give instead; None if it can."""
    kl = meaning(name, trainer)
    whose = f"{name} of {trainer}" if trainer else name
    if kl.unit == "no":
        return f"{whose} {kl.why}: give {instead(trainer, names)}"
    if asked.multiplied or asked.sum or kl.unit == "sequence":
        return None
    column = asked.length or "MEAN_LENGTH"
    if kl.unit == "token":
        by = f"add --per-token {column} to multiply by the mean length (--kl-sum if yours is a sum)"
        return f"{whose} is a mean per token, not the sum over a response: {by}"
    if asked.largest > LARGEST_TOKEN_KL:
        return None
    known_by = f"it reaches {asked.largest:.2g}" if np.isfinite(asked.largest) else "its name does not say"
    either = f"--per-token {column} if it is a mean per token ({column} being the mean length of a response)"
    return (
        f"is {name} a mean per token or the sum over a response ({known_by})? Say {either}, --kl-sum if it is the sum"
    )


def instead(trainer: str | None, names: Sequence[str]) -> str:
    """What to give in place of a column that is no KL from the initial policy."""
    the_sum = "the sum over a response of log p - log p_initial"
    if found := usable(names, trainer):
        return f"--kl {found[0]} instead"
    if trainer is None:
        return f"instead {the_sum}"
    possible = [column for column, kl in TRAINERS[trainer].kl.items() if kl.unit != "no"]
    if possible:
        return f"--kl {possible[0]}, if it was logged, or {the_sum}"
    why = f" ({trainer} {TRAINERS[trainer].no_kl})" if TRAINERS[trainer].no_kl else ""
    return f"instead {the_sum}{why}"


def unusable(series: KlSeries) -> str | None:
    """Why the values of a column cannot be a KL at all; None if they can."""
    name, kl = series.name, series.kl
    if kl.mean() < 0:
        why = "a wrong sign, or scored at another temperature, length or top-k than it was sampled"
        return f"{name} is negative on average ({kl.mean():.3g}, down to {kl.min():.3g}): {why}"
    return None


def what_it_is(series: KlSeries, asked: Asked) -> str | None:
    """The estimator and the direction of a KL, and how its unit is known, for people; None if nothing is known."""
    kl = meaning(series.name, series.trainer)
    words = ["KL(policy || initial policy)"]
    if kl.estimator:
        words.append(f"by {kl.estimator}")
    if kl.unit == "unknown" and not (asked.multiplied or asked.sum):
        limit = f"it reaches {asked.largest:.3g}, more than a mean per token can be ({LARGEST_TOKEN_KL})"
        return f"{series.name} is taken as the sum over a response: {limit}"
    return f"{series.name} is {', '.join(words)}" if kl.estimator else None


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
    long = series.length is None or series.length[1] >= SHORT
    if what is SUM and not series.multiplied and kl.max() < 1 and long:
        over = f" over responses of {series.length[1]:.0f} tokens" if series.length else ""
        by = series.length[0] if series.length else "MEAN_LENGTH"
        lines.append(f"{name} reaches only {kl.max():.2g}{over}: if it is a mean per token, add --per-token {by}")
    return lines
