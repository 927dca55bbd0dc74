import gc
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rmo import config
from rmo.models import scoring, transformer
from rmo.models.metrics import token_logps
from rmo.models.sampling import sample
from rmo.runtime import sharding
from rmo.runtime.checkpointer import Checkpoints, load_params, save_params
from rmo.runtime.files import RunError, read_json, write_json
from rmo.tracking.jsonl import Log
from rmo.training import losses
from rmo.training.loop import train
from rmo.training.tracker import NoCheckpoints, Silent
from rmo.training.update import Member, init_state, make_optimizer, update
from rmo.worlds import comparisons

V, T, C = 24, 12, 256
SHAPE = config.Model(width=32, layers=2, heads=4)
LM, RM = transformer.LanguageModel(SHAPE, V, T), transformer.RewardModel(SHAPE, V, T)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(3, V, (C, 2, T)).astype(np.int32)
# The first of each pair has more words below 10: something to learn.
ORDER = np.argsort(-(TOKENS < 10).sum(-1), axis=1, kind="stable")
PAIRS = np.take_along_axis(TOKENS, ORDER[..., None], 1)


def lm_loss(params, tokens):
    logits, _ = LM.apply({"params": params}, tokens, jnp.ones(tokens.shape, bool))
    return losses.next_token(token_logps(logits[:, :-1], tokens[:, 1:]), jnp.ones((tokens.shape[0], T - 1))), {}


def rm_loss(params, pairs):
    scores = scoring.score(RM, params, pairs.reshape(-1, T), jnp.ones((pairs.shape[0] * 2, T), bool)).reshape(-1, 2)
    return losses.preference(scores), {}


def members_of(steps, **settings):
    """Plain members that make `steps` each; `settings` are lists of what is not plain."""
    m = len(steps)
    column = lambda name, value, dtype: jnp.asarray(settings.get(name, [value] * m), dtype)
    return Member(
        jnp.asarray(steps, jnp.int32), jax.random.split(jax.random.key(9), m), column("weight_decay", 0.0, jnp.float32),
        column("dropout", 0.0, jnp.float32), column("smoothing", 0.0, jnp.float32), column("stop_early", False, bool),
    )  # fmt: skip


def member_loss(params, pairs, member, step):
    mask = jnp.ones((pairs.shape[0] * 2, T), bool)
    dropout = (member.dropout, jax.random.fold_in(member.key, step))
    scores = scoring.score(RM, params, pairs.reshape(-1, T), mask, dropout).reshape(-1, 2)
    return losses.preference(scores, member.smoothing), {}


PROBLEMS = {"sft": (LM, lm_loss, PAIRS[:, 0], False), "rm": (RM, member_loss, PAIRS, True)}


class Kill(BaseException):
    """Stands for SIGKILL: nothing below catches it."""


def go(kind, where, mesh, die_at=None, steps=25):
    """Train one of the problems with its files in `where`; None: without files."""
    module, loss, rows, members = PROBLEMS[kind]
    orders = [comparisons.epochs(C, 16, (seed,)) for seed in range(2)]

    def batch_at(step):
        if step == die_at:
            raise Kill
        return np.stack([rows[order(step)] for order in orders]) if members else rows[orders[0](step)]

    fresh = partial(transformer.init, module, jax.random.key(0))
    if members:
        fresh = lambda: jax.vmap(partial(transformer.init, module))(jax.random.split(jax.random.key(0), 2))
    keep, log = (NoCheckpoints(), Silent()) if where is None else (Checkpoints(where), Log(where, kind, steps))
    settings = members_of([steps, steps]) if members else None
    return train(fresh, loss, batch_at, steps, config.Optimizer(lr=3e-3, warmup=3), mesh, keep, log, settings, every=7)


@pytest.mark.parametrize("kind", ["rm", pytest.param("sft", marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_undisturbed(kind, tmp_path, mesh):
    whole = go(kind, tmp_path / "whole", mesh)
    with pytest.raises(Kill):
        go(kind, tmp_path / "killed", mesh, die_at=17)
    resumed = go(kind, tmp_path / "killed", mesh)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    without_files = go(kind, None, mesh)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(without_files), strict=True):
        np.testing.assert_array_equal(a, b)
    logs = [(tmp_path / w / "metrics.jsonl").read_text() for w in ("whole", "killed")]
    assert logs[0] == logs[1]
    assert logs[0].count("\n") == 25


@pytest.mark.parametrize("kind", ["rm", pytest.param("sft", marks=pytest.mark.slow)])
def test_sharded_equals_unsharded(kind, tmp_path, mesh, monkeypatch):
    monkeypatch.setattr(sharding, "SMALL", 256)  # so that these small arrays are really split
    one = jax.make_mesh(
        (1, 1), ("data", "model"), devices=jax.devices()[:1], axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    two_axes = sharding.make_mesh(data=4, model=2)
    alone = go(kind, tmp_path / "one", one)
    for name, many in {"8x1": mesh, "4x2": two_axes}.items():
        spread = go(kind, tmp_path / name, many)
        assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(spread))
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True):
            np.testing.assert_allclose(a, b, atol=3e-4)


def test_sharded_sampling_equals_unsharded(mesh):
    params = transformer.init(LM, jax.random.key(0))
    prompts = jnp.asarray(TOKENS[:16, 0, :4])
    draw = jax.jit(lambda p, x, m, k: sample(LM, p, x, m, k, 8, 2))
    keys = lambda: jax.random.split(jax.random.key(1), 16)
    alone = draw(params, prompts, jnp.ones_like(prompts, bool), keys())
    spread = draw(
        jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())),
        *sharding.put_batch((prompts, jnp.ones_like(prompts, bool)), mesh),
        keys(),
    )
    np.testing.assert_array_equal(alone.tokens, spread.tokens)
    np.testing.assert_allclose(alone.logps, spread.logps, atol=1e-5)


