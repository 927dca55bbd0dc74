import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.analysis.curve_id import Settings
from rmo.methods import climb
from rmo.methods.bench import RewardRow
from rmo.methods.ppo import loop as ppo_loop
from rmo.methods.ppo import setup as ppo_setup
from rmo.methods.ppo import update as ppo
from rmo.methods.ppo.door import Plan, arms
from rmo.models import scoring, transformer
from rmo.rewards.calibration import Calibration
from rmo.rewards.reward import Reward, RewardParams
from rmo.runtime import hosts, sharding
from rmo.runtime.checkpointer import Checkpoints
from rmo.tracking.jsonl import Log

P, R, V, EOS = 4, 6, 12, 2
SHAPE = config.Model(width=16, layers=1, heads=2)
CONSTANT = config.Optimizer(lr=3e-3, schedule="constant")


def make(size=2, **changes):
    """(setup, frozen, members, critics) of a small problem with random networks."""
    c = config.PPO(batch=32, minibatches=2, epochs=2, prompts=16, kl_max=1.0, max_steps=30, d_step=0.25, read_draws=4, patience=10,
                   policy_optimizer=CONSTANT, critic_optimizer=CONSTANT)  # fmt: skip
    c = c.__class__(**{**c.__dict__, **changes})
    lm, rm = transformer.LanguageModel(SHAPE, V, P + R), transformer.RewardModel(SHAPE, V, P + R)
    tokens = jax.random.randint(jax.random.key(3), (16, P), 3, V)
    mask = jnp.arange(P)[None] >= jnp.arange(16)[:, None] % 3
    frozen = ppo.Frozen(
        transformer.init(lm, jax.random.key(0)), transformer.init(rm, jax.random.key(1)), Calibration(),
        (tokens, mask), (tokens[:4], mask[:4]),
    )  # fmt: skip
    proxies = jax.vmap(partial(transformer.init, rm))(jax.random.split(jax.random.key(2), size))
    members = ppo.Task(
        RewardParams(proxies, Calibration(jnp.zeros(size), jnp.ones(size))),
        jax.random.split(jax.random.key(4), size), jnp.zeros(size), jnp.zeros(size),
    )  # fmt: skip
    critics = jax.vmap(partial(transformer.init, rm))(jax.random.split(jax.random.key(5), size))
    return ppo.Setup(lm, rm, Reward(rm), rm, c, R, EOS), frozen, members, critics


def advance(s, frozen, members, states):
    """`loop.advance`, which takes the states it is given (donation), on a copy of them."""
    return ppo_loop.advance(s, frozen, members, jax.tree.map(jnp.copy, states))


def first(tree):
    return jax.tree.map(lambda x: x[0], tree)


def gae_by_definition(rewards, values, length, lam):
    """Sum over k of lam^k delta_{t+k}, one episode, O(T^2)."""
    values = np.append(values[:length], 0.0)
    delta = rewards[:length] + values[1:] - values[:-1]
    return np.array([sum(lam**k * delta[t + k] for k in range(length - t)) for t in range(length)])


@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
def test_gae_against_the_definition(lam):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(5, 7)).astype(np.float32), rng.normal(size=(5, 7)).astype(np.float32)
    lengths = np.array([1, 3, 7, 5, 2])
    mask = np.arange(7)[None] < lengths[:, None]
    advantages, returns = ppo.gae(jnp.asarray(rewards), jnp.asarray(values), jnp.asarray(mask), lam)
    for row, length in enumerate(lengths):
        expected = gae_by_definition(rewards[row], values[row], length, lam)
        np.testing.assert_allclose(advantages[row, :length], expected, atol=1e-5)
        assert (np.asarray(advantages)[row, length:] == 0).all()  # padded rows equal unpadded ones
        if lam == 1.0:  # returns are Monte Carlo returns
            mc = np.cumsum(rewards[row, :length][::-1])[::-1]
            np.testing.assert_allclose(returns[row, :length], mc, atol=1e-5)


