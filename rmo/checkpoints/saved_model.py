"""A model in a directory or on the hub, ours or anybody's: module, parameters, tokenizer."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp

from rmo import config
from rmo.checkpoints import ending, hf
from rmo.checkpoints.opening import base_directory
from rmo.checkpoints.tokenizers import has_tokenizer, load_tokenizer
from rmo.models import transformer
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.runtime import checksums, files, sharding
from rmo.runtime.checkpointer import load_params, save_params
from rmo.runtime.files import Row, Tree, read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FILE = "model.json"  # beside `params` in the directory of a stage of ours
Module = LanguageModel | RewardModel
M = TypeVar("M", LanguageModel, RewardModel)
KINDS = {LanguageModel: "language", RewardModel: "reward"}


def save(directory: Path, module: Module, params: Params, tokenizer: Path, members: int = 0) -> None:
    """Write parameters (with a leading axis of `members`, if any) and what it takes to load them without the run."""
    save_params(directory / "params", params)
    what = {
        "kind": KINDS[type(module)],
        "shape": dataclasses.asdict(module.shape),
        "vocab": module.vocab,
        "length": module.length,
        "stored": str(params["trunk"]["embed"]["embedding"].dtype),
        "members": members,
        "tokenizer": os.path.relpath(tokenizer, directory),
    }
    write_json(directory / FILE, what)


def restore(directory: Path, module: Module, members: int, place: Callable[[Tree], Tree], dtype: str = "") -> Params:
    """The parameters that `save` wrote, with a leading axis of `members`, if any.

    Args:
      place: shapes -> shardings.
      dtype: what projections and tables are cast to; empty: they keep the type that they are stored in.
    """

    def draw(key: jax.Array) -> Params:
        if not members:
            return transformer.init(module, key)
        return jax.vmap(partial(transformer.init, module))(jax.random.split(key, members))

    shapes = jax.eval_shape(draw, jax.random.key(0))
    stored = jnp.dtype(read_json(directory / FILE)["stored"])  # a frozen model may be kept in bfloat16

    def like(path: Tree, shape: jax.ShapeDtypeStruct, at: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        kept = jnp.dtype(dtype) if dtype and sharding.ruled(path) else stored
        return jax.ShapeDtypeStruct(shape.shape, kept, sharding=at)

    return load_params(directory / "params", jax.tree_util.tree_map_with_path(like, shapes, place(shapes)))


def load_language_model(
    name_or_path: str | Path, member: int = 0, dtype: str = "float32"
) -> tuple[LanguageModel, Params, PreTrainedTokenizerFast]:
    """(module, parameters, tokenizer) of a stage's directory, of a Hugging Face checkpoint's, or of a name of the hub.

    Raises:
      CheckpointError: it cannot be had, or is of the other kind, or has no such member.
    """
    directory = find(name_or_path)
    if directory is not None:
        return load_ours(directory, LanguageModel, member, dtype)
    directory = hf.resolve(name_or_path)
    return *hf.load_language_model(directory, dtype=dtype), load_tokenizer(tokenizer_place(directory))


def load_reward_model(
    name_or_path: str | Path, member: int = 0, dtype: str = "float32"
) -> tuple[RewardModel, Params, PreTrainedTokenizerFast]:
    """As `load_language_model`."""
    directory = find(name_or_path)
    if directory is not None:
        return load_ours(directory, RewardModel, member, dtype)
    directory = hf.resolve(name_or_path)
    return *hf.load_reward_model(directory, dtype=dtype), load_tokenizer(tokenizer_place(directory))


def tokenizer_place(directory: Path) -> Path:
    """Where a checkpoint's tokenizer is: with it or, of an adapter that has none, with its base."""
    return next((place for place in places(directory) if has_tokenizer(place)), directory)


def places(directory: Path) -> list[Path]:
    """A checkpoint's directory and, of an adapter, its base's."""
    base, adapter = base_directory(directory)
    return [directory, base] if adapter else [directory]


def response_ends(name_or_path: str | Path, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """The ids at which a response of a language model ends; see `ending.response_ends`."""
    own = find(name_or_path) is not None
    return ending.response_ends([] if own else places(hf.resolve(name_or_path)), tokenizer)


def pad_id(name_or_path: str | Path, tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The id that transformers would take for the padding of a reward model's texts; None for a model of ours, which
    transformers does not read. See `ending.pad_id`."""
    own = find(name_or_path) is not None
    return None if own else ending.pad_id(places(hf.resolve(name_or_path)), tokenizer)


def find(name_or_path: str | Path) -> Path | None:
    """The stage's directory that is meant; None where it is no stage's.

    An instance may be named without its digest, as `rmo list` names it, where it is there for one config only.
    """
    directory = files.directory(name_or_path)
    if not directory.exists():
        made = [path.parent for path in directory.parent.glob(f"{glob.escape(directory.name)}-??????????/{FILE}")]
        directory = made[0] if len(made) == 1 else directory
    return directory if checksums.present(directory / FILE) else None


def load_ours(directory: Path, kind: type[M], member: int, dtype: str) -> tuple[M, Params, PreTrainedTokenizerFast]:
    """One model of a stage's directory, on one device.

    Raises:
      CheckpointError: the directory holds models of another kind, or has no such member.
    """
    what = read_json(directory / FILE)
    members, wanted = what["members"], KINDS[kind]
    if what["kind"] != wanted:
        raise hf.CheckpointError(f"{directory} holds a {what['kind']} model, not a {wanted} model")
    if not 0 <= member < max(members, 1):
        raise hf.CheckpointError(f"{directory} has members 0 to {max(members, 1) - 1}, not {member}")
    fields: Row = {name: tuple(x) if isinstance(x, list) else x for name, x in what["shape"].items()}
    shape = config.Model(**fields)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    as_stored = kind(shape, what["vocab"], what["length"])
    params = restore(directory, as_stored, members, lambda shapes: jax.tree.map(lambda _: here, shapes))
    if members:
        params = jax.tree.map(lambda x: x[member], params)
    module = kind(dataclasses.replace(shape, dtype=dtype), what["vocab"], what["length"])
    return module, params, load_tokenizer(beside(directory, what["tokenizer"]))


def beside(directory: Path, relative: str) -> Path:
    """A path that is given relative to a directory, without `..` where it is local."""
    found = directory / relative
    return found if files.remote(found) else Path(os.path.normpath(found))
