"""Hugging Face checkpoints <-> our modules and parameters: safetensors in and out, no torch, no pickle, no remote code.

A parameter is read tensor by tensor, layer by layer, straight into the shards that this process owns; what lies in
host memory besides is one stacked parameter at a time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from rmo.checkpoints.families import FAMILIES, Family, Unsupported, Values, canonical, family_of
from rmo.checkpoints.tensors import Tensor
from rmo.checkpoints.weights import IGNORED, INDEX, CheckpointError, Spans, Weights, read_shards, spans, write_shards
from rmo.config.model import Model
from rmo.models import transformer
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.runtime import errors, sharding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCORE = "score.weight"
HEAD_BIAS = "rmo_head_bias"  # transformers' heads have no bias; ours goes into config.json


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
    directory = resolve(name_or_path)
    family, shape, values = read_config(directory)
    architecture = (values.get("architectures") or [""])[0]
    if "Classification" in architecture:
        raise CheckpointError(f"{directory} is a {architecture}: no language model; use it as a reward model")
    weights = Weights(directory, family.prefix, family.unembedding)
    if shape.tied and untied_after_all(family, weights):
        shape = dataclasses.replace(shape, tied=False)
    module = LanguageModel(in_dtype(shape, dtype), values["vocab_size"], values[family.length])
    tensors = family.tensors(shape, module.vocab, module.length, reward=False)
    check_tensors(directory, weights, tensors, shape.layers)
    return module, read_params(weights, tensors, shapes_of(module), mesh, stored)


def load_reward_model(
    name_or_path: str | Path, mesh: jax.sharding.Mesh | None = None, dtype: str = "float32", stored: str = "float32"
) -> tuple[RewardModel, Params]:
    """A one-label sequence classifier, read per token; as `load_language_model`.

    `scoring.score` reads it at the last token there is. transformers reads the last one whose id is not pad's: where a
    classifier's pad is its eos and texts end in eos, published scores are those of one token earlier.
    """
    directory = resolve(name_or_path)
    family, shape, values = read_config(directory)
    architecture, labels = (values.get("architectures") or [""])[0], len(values.get("id2label") or [0])
    if "Classification" in architecture and labels != 1:
        raise CheckpointError(f"{directory} has {labels} labels: a reward model has one")
    module = RewardModel(in_dtype(shape, dtype), values["vocab_size"], values[family.length])
    weights = Weights(directory, family.prefix, family.unembedding)
    tensors = family.tensors(shape, module.vocab, module.length, reward=True)
    check_tensors(directory, weights, tensors, shape.layers)
    return module, read_params(weights, tensors, shapes_of(module), mesh, stored, float(values.get(HEAD_BIAS, 0.0)))


def load_trunk(
    name_or_path: str | Path,
    key: jax.Array,
    mesh: jax.sharding.Mesh | None = None,
    dtype: str = "float32",
    stored: str = "float32",
) -> tuple[RewardModel, Params]:
    """A reward model to be trained: the trunk of any checkpoint, of a language model as a rule, under a head drawn from
    `key`. As `load_language_model`."""
    directory = resolve(name_or_path)
    family, shape, values = read_config(directory)
    module = RewardModel(in_dtype(shape, dtype), values["vocab_size"], values[family.length])
    weights = Weights(directory, family.prefix, family.unembedding)
    weights.files.pop(SCORE, None)  # a classifier's own head
    tensors = family.tensors(shape, module.vocab, module.length, reward=True)
    tensors = [tensor for tensor in tensors if tensor.name != SCORE]
    check_tensors(directory, weights, tensors, shape.layers)
    trunk = {"trunk": shapes_of(module)["trunk"]}
    return module, {**read_params(weights, tensors, trunk, mesh, stored), "head": fresh_head(module, key)}


def fresh_head(module: RewardModel, key: jax.Array) -> Params:
    """The head that `transformer.init` would draw."""

    def head(key: jax.Array) -> Params:
        return transformer.init(module, key)["head"]  # XLA drops what is not asked for

    return jax.jit(head)(key)


def in_dtype(shape: Model, dtype: str) -> Model:
    """A shape with this type of the activations."""
    return dataclasses.replace(shape, dtype=dtype)  # type: ignore[arg-type]


def shapes_of(module: LanguageModel | RewardModel) -> Params:
    """A module's parameters as shapes."""
    return jax.eval_shape(partial(transformer.init, module), jax.random.key(0))