def test_score_lands_on_the_last_token_and_stays_a_float():
    mask = jnp.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)
    score = jnp.array([0.73, -1.9, 0.25])
    logps, ref = jnp.full((3, 4), -1.0), jnp.full((3, 4), -1.5)
    got = ppo.episode_rewards(score, logps, ref, mask, 0.0)
    np.testing.assert_allclose(got, [[0, 0, 0.73, 0], [-1.9, 0, 0, 0], [0, 0, 0, 0.25]])
    penalised = ppo.episode_rewards(score, logps, ref, mask, 0.1)
    np.testing.assert_allclose(penalised[0], [-0.05, -0.05, 0.68, 0], atol=1e-6)


def test_ratio_is_one_before_the_first_update_and_not_after():
    s, frozen, members, critics = make(epochs=1, minibatches=1)
    _, out = jax.jit(partial(ppo.iteration, s, frozen, first(members)))(ppo.begin(s, frozen.reference, first(critics)))
    assert float(out["first_ratio"]) == 1.0
    assert float(out["approx_kl"]) == 0.0
    assert float(out["clip_fraction"]) == 0.0
    assert abs(float(out["kl"])) < 1e-6
    assert float(out["sampler_gap"]) < 2e-5
    s, frozen, members, critics = make(epochs=3, minibatches=2)
    _, out = jax.jit(partial(ppo.iteration, s, frozen, first(members)))(ppo.begin(s, frozen.reference, first(critics)))
    assert float(out["first_ratio"]) == pytest.approx(1.0, abs=1e-6)
    assert float(out["approx_kl"]) > 1e-7  # later minibatches see old log-probs that are truly old


def test_iterations_draw_different_samples_and_members_too():
    """With frozen policies every difference between iterations or members is a difference of random streams."""
    still = config.Optimizer(lr=1e-30, schedule="constant")
    s, frozen, members, critics = make(policy_optimizer=still, critic_optimizer=still)
    same_proxy = members._replace(reward=jax.tree.map(lambda x: x[jnp.array([0, 0])], members.reward))
    step = jax.jit(jax.vmap(partial(ppo.iteration, s, frozen)))
    states = jax.vmap(partial(ppo.begin, s, frozen.reference))(critics)
    seen = []
    for _ in range(3):
        states, out = step(same_proxy, states)
        seen.append(np.asarray(out["proxy"]))
    assert len(np.unique(np.stack(seen))) == 6
    _, out = step(same_proxy, jax.vmap(partial(ppo.begin, s, frozen.reference))(critics))
    np.testing.assert_array_equal(out["proxy"], seen[0])  # and the streams are functions of (key, iteration)


def test_reads_measure_one_kl_three_ways():
    """On a policy away from the reference, the exact KL of whole sampled responses agrees with k1 and k3."""
    s, frozen, members, critics = make(size=1, read_draws=1024)
    states = jax.vmap(partial(ppo.begin, s, frozen.reference))(critics)
    rng = np.random.default_rng(9)
    moved = jax.tree.map(lambda x: x + 0.03 * rng.normal(size=x.shape).astype(np.float32), states.policy.params)
    states = states._replace(policy=states.policy._replace(params=moved))
    out = {name: np.asarray(value)[0] for name, value in ppo_loop.read(s, frozen, members, states).items()}
    exact = out["kl"].mean()
    assert exact > 0.02
    for name in ("kl_k1", "kl_k3"):
        assert out[name].mean() == pytest.approx(exact, rel=0.15)
    assert (out["unfinished"] > 0).any()  # responses that ran out of room are flagged, not forced to end
    assert (out["unfinished"] < 1).all()


def test_learning_rate_zero_changes_nothing():
    still = config.Optimizer(lr=1e-30, schedule="constant")
    s, frozen, members, critics = make(policy_optimizer=still, critic_optimizer=still)
    states = jax.vmap(partial(ppo.begin, s, frozen.reference))(critics)
    before = ppo_loop.read(s, frozen, members, states)
    after_states, _ = advance(s, frozen, members, states)
    assert (np.asarray(after_states.iteration) == s.c.patience).all()  # KL stands still: only patience ends the wait
    target, read_at = ppo_loop.after_read(s, after_states)
    np.testing.assert_array_equal(target, states.target)
    np.testing.assert_array_equal(read_at, after_states.iteration)
    after = ppo_loop.read(s, frozen, members, after_states)
    for name in ("kl", "kl_k1", "kl_k3", "proxy", "gold", "length"):
        np.testing.assert_allclose(before[name], after[name], atol=1e-5)
    np.testing.assert_allclose(before["kl"], 0, atol=1e-6)


