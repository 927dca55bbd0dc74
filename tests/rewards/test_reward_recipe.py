"""The steps of rmo/rewards/README.md "To add a reward", as they are written there."""

import dataclasses
import re
from operator import itemgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rmo import config
from rmo.config import checks
from rmo.methods import method
from rmo.models import scoring, transformer
from rmo.rewards import combination
from rmo.rewards.calibration import Calibration
from rmo.rewards.reward import Reward, RewardParams, combine_tables

ROOT = Path(__file__).parents[2]
README = Path(combination.__file__).with_name("README.md").read_text()
SECTION = README.split("## To add a reward\n")[1].split("\n## ")[0]


def test_a_new_reward_is_one_function(monkeypatch):
    monkeypatch.setattr(combination, "_COMBINATIONS", dict(combination._COMBINATIONS))
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.S)
    exec(re.sub("^   ", "", code, flags=re.M), {})

    scores = np.random.default_rng(0).normal(size=(3, 5, 7))
    np.testing.assert_allclose(combine_tables("midrange", scores, 0.5), (scores.max(0) + scores.min(0)) / 2, rtol=1e-6)

    # The same inside a program, of three reward models.
    rm = transformer.RewardModel(config.Model(width=16, layers=1, heads=2), 12, 8)
    params_K = jax.vmap(lambda key: transformer.init(rm, key))(jax.random.split(jax.random.key(0), 3))
    tokens, mask = jax.random.randint(jax.random.key(1), (6, 8), 3, 12), jnp.ones((6, 8), bool)
    each = Calibration(jnp.zeros(3), jnp.ones(3))
    reward = Reward(rm, how="midrange")
    seen = jax.jit(reward)(RewardParams(params_K, Calibration(0.0, 1.0), each), tokens, mask)
    tables = [scoring.score(rm, jax.tree.map(itemgetter(m), params_K), tokens, mask) for m in range(3)]
    np.testing.assert_allclose(seen, (np.max(tables, axis=0) + np.min(tables, axis=0)) / 2, rtol=1e-5, atol=1e-6)

    # In a config.
    (sweep,), (against,) = (
        [eval(found, vars(config)) for found in re.findall(rf"`({name}\(combined=.*?\))`", SECTION)]
        for name in ("Sweep", "Against")
    )
    smoke = checks.load(ROOT / "configs" / "smoke.py")
    sweep = dataclasses.replace(sweep, recipes=smoke.proxies.sweeps[0].recipes)
    proxies = dataclasses.replace(smoke.proxies, sweeps=(sweep,))
    ppo = dataclasses.replace(smoke.ppo, against=(against,))
    e = dataclasses.replace(smoke, proxies=proxies, ppo=ppo)
    checks.check(e)
    assert "w8x1-main-midrange" in [job.name for job in method.find("ppo").jobs(e)]