def test_members_are_independent(tmp_path, mesh):
    """A vmapped member equals the same training alone, and so do 1, 2 or 4 beside one another."""
    both = go("rm", tmp_path / "both", mesh)
    order = comparisons.epochs(C, 16, (1,))
    keys = jax.random.split(jax.random.key(0), 2)
    alone = train(lambda: transformer.init(RM, keys[1]), rm_loss, lambda s: PAIRS[order(s)], 25, config.Optimizer(lr=3e-3, warmup=3),
                  mesh, Checkpoints(tmp_path / "alone"), Log(tmp_path / "alone", "rm", 25))  # fmt: skip
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a[1], b, atol=3e-4)


def fit_members(where, mesh, steps, batches=PAIRS, validate=None, die_at=None, held=None, apart=False, **settings):
    """Members from one initialisation on the same batches, with the settings given."""
    keys = jnp.stack([jax.random.key(0)] * len(steps))
    order = comparisons.epochs(C, 16, (3,))

    def batch_at(step):
        if step == die_at:
            raise Kill
        return np.stack([batches[order(step)]] * len(steps))

    return train(
        lambda: jax.vmap(partial(transformer.init, RM))(keys), member_loss, batch_at, max(steps),
        config.Optimizer(lr=3e-3, warmup=2), mesh, Checkpoints(where), Log(where, "rm", max(steps)), members_of(steps, **settings), validate, held, apart, every=7,
    )  # fmt: skip


def member_of(params, m):
    return jax.tree.map(lambda x: np.asarray(x[m]), params)


