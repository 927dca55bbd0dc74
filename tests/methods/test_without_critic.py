"""RLOO and GRPO: advantages and losses by hand, and that they go PPO's way without a critic."""

import dataclasses
import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.config import Against, checks
from rmo.experiment.graph import plan
from rmo.methods import grpo, method, rloo
from rmo.methods.ppo import loop as ppo_loop
from rmo.methods.ppo import update as ppo
from rmo.runtime.checkpointer import Checkpoints
from rmo.tracking.jsonl import Log
from rmo.training import losses
from tests.methods.test_ppo import first, make

ROOT = Path(__file__).parents[2]
SMOKE = checks.load(ROOT / "configs" / "smoke.py")


def test_each_return_is_compared_with_the_mean_of_the_others():
    returns = jnp.array([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])
    np.testing.assert_allclose(rloo.leave_one_out(returns, 3), [-3, -1.5, 4.5, -1.5, -1.5, 3])
    shifted = returns + jnp.repeat(jnp.array([10.0, -20.0]), 3)  # a prompt's own level is no matter
    np.testing.assert_allclose(rloo.leave_one_out(shifted, 3), rloo.leave_one_out(returns, 3), atol=1e-5)


def test_returns_are_normalised_among_those_of_their_prompt():
    returns = jnp.array([1.0, 3.0, 0.3, 0.3])
    np.testing.assert_allclose(grpo.normalised(returns, 2), [-1 / 1.0001, 1 / 1.0001, 0, 0], rtol=1e-6)
    three = np.array([0.0, 1.0, 5.0])
    np.testing.assert_allclose(grpo.normalised(three, 3), (three - 2) / (np.sqrt(14 / 3) + 1e-4))


@pytest.mark.parametrize("responses", [2, 3])
def test_leave_one_out_has_no_bias(responses):
    """A policy of two outcomes with chance sigmoid(x): over all groups of outcomes, the mean of REINFORCE's gradient is
    that of the expected score."""
    chance, score = 0.3, np.array([-1.0, 2.0])
    logps = np.log([1 - chance, chance])
    slope = np.array([-chance, 1 - chance])  # of both log-probabilities in x
    found = 0.0
    for group in itertools.product((0, 1), repeat=responses):
        group = np.array(group)
        found += np.exp(logps[group].sum()) * np.mean(rloo.leave_one_out(score[group], responses) * slope[group])
    assert found == pytest.approx(chance * (1 - chance) * (score[1] - score[0]), rel=1e-12)


def episodes():
    """Log-probabilities now and before, advantages, mask [2, 3]; the second response has one token."""
    mask = jnp.array([[1, 1, 1], [1, 0, 0]], bool)
    before = jnp.array([[-1.0, -2.0, -0.5], [-1.0, 0.0, 0.0]])
    ratio = jnp.array([[1.0, 1.5, 0.5], [2.0, 1.0, 1.0]])
    advantages = jnp.array([[2.0, 2.0, 2.0], [-1.0, 0.0, 0.0]])
    return before + jnp.log(ratio), before, advantages, mask


def test_reinforce_is_a_mean_over_tokens_of_advantage_times_log_probability():
    logps, before, advantages, mask = episodes()
    loss, seen = rloo.reinforce(logps, before, advantages, mask, 0.2)
    by_hand = 2 * (-1 - 2 - 0.5 + np.log(1.5) + np.log(0.5)) - (-1 + np.log(2))
    assert float(loss) == pytest.approx(-by_hand / 4, rel=1e-6)
    assert float(seen["clip_fraction"]) == 0.75
    slope = jax.grad(lambda x: rloo.reinforce(x, before, advantages, mask, 0.2)[0])(before)
    clipped = jax.grad(lambda x: losses.clipped_policy(x, before, advantages, mask, 0.2)[0])(before)
    np.testing.assert_allclose(slope, clipped, rtol=1e-6)  # where nothing has moved yet the two agree


def test_grpo_weighs_responses_alike_whatever_their_length():
    logps, before, advantages, mask = episodes()
    loss, seen = grpo.clipped_by_response(logps, before, advantages, mask, 0.2)
    long = 2 * (1.0 + 1.2 + 0.5) / 3  # a gain is clipped above, and not below
    short = -2.0  # a loss is not
    assert float(loss) == pytest.approx(-(long + short) / 2, rel=1e-6)
    assert float(seen["tokens"]) == 2
    one = jax.tree.map(lambda x: x[:1], (logps, before, advantages, mask))
    assert float(grpo.clipped_by_response(*one, 0.2)[0]) == pytest.approx(-long, rel=1e-6)


def without(estimator, **changes):
    """A small problem (setup, frozen, members) for a method without a critic."""
    s, frozen, members, _ = make(**changes)
    return dataclasses.replace(s, estimator=estimator), frozen, members