@pytest.mark.parametrize("side_by_side", [pytest.param(True, marks=pytest.mark.slow), False])
def test_members_of_one_program_equal_single_runs(side_by_side):
    s, frozen, members, critics = make()
    s = dataclasses.replace(s, side_by_side=side_by_side)
    states = jax.vmap(partial(ppo.begin, s, frozen.reference))(critics)
    states = states._replace(target=jnp.full(2, 0.3))
    together, _ = advance(s, frozen, members, states)
    for m in range(2):
        pick = partial(jax.tree.map, lambda x, m=m: x[m : m + 1])
        alone, _ = advance(s, frozen, pick(members), pick(states))
        assert int(alone.iteration[0]) == int(together.iteration[m])
        for a, b in zip(
            jax.tree.leaves(alone.policy.params), jax.tree.leaves(pick(together).policy.params), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=2e-4)


def test_an_anchored_member_keeps_to_its_path(tmp_path, one_device):
    """Its penalty is 0 until sqrt(KL) is ahead of the path, and holds it near the path from then on; a free member's
    KL grows as it likes. Both are members of one program."""
    s, frozen, members, critics = make(
        d_step=0.1, kl_max=9.0, max_steps=40, policy_optimizer=config.Optimizer(lr=6e-3, schedule="constant")
    )
    same = jax.tree.map(lambda x: x[jnp.array([0, 0])], members)._replace(d_per_step=jnp.array([0.0, 0.02]))
    critics = jax.tree.map(lambda x: x[jnp.array([0, 0])], critics)
    log = Log(tmp_path, "ppo", s.reads, "read")
    history, _ = ppo_loop.train_ppo(s, frozen, same, critics, one_device, Checkpoints(tmp_path), log)
    d, path = np.sqrt(history["read"]["kl"].mean(-1)), 0.02 * history["iteration"]
    late = history["iteration"][:, 1] >= 15
    assert late.any()
    assert (np.abs(d - path)[late, 1] < 0.25).all()
    assert d[-1, 0] > 1.3 * d[-1, 1]
    coefs = history["last"]["kl_coef"]
    assert np.nanmax(coefs[:, 0]) == 0
    assert np.nanmax(coefs[:, 1]) > 0.05


def test_reads_lie_on_a_grid_and_members_take_their_own(tmp_path, one_device):
    """Penalties are members of one program: the unpenalised equals its run alone, the heavy one stays behind."""
    s, frozen, members, critics = make(d_step=0.2, max_steps=40, policy_optimizer=config.Optimizer(lr=6e-3))
    same = jax.tree.map(lambda x: x[jnp.array([0, 0])], members)
    same = same._replace(kl_coef=jnp.array([0.0, 5.0]))
    critics = jax.tree.map(lambda x: x[jnp.array([0, 0])], critics)
    go = lambda where, m, c: ppo_loop.train_ppo(
        s, frozen, m, c, one_device, Checkpoints(tmp_path / where), Log(tmp_path / where, "ppo", s.reads, "read")
    )
    both, _ = go("both", same, critics)
    cut = partial(jax.tree.map, lambda x: x[:1])
    alone, _ = go("alone", cut(same), cut(critics))
    fresh = np.concatenate([[True], np.diff(both["iteration"][:, 0]) > 0])
    np.testing.assert_array_equal(both["iteration"][fresh, 0], alone["iteration"][:, 0])
    np.testing.assert_allclose(both["read"]["kl"][fresh, 0], alone["read"]["kl"][:, 0], atol=5e-3)
    kl = both["read"]["kl"].mean(-1)
    assert kl[-1, 0] > 1.5 * kl[-1, 1]
    assert both["iteration"][-1, 1] == 40
    assert len(kl) <= s.reads
    assert (np.diff(both["iteration"], axis=0) <= s.c.patience).all()
    # A read that did not wait out its patience is made where the rollout first passed another multiple of d_step.
    waits, rollout_kl = np.diff(alone["iteration"][:, 0]), alone["last"]["kl"][1:, 0]
    steps = np.floor(np.sqrt(np.maximum(rollout_kl, 0)) / 0.2 + 1e-4)
    for k in range(1, len(steps) - 1):
        if waits[k] < s.c.patience:
            assert steps[k] > steps[:k].max()
    assert steps.max() >= 4
    for name in ("accuracy", "confidence", "support"):
        assert ((both["read"][name] >= 0) & (both["read"][name] <= 1)).all()


