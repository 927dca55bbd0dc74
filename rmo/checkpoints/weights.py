"""The tensors of a checkpoint's safetensors files, by the names that tensors.py uses: read shard by shard, written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from rmo.checkpoints import notes, weight_files
from rmo.checkpoints.tensors import Tensor
from rmo.checkpoints.weight_files import INDEX, CheckpointError
from rmo.runtime.files import write_json

Change = Callable[[np.ndarray], np.ndarray]  # what an adapter makes of a tensor

IGNORED = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
SHARD = 4 * 2**30  # bytes of one exported file
Spans = tuple[tuple[int, int, int], ...]  # (start, stop, step) of each axis


class Weights:
    """The tensors of a checkpoint, by the names that our families use.

    A file is opened for each tensor: what was mapped before is let go, so that pages read do not pile up.
    """

    def __init__(self, directory: Path, embedding: str, unembedding: str):
        """
        Args:
          embedding, unembedding: what the family calls them, e.g. model.embed_tokens.weight; where the embedding is
            tells what stands before every name (nothing in a bare trunk, `module.` after data-parallel training, ...).

        Raises:
          CheckpointError: see `weight_files.stored`.
        """
        found, note = weight_files.stored(directory)
        if note:
            notes.say(note)
        self.place = trunk_place(found, embedding)
        self.unembedding, self.prefix = unembedding, embedding.partition(".")[0] + "."
        self.files: dict[str, weight_files.Stored] = {}
        for name, tensor in found.items():
            if (same := self.files.setdefault(self.ours(name), tensor)) is not tensor:
                raise CheckpointError(f"{directory} has {same.name} and {name}: which is meant cannot be told")
        self.changes: dict[str, Change] = {}  # an adapter's, by our names

    def ours(self, name: str) -> str:
        """Our name of a tensor of theirs."""
        wrapper = self.place.removesuffix(self.prefix)
        if self.place and name.startswith(self.place):
            return self.prefix + name.removeprefix(self.place)
        name = name.removeprefix(wrapper)
        if name in ("lm_head.weight", "embed_out.weight"):  # transformers has called GPT-NeoX's by both names
            return self.unembedding
        return name if self.place or name.startswith(self.prefix) or head_like(name) else self.prefix + name

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self.files[name].shape if name in self.files else None

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self.files[name]
        if tensor.kind not in weight_files.KINDS:
            raise CheckpointError(f"{tensor.path}: {tensor.name} is {tensor.kind}: {weight_files.UNQUANTISED}")
        with weight_files.open_file(tensor.path) as file:
            value = file.get_tensor(tensor.name)
        return self.changes[name](value) if name in self.changes else value


def trunk_place(names: Collection[str], embedding: str) -> str:
    """What stands before the names of a trunk's tensors, `model.` or `module.model.`, by its one embedding; empty for a
    bare trunk."""
    prefix, _, tail = embedding.partition(".")
    found = [name.removesuffix(tail) for name in names if name == tail or name.endswith(f".{tail}")]
    return found[0] if len(found) == 1 else f"{prefix}."


def head_like(name: str) -> bool:
    """Whether a tensor of a bare trunk's checkpoint is beside the trunk, not in it."""
    return bool(HEAD_NAME.search(name))


HEAD_NAME = re.compile(r"(^|[._])(score|v_head|value|value_head|head|regression|reward|rewards|classifier)([._]|$)")


def spans(index: tuple[slice, ...], shape: tuple[int, ...]) -> Spans:
    """A shard's place, as something that can be looked up."""
    return tuple(s.indices(size) for s, size in zip(index, shape, strict=True))


def read_shards(
    weights: Weights, tensor: Tensor, k: int, shape: tuple[int, ...], place: jax.sharding.Sharding, dtype: np.dtype
) -> dict[Spans, np.ndarray]:
    """Every distinct shard of leaf k of `tensor` that this process holds; each layer is read once."""
    indices = {spans(index, shape): index for index in place.addressable_devices_indices_map(shape).values() if index}
    indices = indices or {spans((), ()): ()}
    out = {key: np.empty([len(range(*span)) for span in key], dtype) for key in indices}
    if not tensor.layered:
        value = tensor.split(weights[tensor.name])[k]
        for key, index in indices.items():
            copy(value[index], out[key])
        return out

    def read(layer: int) -> None:
        value = tensor.split(weights[tensor.name.format(i=layer)])[k]
        for key, index in indices.items():
            if layer in (rows := range(*key[0])):
                copy(value[index[1:]], out[key][rows.index(layer)])

    layers = sorted({layer for key in indices for layer in range(*key[0])})
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:  # one layer is read while another is transposed
        list(pool.map(read, layers))
    return out


def copy(source: np.ndarray, target: np.ndarray, rows: int = 64) -> None:
    """target[...] = source, in strips: a transpose at one go misses the cache at every element (8 times slower)."""
    if source.ndim < 2 or source.flags.c_contiguous:
        target[...] = source
        return
    outer, *inner = np.argsort(source.strides)[::-1]  # from the axis that lies widest apart in the file
    step = max(1, rows // int(np.prod([source.shape[i] for i in inner[:-1]])))
    for i in range(0, source.shape[outer], step):
        strip = (slice(None),) * int(outer) + (slice(i, i + step),)
        target[strip] = source[strip]


def write_shards(directory: Path, values: Iterator[tuple[str, np.ndarray]]) -> None:
    """safetensors files of at most SHARD bytes (or one tensor), and their index where there are several."""
    from safetensors.numpy import save_file

    held: dict[str, np.ndarray] = {}
    shards: list[list[str]] = []
    total = 0

    def flush() -> None:
        save_file(held, directory / f"shard-{len(shards)}", metadata={"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, value in values:
        if held and sum(x.nbytes for x in held.values()) + value.nbytes > SHARD:
            flush()
        held[name] = np.ascontiguousarray(value)
        total += value.nbytes
    flush()
    if len(shards) == 1:
        os.replace(directory / "shard-0", directory / "model.safetensors")
        return
    weight_map = {}
    for k, names in enumerate(shards):
        file = f"model-{k + 1:05d}-of-{len(shards):05d}.safetensors"
        os.replace(directory / f"shard-{k}", directory / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(directory / INDEX, index)