@partial(jax.jit, static_argnames="s")
def rolled(s, frozen, task, state):
    drawn = ppo.draw(s, frozen, state, jax.random.key(7))
    return drawn, ppo.judge(s, frozen, task, state, drawn)


@pytest.mark.parametrize("made_by", [rloo.estimator, grpo.estimator])
def test_an_iteration_has_no_critic_and_groups_of_responses(made_by):
    s, frozen, members = without(made_by(4), epochs=1, minibatches=1)
    state, task = ppo.begin(s, frozen.reference, ()), first(members)
    drawn, (batch, _) = rolled(s, frozen, task, state)
    rows = np.asarray(drawn.rows).reshape(-1, 4)
    assert (rows == rows[:, :1]).all()
    assert len(np.unique(rows)) > 4
    assert len(np.unique(np.asarray(drawn.tokens)[:4], axis=0)) > 1  # responses to one prompt differ
    assert batch.values == batch.returns == state.critic == ()
    each = np.asarray(batch.advantages)
    np.testing.assert_array_equal(each, each[:, :1] * np.asarray(batch.mask))  # one number for all of a response
    np.testing.assert_allclose(each[:, 0].reshape(-1, 4).sum(1), 0, atol=2e-4)
    step = jax.jit(partial(ppo.iteration, s, frozen))
    later, out = step(task, state)
    assert later.critic == ()
    assert not {"critic_loss", "explained_variance"} & out.keys()
    assert float(out["first_ratio"]) == 1
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), later.policy.params, frozen.reference)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_it_climbs_in_ppos_loop(tmp_path, one_device):
    """Two members in one program, read on the way: the proxy rises."""
    s, frozen, members = without(rloo.estimator(4), max_steps=24, patience=12, d_step=3.0, read_draws=32, kl_max=9.0)
    log = Log(tmp_path, "rloo", s.reads, "read")
    history, states = ppo_loop.train_ppo(s, frozen, members, (), one_device, Checkpoints(tmp_path), log)
    assert history["iteration"][:, 0].tolist() == [0, 12, 24]
    proxy = history["read"]["proxy"].mean(-1)
    assert (proxy[-1] > proxy[0] + 0.1).all()
    np.testing.assert_allclose(history["read"]["kl"][0], 0, atol=1e-6)
    assert (history["read"]["kl"][-1].mean(-1) > 0.01).all()
    assert states.critic == ()


def with_methods(*settings):
    return dataclasses.replace(SMOKE, methods=settings)


def test_stages_have_their_methods_name_and_old_ones_keep_theirs():
    before = {name: stage.path for name, stage in plan(SMOKE).items()}
    e = with_methods(rloo.Rloo(responses=2), grpo.Grpo(against=(Against(sizes=(1,), kl_coefs=(0.0, 0.1)),)))
    after = {name: stage.path for name, stage in plan(e).items()}
    new = [name for name in after if name not in before]
    assert new == ["rloo/w8x1-main", "rloo/w16x1-main", "rloo/w24x1-main", "grpo/w16x1-main"]
    gatherers = {"fits", "report"}
    assert all(after[name] == path for name, path in before.items() if name not in gatherers)
    (job, *_) = rloo.METHOD.jobs(e)
    assert str(job.details.settings) == "responses=2"
    other = dataclasses.replace(e, ppo=dataclasses.replace(e.ppo, critic_optimizer=config.Optimizer(lr=0.5)))
    assert plan(other)["rloo/w8x1-main"].path == after["rloo/w8x1-main"]  # what a critic learns by is no matter


def test_they_say_of_themselves_what_ppo_does_but_for_the_critic():
    for found in (rloo.METHOD, grpo.METHOD):
        assert method.find(found.name) is found
        assert (found.form, found.shared_alpha, found.kl) == ("d(a - b log d)", True, "exact")
        names = {d.name for d in found.diagnostics} | {name for name, _ in found.charts}
        assert "entropy" in names
        assert not any("critic" in name or "explained" in name for name in names)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (rloo.Rloo(responses=1), "Rloo.responses is 1: responses to one prompt are compared"),
        (rloo.Rloo(responses=3), "Rloo.responses is 3: it must divide ppo.batch 64"),
        (grpo.Grpo(against=(Against(sweep="no"),)), "Grpo.against.0.sweep is 'no'"),
        (grpo.Grpo(against=(Against(), Against())), "Grpo.against has two entries of one name"),
        (grpo.Grpo(against=(Against(), Against("b"))), "optimises one proxy twice with equal settings"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(config.ConfigError, match=said) as error:
        checks.check(with_methods(settings))
    assert "\n" not in str(error.value)


def test_reinforce_learns_once_from_a_batch():
    twice = dataclasses.replace(with_methods(rloo.Rloo()), ppo=dataclasses.replace(SMOKE.ppo, epochs=2))
    with pytest.raises(config.ConfigError, match=r"ppo.epochs is 2: Rloo has no ratio"):
        checks.check(twice)
