"""Trunks of the proxies: a language model of each size, trained on the corpus, which all its RM seeds start from.

As in the paper, whose RMs are fine-tuned language models: few comparisons then mean few comparisons, and not a network
that has hardly left its random weights.
"""

import dataclasses
from pathlib import Path

from rmo.config import Model
from rmo.experiment.run import Run
from rmo.experiment.stages.language_model import language_model


def trunks(run: Run, out: Path, shape: Model, name: str) -> None:
    """The language model of one size: texts and order are its own, not the policy's."""
    c, lm = run.experiment.proxies.trunk, run.trunk_model(shape)
    optimizer = dataclasses.replace(c.optimizer, lr=c.optimizer.lr * 16 / shape.width)
    first = run.first(lm, run.key("trunks"))
    language_model(run, out, lm, first, dataclasses.replace(c, optimizer=optimizer), "trunks", f"trunk {name}")
