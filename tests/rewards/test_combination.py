import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.models import scoring, transformer
from rmo.rewards import combination
from rmo.rewards.calibration import Calibration, soft_label_scale
from rmo.rewards.reward import Reward, RewardParams, combine_tables

SHAPE = config.Model(width=16, layers=1, heads=2)
RM = transformer.RewardModel(SHAPE, 12, 8)
TOKENS, MASK = jax.random.randint(jax.random.key(1), (6, 8), 3, 12), jnp.ones((6, 8), bool)


def members(count):
    return jax.vmap(lambda key: transformer.init(RM, key))(jax.random.split(jax.random.key(0), count))


def raw(params, m):
    return scoring.score(RM, jax.tree.map(lambda x: x[m], params), TOKENS, MASK)


def test_combinations_against_their_definitions():
    scores = np.random.default_rng(0).normal(size=(3, 5, 7))
    mean = combine_tables("mean", scores, 0.5)
    np.testing.assert_allclose(mean, scores.mean(0))
    np.testing.assert_array_equal(combine_tables("uncertainty_penalised", scores, 0.0), mean)
    penalised = combine_tables("uncertainty_penalised", scores, 0.7)
    np.testing.assert_allclose(penalised, scores.mean(0) - 0.7 * scores.var(0, ddof=0))  # population variance
    assert (combine_tables("worst_case", scores, 0.5) <= mean).all()


def test_further_combinations_by_hand():
    scores = np.array([[1.0, 0.0], [2.0, 3.0], [6.0, 3.0]])
    np.testing.assert_array_equal(combine_tables("median", scores, 0.5), [2.0, 3.0])
    np.testing.assert_array_equal(combine_tables("median", scores[:2], 0.5), [1.5, 1.5])
    np.testing.assert_allclose(combine_tables("mean_less_deviation", scores[1:], 0.5), [4.0 - 0.5 * 2.0, 3.0])
    seen = combine_tables("pessimistic", scores, 2.0)
    by_hand = -2.0 * np.log((np.exp(-0.5) + np.exp(-1.0) + np.exp(-3.0)) / 3)
    assert seen[0] == pytest.approx(by_hand, rel=1e-12)  # tables keep their precision
    assert seen.dtype == np.float64


def test_pessimism_lies_between_the_worst_case_and_the_mean():
    scores = np.random.default_rng(1).normal(size=(4, 50))
    np.testing.assert_allclose(combine_tables("pessimistic", scores, 1e-9), scores.min(0), atol=1e-8)
    np.testing.assert_allclose(combine_tables("pessimistic", scores, 1e9), scores.mean(0), atol=1e-6)
    b = 100.0  # and near the mean it is the uncertainty-penalised one with 1 / 2b
    near = combine_tables("uncertainty_penalised", scores, 1 / (2 * b))
    np.testing.assert_allclose(combine_tables("pessimistic", scores, b), near, atol=1e-4)  # of 5e-3
    falling = [combine_tables("pessimistic", scores, b) for b in (10.0, 1.0, 0.1)]
    assert (falling[0] > falling[1]).all()
    assert (falling[1] > falling[2]).all()


def test_pessimism_is_the_least_mean_over_reweightings():
    """min over weights w of E_w[r] + b KL(w || equal), by brute force over two RMs."""
    scores, b = np.array([[0.3], [1.7]]), 0.8
    w = np.linspace(1e-6, 1 - 1e-6, 20_001)
    price = b * (w * np.log(2 * w) + (1 - w) * np.log(2 * (1 - w)))
    least = (w * scores[0] + (1 - w) * scores[1] + price).min()
    assert combine_tables("pessimistic", scores, b)[0] == pytest.approx(least, abs=1e-8)


@pytest.mark.parametrize(
    "how", ["mean", "worst_case", "uncertainty_penalised", "median", "mean_less_deviation", "pessimistic"]
)
def test_one_score_function_on_the_device_and_on_the_host(how):
    """What PPO sees of several RMs is what best-of-n sees in its tables."""
    params, each = members(3), Calibration(jnp.array([0.0, 0.5, 1.0]), jnp.array([1.0, 2.0, 0.5]))
    outer = Calibration(jnp.float32(0.2), jnp.float32(3.0))
    seen = Reward(RM, how=how, coefficient=0.5)(RewardParams(params, outer, each), TOKENS, MASK)
    tables = np.stack([(raw(params, m) - each.shift[m]) * each.scale[m] for m in range(3)])
    np.testing.assert_allclose(seen, (combine_tables(how, tables, 0.5) - 0.2) * 3, rtol=1e-5, atol=1e-6)


def test_weights_averaged_of_equal_models_are_the_model():
    one = transformer.init(RM, jax.random.key(3))
    several = jax.tree.map(lambda x: jnp.stack([x, x, x]), one)
    of_params = combination.find("weight_averaged").params
    np.testing.assert_allclose(
        scoring.score(RM, of_params(several), TOKENS, MASK), scoring.score(RM, one, TOKENS, MASK), atol=1e-5
    )
    different = of_params(members(2))
    head = members(2)["head"]["kernel"]
    np.testing.assert_allclose(different["head"]["kernel"], head.mean(0), rtol=1e-6)  # the head is averaged too


def test_a_single_rm_is_the_calibrated_score():
    params = jax.tree.map(lambda x: x[0], members(1))
    seen = Reward(RM)(RewardParams(params, Calibration(0.5, 2.0)), TOKENS, MASK)
    np.testing.assert_allclose(seen, (scoring.score(RM, params, TOKENS, MASK) - 0.5) * 2, rtol=1e-6)


def test_wrong_combinations():
    with pytest.raises(ValueError, match=r"called 'middle'.*use one of mean, worst_case"):
        combination.find("middle")
    with pytest.raises(ValueError, match="give one of scores and params"):
        combination.register(combination.Combination("nothing", "here"))
    with pytest.raises(ValueError, match="weight_averaged combines parameters"):
        combine_tables("weight_averaged", np.zeros((2, 3)), 0.0)


def test_calibration_never_changes_which_is_higher():
    rng = np.random.default_rng(0)
    gap, gold = rng.normal(size=500), rng.normal(size=500)
    scale = soft_label_scale(gap + gold, gold)
    assert scale > 0
    scores = Calibration(3.0, scale)(rng.normal(size=(100, 2)))
    assert ((scores[:, 0] > scores[:, 1]) == ((scores[:, 0] - 3.0) * 5 > (scores[:, 1] - 3.0) * 5)).all()
