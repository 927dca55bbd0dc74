"""A model in a directory or on the hub, ours or anybody's: module, parameters, tokenizer."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rmo import config
from rmo.checkpoints import hf
from rmo.checkpoints.tokenizers import load_tokenizer
from rmo.models import transformer
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.runtime import files, sharding
from rmo.runtime.checkpointer import load_params, save_params
from rmo.runtime.files import read_json, write_json

FILE = "model.json"  # beside `params` in the directory of a stage of ours


def save(
    directory: Path, module: LanguageModel | RewardModel, params: Params, tokenizer: Path, members: int = 0
) -> None:
    """Write parameters (with a leading axis of `members`, if any) and what it takes to load them without the run."""
    save_params(directory / "params", params)
    kind = "reward" if isinstance(module, RewardModel) else "language"
    what = {"kind": kind, "shape": dataclasses.asdict(module.shape), "vocab": module.vocab, "length": module.length}
    what |= {"stored": str(params["trunk"]["embed"]["embedding"].dtype), "members": members}
    write_json(directory / FILE, {**what, "tokenizer": os.path.relpath(tokenizer, directory)})


def restore(
    directory: Path, module: LanguageModel | RewardModel, members: int, place: Callable[[Any], Any], dtype: str = ""
) -> Params:
    """The parameters that `save` wrote, with a leading axis of `members`, if any; `place` makes shardings of shapes and
    `dtype`, if given, is what projections and tables are cast to.
    """
    make = partial(transformer.init, module)
    if members:
        make = lambda key: jax.vmap(partial(transformer.init, module))(jax.random.split(key, members))  # noqa: E731
    shapes = jax.eval_shape(make, jax.random.key(0))
    stored = jnp.dtype(read_json(directory / FILE)["stored"])  # a frozen model may be kept in bfloat16
    kept = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.dtype(dtype) if dtype and sharding.ruled(path) else stored, shapes
    )
    struct = lambda x, at, kind: jax.ShapeDtypeStruct(x.shape, kind, sharding=at)  # noqa: E731
    like = jax.tree.map(struct, shapes, place(shapes), kept)
    return load_params(directory / "params", like)


def load_language_model(
    name_or_path: str | Path, member: int = 0, dtype="float32"
) -> tuple[LanguageModel, Params, Any]:
    """(module, parameters, tokenizer) of a stage's directory, of a Hugging Face checkpoint's, or of a name of the hub.

    Raises:
      CheckpointError: it cannot be had, or is of the other kind, or has no such member.
    """
    return _load(name_or_path, False, member, dtype)  # type: ignore[return-value]


def load_reward_model(name_or_path: str | Path, member: int = 0, dtype="float32") -> tuple[RewardModel, Params, Any]:
    """As `load_language_model`."""
    return _load(name_or_path, True, member, dtype)  # type: ignore[return-value]


def _load(name_or_path, reward: bool, member: int, dtype) -> tuple[LanguageModel | RewardModel, Params, Any]:
    directory = files.directory(name_or_path)
    if not directory.exists():  # an instance as `rmo list` names it, where it is there for one config only
        made = [path.parent for path in directory.parent.glob(f"{directory.name}-??????????/{FILE}")]
        directory = made[0] if len(made) == 1 else directory
    if not (directory / FILE).exists():
        directory = hf.resolve(name_or_path)
        module, params = (hf.load_reward_model if reward else hf.load_language_model)(directory, dtype=dtype)
        return module, params, load_tokenizer(directory)
    what = read_json(directory / FILE)
    if (what["kind"] == "reward") != reward:
        raise hf.CheckpointError(
            f"{directory} holds a {what['kind']} model, not a {'reward' if reward else 'language'} model"
        )
    if not 0 <= member < max(what["members"], 1):
        raise hf.CheckpointError(f"{directory} has members 0 to {max(what['members'], 1) - 1}, not {member}")
    fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in what["shape"].items()}
    shape = config.Model(**fields)
    kind = RewardModel if reward else LanguageModel
    module = kind(shape, what["vocab"], what["length"])
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = restore(directory, module, what["members"], lambda shapes: jax.tree.map(lambda _: here, shapes))
    if what["members"]:
        params = jax.tree.map(lambda x: x[member], params)
    module = kind(dataclasses.replace(shape, dtype=dtype), what["vocab"], what["length"])
    return module, params, load_tokenizer(directory / what["tokenizer"])
