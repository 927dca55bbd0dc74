"""The tensors of a checkpoint's safetensors files, by the names that tensors.py uses: read shard by shard, written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from rmo.checkpoints.tensors import Tensor
from rmo.runtime.files import RunError, write_json

if TYPE_CHECKING:
    from safetensors import safe_open

IGNORED = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
INDEX = "model.safetensors.index.json"
SHARD = 4 * 2**30  # bytes of one exported file
Spans = tuple[tuple[int, int, int], ...]  # (start, stop, step) of each axis


class CheckpointError(RunError):
    """What is wrong with a checkpoint and what to do about it, in one line."""


class Weights:
    """The tensors of a checkpoint's safetensors files, by the names that our families use.

    A file is opened for each tensor: what was mapped before is let go, so that pages read do not pile up.
    """

    def __init__(self, directory: Path, prefix: str, unembedding: str):
        self.prefix, self.unembedding, self.files = prefix, unembedding, {}
        index = directory / INDEX
        if index.exists():
            try:
                found = {name: directory / file for name, file in json.loads(index.read_text())["weight_map"].items()}
            except (ValueError, KeyError) as error:
                raise CheckpointError(f"{index}: {error!r}; fetch the checkpoint again") from error
            for path in sorted(set(found.values())):
                if not path.exists():
                    raise CheckpointError(f"{index} names {path.name}, which is not there: fetch the checkpoint again")
        else:
            single = directory / "model.safetensors"
            if not single.exists():
                others = [p.name for p in directory.glob("*.bin")] + [p.name for p in directory.glob("*.pt*")]
                hint = f"; it has {others[0]}, a pickle, which is never opened: convert it" if others else ""
                raise CheckpointError(f"{directory} has no model.safetensors{hint}")
            with self._open(single) as file:
                found = dict.fromkeys(file.keys(), single)
        self.files = {self._ours(name): (path, name) for name, path in found.items()}

    def _open(self, path: Path) -> safe_open:
        from safetensors import safe_open

        try:
            return safe_open(path, framework="np")
        except Exception as error:
            raise CheckpointError(f"{path} is no safetensors file: {error}") from error

    def _ours(self, name: str) -> str:
        """Checkpoints of bare trunks (GPT-2's own among them) leave the prefix out."""
        if name in ("lm_head.weight", "embed_out.weight"):  # transformers has called GPT-NeoX's by both names
            return self.unembedding
        return name if name.startswith((self.prefix, "score.")) else self.prefix + name

    def shape(self, name: str) -> tuple[int, ...] | None:
        if name not in self.files:
            return None
        path, stored = self.files[name]
        with self._open(path) as file:
            return tuple(file.get_slice(stored).get_shape())

    def __getitem__(self, name: str) -> np.ndarray:
        path, stored = self.files[name]
        with self._open(path) as file:
            return file.get_tensor(stored)


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
