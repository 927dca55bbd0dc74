"""What one vmapped program gains over one run after another: training 8 RMs of one shape, and 4 PPO runs.

    launch/local.sh python -m tests.benchmarks.sweeps

Both sides do the same work (it is checked that they end with the same numbers); compilation is left out; sides take
turns, A B A B, and the ratio is of medians, since absolute times differ between machines and minutes.
"""

import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rmo import checks, climb, config, losses, models, ppo, reward
from rmo.train import Member, init_state, make_optimizer, update_member
from rmo.world import EOS, SyntheticWorld

TINY = Path(__file__).parents[2] / "configs" / "tiny.py"
RMS, STEPS, PAIRS = 8, 60, 5


def race(one_program, one_by_one, pairs: int = PAIRS) -> dict[str, float]:
    """Seconds of each side, and how many times faster one program is."""
    a, b = one_program(), one_by_one()  # compiles
    np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3)
    seconds = {"one_program": [], "one_by_one": []}
    for _ in range(pairs):
        for name, side in (("one_program", one_program), ("one_by_one", one_by_one)):
            started = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    spread = {f"{name}_spread": float(np.ptp(times)) for name, times in seconds.items()}
    return {**medians, **spread, "ratio": medians["one_by_one"] / medians["one_program"]}


def reward_models(e: config.Experiment, shape: config.Model) -> dict[str, float]:
    """STEPS steps of RMS reward models: the step that `train` jits for the stage `proxies`."""
    w = e.world
    rm = models.RewardModel(shape, w.vocab, w.prompt + w.response)
    tokens = np.random.default_rng(0).integers(3, w.vocab, (4096, 2, w.prompt + w.response)).astype(np.int32)
    mask = np.ones(tokens.shape, bool)
    tx = make_optimizer(e.proxies.optimizer, STEPS)

    def loss(params, batch, member, step):
        t = tokens.shape[-1]
        scores = reward.score(rm, params, batch[0].reshape(-1, t), batch[1].reshape(-1, t)).reshape(-1, 2)
        return losses.preference(scores, member.smoothing), {}

    fresh = jax.jit(jax.vmap(lambda key: init_state(models.init(rm, key), tx)))
    step_fn = jax.jit(jax.vmap(lambda s, b, m: update_member(s, loss, b, m, e.proxies.optimizer)), donate_argnums=0)

    def go(seeds: list[int]) -> float:
        m = len(seeds)
        keys = jnp.stack([jax.random.key(s) for s in seeds])
        rows = [np.random.default_rng(s).integers(4096, size=(STEPS, 64)) for s in seeds]
        members = Member(jnp.full(m, STEPS), keys, *(jnp.zeros(m) for _ in range(3)), jnp.zeros(m, bool))
        states = fresh(keys)
        for step in range(STEPS):
            index = np.stack([r[step] for r in rows])
            states, _ = step_fn(states, (tokens[index], mask[index]), members)
        return float(sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(states.params)))

    seeds = list(range(RMS))
    return race(lambda: go(seeds), lambda: sum(go([s]) for s in seeds))


def ppo_runs(e: config.Experiment, shape: config.Model, runs: int = 4, steps: int = 12) -> dict[str, float]:
    """`steps` PPO iterations of `runs` members at different KL penalties."""
    w = e.world
    lm = models.LanguageModel(e.policy, w.vocab, w.prompt + w.response)
    rm = partial(models.RewardModel, vocab=w.vocab, length=w.prompt + w.response)
    proxy, critic = rm(shape), rm(e.policy)
    prompts = tuple(map(jnp.asarray, SyntheticWorld(w).prompts(np.random.default_rng(0), 512, "ppo")))
    reference = models.init(lm, jax.random.key(0))
    c = config.PPO(batch=e.ppo.batch, max_steps=steps, patience=steps, kl_max=1e9, d_step=1e3)
    s = ppo.Setup(lm, critic, proxy, proxy, c, w.response, EOS)
    params = models.init(proxy, jax.random.key(1))
    frozen = ppo.Frozen(reference, params, reward.Calibration(), prompts, prompts)
    txs = s.optimizers
    fresh = ppo.PPOState(
        jnp.int32(0), jnp.float32(0), jnp.float32(1e3), jnp.int32(0), init_state(reference, txs[0]),
        init_state(models.init(critic, jax.random.key(2)), txs[1]),
    )  # fmt: skip
    repeat = lambda tree, m: jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[None], m, axis=0), tree)
    coefs = jnp.linspace(0, 0.3, runs)

    def go(which: list[int]) -> float:
        m = len(which)
        keys = jnp.stack([jax.random.key(3)] * m)
        members = ppo.Member(repeat(params, m), repeat(reward.Calibration(), m), keys, coefs[jnp.array(which)])
        states, _ = climb.advance(s, frozen, members, repeat(fresh, m))
        return float(sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(states.policy.params)))

    everything = list(range(runs))
    return race(lambda: go(everything), lambda: sum(go([i]) for i in everything))


def main() -> None:
    e = checks.load(TINY)
    out = {}
    for i in (0, 2, 5):
        shape = e.proxies.sizes[i]
        out[f"{RMS} RMs, width {shape.width} x {shape.layers}"] = reward_models(e, shape)
    out["4 PPO runs"] = ppo_runs(e, e.proxies.sizes[2])
    print(json.dumps({"device": str(jax.devices()[0]), **out}, indent=1))
    for name, row in out.items():
        print(
            f"{name:28} one program {row['one_program']:.2f} s, one by one {row['one_by_one']:.2f} s: {row['ratio']:.2f}x"
        )


if __name__ == "__main__":
    main()