def test_a_member_may_begin_beyond_the_reference_and_end_before_the_others():
    s, frozen, members, critics = make(d_step=0.25, kl_max=1.0)
    at_the_reference = ppo.begin(s, frozen.reference, first(critics))
    assert (float(at_the_reference.kl), float(at_the_reference.target)) == (0.0, 0.25)
    beyond = ppo.begin(s, frozen.reference, first(critics), 0.6)
    assert float(beyond.kl) == pytest.approx(0.6)
    assert float(beyond.target) == 1.0  # the next of 0.25, 0.5, ... above 0.77: gold is read on one grid
    task = first(members)
    assert not ppo_loop.finished(s, task, beyond)  # s.c.kl_max is 1
    ends = {end: bool(ppo_loop.finished(s, task._replace(kl_max=jnp.float32(end)), beyond)) for end in (0.5, 0.7)}
    assert ends == {0.5: True, 0.7: False}


class Kill(BaseException):
    """Stands for SIGKILL: nothing below catches it."""


def test_killed_and_resumed_equals_undisturbed(tmp_path, one_device, monkeypatch):
    s, frozen, members, critics = make()

    def words(tokens, mask):
        """What the host says of all samples of a read."""
        assert tokens.shape == mask.shape
        return {"words": mask.sum((1, 2)).astype(np.float32)}

    def go(where):
        log, saved = Log(tmp_path / where, "ppo", s.reads, "read"), Checkpoints(tmp_path / where)
        return ppo_loop.train_ppo(s, frozen, members, critics, one_device, saved, log, every=2, observe=words)

    whole, states = go("whole")
    assert whole["read"]["kl"].mean(-1)[-1].max() > 0.5  # it went somewhere
    rows = frozen.read_prompts[0].shape[0] * s.c.read_draws
    np.testing.assert_allclose(whole["read"]["words"], whole["read"]["length"].mean(-1) * rows, rtol=1e-5)
    assert whole["read"]["tokens"].shape[2] * s.c.read_draws == rows  # of the samples themselves one per prompt is kept
    real, calls = ppo_loop.read, []

    def dying(*args):
        calls.append(1)
        if len(calls) == 4:
            raise Kill
        return real(*args)

    monkeypatch.setattr(ppo_loop, "read", dying)
    with pytest.raises(Kill):
        go("killed")
    monkeypatch.setattr(ppo_loop, "read", real)
    resumed, resumed_states = go("killed")
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(states.policy), jax.tree.leaves(resumed_states.policy), strict=True):
        np.testing.assert_array_equal(a, b)
    lines = [(tmp_path / w / "metrics.jsonl").read_text() for w in ("whole", "killed")]
    assert lines[0] == lines[1]


