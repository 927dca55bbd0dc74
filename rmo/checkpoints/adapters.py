"""LoRA adapters of PEFT, merged into their base as it is read: W + scale * B A. Other adapters are refused by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmo.checkpoints import notes, weight_files
from rmo.checkpoints.weight_files import CheckpointError, Stored
from rmo.checkpoints.weights import Change, Weights
from rmo.runtime.types import Json, Row

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
# What an adapter may ask for that would change what W becomes: each must be off.
CHANGES = (
    "use_dora", "alora_invocation_tokens", "layer_replication", "megatron_config", "trainable_token_indices",
    "target_parameters", "use_qalora", "use_bdlora", "arrow_config",
)  # fmt: skip
PLAIN = (True, False, None, "gaussian", "eva", "orthogonal")  # ways to draw A and B that leave the base as it is


class Adapter(NamedTuple):
    """An adapter beside, or in place of, a checkpoint's weights."""

    directory: Path
    values: Row  # of adapter_config.json
    base: str  # the checkpoint that it was trained on


def find(directory: Path) -> Adapter | None:
    """The adapter that a directory holds; None where it holds none.

    Raises:
      CheckpointError: it is of another kind than LoRA, has no base, or there are full weights beside it.
    """
    if not (directory / CONFIG).exists():
        if (directory / TENSORS).exists():
            raise CheckpointError(f"{directory} has {TENSORS} but no {CONFIG}: fetch it too")
        return None
    values = weight_files.read_object(directory / CONFIG)
    kind, base = values.get("peft_type"), values.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(f"{directory}/{CONFIG} names no base (base_model_name_or_path): write it there")
    if any((directory / name).exists() for name in (weight_files.SINGLE, weight_files.INDEX)):
        raise CheckpointError(
            f"{directory} has whole weights and an adapter of {base}: which is meant cannot be told; move "
            "adapter_config.json and adapter_model.safetensors away, or the whole weights"
        )
    if kind != "LORA":
        raise CheckpointError(f"{directory} is an adapter of kind {kind} for {base}: only LORA is merged; {MERGE}")
    asked = [name for name in CHANGES if values.get(name)]
    if values.get("init_lora_weights", True) not in PLAIN:
        asked.append(f"init_lora_weights {values['init_lora_weights']}")
    if asked:
        raise CheckpointError(f"{directory} is an adapter for {base} with {', '.join(asked)}, unknown here; {MERGE}")
    if not (directory / TENSORS).exists():
        unread = " (adapter_model.bin is a pickle, which is never opened)" * (directory / "adapter_model.bin").exists()
        raise CheckpointError(f"{directory} is an adapter for {base} without {TENSORS}{unread}: save it as safetensors")
    return Adapter(directory, values, base)


MERGE = "merge it in PEFT (merge_and_unload) and save the whole model"


def base_of(adapter: Adapter, resolve: Callable[[str], Path]) -> Path:
    """The directory of an adapter's base: as named, or from beside the adapter, or of the hub.

    Raises:
      CheckpointError: it is not at hand.
    """
    revision = adapter.values.get("revision")
    beside = adapter.directory / adapter.base
    try:
        if not Path(adapter.base).is_dir() and beside.is_dir():
            found = beside
        else:
            found = resolve(f"{adapter.base}@{revision}" if revision and "@" not in adapter.base else adapter.base)
    except CheckpointError as error:
        raise CheckpointError(
            f"{adapter.directory} is a LoRA adapter, and its base is not at hand: {error}; write the base's directory "
            f"into base_model_name_or_path of {CONFIG}, or {MERGE}"
        ) from error
    if (found / CONFIG).exists():
        raise CheckpointError(f"{adapter.directory} is an adapter for {found}, which is one itself: {MERGE}")
    notes.say(f"{adapter.directory}: a LoRA adapter, merged into {found}")
    return found