def shape_of(name_or_path: str | Path, reads: str = "ids", dtype: str = "float32") -> Model:
    """What a config says of a checkpoint: its shape, vocabulary, longest sequence and where it is.

    Of a name of the hub only config.json is fetched.
    """
    directory = resolve(name_or_path, ("config.json",))
    family, shape, values = read_config(directory)
    here = any((directory / name).exists() for name in ("model.safetensors", INDEX))
    if here and shape.tied and untied_after_all(family, Weights(directory, family.prefix, family.unembedding)):
        shape = dataclasses.replace(shape, tied=False)
    vocab, length = values["vocab_size"], values[family.length]
    shape = dataclasses.replace(in_dtype(shape, dtype), checkpoint=str(name_or_path), vocab=vocab, length=length)
    return dataclasses.replace(shape, reads=reads)  # type: ignore[arg-type]


def differences(given: Model, found: Model) -> str:
    """In which fields two shapes differ, for people; empty where in none. dtype and where weights are do not count."""
    ours = vars(canonical(given)) | {"vocab": given.vocab, "length": given.length}
    theirs = vars(canonical(found)) | {"vocab": found.vocab, "length": found.length}
    shape = [name for name in ours if name not in ("vocab", "length")]
    differ = [name for name in (*shape, "vocab", "length") if ours[name] != theirs[name]]
    return ", ".join(f"{name} {theirs[name]}, not {ours[name]}" for name in differ)


SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt")  # configs and tokenizers
FILES = ("*.safetensors", *SMALL_FILES)


def resolve(name_or_path: str | Path, wanted: tuple[str, ...] = FILES) -> Path:
    """The local directory of a checkpoint. A name of the hub, `owner/name` or `owner/name@revision`, is fetched:
    safetensors, JSON and tokenizer; the directory's name is then the commit."""
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    text = str(name_or_path)
    if path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1:
        raise CheckpointError(f"{text}: no such directory{errors.instead(path)}")
    from huggingface_hub import snapshot_download

    try:
        name, _, revision = text.partition("@")
        other = ["*/*", "consolidated*"]  # the same weights in other formats
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(wanted), ignore_patterns=other)
        )
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{text} is no directory and could not be fetched from the hub: {line}") from error


def read_config(directory: Path) -> tuple[Family, Model, Values]:
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


