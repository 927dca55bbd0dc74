"""Reward models of several shapes as one reward: each is read and calibrated as its own, then scores are combined."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from rmo.models.reader import Reader
from rmo.models.transformer import RewardModel
from rmo.rewards.calibration import Calibration
from rmo.rewards.reward import Reward, RewardParams, of_one_shape
from rmo.runtime.types import Tree


@dataclass(frozen=True)
class SeveralReaders(Reader):
    """What every shape's reader makes of a policy's sequences, as tuples."""

    parts: tuple[Reader, ...]

    def __call__(self, tokens_BT: jax.Array, mask_BT: jax.Array) -> tuple[Tree, Tree]:
        read = [reader(tokens_BT, mask_BT) for reader in self.parts]
        return tuple(tokens for tokens, _ in read), tuple(mask for _, mask in read)

    def cut(self, mask_BS: Tree) -> jax.Array:
        """Which texts were too long for any of the RMs, f32[B]."""
        cuts = [reader.cut(mask) for reader, mask in zip(self.parts, mask_BS, strict=True)]
        return jnp.stack(cuts).max(axis=0)


@dataclass(frozen=True)
class Several(Reward):
    """A `Reward` whose parameters and calibrations are tuples, one entry per shape, each with its own leading axis.

    `rm` is the largest of them: it names the random stream of what is trained against it.
    """

    rms: tuple[RewardModel, ...] = ()

    @classmethod
    def of(cls, rms: Sequence[RewardModel], readers: Sequence[Reader], how: str, coefficient: float) -> "Several":
        """RMs of these shapes, each with its reader."""
        largest = max(rms, key=lambda rm: rm.shape.weights)
        return cls(largest, SeveralReaders(tuple(readers)), how, coefficient, tuple(rms))

    @property
    def readers(self) -> tuple[Reader, ...]:
        assert isinstance(self.reader, SeveralReaders)
        return self.reader.parts

    def members(self, p: RewardParams, tokens_BS: Tree, mask_BS: Tree) -> jax.Array:
        """Calibrated scores f32[K, B] of all RMs, shape by shape."""
        assert p.each is not None
        assert not isinstance(p.each, Calibration)
        parts = zip(self.rms, p.params, p.each, tokens_BS, mask_BS, strict=True)
        return jnp.concatenate([of_one_shape(*part) for part in parts])