def merge(adapter: Adapter, weights: Weights, transposed: Callable[[str], bool]) -> None:
    """Make `weights`, those of the base, give what they are with the adapter merged in.

    Args:
      transposed: whether the base keeps this tensor [in, out], as GPT-2's Conv1D does.

    Raises:
      CheckpointError: a tensor of the adapter is not understood, or does not fit the base.
    """
    parts: dict[str, dict[str, Stored]] = {}
    for tensor in weight_files.contents(adapter.directory / TENSORS):
        name = re.sub(r"\.default(?=\.|$)", "", tensor.name.removeprefix("base_model.model."))
        name = name.replace(".modules_to_save.", ".").replace(".base_layer.", ".")
        lora = re.fullmatch(r"(.+)\.(lora(?:_embedding)?_[AB])(?:\.weight)?", name)
        if lora:
            parts.setdefault(lora[1], {})[lora[2]] = tensor
        elif "lora_" in name:
            raise CheckpointError(f"{adapter.directory}: {tensor.name} is unknown here; {MERGE}")
        else:
            weights.files[weights.ours(name)] = tensor  # saved whole: a head, a bias, resized embeddings
    for module, found in parts.items():
        name = f"{module}.weight"
        target = next((n for n in (weights.ours(name), weights.prefix + name) if n in weights.files), None)
        if target is None:
            raise CheckpointError(f"{adapter.directory} changes {module}, which its base {adapter.base} does not have")
        weights.changes[target] = change(adapter, module, found, weights.files[target], transposed(target))


def change(adapter: Adapter, module: str, parts: dict[str, Stored], base: Stored, transposed: bool) -> Change:
    """What an adapter makes of one tensor of its base.

    Raises:
      CheckpointError: a half is missing or does not fit.
    """
    embedding = "lora_embedding_A" in parts
    kinds = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    if set(parts) != set(kinds):
        raise CheckpointError(f"{adapter.directory}: {module} has {', '.join(parts)}: A and B are needed")
    a, b = (parts[kind] for kind in kinds)
    rank = at(adapter, "rank_pattern", module, adapter.values.get("r"))
    fits = len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1] == rank
    shape = (b.shape[0], a.shape[-1])[:: -1 if transposed or embedding else 1] if fits else None
    if shape != base.shape:
        sizes = f"A {a.shape}, B {b.shape}, rank {rank}"
        raise CheckpointError(f"{adapter.directory}: {module} is {base.shape} in the base, and the adapter has {sizes}")
    alpha = at(adapter, "alpha_pattern", module, adapter.values.get("lora_alpha", 8))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CheckpointError(f"{adapter.directory}/{CONFIG}: lora_alpha of {module} is {alpha!r}, no number")
    scale = alpha / (math.sqrt(rank) if adapter.values.get("use_rslora") else rank)

    def merged(value: np.ndarray) -> np.ndarray:
        delta = scale * (read(b).astype(np.float32) @ read(a).astype(np.float32))
        return value.astype(np.float32) + (delta.T if transposed or embedding else delta)

    return merged


def at(adapter: Adapter, patterns: str, module: str, default: Json) -> Json:
    """The setting of one module: of the first pattern that its name ends with (PEFT's rule), or the default."""
    given = adapter.values.get(patterns) or {}
    if not isinstance(given, dict):
        raise CheckpointError(f"{adapter.directory}/{CONFIG}: {patterns} is {given!r}, no object")
    for pattern, value in given.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            raise CheckpointError(f"{adapter.directory}/{CONFIG}: {patterns} has {pattern!r}: {error}") from error
    return default


def read(tensor: Stored) -> np.ndarray:
    """A tensor of the adapter's file."""
    if tensor.kind not in weight_files.KINDS:
        raise CheckpointError(f"{tensor.path}: {tensor.name} is {tensor.kind}: {weight_files.UNQUANTISED}")
    with weight_files.open_file(tensor.path) as file:
        return file.get_tensor(tensor.name)
