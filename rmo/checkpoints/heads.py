"""The head of a reward model, whatever it is called and wherever it lies: the one tensor of one row beside the trunk.

`score` (transformers), `v_head.summary` (TRL, LLaMA-Factory), `value_head` (OpenRLHF), `regression_head` (UltraRM,
Eurus), `rewards.dense`, ... How many labels there are is what the tensor says, not a field that may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmo.checkpoints import notes, weight_files
from rmo.checkpoints.families import Values
from rmo.checkpoints.weight_files import CheckpointError, Stored
from rmo.checkpoints.weights import HEAD_NAME, Weights

SCORE = "score.weight"
HEAD_BIAS = "rmo_head_bias"  # transformers' heads have no bias; ours goes into config.json


class Head(NamedTuple):
    """Where a reward model's score comes from: (weight . h + bias - mean) / std."""

    weight: str  # by our names
    bias: str | None
    shift: float  # of config.json, which we write there
    mean: float
    std: float
    others: tuple[str, ...] = ()  # heads that config.json does not mean

    def offset(self, weights: Weights) -> float:
        """What is added to weight . h / std."""
        bias = float(weights[self.bias].astype(np.float64).ravel()[0]) if self.bias else 0.0
        return (bias + self.shift - self.mean) / self.std


def find(places: list[Path], weights: Weights, trunk_names: Iterable[str], width: int, values: Values) -> Head:
    """The head of a checkpoint.

    Args:
      places: its directory, and that of an adapter's base.
      trunk_names: our names of the trunk's tensors.
      values: of config.json.

    Raises:
      CheckpointError: there is none of one row, or which is meant cannot be told.
    """
    directory, trunk, others = places[0], set(trunk_names), ()
    for place in places:
        add_files_beside(place, weights)
    found = rows_of_one(weights, trunk, width)
    named = f"{values.get('value_head_prefix')}.weight"  # OpenRLHF's name of it
    if len(found) > 1:
        if named not in found:
            what = " and ".join(found)
            raise CheckpointError(f"{directory} has {what}: which is the reward cannot be told; remove the other")
        others = tuple(name for other in found if other != named for name in (other, bias_of(other)))
        found = [named]
    if not found:
        raise CheckpointError(f"{directory} has {why_none(directory, weights, trunk, width)}")
    (weight,) = found
    labels = values.get("given_labels")
    if labels not in (None, 1):
        raise CheckpointError(f"{directory} has {labels} labels: a reward model has one")
    place = weights.files[weight].path
    if weight != SCORE or beside(place):
        notes.say(f"{directory}: the score is that of {weight}" + (f" in {place.name}" if beside(place) else ""))
    bias = bias_of(weight)
    if bias in weights.files and math.prod(weights.files[bias].shape) != 1:
        raise CheckpointError(f"{directory}: {bias} is {weights.files[bias].shape}, and {weight} has one row")
    shift = number(directory, values, HEAD_BIAS, 0.0)
    kept = bias if bias in weights.files else None
    return Head(weight, kept, shift, *normalisation(directory, values), others)


def bias_of(weight: str) -> str:
    """The name of the bias beside a weight."""
    return weight.removesuffix("weight") + "bias"


def rows_of_one(weights: Weights, trunk: set[str], width: int) -> list[str]:
    """The tensors beside the trunk that make one number of a hidden state."""

    def may_be_a_head(name: str) -> bool:
        inside = name.startswith(weights.prefix) and not HEAD_NAME.search(name)
        return name not in trunk and not inside and "lora_" not in name

    return [name for name, x in weights.files.items() if x.shape == (1, width) and may_be_a_head(name)]


def why_none(directory: Path, weights: Weights, trunk: set[str], width: int) -> str:
    """What a checkpoint has in place of a head of one row."""
    known = trunk | {weights.unembedding}
    others = {name: x.shape for name, x in weights.files.items() if name not in known and HEAD_NAME.search(name)}
    rows = [(name, shape) for name, shape in others.items() if len(shape) == 2]
    if len(rows) == 1 and rows[0][1][1] == width:
        name, (labels, _) = rows[0]
        return f"{labels} labels ({name}): a reward model has one"
    if rows:
        many = ", ".join(f"{name} {shape}" for name, shape in rows[:3])
        return f"a head of several layers or labels ({many}): one row of {width} is read"
    if others:
        shapes = ", ".join(f"{name} {shape}" for name, shape in list(others.items())[:3])
        return f"no head of one row of {width} ({shapes}): it is no one-label sequence classifier"
    pickles = [p.name for pattern in weight_files.PICKLES for p in directory.glob(pattern) if beside(p)]
    hint = f"; {pickles[0]} is a pickle, which is never opened: convert it to safetensors" if pickles else ""
    return f"no tensor {SCORE}: it is no one-label sequence classifier{hint}"


def beside(path: Path) -> bool:
    """Whether a file holds a head alone, as LLaMA-Factory's value_head.safetensors does."""
    return bool(HEAD_NAME.search(path.stem.replace("-", "_"))) and not path.name.startswith("model")


def add_files_beside(directory: Path, weights: Weights) -> None:
    """Take in the tensors of a head that lies in a file of its own.

    Raises:
      CheckpointError: the weights have other tensors of the same names.
    """
    read = {tensor.path for tensor in weights.files.values()}
    for path in sorted(directory.glob("*.safetensors")):
        if path in read or not beside(path):
            continue
        for tensor in weight_files.contents(path):
            name = weights.ours(tensor.name)
            if HEAD_NAME.search(name) is None and set(tensor.name.split(".")) <= {"weight", "bias"}:
                name = f"{path.stem}.{tensor.name}"
            if weights.files.setdefault(name, tensor) is not tensor:
                both = f"{tensor.name} in {path.name} and in {weights.files[name].path.name}"
                raise CheckpointError(f"{directory} has {both}: which is meant cannot be told; remove one")


def normalisation(directory: Path, values: Values) -> tuple[float, float]:
    """(mean, std) that scores are normalised by, as OpenRLHF does where config.json says so; (0, 1) elsewhere.

    Raises:
      CheckpointError: they are no numbers, or std is not above 0.
    """
    mean, std = number(directory, values, "mean", 0.0), number(directory, values, "std", 1.0)
    if (mean, std) == (0.0, 1.0):
        return 0.0, 1.0
    if not values.get("normalize_reward"):
        notes.say(
            f"{directory}: config.json has mean {mean:g} and std {std:g} of scores and does not ask for them"
            " (normalize_reward): scores are as the head gives them"
        )
        return 0.0, 1.0
    if not std > 0:
        raise CheckpointError(f"{directory}/config.json: std is {std:g}, by which scores cannot be divided")
    notes.say(f"{directory}: scores are normalised as config.json asks (OpenRLHF): less {mean:g}, over {std:g}")
    return mean, std


def number(directory: Path, values: Values, name: str, default: float) -> float:
    """A number of config.json. Raises CheckpointError where it is none."""
    given = values.get(name)
    if given is None:
        return default
    given = given[0] if isinstance(given, list) and len(given) == 1 else given
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise CheckpointError(f"{directory}/config.json: {name} is {given!r}, no number")
    return float(given)


def named(name: str) -> bool:
    """Whether a tensor is a head's, by its name."""
    return bool(HEAD_NAME.search(name))


def of_a_language_model(files: dict[str, Stored]) -> list[str]:
    """A value head that training left in a language model, which no text is drawn from."""
    return [name for name in files if name.startswith(("v_head.", "value_head."))]