def same(a, b, **tolerance):
    return all(np.allclose(x, y, **tolerance) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_member_that_has_made_its_steps_rests(tmp_path, mesh):
    """Padded by step masks, a shorter training ends exactly as it does alone, its schedule its own."""
    together = fit_members(tmp_path / "together", mesh, [8, 20])
    alone = fit_members(tmp_path / "alone", mesh, [8])
    assert same(member_of(together, 0), member_of(alone, 0), atol=3e-5)
    assert not same(member_of(together, 1), member_of(alone, 0), atol=1e-3)


@pytest.mark.parametrize(("name", "value"), [("weight_decay", 30.0), ("dropout", 0.3), ("smoothing", 0.3)])
def test_settings_belong_to_their_member(name, value, tmp_path, mesh):
    plain = fit_members(tmp_path / "plain", mesh, [12, 12])
    mixed = fit_members(tmp_path / "mixed", mesh, [12, 12], **{name: [0.0, value]})
    assert same(member_of(plain, 0), member_of(mixed, 0), atol=3e-5)
    assert not same(member_of(plain, 1), member_of(mixed, 1), atol=1e-3)


def test_dropout_is_off_at_rate_zero_and_keeps_the_mean():
    params, tokens = transformer.init(RM, jax.random.key(0)), jnp.asarray(TOKENS[:4, 0])
    mask = jnp.ones(tokens.shape, bool)
    still = transformer.values(RM, params, tokens, mask)
    key = jax.random.key(1)
    np.testing.assert_array_equal(still, transformer.values(RM, params, tokens, mask, dropout=(jnp.float32(0), key)))
    read = jax.jit(jax.vmap(lambda k: transformer.values(RM, params, tokens, mask, dropout=(jnp.float32(0.1), k))))
    noisy = read(jax.random.split(key, 64))
    assert np.std(noisy, axis=0).min() > 1e-3
    assert abs(np.mean(noisy) - np.mean(still)) < 0.2 * np.std(still)


def test_early_stopping_keeps_the_best_and_survives_a_kill(tmp_path, mesh):
    """Trained on reversed labels, the right ones get worse at once: stopped early, the first validation wins."""

    held = PAIRS[:64]

    def validate(params, held):
        return rm_loss(params, held)[0]

    wrong = PAIRS[:, ::-1]
    losses_at = []
    for where, early in (("late", [False, False]), ("early", [True, False])):
        params = fit_members(tmp_path / where, mesh, [20, 20], wrong, validate, held=held, stop_early=early)
        losses_at.append([float(validate(member_of(params, m), held)) for m in (0, 1)])
    (late, other), (early, untouched) = losses_at
    assert early < late - 0.1
    assert other == untouched == pytest.approx(late)
    with pytest.raises(Kill):  # what was best so far is kept across a kill, on all eight devices
        fit_members(
            tmp_path / "killed", mesh, [20, 20], wrong, validate, die_at=17, held=held, stop_early=[True, False]
        )
    again = fit_members(tmp_path / "killed", mesh, [20, 20], wrong, validate, held=held, stop_early=[True, False])
    assert float(validate(member_of(again, 0), held)) == early


def test_members_may_each_be_watched_on_their_own(tmp_path, mesh):
    """Of two alike, one is watched on right and one on reversed labels: the training helps the second alone."""

    def validate(params, own):
        return rm_loss(params, own)[0]

    held = jnp.stack([jnp.asarray(PAIRS[:64]), jnp.asarray(PAIRS[:64, ::-1])])
    params = fit_members(
        tmp_path, mesh, [20, 20], PAIRS[:, ::-1], validate, held=held, apart=True, stop_early=[True, True]
    )
    left, went_on = (member_of(params, m) for m in (0, 1))
    assert float(validate(left, held[0])) < float(validate(went_on, held[0])) - 0.1
    assert float(validate(went_on, held[1])) < float(validate(left, held[1])) - 0.1


def test_untrained_reward_model_is_at_chance():
    """A fresh RewardModel with a small head has loss log 2 and no preference."""
    params = transformer.init(RM, jax.random.key(0))
    params["head"]["kernel"] = params["head"]["kernel"] * 1e-3
    assert float(rm_loss(params, PAIRS)[0]) == pytest.approx(np.log(2), abs=1e-3)


def test_training_learns():
    tx = make_optimizer(config.Optimizer(lr=3e-3), 60)
    state = init_state(transformer.init(RM, jax.random.key(0)), tx)
    step = jax.jit(lambda s, b: update(s, rm_loss, b, tx))
    seen = []
    for i in range(60):
        state, out = step(state, PAIRS[(i * 16) % C : (i * 16) % C + 16])
        seen.append(float(out["loss"]))
    assert np.mean(seen[-16:]) < 0.5 * np.mean(seen[:8])
    assert int(state.step) == 60


def test_schedules():
    for schedule, end in [("constant", 1.0), ("cosine", 0.1), ("linear", 0.1)]:
        tx = make_optimizer(config.Optimizer(lr=1.0, schedule=schedule, warmup=10, clip=1e9), 110)  # type: ignore[arg-type]
        params = {"x": jnp.zeros(())}
        state, sizes = tx.init(params), []
        for _ in range(110):
            updates, state = tx.update({"x": jnp.ones(())}, state, params)
            sizes.append(-float(updates["x"]))
        assert sizes[0] == pytest.approx(0, abs=1e-6)
        assert sizes[5] == pytest.approx(0.5, rel=0.01)
        assert max(sizes) == pytest.approx(1, rel=0.01)
        assert sizes[-1] == pytest.approx(end, abs=0.02)  # the last step is one short of the end


def test_gradient_is_clipped():
    tx = make_optimizer(config.Optimizer(lr=1.0, clip=1.0, schedule="constant"), 10)
    big, small = ({"x": jnp.full((4,), v)} for v in (1e6, 0.5))
    params = {"x": jnp.zeros(4)}
    state = tx.init(params)
    moments = [optax.tree.get(tx.update(g, state, params)[1], "mu")["x"] for g in (big, small)]
    np.testing.assert_allclose(moments[0], moments[1], rtol=1e-5)  # both have norm 1 after clipping


def test_files(tmp_path):
    params = transformer.init(RM, jax.random.key(0))
    save_params(tmp_path / "params", params)
    back = load_params(tmp_path / "params", params)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(a, b)
    other = transformer.RewardModel(config.Model(width=16, layers=2, heads=4), V, T)
    with pytest.raises(RunError, match="remove"):
        load_params(tmp_path / "params", transformer.init(other, jax.random.key(0)))
    with pytest.raises(RunError, match="cannot load"):
        load_params(tmp_path / "nothing", params)
    gc.collect()  # what orbax left of the loads that failed: collected inside another test, it breaks ast.parse there
    write_json(tmp_path / "a.json", {"x": np.float32(1.5), "y": jnp.arange(2)})
    assert read_json(tmp_path / "a.json") == {"x": 1.5, "y": [0, 1]}
    write_json(tmp_path / "a.json", {"peak": [1.0, np.inf]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"peak": [1.0, None]}  # JSON has no infinity
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*a\.json"):
        read_json(tmp_path / "a.json")