def read_params(
    weights: Weights,
    tensors: list[Tensor],
    shapes: Params,
    mesh: jax.sharding.Mesh | None,
    stored: str,
    head_bias: float = 0.0,
) -> Params:
    """The parameters of these shapes, each from the tensor that holds it.

    Args:
      mesh: where they go, by `sharding.shardings_of`; None: the default device.
      stored: their type.
      head_bias: of a reward model, which no tensor holds.
    """
    holder = {leaf: (tensor, k) for tensor in tensors for k, leaf in enumerate(tensor.leaves)}
    flat = flatten(shapes)
    if mesh is None:
        places = dict.fromkeys(flat, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    else:
        places = sharding.shardings_of(flat, mesh)
    out = {}
    for leaf in sorted(flat, key=lambda name: -flat[name].size):  # largest first: the peak is then while little is held
        if leaf == "head/bias":
            out[leaf] = jax.device_put(np.full(1, head_bias, np.float32), places[leaf])
            continue
        tensor, k = holder[leaf]
        shape, dtype = flat[leaf].shape, np.dtype(jnp.dtype(stored))
        out[leaf] = from_shards(shape, places[leaf], read_shards(weights, tensor, k, shape, places[leaf], dtype))
    return jax.tree.unflatten(jax.tree.structure(shapes), [out[name] for name in flat])


def from_shards(shape: tuple[int, ...], place: jax.sharding.Sharding, shards: dict[Spans, np.ndarray]) -> jax.Array:
    """The array whose shards these are."""

    def shard(index: tuple[slice, ...] | None) -> np.ndarray:
        return shards[spans(index or (), shape)]

    return jax.make_array_from_callback(shape, place, shard)


def flatten(tree: Params) -> dict[str, jax.Array]:
    """Leaves by path, e.g. trunk/blocks/query/kernel."""
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def check_tensors(directory: Path, weights: Weights, tensors: list[Tensor], layers: int) -> None:
    """Refuse a checkpoint in which a tensor is missing, misshapen, or not understood."""
    known = set()
    for tensor in tensors:
        for name in [tensor.name.format(i=i) for i in range(layers)] if tensor.layered else [tensor.name]:
            known.add(name)
            found = weights.shape(name)
            if found is None:
                hint = ": it is no one-label sequence classifier" if name == SCORE else ""
                raise CheckpointError(f"{directory} has no tensor {name}{hint}")
            if found != tensor.shape:
                raise CheckpointError(f"{directory}: {name} is {found}, the config says {tensor.shape}")
    head = {weights.unembedding}  # a tied copy, or one that a reward model does not use
    left = [n for n in weights.files if n not in known | head and not n.endswith(IGNORED)]
    if left:
        raise CheckpointError(f"{directory} has {len(left)} tensors that its config does not explain, e.g. {left[0]}")


def untied_after_all(family: Family, weights: Weights) -> bool:
    """Whether a checkpoint whose config ties the unembedding has one of its own all the same; as transformers does,
    what is stored counts."""
    if family.unembedding not in weights.files:
        return False
    embedding = family.trunk_embedding
    return weights.shape(embedding) == weights.shape(family.unembedding) and not np.array_equal(
        weights[embedding], weights[family.unembedding]
    )


def export(
    module: LanguageModel | RewardModel,
    params: Params,
    directory: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Write a checkpoint that `transformers` loads; numbers keep their type. A `tokenizer` is saved beside it and its
    special tokens are the config's; without one the config names none.

    A head's bias, which transformers' classifiers do not have, is kept in config.json: their scores lack it.

    Raises:
      CheckpointError: the directory has something in it, no family of transformers has the module's shape, several
        processes hold the parameters, or a reward model's tokenizer pads with its eos.
    """
    directory, reward = Path(directory).expanduser(), isinstance(module, RewardModel)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"{directory} exists and is not empty: give a new directory")
    if jax.process_count() > 1:
        raise CheckpointError("cannot export from several processes: load the parameters in one and export there")
    ids = {name: getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if module.shape.pooling != "last":
        raise CheckpointError(
            "cannot export: transformers' classifiers read the last token behind a norm, "
            f"and this RM's pooling is {module.shape.pooling}"
        )
    if reward and tokenizer is not None and ids["pad_token_id"] in (None, ids["eos_token_id"]):
        raise CheckpointError(
            "cannot export: the tokenizer has no pad token besides eos, so transformers would read scores a token early"
        )
    try:
        family = family_of(module.shape)
    except Unsupported as error:
        raise CheckpointError(f"cannot export: {error}") from error
    tensors = family.tensors(module.shape, module.vocab, module.length, reward)
    flat = flatten(params)
    part = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_shards(part, theirs(tensors, flat, module.shape.layers))
    values: Values = {
        "vocab_size": module.vocab,
        family.length: module.length,
        **family.write(module.shape),
        **ids,
    }
    if reward:
        values |= {"num_labels": 1, HEAD_BIAS: float(flat["head/bias"][0])}
    _write_config(part, family, reward, values, str(flat["trunk/embed/embedding"].dtype))
    if tokenizer is not None:
        tokenizer.save_pretrained(part)
    _, back, _ = read_config(part)  # transformers fills in what a config leaves out: it must come to the same
    if canonical(back) != canonical(module.shape):
        shutil.rmtree(part)
        raise CheckpointError(f"cannot export: transformers' {family.model_type} reads another shape back")
    if directory.exists():
        directory.rmdir()
    os.replace(part, directory)


def _write_config(directory: Path, family: Family, reward: bool, values: Values, dtype: str) -> None:
    """config.json through transformers, so that it is complete."""
    from transformers import AutoConfig

    classes = family.classes + ("ForSequenceClassification" if reward else family.causal)
    made = AutoConfig.for_model(family.model_type, **values)
    made.architectures, made.dtype = [classes], dtype
    made.save_pretrained(directory)


def theirs(tensors: list[Tensor], flat: dict[str, jax.Array], layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """(name, value) of every tensor, one at a time."""
    for tensor in tensors:
        if tensor.layered:
            for i in range(layers):
                yield tensor.name.format(i=i), tensor.join(*(np.asarray(flat[leaf][i]) for leaf in tensor.leaves))
        else:
            yield tensor.name, tensor.join(*(np.asarray(flat[leaf]) for leaf in tensor.leaves))
