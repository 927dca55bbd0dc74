"""What RMs that are trained anew learn from, how much of it counts, what they are watched and calibrated on."""

from types import SimpleNamespace
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo.config import Model
from rmo.experiment import retraining
from rmo.experiment.pool import Scored
from rmo.experiment.retraining import each_alike, new_to
from rmo.experiment.run import Run
from rmo.models import transformer
from rmo.runtime.files import RunError
from rmo.training.importance import importance_weights
from rmo.worlds.comparisons import Comparisons


def rows(prompts):
    """Comparisons whose prompts, of two tokens, are these numbers."""
    size = len(prompts)
    tokens = np.zeros((size, 2, 5), np.int32)
    tokens[:, :, :2] = np.array(prompts)[:, None, None]
    tokens[:, :, 2:] = np.arange(size * 6).reshape(size, 2, 3)
    return Comparisons(tokens, tokens >= 0, np.zeros((size, 2), np.float32), np.arange(size, dtype=np.int32))


def test_held_out_prompts_that_are_trained_on_are_dropped():
    new = new_to(rows([1, 2, 3, 3]), rows([3, 4, 1, 5, 4]), 2)
    assert new.tolist() == [False, True, False, True, True]
    with pytest.raises(RunError, match=r"raise comparisons\.prompts"):
        new_to(rows([1, 2]), rows([2, 1, 1]), 2)


def test_every_member_is_watched_on_as_many_of_its_own():
    few, many = each_alike([rows([1, 2, 3]), rows(list(range(10, 20)))], 1000)
    assert few.tolist() == [0, 1, 2]
    assert many.tolist() == [0, 4, 9]
    assert [x.tolist() for x in each_alike([rows([1, 2, 3])] * 2, 2)] == [[0, 2], [0, 2]]


V, P, R = 11, 3, 5
LM = transformer.LanguageModel(Model(width=8, layers=1, heads=2), V, P + R)
READ = jax.jit(transformer.logits, static_argnums=0)


def policy(seed):
    """A small one at random, far from uniform."""
    return jax.tree.map(lambda x: 3 * x, transformer.init(LM, jax.random.key(seed)))


def pairs(seed, lengths):
    """Comparisons of responses of these lengths, after prompts of 1 to P tokens; where there is no token stands noise."""
    tokens = np.random.default_rng(seed).integers(0, V, (len(lengths), 2, P + R)).astype(np.int32)
    first = P - 1 - np.arange(len(lengths))[:, None] % P
    tokens[:, :, :P] = tokens[:, :1, :P]
    place, end = np.arange(P + R), P + np.array(lengths)
    mask = (place >= first[..., None]) & (place < end[..., None])
    return Comparisons(tokens, mask, np.zeros((len(lengths), 2), np.float32), np.arange(len(lengths), dtype=np.int32))


def by_token(params, tokens, mask):
    """Log-probability of one response, token by token, of a text that begins at place 0."""
    text, row = tokens[mask], np.zeros(P + R, np.int32)
    row[: len(text)] = text
    logits, _ = READ(LM, params, row[None], np.arange(P + R)[None] < len(text))
    prompt, total = int(mask[:P].sum()), 0.0
    for place, token in enumerate(text):
        if place >= prompt:
            before = np.asarray(logits[0, place - 1], np.float64)
            total += before[token] - np.log(np.sum(np.exp(before)))
    return total


def test_weights_follow_how_much_likelier_both_responses_have_become(tmp_path, monkeypatch):
    """Present policy less the one that wrote them, row by row; a member's own policy, and its own held-out rows."""
    start, policies = policy(0), [policy(1), policy(2)]
    train, held = pairs(0, [(5, 2), (1, 4), (3, 3), (0, 5)]), pairs(1, [(2, 5), (4, 4), (5, 1)])
    ratios = [
        [
            np.array(
                [
                    sum(by_token(now, *text) - by_token(start, *text) for text in zip(*pair, strict=True))
                    for pair in zip(rows.tokens, rows.mask, strict=True)
                ]
            )
            for rows in (train, held)
        ]
        for now in policies
    ]
    assert np.ptp(ratios[0][0]) > 1  # what is told apart below
    world, bon = SimpleNamespace(prompt=P), SimpleNamespace(chunk=5)  # the last one is filled
    run = SimpleNamespace(experiment=SimpleNamespace(world=world, bon=bon), lm=lambda: LM)
    run.load = lambda name, *_, **__: {"sft": start}[name]
    found = retraining.log_ratios(cast(Run, run), policies[0], start, train)
    np.testing.assert_allclose(found, ratios[0][0], atol=1e-4)
    monkeypatch.setattr(retraining, "own", lambda *_: (train, held))
    sweep, each = SimpleNamespace(recipes=[None]), SimpleNamespace(recipe_index=0, seed=0)
    scored = cast(Scored, SimpleNamespace(run=run, rows=lambda: [each] * 2, sweep=sweep))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *policies)
    for one, both in zip(retraining.importance(scored, tmp_path, "w", [0, 1], stacked, 2.0, 0.5), ratios, strict=True):
        np.testing.assert_allclose(one.train, importance_weights(both[0], 2.0, 0.5), rtol=1e-3)
        np.testing.assert_allclose(one.held_out, importance_weights(both[1], 2.0, 0.5), rtol=1e-3)
