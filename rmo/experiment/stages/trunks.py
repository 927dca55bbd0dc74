"""Trunks of reward models: language models of their shapes, trained on the corpus. All RM seeds of a size share one.

As in the paper, whose RMs are fine-tuned language models: few comparisons then mean few comparisons, and not a network
that has hardly left its random weights.
"""

import dataclasses
from pathlib import Path

from rmo.config import SFT, Model
from rmo.experiment.run import Run
from rmo.experiment.stages.language_model import language_model


def trunks(run: Run, out: Path, shape: Model, c: SFT, name: str) -> None:
    """The language model of one shape: texts and order are its own, not the policy's. lr is that of width 16."""
    lm, optimizer = run.trunk_model(shape), dataclasses.replace(c.optimizer, lr=c.optimizer.lr * 16 / shape.width)
    first = run.first(lm, run.key("trunks"))
    language_model(run, out, lm, first, dataclasses.replace(c, optimizer=optimizer), "trunks", f"trunk {name}")