def test_told_to_stop_between_two_reads_it_saves_and_continues(tmp_path, one_device, monkeypatch):
    """Where dispatches are cut, and where the run is, changes nothing."""
    s, frozen, members, critics = make(d_step=3.0, kl_max=9.0)  # KL never gets there: only patience, 10, asks for reads

    def go(where, limit):
        monkeypatch.setattr(climb, "next_limit", lambda *_: limit)
        log = Log(tmp_path / where, "ppo", s.reads, "read")
        return ppo_loop.train_ppo(s, frozen, members, critics, one_device, Checkpoints(tmp_path / where), log)

    whole, states = go("whole", 2**20)
    polls = iter(range(100))
    monkeypatch.setattr(hosts, "preempted", lambda: next(polls) in (3, 5))
    for reads in (1, 1):  # one dispatch is one iteration
        with pytest.raises(hosts.Preempted):
            go("stopped", 1)
        assert len((tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()) == reads
    again, again_states = go("stopped", 2)
    for a, b in zip(jax.tree.leaves((whole, states)), jax.tree.leaves((again, again_states)), strict=True):
        np.testing.assert_array_equal(a, b)
    lines = [(tmp_path / w / "metrics.jsonl").read_text() for w in ("whole", "stopped")]
    assert lines[0] == lines[1]


def test_dispatches_grow_and_shrink_within_bounds():
    limit = 1
    for _ in range(100):
        limit = climb.next_limit(limit, 0.1)
    assert 2**10 < limit < 2**30  # far from where int32 ends
    for _ in range(100):
        limit = climb.next_limit(limit, 60)
    assert limit == 1
    assert climb.next_limit(5, 2.0) == 5


def test_in_phases_it_is_the_same_climb(tmp_path, one_device):
    """Sampling, scoring and updating as programs of their own, member after member; their seconds are known."""
    s, frozen, members, critics = make(max_steps=8, patience=4)

    def go(where, s):
        log = Log(tmp_path / where, "ppo", s.reads, "read")
        return ppo_loop.train_ppo(s, frozen, members, critics, one_device, Checkpoints(tmp_path / where), log)

    whole, states = go("whole", s)
    parts, parts_states = go("parts", dataclasses.replace(s, in_phases=True))
    for a, b in zip(jax.tree.leaves((whole, states)), jax.tree.leaves((parts, parts_states)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)
    speed = [json.loads(line) for line in (tmp_path / "parts" / "speed.jsonl").read_text().splitlines()]
    assert {"sample", "score", "update", "read", "wait", "tokens_per_second"} < speed[1].keys()
    assert speed[1]["sample"] + speed[1]["score"] + speed[1]["update"] + speed[1]["read"] <= speed[1]["seconds"]


def test_bandit_converges_to_the_exponential_tilt():
    """One-token responses with a KL penalty beta: the optimum is p_ref exp(reward/beta) / Z, in closed form.

    The proxy is a RewardModel, so its reward of every token can be tabulated; beta = 0.5.
    """
    lm, rm = transformer.LanguageModel(SHAPE, V, P + 1), transformer.RewardModel(SHAPE, V, P + 1)
    c = config.PPO(batch=512, minibatches=1, epochs=1, prompts=1, max_steps=250, patience=250, kl_max=100.0, lam=1.0,
                   policy_optimizer=config.Optimizer(lr=1e-2, schedule="linear"), critic_optimizer=CONSTANT, read_draws=4)  # fmt: skip
    reference, proxy = transformer.init(lm, jax.random.key(0)), transformer.init(rm, jax.random.key(1))
    prompt, mask = jnp.full((1, P), 5), jnp.ones((1, P), bool)
    tokens = jnp.concatenate([jnp.repeat(prompt, V, 0), jnp.arange(V)[:, None]], 1)
    rewards = scoring.score(rm, proxy, tokens, jnp.ones((V, P + 1), bool))
    frozen = ppo.Frozen(reference, proxy, Calibration(), (prompt, mask), (prompt, mask))
    member = ppo.Task(RewardParams(proxy, Calibration(0.0, 1.0)), jax.random.key(2), jnp.float32(0.5), jnp.float32(0))
    s = ppo.Setup(lm, rm, Reward(rm), rm, c, 1, EOS)
    grow = lambda tree: jax.tree.map(lambda x: jnp.asarray(x)[None], tree)
    state = ppo.begin(s, frozen.reference, transformer.init(rm, jax.random.key(3)))
    states, _ = advance(s, frozen, grow(member), grow(state._replace(target=jnp.float32(9))))
    logits, _ = lm.apply({"params": reference}, prompt, mask, (), slice(-1, None))
    learned, _ = lm.apply({"params": first(states).policy.params}, prompt, mask, (), slice(-1, None))
    optimum = jax.nn.softmax(jax.nn.log_softmax(logits[0, 0]) + rewards / 0.5)
    before = 0.5 * np.abs(np.asarray(jax.nn.softmax(logits[0, 0]) - optimum)).sum()
    after = 0.5 * np.abs(np.asarray(jax.nn.softmax(learned[0, 0]) - optimum)).sum()
    assert before > 0.3
    assert after < 0.06


@pytest.mark.parametrize(
    "shape", [(4, 2), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((8, 1), (2, 4), (2, 2, 2)))]
)
def test_the_same_on_every_mesh(tmp_path, shape, monkeypatch):
    """Split over devices, states, batches and models give the same curve as on one."""
    monkeypatch.setattr(sharding, "SMALL", 32)
    s, frozen, members, critics = make(max_steps=6, patience=3)

    def go(mesh, name):
        with jax.set_mesh(mesh):
            log = Log(tmp_path / name, "ppo", s.reads, "read")
            return ppo_loop.train_ppo(s, frozen, members, critics, mesh, Checkpoints(tmp_path / name), log)

    alone, _ = go(sharding.make_mesh(1), "one")
    spread, states = go(sharding.make_mesh(*shape), "many")
    assert any(not x.sharding.is_fully_replicated for x in jax.tree.leaves(states.policy))
    for name in ("kl", "proxy", "gold"):
        np.testing.assert_allclose(alone["read"][name], spread["read"][name], atol=2e-4)
    np.testing.assert_array_equal(alone["iteration"], spread["iteration"])


@pytest.mark.parametrize(("rows", "chunk", "chosen"), [(40, 20, 8), (32, 16, 16), (30, 20, 15), (32, 0, 32)])
def test_chunks_are_shared_by_all_devices_where_they_can_be(rows, chunk, chosen):
    seen = []

    def fn(x):
        seen.append(x.shape[0])
        return x

    s = make(chunk=chunk)[0]
    with jax.set_mesh(sharding.make_mesh(8, 1)):
        np.testing.assert_array_equal(jax.jit(lambda x: ppo.in_chunks(s, fn, x))(jnp.arange(rows)), np.arange(rows))
    assert set(seen) == {chosen}


def test_chunks_parts_pieces_and_remat_change_nothing(monkeypatch):
    """Rollouts and reads in chunks, gradients in parts, logits in pieces, blocks computed again: the same iteration."""
    s, frozen, members, critics = make(policy_optimizer=CONSTANT, critic_optimizer=CONSTANT)
    state, member = ppo.begin(s, frozen.reference, first(critics)), first(members)
    run = lambda s: jax.jit(partial(ppo.iteration, s, frozen))(member, state)
    plain, plain_out = run(s)
    parts = dataclasses.replace(CONSTANT, accumulate=4)
    c = dataclasses.replace(s.c, chunk=8, policy_optimizer=parts, critic_optimizer=parts)
    again = dataclasses.replace(SHAPE, remat="full")
    lm, rm = transformer.LanguageModel(again, V, P + R), transformer.RewardModel(again, V, P + R)
    monkeypatch.setattr(transformer, "PIECE", 32 * V * 2)
    other, out = run(dataclasses.replace(s, c=c, lm=lm, critic=rm))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    for name in ("kl", "proxy", "entropy", "approx_kl", "first_ratio", "policy_loss"):
        np.testing.assert_allclose(plain_out[name], out[name], atol=1e-5, err_msg=name)
    jaxpr = str(
        jax.make_jaxpr(partial(ppo.iteration, dataclasses.replace(s, c=c, lm=lm, critic=rm), frozen))(member, state)
    )
    states, in_chunks = jax.tree.map(lambda x: jnp.stack([x, x]), state), dataclasses.replace(s, c=c)
    rows = frozen.read_prompts[0].shape[0] * s.c.read_draws
    assert rows > c.chunk
    whole, found = ppo_loop.read(s, frozen, members, states), ppo_loop.read(in_chunks, frozen, members, states)
    for name, value in whole.items():
        np.testing.assert_allclose(value, found[name], atol=2e-5, err_msg=name)
    for setup, at_once in ((s, rows), (in_chunks, c.chunk)):
        jaxpr_read = str(jax.make_jaxpr(partial(ppo_loop.read, setup, frozen))(members, states))
        assert (f"f32[2,{rows},{V}]" in jaxpr_read) == (at_once == rows), jaxpr_read[:3000]
    assert f"f32[32,{R},{V}]" not in jaxpr
    assert f"f32[32,{R},{V}]" in str(jax.make_jaxpr(lambda x: x + 1)(jnp.zeros((32, R, V))))


def test_ppo_sees_one_score_of_several_rms():
    """Combined by the worst case, the proxy score of a rollout is the smaller of the two RMs' calibrated scores."""
    s, frozen, members, critics = make(size=2)
    each = Calibration(jnp.array([0.1, -0.2]), jnp.array([2.0, 0.5]))
    outer = Calibration(jnp.float32(0.3), jnp.float32(1.5))
    several = dataclasses.replace(s, reward=Reward(s.reward.rm, how="worst_case"))
    task = first(members)._replace(reward=RewardParams(members.reward.params, outer, each))
    state = ppo.begin(s, frozen.reference, first(critics))
    batch, out = ppo.judge(several, frozen, task, state, ppo.draw(several, frozen, state, jax.random.key(7)))
    tokens, mask = ppo.join(batch.prompts, batch.prompt_mask, batch.tokens, batch.mask)
    raw = [
        scoring.score(s.reward.rm, jax.tree.map(lambda x, m=m: x[m], members.reward.params), tokens, mask)
        for m in (0, 1)
    ]
    calibrated = [(raw[m] - each.shift[m]) * each.scale[m] for m in (0, 1)]
    expected = (jnp.minimum(*calibrated) - 0.3) * 1.5
    np.testing.assert_allclose(out["proxy"], expected.mean(), rtol=1e-5)
    assert np.isfinite(jax.jit(partial(ppo.iteration, several, frozen))(task, state)[1]["policy_loss"])


@pytest.mark.parametrize(
    ("init", "reward", "from_proxy"), [("proxy", {}, True), ("sft", {}, False), ("proxy", {"how": "mean"}, False)]
)
def test_critic_starts_from_the_proxy_where_it_can(init, reward, from_proxy):
    """Then its value of the last token is the calibrated score; else it starts at zero on the policy's trunk."""
    s, frozen, members, _ = make(size=2, critic_init=init)

    class Bench:
        def critic(self):
            return s.critic

        def key(self, purpose):
            return jax.random.key(0)

    calibration = Calibration(jnp.array([0.5, -1.0]), jnp.array([2.0, 0.25]))
    params = RewardParams(members.reward.params, calibration)
    critics = ppo_setup.first_critics(Bench(), s.c, s.lm, Reward(s.critic, **reward), params, frozen.reference)
    tokens, mask = jnp.full((3, P + R), 5), jnp.ones((3, P + R), bool)
    for m in (0, 1):
        critic, proxy = (jax.tree.map(lambda x: x[m], tree) for tree in (critics, members.reward.params))  # noqa: B023
        value = scoring.score(s.critic, critic, tokens, mask)
        score = (scoring.score(s.critic, proxy, tokens, mask) - calibration.shift[m]) * calibration.scale[m]
        np.testing.assert_allclose(value, score if from_proxy else 0.0, rtol=1e-5, atol=1e-6)


def test_arms_are_recipes_by_penalties_by_seeds():
    rows = [RewardRow(str(i), 10, Settings(), i // 2, i % 2) for i in range(4)]
    rows.append(RewardRow("mean", 10, Settings(), 0, None, "mean of 2"))
    against = config.Against(recipes=(1,), kl_coefs=(0.0, 0.1), lr_scale=2.0, combined=(0,))
    found = arms(rows, Plan(against))
    assert [arm.reward for arm in found] == [2, 3, 2, 3]
    assert [str(arm.settings) for arm in found] == ["lr_scale=2"] * 2 + ["kl_coef=0.1 lr_scale=2"] * 2
    assert [arm.reward for arm in arms(rows, Plan(against, combined=0))] == [4, 4]
