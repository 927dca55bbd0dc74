"""Which safetensors files hold a checkpoint's weights, and what each of them holds; what cannot be read is named.

As transformers: model.safetensors where there is one, whatever an index beside it says; else every tensor of the files
that the index names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rmo.runtime.files import RunError
from rmo.runtime.types import Json

if TYPE_CHECKING:
    from safetensors import safe_open

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
OTHERS = ("*.gguf", "*.msgpack", "*.h5", "*.onnx", "*.npz")
POINTER = b"version https://git-lfs"  # what Git LFS leaves where a file has not been fetched
KINDS = ("F64", "F32", "F16", "BF16")  # types of numbers that are weights as they are
QUANTISED = (
    "qweight", "qzeros", "scales", "g_idx", "SCB", "absmax", "quant_map", "weight_scale", "weight_scale_inv",
    "weight_packed", "weight_zero_point", "weight_shape", "input_scale", "_blocks", "_scales", "weight_format",
)  # fmt: skip


class CheckpointError(RunError):
    """What is wrong with a checkpoint and what to do about it, in one line."""


class Stored(NamedTuple):
    """A tensor as a file holds it."""

    path: Path
    name: str
    shape: tuple[int, ...]
    kind: str  # of its numbers, as safetensors calls them: F32, BF16, ...


def open_file(path: Path) -> safe_open:
    """A safetensors file.

    Raises:
      CheckpointError: it is none, or is cut short, or was never fetched.
    """
    from safetensors import safe_open

    try:
        with open(path, "rb") as file:
            pointer = file.read(len(POINTER)) == POINTER
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if pointer:
        raise CheckpointError(f"{path} is a pointer of Git LFS, not the file: fetch it (git lfs pull)")
    try:
        return safe_open(path, framework="np")
    except Exception as error:
        why = " ".join(str(error).split())
        raise CheckpointError(f"{path} is no safetensors file, or not all of one ({why}): fetch it again") from error


def contents(path: Path) -> list[Stored]:
    """Every tensor of a file, by its header alone."""
    with open_file(path) as file:
        slices = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118  a file of theirs, no mapping
        return [Stored(path, name, tuple(x.get_shape()), str(x.get_dtype())) for name, x in slices]


def read_object(path: Path) -> Json:
    """The object that a JSON file holds.

    Raises:
      CheckpointError: it holds none.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}; fetch the checkpoint again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, no object; fetch the checkpoint again")
    return value


def stored(directory: Path) -> tuple[dict[str, Stored], str]:
    """(every tensor of a checkpoint by its name, what is to be said of the files; empty where nothing is).

    Raises:
      CheckpointError: files are missing or broken, an index is wrong, or the weights are pickles.
    """
    single, index = directory / SINGLE, directory / INDEX
    if single.exists():
        note = ""
        if index.exists() and (others := sorted(set(map(str, weight_map(index).values())) - {SINGLE})):
            note = f"{single} is read, as transformers does; the index beside it, which names {others[0]}, is not"
        return {tensor.name: tensor for tensor in contents(single)}, note
    if not index.exists():
        raise CheckpointError(f"{directory} has no {SINGLE}{what_else(directory)}")
    return from_index(directory, index), ""


def weight_map(index: Path) -> dict[str, Json]:
    """What an index says: the file of each tensor. Raises CheckpointError where it says nothing of the kind."""
    found = read_object(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{index} has no weight_map (tensor to file): fetch the checkpoint again")
    return found


def from_index(directory: Path, index: Path) -> dict[str, Stored]:
    """Every tensor of the files that an index names, wherever in them it says that a tensor is (as transformers)."""
    names = weight_map(index)
    for file in names.values():
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{index} names {file!r}, no file beside it: fetch the checkpoint again")
    out: dict[str, Stored] = {}
    for file in sorted(set(names.values())):
        if not (directory / file).is_file():
            raise CheckpointError(f"{index} names {file}, which is not there: fetch the checkpoint again")
        for tensor in contents(directory / file):
            if tensor.name in out:
                twice = f"{tensor.name} is in {out[tensor.name].path.name} and in {file}"
                raise CheckpointError(f"{directory}: {twice}: fetch the checkpoint again")
            out[tensor.name] = tensor
    lost = [name for name in names if name not in out]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        where = f"{index} names {lost[0]}{more}, which no file of it has"
        raise CheckpointError(f"{where}: fetch the checkpoint again")
    return out


def what_else(directory: Path) -> str:
    """What a directory without safetensors weights has in their place, and what to do."""
    there = sorted(path.name for path in directory.glob("model-*-of-*.safetensors"))
    if there:
        return f": it has {there[0]} but no {INDEX}: fetch the index too"
    there = sorted(path.name for path in directory.glob("*.safetensors") if not path.name.startswith("adapter_"))
    if there:
        return f": it has {', '.join(there[:3])}: the weights are missing, or go by another name"
    for patterns, advice in ((PICKLES, "a pickle, which is never opened: convert it"), (OTHERS, "another format")):
        found = [path.name for pattern in patterns for path in directory.glob(pattern)]
        if found := sorted(found, key=lambda name: ("model" not in name, name)):  # not optimizer.pt, training_args.bin
            if found[0].endswith(".gguf"):
                return f"; it has {found[0]}, another format: convert it (rmo convert {directory / found[0]} DIR)"
            return f"; it has {found[0]}, {advice} to safetensors (load it in transformers and save_pretrained)"
    return ": give the directory of a checkpoint"


def refuse_quantised(directory: Path, values: dict[str, Json]) -> None:
    """Refuse weights that config.json calls quantised.

    Raises:
      CheckpointError: names the method.
    """
    asked = values.get("quantization_config") or values.get("compression_config")
    if not asked:
        return
    asked = asked if isinstance(asked, dict) else {"quant_method": asked}
    if asked.get("load_in_8bit") is False and asked.get("load_in_4bit") is False:
        return  # what bitsandbytes writes where nothing is quantised
    method = asked.get("quant_method") or "a method that it does not name"
    bits = next((f", {n} bits" for key, n in (("load_in_4bit", 4), ("load_in_8bit", 8)) if asked.get(key)), "")
    raise CheckpointError(f"{directory} is quantised ({method}{bits}): {UNQUANTISED}")


UNQUANTISED = (
    "give the checkpoint that it was made from, or dequantise it (transformers, model.dequantize()) and save it"
)


def looks_quantised(name: str) -> bool:
    """Whether a tensor's name is one that only quantised checkpoints have."""
    return name.rpartition(".")[2] in QUANTISED or name.endswith(QUANTISED[-3:-1])
