"""Direct alignment on a small problem: log-probabilities, labels, when gold is read, members, resuming, settings."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.analysis.curve_id import NO_RM, Settings
from rmo.config import ConfigError, checks
from rmo.experiment.labelled import rows_of
from rmo.methods.bench import Arm, Pairs
from rmo.methods.direct import loop, setup, update
from rmo.methods.direct.door import arms, record_of
from rmo.methods.direct.settings import Direct
from rmo.models import scoring, transformer
from rmo.models.sampling import join, sample
from rmo.rewards.calibration import Calibration
from rmo.runtime.checkpointer import Checkpoints
from rmo.training.tracker import NoCheckpoints, Silent
from tests.helpers.smoke import SMOKE

P, R, V, EOS, C = 4, 6, 12, 2, 40
SHAPE = config.Model(width=16, layers=1, heads=2)


def make(steps=(24, 24), losses=(0, 0), betas=(0.1, 0.1), seeds=(0, 1), side_by_side=False, **changes):
    """(setup, frozen, tasks) of a small problem with random networks and comparisons."""
    c = Direct(batch=8, kl_max=50.0, d_step=0.4, patience=10, look=2, look_draws=2, read_draws=4,
               optimizer=config.Optimizer(lr=1e-2, schedule="constant"))  # fmt: skip
    c = dataclasses.replace(c, **changes)
    lm, rm = transformer.LanguageModel(SHAPE, V, P + R), transformer.RewardModel(SHAPE, V, P + R)
    s = update.Setup(lm, rm, c, P, R, EOS, max(steps), side_by_side)
    reference = transformer.init(lm, jax.random.key(0))
    prompts = jax.random.randint(jax.random.key(3), (C, P), 3, V)
    prompt_mask = jnp.arange(P)[None] >= jnp.arange(C)[:, None] % 3
    tokens, mask = pairs(lm, reference, prompts, prompt_mask)
    frozen = update.Frozen(
        reference, transformer.init(rm, jax.random.key(1)), Calibration(), (prompts[:4], prompt_mask[:4]),
        update.LabelledPairs(tokens[:32], mask[:32], update.logps_of_all(s, reference, tokens[:32], mask[:32], 5)),
        (tokens[32:], mask[32:]),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    order = np.stack([rng.integers(0, 32, size=(max(steps), 8)) for _ in steps]).astype(np.int32)
    tasks = update.Task(
        jnp.array(losses), jnp.array(betas), jax.vmap(partial(jax.random.fold_in, jax.random.key(4)))(jnp.array(seeds)),
        jnp.array(steps), jnp.asarray(order), jnp.tile(jnp.array([[[0, 1]]]), (len(steps), 32, 1)),
    )  # fmt: skip
    return s, frozen, tasks


def pairs(lm, reference, prompts, prompt_mask) -> tuple[jax.Array, jax.Array]:
    """(tokens, mask) [C, 2, T]: two samples for each prompt."""
    keys = jax.random.split(jax.random.key(7), 2 * C)
    both, both_mask = (jnp.repeat(x, 2, axis=0) for x in (prompts, prompt_mask))
    drawn = sample(lm, reference, both, both_mask, keys, R, EOS)
    tokens, mask = join(both, both_mask, drawn.tokens, drawn.mask)
    return tokens.reshape(C, 2, -1), mask.reshape(C, 2, -1)


def of(tree, m: int):
    return jax.tree.map(lambda x: x[m], tree)


def trained(s, frozen, tasks, mesh, where=None, **more):
    return loop.train(s, frozen, tasks, mesh, Checkpoints(where) if where else NoCheckpoints(), Silent(), **more)


def test_log_probabilities_are_the_samplers_whatever_the_chunk():
    s, frozen, _ = make()
    prompts, prompt_mask = frozen.read_prompts
    drawn = sample(s.lm, frozen.reference, prompts, prompt_mask, jax.random.split(jax.random.key(9), 4), R, EOS)
    joined = join(prompts, prompt_mask, drawn.tokens, drawn.mask)
    found = update.response_logps(s, frozen.reference, *joined)
    np.testing.assert_allclose(found, drawn.logps.sum(1), rtol=1e-4)
    whole = update.pair_logps(s, frozen.reference, frozen.train.tokens, frozen.train.mask)
    np.testing.assert_allclose(frozen.train.reference, whole, rtol=1e-4)  # 32 pairs, five at a time


def test_flipped_labels_swap_what_is_preferred():
    _, frozen, tasks = make()
    clean, order = of(tasks, 0), np.asarray(tasks.order[0, 3])
    flipped = clean._replace(sides=clean.sides.at[order[0]].set(jnp.array([1, 0])))
    a, b = (update.batch_of(frozen, task, jnp.int32(3)) for task in (clean, flipped))
    np.testing.assert_array_equal(a.tokens[0], b.tokens[0, ::-1])
    np.testing.assert_array_equal(a.reference[0], b.reference[0, ::-1])
    np.testing.assert_array_equal(a.tokens[order != order[0]], b.tokens[order != order[0]])
    np.testing.assert_array_equal(a.tokens, frozen.train.tokens[order])


def test_gold_first_whatever_the_labels():
    gold = np.array([[0.0, 1.0], [2.0, 2.0], [3.0, -1.0]])
    tokens = np.arange(6).reshape(3, 2, 1)
    found = setup.by_gold(Pairs(tokens, tokens > 0, gold))
    assert found.gold.tolist() == [[1.0, 0.0], [3.0, -1.0]]  # what gold does not tell apart is left out
    assert found.tokens[..., 0].tolist() == [[1, 0], [4, 5]]


def test_the_first_read_is_the_reference():
    s, frozen, tasks = make()
    states = jax.vmap(partial(update.begin, s), in_axes=(None, 0))(frozen.reference, tasks)
    out = loop.read(s, frozen, tasks, states)
    for name in ("kl", "kl_k1", "kl_k3", "implicit", "held_margin", "held_preferred"):
        assert not np.asarray(out[name]).any(), name
    assert np.asarray(out["held_accuracy"]).tolist() == [0.5, 0.5]
    assert (np.asarray(out["accuracy"]) == 0.5).all()
    prompts, prompt_mask = (jnp.repeat(x, s.c.read_draws, axis=0) for x in frozen.read_prompts)
    joined = join(prompts, prompt_mask, out["tokens"][0], out["mask"][0])
    gold = scoring.score(s.gold, frozen.gold, *joined)
    np.testing.assert_allclose(out["gold"][0], gold.reshape(4, -1).mean(1), rtol=1e-4, atol=1e-6)


def test_gold_is_read_on_a_grid_of_the_root_of_kl_and_at_the_end(one_device):
    s, frozen, tasks = make()
    found, states = trained(s, frozen, tasks, one_device)
    steps, looks = found["step"], np.asarray(states.kl)
    assert steps[0].tolist() == [0, 0]
    assert steps[-1].tolist() == [24, 24]
    assert (np.diff(steps, axis=0) <= s.c.patience + s.c.look).all()
    kl = found["read"]["kl"].mean(-1)
    assert (kl[-1] > 1).all()  # it went somewhere
    np.testing.assert_allclose(looks, kl[-1], rtol=0.6)  # of other samples
    assert len(steps) <= s.reads
    assert found["last"]["accuracy"][-1].min() > 0.8  # the comparisons were learned
    assert np.isnan(found["last"]["loss"][0]).all()  # no step came before the first read
    record = record_of([Arm(0), Arm(1)], found)
    assert np.isnan(record.proxy).all()
    assert record.points(0)[0] == 0
    assert set(record.judged) == {"accuracy"}


def test_a_smaller_beta_goes_farther_and_an_end_is_an_end(one_device):
    s, frozen, tasks = make(betas=(10.0, 0.05), seeds=(0, 0))
    found, _ = trained(s, frozen, tasks, one_device)
    kl = found["read"]["kl"].mean(-1)[-1]
    assert kl[1] > 1.5 * kl[0]
    near = dataclasses.replace(s, c=dataclasses.replace(s.c, kl_max=0.5))
    ended, states = trained(near, frozen, tasks, one_device)
    assert states.step[1] < 24
    assert states.kl[1] >= 0.5
    assert ended["step"][-1, 1] == states.step[1]


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_member_is_the_same_whoever_is_beside_it(one_device, side_by_side):
    s, frozen, tasks = make((24, 10), (0, 1), (0.1, 0.5), side_by_side=side_by_side)
    _, both = trained(s, frozen, tasks, one_device)
    assert both.step.tolist() == [24, 10]
    alone_s, alone_frozen, _ = make((24, 10), (0, 1), (0.1, 0.5))
    one = jax.tree.map(lambda x: x[1:], tasks)
    _, alone = trained(alone_s, alone_frozen, one, one_device)
    for a, b in zip(jax.tree.leaves(of(both, 1)), jax.tree.leaves(of(alone, 0)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


class Kill(Exception):
    pass


def test_killed_and_resumed_equals_undisturbed(tmp_path, one_device, monkeypatch):
    s, frozen, tasks = make(losses=(0, 2))

    def words(tokens, mask):
        return {"words": mask.sum((1, 2)).astype(np.float32)}

    go = partial(trained, s, frozen, tasks, one_device, every=2, observe=words)
    whole, states = go(tmp_path / "whole")
    real, calls = loop.read, []

    def dying(*args):
        calls.append(1)
        if len(calls) == 4:
            raise Kill
        return real(*args)

    monkeypatch.setattr(loop, "read", dying)
    with pytest.raises(Kill):
        go(tmp_path / "killed")
    monkeypatch.setattr(loop, "read", real)
    resumed, resumed_states = go(tmp_path / "killed")
    for a, b in zip(jax.tree.leaves((whole, states)), jax.tree.leaves((resumed, resumed_states)), strict=True):
        np.testing.assert_array_equal(a, b)
    rows = frozen.read_prompts[0].shape[0] * s.c.read_draws
    np.testing.assert_allclose(whole["read"]["words"], whole["read"]["length"].mean(-1) * rows, rtol=1e-5)


def test_arms_are_recipes_by_losses_by_betas_by_seeds():
    sweep = config.Sweep(recipes=(config.Recipe(100), config.Recipe(100, flip=0.25, dropout=0.1)))
    rows = rows_of(config.Proxies(sweeps=(sweep,), seeds=2), sweep)
    assert [str(row.recipe) for row in rows] == ["", "", "flip=0.25", "flip=0.25"]  # dropout is of an RM's training
    assert {row.combined for row in rows} == {NO_RM}
    found = arms(rows, Direct(losses=("ipo",), betas=(0.1, 1.0), recipes=(1,)))
    assert [arm.reward for arm in found] == [2, 3, 2, 3]
    assert [arm.settings for arm in found] == [Settings(loss="ipo", beta=b) for b in (0.1, 0.1, 1.0, 1.0)]
    assert [arm.reward for arm in arms(rows, Direct(losses=("dpo",), betas=(0.1,), seeds=1))] == [0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Direct(betas=(0.1, 0.0)), r"methods.0.betas is \(0.1, 0.0\): each must be above 0"),
        (Direct(betas=()), "methods.0.betas is"),
        (Direct(betas=(0.1, 0.1)), "holds one beta twice"),
        (Direct(losses=("kto",)), "methods.0.losses"),  # type: ignore[arg-type]
        (Direct(losses=()), "use some of dpo, ipo, slic"),
        (Direct(sweep="data"), "methods.0.sweep is 'data': proxies.sweeps has main"),
        (Direct(recipes=(1,)), "the recipes of sweep main are 0 to 0"),
        (Direct(seeds=3), r"it must be at most proxies.seeds \(2\)"),
        (Direct(batch=4096), "methods.0.batch is 4096: there are 1024 comparisons"),
        (Direct(look=0), "methods.0.look is 0"),
        (Direct(read_draws=1), "must be at least 2"),
        (Direct(optimizer=config.Optimizer(accumulate=3)), "it must divide methods.0.batch 64"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as refused:
        checks.check(dataclasses.replace(SMOKE, methods=(settings,)))
    assert "\n" not in str(refused.value)


def test_what_differs_only_in_an_rms_training_is_refused_twice():
    two = (config.Recipe(1024), config.Recipe(1024, dropout=0.1))
    sweep = dataclasses.replace(SMOKE.proxies.sweeps[0], recipes=two)
    e = dataclasses.replace(SMOKE, proxies=dataclasses.replace(SMOKE.proxies, sweeps=(sweep,)))
    with pytest.raises(ConfigError, match="without an RM they are one"):
        checks.check(dataclasses.replace(e, methods=(Direct(recipes=(0, 1)),)))
    marked = dataclasses.replace(sweep, recipes=(config.Recipe(256, confounded=0.8),))
    chosen = dataclasses.replace(SMOKE, proxies=dataclasses.replace(SMOKE.proxies, sweeps=(marked,)))
    with pytest.raises(ConfigError, match="comparisons are chosen: take one with neither choice nor confounded"):
        checks.check(dataclasses.replace(chosen, methods=(Direct(),)))
    with pytest.raises(ConfigError, match="two entries Direct of one sweep"):
        checks.check(dataclasses.replace(e, methods=(Direct(), Direct(betas=(0.5,)))))
