"""RMs of several shapes as one reward: each through its own reader and calibration, the same as tables combined."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.models import scoring, transformer
from rmo.models.reader import IDS, Reader
from rmo.rewards import combination
from rmo.rewards.calibration import Calibration
from rmo.rewards.reward import Reward, RewardParams, combine_tables
from rmo.rewards.several import Several

RMS = [transformer.RewardModel(config.Model(width=w, layers=1, heads=2), 12, 8) for w in (24, 8)]
TOKENS, MASK = jax.random.randint(jax.random.key(1), (6, 8), 3, 12), jnp.ones((6, 8), bool)


@dataclass(frozen=True, eq=False)
class Shifted(Reader):
    """A vocabulary of its own: every id is another, and texts that begin with 3 are too long."""

    def __call__(self, tokens_BT, mask_BT):
        return (tokens_BT + 4) % 12, mask_BT

    def cut(self, mask_BS):
        return jnp.arange(mask_BS.shape[0], dtype=jnp.float32) % 2


def params(rm, count, seed):
    return jax.vmap(partial(transformer.init, rm))(jax.random.split(jax.random.key(seed), count))


def several(how="mean", coefficient=0.5):
    """Two RMs of one shape and three of another, which reads differently."""
    parts = params(RMS[0], 2, 0), params(RMS[1], 3, 1)
    each = (
        Calibration(jnp.array([0.0, 0.5]), jnp.array([1.0, 2.0])),
        Calibration(jnp.array([1.0, -1.0, 0.2]), jnp.array([0.5, 3.0, 1.5])),
    )
    reward = Several.of(RMS, [IDS, Shifted()], how, coefficient)
    return reward, RewardParams(parts, Calibration(jnp.float32(0.2), jnp.float32(3.0)), each)


def tables(reward, p):
    out = []
    for rm, reader, own, each in zip(RMS, reward.readers, p.params, p.each, strict=True):
        for k in range(len(each.shift)):
            raw = scoring.score(rm, jax.tree.map(lambda x, k=k: x[k], own), *reader(TOKENS, MASK))
            out.append((raw - each.shift[k]) * each.scale[k])
    return np.stack(out)


@pytest.mark.parametrize("how", ["mean", "worst_case", "uncertainty_penalised"])
def test_several_shapes_are_combined_as_their_tables_are(how):
    reward, p = several(how)
    expected = (combine_tables(how, tables(reward, p), 0.5) - 0.2) * 3
    np.testing.assert_allclose(jax.jit(reward)(p, TOKENS, MASK), expected, rtol=1e-5, atol=1e-5)
    read = reward.reader(TOKENS, MASK)
    scores_KB = reward.members(p, *read)
    np.testing.assert_allclose(scores_KB, tables(reward, p), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(combination.spread(scores_KB), tables(reward, p).std(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(reward.reader.cut(read[1]), [0, 1, 0, 1, 0, 1])


def test_it_is_named_by_its_largest_rm_and_equal_to_itself():
    reward, _ = several()
    assert reward.rm == RMS[0]
    assert hash(reward) == hash(reward)
    assert several()[0] != reward  # another reader object: another program


def test_members_of_one_shape_are_what_the_score_is_made_of():
    p = RewardParams(params(RMS[0], 2, 0), Calibration(0.2, 3.0), Calibration(jnp.zeros(2), jnp.ones(2)))
    reward = Reward(RMS[0], how="worst_case")
    scores_KB = reward.members(p, TOKENS, MASK)
    np.testing.assert_allclose((scores_KB.min(0) - 0.2) * 3, reward(p, TOKENS, MASK), rtol=1e-6)
    alone = RewardParams(jax.tree.map(lambda x: x[0], p.params), Calibration(0.2, 3.0))
    raw = Reward(RMS[0]).members(alone, TOKENS, MASK)
    np.testing.assert_allclose((raw[0] - 0.2) * 3, Reward(RMS[0])(alone, TOKENS, MASK), rtol=1e-6)


def test_spread_by_hand():
    np.testing.assert_allclose(combination.spread(np.array([[1.0, 2.0], [3.0, 2.0]])), [1.0, 0.0])
