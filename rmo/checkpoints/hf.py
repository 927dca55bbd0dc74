"""Hugging Face checkpoints <-> our modules and parameters: safetensors in and out, no torch, no pickle, no remote code.

A parameter is read tensor by tensor, layer by layer, straight into the shards that this process owns; what lies in
host memory besides is one stacked parameter at a time.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from rmo.checkpoints import heads, notes, weight_files
from rmo.checkpoints.families import Family, Unsupported, Values, canonical, family_of
from rmo.checkpoints.heads import HEAD_BIAS
from rmo.checkpoints.opening import SMALL_FILES as SMALL_FILES
from rmo.checkpoints.opening import Checkpoint, opened, read_config, resolve
from rmo.checkpoints.tensors import Tensor
from rmo.checkpoints.weight_files import INDEX, SINGLE, CheckpointError
from rmo.checkpoints.weights import IGNORED, Spans, Weights, read_shards, spans, write_shards
from rmo.config.model import Model
from rmo.models import transformer
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.runtime import sharding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_language_model(
    name_or_path: str | Path, mesh: jax.sharding.Mesh | None = None, dtype: str = "float32", stored: str = "float32"
) -> tuple[LanguageModel, Params]:
    """A causal language model of a local directory or of the hub, a LoRA adapter merged in.

    Args:
      mesh: where the parameters go, by `sharding.shardings_of`; None: the default device.
      dtype: type of the activations.
      stored: type of the parameters; float32 to train, bfloat16 halves what a frozen model takes.

    Raises:
      CheckpointError: it cannot be had, is of an unknown architecture, or a tensor is missing, misshapen or left over.
    """
    c = opened(resolve(name_or_path))
    task = str(c.adapter.values.get("task_type")) if c.adapter else ""
    if "Classification" in c.architecture or task == "SEQ_CLS":
        raise CheckpointError(
            f"{c.directory} is a {task or c.architecture}: no language model; use it as a reward model"
        )
    weights = c.weights()
    for name in (unused := heads.of_a_language_model(weights.files)):
        del weights.files[name]
    if unused:
        notes.say(f"{c.directory}: {unused[0]}, a value head, has no part in what a language model says")
    shape = dataclasses.replace(c.shape, tied=False) if untied_after_all(c, weights) else c.shape
    module = LanguageModel(in_dtype(shape, dtype), c.vocab, c.length)
    tensors = c.family.tensors(shape, module.vocab, module.length, reward=False)
    check_tensors(c.directory, weights, tensors, shape.layers)
    return module, read_params(weights, tensors, shapes_of(module), mesh, stored)


def load_reward_model(
    name_or_path: str | Path, mesh: jax.sharding.Mesh | None = None, dtype: str = "float32", stored: str = "float32"
) -> tuple[RewardModel, Params]:
    """A trunk with a head of one row, whatever the head is called and wherever it lies (`heads.find`), read per token;
    as `load_language_model`. A bias is added, and scores are normalised where config.json asks for it.

    `scoring.score` reads it at the last token there is. transformers reads the last one whose id is not pad's: where a
    classifier's pad is its eos and texts end in eos, published scores are those of one token earlier (`ending.Pad`).
    """
    c = opened(resolve(name_or_path))
    weights = c.weights()
    trunk = c.family.trunk(c.shape, c.vocab, c.length)
    check_tensors(c.directory, weights, trunk, c.shape.layers, whole=False)
    places = [c.directory, c.base] if c.adapter else [c.directory]
    head = heads.find(places, weights, names_of(trunk, c.shape.layers), c.shape.width, c.values)
    if "TokenClassification" in c.architecture:
        notes.say(f"{c.directory} is a {c.architecture}, which scores every token: the score is that of the last")
    module = RewardModel(in_dtype(c.shape, dtype), c.vocab, c.length)
    tensors = c.family.tensors(c.shape, module.vocab, module.length, reward=True, head=head.weight)
    unused = {head.bias or "", *head.others}
    check_tensors(c.directory, weights, tensors, c.shape.layers, unused)
    params = read_params(weights, tensors, shapes_of(module), mesh, stored, head.offset(weights))
    if head.std != 1:
        params["head"]["kernel"] = params["head"]["kernel"] / head.std
    return module, params


def load_trunk(
    name_or_path: str | Path,
    key: jax.Array,
    mesh: jax.sharding.Mesh | None = None,
    dtype: str = "float32",
    stored: str = "float32",
) -> tuple[RewardModel, Params]:
    """A reward model to be trained: the trunk of any checkpoint, of a language model as a rule, under a head drawn from
    `key`. As `load_language_model`."""
    c = opened(resolve(name_or_path))
    weights = c.weights()
    module = RewardModel(in_dtype(c.shape, dtype), c.vocab, c.length)
    tensors = c.family.trunk(c.shape, module.vocab, module.length)
    check_tensors(c.directory, weights, tensors, c.shape.layers, set(filter(heads.named, weights.files)))
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
    c = opened(resolve(name_or_path, CONFIGS), CONFIGS)
    here = any((c.base / name).exists() for name in (SINGLE, INDEX))
    shape = c.shape
    if here and shape.tied and untied_after_all(c, Weights(c.base, c.family.trunk_embedding, c.family.unembedding)):
        shape = dataclasses.replace(shape, tied=False)
    shape = dataclasses.replace(in_dtype(shape, dtype), checkpoint=str(name_or_path), vocab=c.vocab, length=c.length)
    return dataclasses.replace(shape, reads=reads)  # type: ignore[arg-type]


CONFIGS = ("config.json", "adapter_config.json")


def differences(given: Model, found: Model) -> str:
    """In which fields two shapes differ, for people; empty where in none. dtype and where weights are do not count."""
    ours = vars(canonical(given)) | {"vocab": given.vocab, "length": given.length}
    theirs = vars(canonical(found)) | {"vocab": found.vocab, "length": found.length}
    shape = [name for name in ours if name not in ("vocab", "length")]
    differ = [name for name in (*shape, "vocab", "length") if ours[name] != theirs[name]]
    return ", ".join(f"{name} {theirs[name]}, not {ours[name]}" for name in differ)


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


def names_of(tensors: list[Tensor], layers: int) -> Iterator[str]:
    """The name of every tensor, layer by layer."""
    for tensor in tensors:
        if tensor.layered:
            yield from (tensor.name.format(i=i) for i in range(layers))
        else:
            yield tensor.name


def check_tensors(
    directory: Path,
    weights: Weights,
    tensors: list[Tensor],
    layers: int,
    unused: Collection[str] = (),
    whole: bool = True,
) -> None:
    """Refuse a checkpoint in which a tensor is missing, misshapen, quantised or, if it should be `whole`, left over.

    Args:
      unused: what may be there besides; so may the unembedding: a tied copy, or one that a reward model does not use.
    """
    known = {weights.unembedding, *unused}
    quantised = [stored for name, stored in weights.files.items() if weight_files.looks_quantised(name)]
    for tensor in tensors:
        for name in names_of([tensor], layers):
            known.add(name)
            found = weights.files.get(name)
            if (found is None or found.shape != tensor.shape) and quantised:
                raise CheckpointError(f"{directory} is quantised ({quantised[0].name}): {weight_files.UNQUANTISED}")
            if found is None:
                raise CheckpointError(f"{directory} has no tensor {name}")
            if found.kind not in weight_files.KINDS:
                what = f"{found.name} is {found.kind}"
                raise CheckpointError(f"{directory} is quantised ({what}): {weight_files.UNQUANTISED}")
            if found.shape != tensor.shape:
                raise CheckpointError(f"{directory}: {name} is {found.shape}, the config says {tensor.shape}")
    left = [n for n in weights.files if n not in known and not n.endswith(IGNORED)] if whole else []
    if left and quantised:
        raise CheckpointError(f"{directory} is quantised ({quantised[0].name}): {weight_files.UNQUANTISED}")
    if left:
        raise CheckpointError(f"{directory} has {len(left)} tensors that its config does not explain, e.g. {left[0]}")


def untied_after_all(c: Checkpoint, weights: Weights) -> bool:
    """Whether a checkpoint whose config ties the unembedding has one of its own all the same; as transformers does,
    what is stored counts."""
    if not c.shape.tied or c.family.unembedding not in weights.files:
        return False
    embedding = c.family.trunk_embedding
    return weights.shape(embedding) == weights.shape(c.family.unembedding) and not np.array_equal(
        weights[embedding], weights[c.family.unembedding]
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
    reward = isinstance(module, RewardModel)
    directory = vacant(directory)
    if jax.process_count() > 1:
        raise CheckpointError("cannot export from several processes: load the parameters in one and export there")
    ids = special_ids(tokenizer)
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
    flat = flatten(params)
    tensors = theirs(family.tensors(module.shape, module.vocab, module.length, reward), flat, module.shape.layers)
    values: Values = {
        "vocab_size": module.vocab,
        family.length: module.length,
        **family.write(module.shape),
        **ids,
    }
    if reward:
        values |= {"num_labels": 1, HEAD_BIAS: float(flat["head/bias"][0])}
    kind = "ForSequenceClassification" if reward else family.causal
    dtype = str(flat["trunk/embed/embedding"].dtype)
    write_checkpoint(directory, family, kind, values, dtype, module.shape, tensors, tokenizer)


def vacant(directory: str | Path) -> Path:
    """A directory that is to be written.

    Raises:
      CheckpointError: it has something in it.
    """
    directory = Path(directory).expanduser()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"{directory} exists and is not empty: give a new directory")
    return directory


def special_ids(tokenizer: PreTrainedTokenizerBase | None) -> Values:
    """What a config says of a tokenizer."""
    return {name: getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def write_checkpoint(
    directory: Path,
    family: Family,
    kind: str,
    values: Values,
    dtype: str,
    shape: Model,
    tensors: Iterable[tuple[str, np.ndarray]],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """A checkpoint's whole directory, which appears in one move.

    Args:
      kind: what of the family it is, e.g. ForCausalLM.
      values: of config.json; `dtype` is that of the weights.
      shape: what config.json must say when it is read back.
      tensors: by transformers' names; each is asked for when it is written.

    Raises:
      CheckpointError: config.json says another shape.
    """
    directory = directory.resolve()  # of `.` too the name is wanted
    part = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write_config(part, family, kind, values, dtype)
        _, back, _ = read_config(part)  # transformers fills in what a config leaves out: it must come to the same
        if canonical(back) != canonical(shape):
            raise CheckpointError(f"cannot export: transformers' {family.model_type} reads another shape back")
        write_shards(part, iter(tensors))
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
        if directory.exists():
            directory.rmdir()
        os.replace(part, directory)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _write_config(directory: Path, family: Family, kind: str, values: Values, dtype: str) -> None:
    """config.json through transformers, so that it is complete."""
    from transformers import AutoConfig

    made = AutoConfig.for_model(family.model_type, **values)
    made.architectures, made.dtype = [family.classes + kind], dtype
    made.save_pretrained(directory)


def theirs(tensors: list[Tensor], flat: dict[str, jax.Array], layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """(name, value) of every tensor, one at a time."""
    for tensor in tensors:
        if tensor.layered:
            for i in range(layers):
                yield tensor.name.format(i=i), tensor.join(*(np.asarray(flat[leaf][i]) for leaf in tensor.leaves))
        else:
            yield tensor.name, tensor.join(*(np.asarray(flat[leaf]) for leaf in tensor.leaves))
