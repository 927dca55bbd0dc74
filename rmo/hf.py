"""Hugging Face checkpoints <-> our modules and parameters: safetensors in and out, no torch, no pickle, no remote code.

A parameter is read tensor by tensor, layer by layer, straight into the shards that this process owns; what lies in
host memory besides is one stacked parameter at a time.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmo import config, models, sharding
from rmo.families import FAMILIES, Family, Tensor, Unsupported, family_of
from rmo.files import RunError, write_json
from rmo.models import LanguageModel, Params, RewardModel

IGNORED = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
SHARD = 4 * 2**30  # bytes of one exported file
HEAD_BIAS = "rmo_head_bias"  # transformers' heads have no bias; ours goes into config.json


class CheckpointError(RunError):
    """What is wrong with a checkpoint and what to do about it, in one line."""


def load_language_model(
    name_or_path: str | Path, mesh: jax.sharding.Mesh | None = None, dtype: str = "float32", stored: str = "float32"
) -> tuple[LanguageModel, Params]:
    """A causal language model of a local directory or of the hub.

    Args:
      mesh: where the parameters go, by `sharding.shardings_of`; None: the default device.
      dtype: type of the activations.
      stored: type of the parameters; float32 to train, bfloat16 halves what a frozen model takes.

    Raises:
      CheckpointError: it cannot be had, is of an unknown architecture, or a tensor is missing, misshapen or left over.
    """
    return _load(name_or_path, False, mesh, dtype, stored)  # type: ignore[return-value]


def load_reward_model(
    name_or_path: str | Path, mesh: jax.sharding.Mesh | None = None, dtype: str = "float32", stored: str = "float32"
) -> tuple[RewardModel, Params]:
    """A one-label sequence classifier, read per token; as `load_language_model`."""
    return _load(name_or_path, True, mesh, dtype, stored)  # type: ignore[return-value]


def resolve(name_or_path: str | Path) -> Path:
    """The local directory of a checkpoint; a name of the hub is fetched: weights in safetensors, JSON and tokenizer."""
    path = Path(name_or_path)
    if path.is_dir():
        return path
    text = str(name_or_path)
    if path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1:
        raise CheckpointError(f"{text}: no such directory")
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
        return Path(snapshot_download(text, allow_patterns=patterns))
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{text} is no directory and could not be fetched from the hub: {line}") from error


def read_config(directory: Path) -> tuple[Family, config.Model, dict[str, Any]]:
    """(family, shape, the values of config.json as transformers completes them)."""
    try:
        raw = json.loads((directory / "config.json").read_text())
    except OSError as error:
        raise CheckpointError(f"{directory} has no config.json: give the directory of a checkpoint") from error
    except ValueError as error:
        raise CheckpointError(f"{directory}/config.json is not JSON: {error}") from error
    if "auto_map" in raw:
        raise CheckpointError(f"{directory} asks for code of its own (auto_map): remote code is never run")
    kind = raw.get("model_type")
    if kind not in FAMILIES:
        raise CheckpointError(f"{directory} is of type {kind}: known are {', '.join(FAMILIES)}")
    from transformers import AutoConfig

    try:
        values = AutoConfig.from_pretrained(str(directory)).to_dict()
        return FAMILIES[kind], FAMILIES[kind].read(values), raw | values
    except Unsupported as error:
        raise CheckpointError(f"{directory} needs what the trunk does not do: {error}") from error
    except Exception as error:
        raise CheckpointError(f"{directory}/config.json: {error}".replace("\n", " ")) from error


class Weights:
    """The tensors of a checkpoint's safetensors files, by the names that our families use.

    A file is opened for each tensor: what was mapped before is let go, so that pages read do not pile up.
    """

    def __init__(self, directory: Path, prefix: str):
        self.prefix, self.files = prefix, {}
        index = directory / "model.safetensors.index.json"
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

    def _open(self, path: Path) -> Any:
        from safetensors import safe_open

        try:
            return safe_open(path, framework="np")
        except Exception as error:
            raise CheckpointError(f"{path} is no safetensors file: {error}") from error

    def _ours(self, name: str) -> str:
        """Checkpoints of bare trunks (GPT-2's own among them) leave the prefix out."""
        heads = ("lm_head.", "embed_out.", "score.")
        return name if name.startswith((self.prefix, *heads)) else self.prefix + name

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


def _load(name_or_path, reward: bool, mesh, dtype: str, stored: str) -> tuple[LanguageModel | RewardModel, Params]:
    directory = resolve(name_or_path)
    family, shape, values = read_config(directory)
    architecture = (values.get("architectures") or [""])[0]
    if not reward and "Classification" in architecture:
        raise CheckpointError(f"{directory} is a {architecture}: no language model; use it as a reward model")
    shape = dataclasses.replace(shape, dtype=dtype)  # type: ignore[arg-type]
    vocab, length = values["vocab_size"], values[family.length]
    module = (RewardModel if reward else LanguageModel)(shape, vocab, length)
    tensors = family.tensors(shape, vocab, length, reward)
    weights = Weights(directory, tensors[0].name.split(".")[0] + ".")
    check_tensors(directory, weights, tensors, shape.layers, reward)

    holder = {leaf: (tensor, k) for tensor in tensors for k, leaf in enumerate(tensor.leaves)}
    shapes = jax.eval_shape(partial(models.init, module), jax.random.key(0))
    flat = {"/".join(str(key.key) for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    if mesh is None:
        places = dict.fromkeys(flat, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    else:
        places = sharding.shardings_of(flat, mesh)
    out = {}
    for leaf in sorted(flat, key=lambda name: -flat[name].size):  # largest first: the peak is then while little is held
        if leaf == "head/bias":
            fill = np.full(1, values.get(HEAD_BIAS, 0.0), np.float32)
            out[leaf] = jax.device_put(fill, places[leaf])
            continue
        tensor, k = holder[leaf]
        read = reader(weights, tensor, k, flat[leaf].shape, np.dtype(jnp.dtype(stored)))
        out[leaf] = jax.make_array_from_callback(flat[leaf].shape, places[leaf], read)  # type: ignore[arg-type]
    return module, jax.tree.unflatten(jax.tree.structure(shapes), [out[name] for name in flat])


def check_tensors(directory: Path, weights: Weights, tensors: list[Tensor], layers: int, reward: bool) -> None:
    """Refuse a checkpoint in which a tensor is missing, misshapen, or not understood."""
    known = set()
    for tensor in tensors:
        for name in [tensor.name.format(i=i) for i in range(layers)] if tensor.layered else [tensor.name]:
            known.add(name)
            found = weights.shape(name)
            if found is None:
                hint = ": it is no one-label sequence classifier" if name == "score.weight" else ""
                raise CheckpointError(f"{directory} has no tensor {name}{hint}")
            if found != tensor.shape:
                raise CheckpointError(f"{directory}: {name} is {found}, the config says {tensor.shape}")
    heads = {"lm_head.weight", "embed_out.weight"}  # a tied copy, or one that a reward model does not use
    left = [n for n in weights.files if n not in known | heads and not n.endswith(IGNORED)]
    if left:
        raise CheckpointError(f"{directory} has {len(left)} tensors that its config does not explain, e.g. {left[0]}")


def reader(
    weights: Weights, tensor: Tensor, k: int, shape: tuple[int, ...], dtype: np.dtype
) -> Callable[[tuple[slice, ...]], np.ndarray]:
    """index of a shard -> the shard, for leaf k of `tensor`; devices that hold the same shard share it."""
    made: dict[tuple, np.ndarray] = {}

    def read(index: tuple[slice, ...]) -> np.ndarray:
        spans = [s.indices(size) for s, size in zip(index, shape, strict=True)]
        if (key := tuple(spans)) not in made:
            out = np.empty([len(range(*span)) for span in spans], dtype)
            if tensor.layered:
                for row, layer in enumerate(range(*spans[0])):
                    out[row] = tensor.split(weights[tensor.name.format(i=layer)])[k][index[1:]]
            else:
                out[...] = tensor.split(weights[tensor.name])[k][index]
            made[key] = out
        return made[key]

    return read


def export(module: LanguageModel | RewardModel, params: Params, directory: str | Path, tokenizer: Any = None) -> None:
    """Write a checkpoint that `transformers` loads; numbers keep their type. `tokenizer` is saved beside it.

    A head's bias, which transformers' classifiers do not have, is kept in config.json: their scores lack it.

    Raises:
      CheckpointError: the directory has something in it, or no family of transformers has the module's shape.
    """
    directory, reward = Path(directory), isinstance(module, RewardModel)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"{directory} exists and is not empty: give a new directory")
    try:
        family = family_of(module.shape)
    except Unsupported as error:
        raise CheckpointError(f"cannot export: {error}") from error
    tensors = family.tensors(module.shape, module.vocab, module.length, reward)
    flat = {"/".join(str(key.key) for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    part = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_shards(part, theirs(tensors, flat, module.shape.layers))
    values: dict[str, Any] = {"vocab_size": module.vocab, family.length: module.length, **family.write(module.shape)}
    if reward:
        values |= {"num_labels": 1, HEAD_BIAS: float(flat["head/bias"][0])}
    _write_config(part, family, reward, values, str(flat["trunk/embed/embedding"].dtype))
    if tokenizer is not None:
        tokenizer.save_pretrained(part)
    if directory.exists():
        directory.rmdir()
    os.replace(part, directory)


def _write_config(directory: Path, family: Family, reward: bool, values: dict[str, Any], dtype: str) -> None:
    """config.json through transformers, so that it is complete."""
    from transformers import AutoConfig

    classes = family.classes + ("ForSequenceClassification" if reward else family.causal)
    made = AutoConfig.for_model(family.model_type, **values)
    made.architectures, made.dtype = [classes], dtype
    if reward and made.pad_token_id is None:
        made.pad_token_id = made.eos_token_id if made.eos_token_id is not None else 0
    made.save_pretrained(directory)


def theirs(tensors: list[Tensor], flat: dict[str, Any], layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """(name, value) of every tensor, one at a time."""
    for tensor in tensors:
        if tensor.layered:
            for i in range(layers):
                yield tensor.name.format(i=i), tensor.join(*(np.asarray(flat[leaf][i]) for leaf in tensor.leaves))
        else:
            yield tensor.name, tensor.join(*(np.asarray(flat[leaf]) for leaf in tensor.leaves))


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
    write_json(directory / "model.safetensors.index.json", index)
