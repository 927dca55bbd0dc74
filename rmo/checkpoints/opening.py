"""A checkpoint's directory, wherever it is, and what its config.json says of its shape."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from rmo.checkpoints import adapters, weight_files
from rmo.checkpoints.adapters import Adapter
from rmo.checkpoints.families import FAMILIES, Family, Unsupported, Values
from rmo.checkpoints.weight_files import CheckpointError
from rmo.checkpoints.weights import Weights
from rmo.config.model import Model
from rmo.runtime import errors

SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt")  # configs and tokenizers
FILES = ("*.safetensors", *SMALL_FILES)


class Checkpoint(NamedTuple):
    """A checkpoint before its tensors are read."""

    directory: Path
    base: Path  # where config.json and the weights are: the directory itself, but for an adapter
    adapter: Adapter | None
    family: Family
    shape: Model
    values: Values  # of config.json, as transformers completes them

    @property
    def vocab(self) -> int:
        return self.values["vocab_size"]

    @property
    def length(self) -> int:
        return self.values[self.family.length]

    @property
    def architecture(self) -> str:
        """The class that its authors load it with; empty where config.json does not say."""
        names = self.values.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""

    def weights(self) -> Weights:
        """Its tensors, an adapter merged in.

        Raises:
          CheckpointError: files are missing, broken, wrong, quantised or pickles.
        """
        weights = Weights(self.base, self.family.trunk_embedding, self.family.unembedding)
        if self.adapter:
            adapters.merge(self.adapter, weights, self.family.keeps_in_out)
        return weights


def resolve(name_or_path: str | Path, wanted: tuple[str, ...] = FILES) -> Path:
    """The local directory of a checkpoint. A name of the hub, `owner/name` or `owner/name@revision`, is fetched:
    safetensors, JSON and tokenizer; the directory's name is then the commit."""
    text = str(name_or_path)
    if not text or "\0" in text:
        raise CheckpointError(f"{text!r} is no name of a checkpoint")
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.suffix == ".gguf" and path.is_file():
        raise CheckpointError(f"{text} is a GGUF file: make a directory of it (rmo convert {text} DIR) and give that")
    name, _, revision = text.partition("@")
    if path.is_absolute() or text.startswith((".", "~")) or name.count("/") > 1:
        raise CheckpointError(f"{text}: no such directory{errors.instead(path)}")
    from huggingface_hub import snapshot_download

    try:
        other = ["*/*", "consolidated*"]  # the same weights in other formats
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(wanted), ignore_patterns=other)
        )
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{text} is no directory and could not be fetched from the hub: {line}") from error


def base_directory(directory: Path, wanted: tuple[str, ...] = FILES) -> tuple[Path, Adapter | None]:
    """(where config.json and weights are, the adapter to be merged into them)."""
    adapter = adapters.find(directory)
    if adapter is None:
        return directory, None
    return adapters.base_of(adapter, lambda name: resolve(name, wanted)), adapter


def opened(directory: Path, wanted: tuple[str, ...] = FILES) -> Checkpoint:
    """What a directory holds.

    Raises:
      CheckpointError: no checkpoint, of an unknown architecture, or an adapter that cannot be merged.
    """
    base, adapter = base_directory(directory, wanted)
    family, shape, values = read_config(base)
    return Checkpoint(directory, base, adapter, family, shape, values)


def read_config(directory: Path) -> tuple[Family, Model, Values]:
    """(family, shape, the values of config.json as transformers completes them; `given_labels` is how many labels it
    names, if it does)."""
    path = directory / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{directory} has no config.json: give the directory of a checkpoint")
    raw = weight_files.read_object(path)
    if "auto_map" in raw:
        raise CheckpointError(f"{directory} asks for code of its own (auto_map): remote code is never run")
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise CheckpointError(f"{directory} is of type {kind}: known are {', '.join(FAMILIES)}")
    weight_files.refuse_quantised(directory, raw)
    from transformers import AutoConfig

    family = FAMILIES[kind]
    try:
        values = AutoConfig.from_pretrained(str(directory)).to_dict()
        shape = family.read(values)
    except Unsupported as error:
        raise CheckpointError(f"{directory} needs what the trunk does not do: {error}") from error
    except Exception as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: {line}") from error
    check_sizes(path, shape, {"vocab_size": values.get("vocab_size"), family.length: values.get(family.length)})
    names = raw.get("id2label")
    labels = len(names) if isinstance(names, dict) else raw.get("num_labels")
    return family, shape, {**raw, **values, "given_labels": labels}


SIZES = ("width", "layers", "heads", "hidden_width", "head_width")


def check_sizes(path: Path, shape: Model, more: Values) -> None:
    """Refuse a config whose sizes are none.

    Raises:
      CheckpointError: names the first.
    """
    for name, value in {**{name: getattr(shape, name) for name in SIZES}, **more}.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise CheckpointError(f"{path}: {name} is {value!r}, no size")
    if shape.kv_heads and shape.heads % shape.kv_heads:
        raise CheckpointError(f"{path}: {shape.heads} heads cannot share {shape.kv_heads} key and value heads")
    for name in ("norm_eps", "rotary_base", "query_scale", "attention_cap", "logit_cap", "window"):
        value = getattr(shape, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
            raise CheckpointError(f"{path}: {name} is {value!r}, no number from 0")
