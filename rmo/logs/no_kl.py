"""Logs that no fit can be made of: without a KL (why, by trainer, and what to set), or before a question is answered;
and gold by step in its place.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rmo.logs.kl_columns import meaning
from rmo.logs.rows import LogError
from rmo.logs.trainers import TRAINERS


class Reads(NamedTuple):
    """Gold of one run by step."""

    gold: str  # its column
    step: np.ndarray  # f64[K]
    value: np.ndarray  # f64[K], as logged
    se: np.ndarray | None  # f64[K], where the log knows them


class NoFit(LogError):
    """No fit can be made, and why; `reads` holds what can be judged all the same, run by run."""

    def __init__(self, message: str, reads: Mapping[str, Reads], notes: Sequence[str] = ()):
        super().__init__(message, notes)
        self.reads = dict(reads)


class NoKl(NoFit):
    """There is no KL from the initial policy: the user can do nothing about this log."""


class Question(NoFit):
    """The user has to say something first: the unit of KL, or where gold starts."""


def why(names: Sequence[str], trainer: str | None, zero: str | None = None) -> str:
    """Why there is no KL in a log with these columns (or why the column `zero` is 0), and what to set to have one."""
    what = f"{zero} is 0 everywhere" if zero else "there is no KL from the initial policy in this log"
    cure = TRAINERS[trainer].no_kl if trainer else ""
    if cure:
        line = f"{what}: {trainer} {cure}"
    elif zero:
        line = f"{what}: the trainer did not compute it (no KL penalty?)"
    else:
        line = f"{what}: log the sum over a response of log p - log p_initial, or say --kl COLUMN if a column holds it"
    for name in names:
        kl = meaning(name, trainer)
        if kl.unit == "no" and "kl" in name.lower() and "coef" not in kl.why:
            return f"{line} ({name} {kl.why})"
    return line
