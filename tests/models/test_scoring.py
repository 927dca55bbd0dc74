"""From values per token to a score: which tokens count, and what bounds it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo.config import Model
from rmo.models import scoring, transformer

V, P, R = 11, 4, 12
NARROW = Model(width=6, layers=1, heads=1)
SUM = Model(width=6, layers=1, heads=1, pooling="sum")
UNNORMED = Model(width=6, layers=1, heads=1, pooling="unnormed")
MEAN = Model(width=6, layers=1, heads=1, pooling="mean")


def test_last_token_is_found_by_the_mask():
    mask = jnp.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(scoring.last_token(mask), [2, 3, 3])


def test_pooling_changes_no_parameters():
    shapes = [
        jax.eval_shape(lambda s=s: transformer.init(transformer.RewardModel(s, V, P + R), jax.random.key(0)))
        for s in (NARROW, UNNORMED, SUM, MEAN)
    ]
    assert all(shape == shapes[0] for shape in shapes)
    assert NARROW.shape == UNNORMED.shape == SUM.shape == MEAN.shape
    assert UNNORMED.trunk == SUM.trunk == MEAN.trunk == NARROW


@pytest.mark.parametrize("shape", [SUM, MEAN], ids=["sum", "mean"])
def test_pooling_is_over_tokens_that_exist(shape):
    rm = transformer.RewardModel(shape, V, P + R)
    params = transformer.init(rm, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (3, P + R), 0, V)
    mask = jnp.arange(P + R)[None] < jnp.array([[1], [9], [P + R]])
    values = np.asarray(transformer.values(rm, params, tokens, mask))
    parts = {"sum": (4, 4, 4), "mean": (1, 9, P + R)}[shape.pooling]  # the root of 16, or how many there are
    expected = [values[i, :n].sum() / part for i, (n, part) in enumerate(zip((1, 9, P + R), parts, strict=True))]
    np.testing.assert_allclose(scoring.score(rm, params, tokens, mask), expected, rtol=1e-5, atol=1e-6)
    other = jnp.where(mask, tokens, (tokens + 1) % V)  # of padding
    np.testing.assert_array_equal(scoring.score(rm, params, other, mask), scoring.score(rm, params, tokens, mask))


@pytest.mark.parametrize("shape", [UNNORMED, SUM, MEAN], ids=["unnormed", "sum", "mean"])
@pytest.mark.parametrize("served", [False, True])
def test_pooled_scores_of_one_prompts_responses_are_those_of_whole_sequences(served, shape, monkeypatch):
    monkeypatch.setattr(scoring, "kernels_serve", lambda *_: served)
    jax.clear_caches()  # it is no argument
    rm = transformer.RewardModel(shape, V, P + R)
    params = transformer.init(rm, jax.random.key(0))
    prompt, there = jnp.array([0, 5, 7, 2]), jnp.array([False, True, True, True])
    tokens = jax.random.randint(jax.random.key(7), (8, R), 0, V)
    mask = jnp.arange(R)[None] < jnp.arange(8)[:, None]
    whole = jnp.concatenate([jnp.broadcast_to(prompt, (8, P)), tokens], 1)
    mask_whole = jnp.concatenate([jnp.broadcast_to(there, (8, P)), mask], 1)
    found = scoring.score_n(rm, params, prompt, there, tokens, mask, 4)
    np.testing.assert_allclose(found, scoring.score(rm, params, whole, mask_whole), atol=1e-5)
    assert len(np.unique(np.round(found, 4))) == 8


def test_the_norm_bounds_the_last_value_whatever_is_read_but_not_the_sum_nor_what_has_no_norm():
    """The last norm leaves a stream of length root D: no input, however large, takes the value of one token further."""
    length = 400
    read = {s.pooling: transformer.RewardModel(s, V, length) for s in (NARROW, UNNORMED, SUM)}
    params = transformer.init(read["last"], jax.random.key(3))
    bound = float(jnp.linalg.norm(params["head"]["kernel"])) * NARROW.width**0.5
    tokens = jnp.broadcast_to(jnp.arange(V)[:, None], (V, length))  # one token all along
    every = jnp.ones_like(tokens, bool)
    for scale in (1, 100):
        larger = jax.tree.map(lambda x: x, params)
        larger["trunk"]["embed"]["embedding"] = scale * params["trunk"]["embed"]["embedding"]
        scores = {how: np.abs(scoring.score(rm, larger, tokens, every)).max() for how, rm in read.items()}
        assert scores["last"] <= bound * 1.001
        assert scores["sum"] > 4 * bound
        assert scores["unnormed"] < bound if scale == 1 else scores["unnormed"] > 4 * bound
