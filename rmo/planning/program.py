"""One program of a plan, and what programs are made of: modules, parameters and batches as shapes, without data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from rmo import config
from rmo.models import transformer
from rmo.models.reader import IDS, Reader
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.runtime import sharding
from rmo.runtime.files import RunError, Tree
from rmo.worlds.world import world_of

Shape = jax.ShapeDtypeStruct


class Program(NamedTuple):
    """One jitted function of one stage."""

    stage: str
    name: str
    fn: Callable[..., Tree]
    args: tuple[Tree, ...]  # trees of ShapeDtypeStruct; without a sharding where a stage gives arrays of the host
    calls: int  # in the whole experiment
    donated: tuple[int, ...] = ()
    beside: Tree = ()  # what else rests in memory meanwhile


@dataclass(frozen=True)
class ReaderStandIn(Reader):
    """Stands for a `TextReader`, whose tokenizer a plan does not have: it returns as many tokens, without a meaning."""

    length: int

    def __call__(self, tokens_BT: jax.Array, mask_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        repeated = jnp.arange(self.length) % tokens_BT.shape[-1]
        return tokens_BT[..., repeated], mask_BT[..., repeated]

    def cut(self, mask_BS: jax.Array) -> jax.Array:
        return jnp.all(mask_BS, axis=-1).astype(jnp.float32)


@dataclass(frozen=True)
class Sketch:
    """An experiment on a mesh. It gives the planned programs what a `Run` gives the stages."""

    e: config.Experiment
    mesh: Mesh

    @property
    def tokens(self) -> int:
        """T, the tokens of prompt and response."""
        return self.e.world.prompt + self.e.world.response

    @property
    def vocab(self) -> int:
        """V of models that name no vocabulary of their own.

        Raises:
          RunError: only the tokenizer of a text world would know.
        """
        kind = world_of(self.e.world)
        if not kind.reads_sources:
            return kind.build(self.e.world, None).vocab
        if not self.e.policy.vocab:
            raise RunError("policy.vocab is 0, and a plan reads no tokenizer: give its number of tokens")
        return self.e.policy.vocab

    def lm(self, shape: config.Model) -> LanguageModel:
        return LanguageModel(shape, shape.vocab or self.vocab, shape.length or self.tokens)

    def rm(self, shape: config.Model) -> RewardModel:
        return RewardModel(shape, shape.vocab or self.vocab, shape.length or self.tokens)

    def reader(self, shape: config.Model) -> Reader:
        """How an RM reads inside a program."""
        return IDS if shape.reads == "ids" else ReaderStandIn(self.read_tokens(shape))

    def read_tokens(self, shape: config.Model) -> int:
        """Tokens of a text as an RM reads it; of an RM with its own tokenizer the most that there can be."""
        if shape.reads == "ids":
            return self.tokens
        assert isinstance(self.e.world, config.Text)
        return min(self.e.world.read_length, shape.length)

    def loaded(self, module: LanguageModel | RewardModel, members: int = 0) -> Params:
        """Frozen parameters, in the type that they are used in."""
        return place(stacked(shapes_of(module, module.shape.dtype), members), self.mesh)

    def master(self, module: LanguageModel | RewardModel, members: int = 0) -> Params:
        """Parameters as they are trained."""
        return place(stacked(shapes_of(module), members), self.mesh)

    def batch(self, shape: tuple[int, ...], dtype: DTypeLike, axis: int = 0) -> Shape:
        """An array as `sharding.put_batch` lays it: `axis` over `data`, where it divides."""
        rows = sharding.row_axes(dict(self.mesh.shape), shape[axis])
        spec = PartitionSpec(*[None] * axis, rows) if rows else PartitionSpec()
        return Shape(shape, dtype, sharding=NamedSharding(self.mesh, spec))

    def sequences(self, shape: tuple[int, ...], axis: int = 0) -> tuple[Shape, Shape]:
        """(tokens, mask) of a batch."""
        return self.batch(shape, jnp.int32, axis), self.batch(shape, jnp.bool_, axis)

    def texts(self, rows: int) -> tuple[Shape, Shape, Shape, Shape]:
        """A batch of the fields of `Texts`: prompts, prompt_mask, tokens, mask."""
        w = self.e.world
        return *self.sequences((rows, w.prompt)), *self.sequences((rows, w.response))

    def everywhere(self, tree: Tree) -> Tree:
        """A tree of shapes, all of it on every device."""
        at = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda x: Shape(x.shape, x.dtype, sharding=at), tree)

    def key(self) -> Tree:
        return self.everywhere(jax.eval_shape(jax.random.key, 0))

    def keys(self, rows: int) -> Tree:
        return self.everywhere(jax.eval_shape(partial(jax.random.split, num=rows), self.key()))


def shapes_of(module: LanguageModel | RewardModel, stored: str = "float32") -> Params:
    """Parameters as shapes; projections and tables are kept in the type `stored`."""

    def kept(path, x) -> Shape:
        return Shape(x.shape, jnp.dtype(stored) if sharding.ruled(path) else x.dtype)

    found = jax.eval_shape(partial(transformer.init, module), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(kept, found)


def stacked(tree: Tree, members: int) -> Tree:
    """A tree of shapes with a leading axis of members; 0 members: the tree itself."""
    lead = (members,) if members else ()
    return jax.tree.map(lambda x: Shape((*lead, *x.shape), x.dtype), tree)


def place(tree: Tree, mesh: Mesh) -> Tree:
    """A tree of shapes with the shardings of parameters and states."""
    at = sharding.shardings_of(tree, mesh)
    return jax.tree.map(lambda x, s: Shape(x.shape, x.dtype, sharding=s), tree, at)


def on_host(*shape: int) -> tuple[Shape, Shape]:
    """(tokens, mask) as a stage gives arrays of the host: the compiler chooses where they lie."""
    return Shape(shape, jnp.int32), Shape(shape, jnp.bool_)


def unjitted(jitted: Callable[..., Tree]) -> Callable[..., Tree]:
    """The function inside a jitted one."""
    return jitted.__wrapped__  # type: ignore[attr-defined]


def bytes_on_one_device(tree: Tree) -> int:
    """Bytes of a tree's shares on one device; an array without a sharding counts whole."""
    return sum(map(_share, jax.tree.leaves(tree)))


def _share(x: Shape) -> int:
    shape = x.sharding.shard_shape(x.shape) if x.sharding else x.shape
    size = x.dtype.itemsize
    for n in shape:
        size *= n
    return size


def label(shape: config.Model) -> str:
    """A size for people: its checkpoint's name, or parameters inside the blocks."""
    if shape.checkpoint:
        return shape.checkpoint.rstrip("/").split("/")[-1]
    n = shape.weights
    if n >= 1e9:
        return f"{n / 1e9:.1f}B"
    if n >= 1e6:
        return f"{n / 1e6:.1f}M"
    return f"{n / 1e3:.0f}k"
