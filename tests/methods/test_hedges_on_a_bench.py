"""Hedges at inference on a made-up bench: their stages, their records, and what stands beside their curves."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from rmo.analysis.curve_id import Settings
from rmo.analysis.forms import FORMS
from rmo.config import checks
from rmo.methods import method
from rmo.methods.bench import Arm, Pool, RewardRow
from rmo.methods.best_of_poisson import BestOfPoisson
from rmo.methods.pessimism import Pessimism, PessimismOverN
from rmo.methods.pool_diagnostics import DIAGNOSTICS, beside, slope_within
from rmo.methods.soft_best_of_n import SoftBestOfN

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.py"
PROMPTS, DRAWS, POINTS = 6, 128, 8
HEDGES = {
    "soft_best_of_n": SoftBestOfN((0.1, 0.5), 32, POINTS),
    "best_of_poisson": BestOfPoisson(32, POINTS),
    "pessimism": Pessimism(POINTS, 10.0),
    "pessimism_n": PessimismOverN((0.05, 0.5), 32, POINTS),
}
CURVES = {"soft_best_of_n": 2, "best_of_poisson": 1, "pessimism": 1, "pessimism_n": 2}  # of a reward


@dataclass
class MadeUpBench:
    """Two rewards of one pool, with an annotator."""

    seed: int = 0

    @property
    def rewards(self):
        return [RewardRow(f"rm {m}", 1000, Settings(), 0, seed=m) for m in range(2)]

    def pool(self):
        rng = np.random.default_rng(self.seed)
        gold = rng.normal(size=(PROMPTS, DRAWS))
        proxies = [gold + rng.normal(size=gold.shape) for _ in range(2)]
        return Pool(proxies, gold, np.zeros(gold.shape, np.float32), 1.0, annotator_QN=2 * gold)

    def rng(self, purpose):
        return np.random.default_rng(zlib.crc32(purpose.encode()))


@pytest.mark.parametrize("name", HEDGES)
def test_a_hedge_runs_as_a_stage(name):
    hedge, settings = method.find(name), HEDGES[name]
    smoke = checks.load(SMOKE)
    assert list(hedge.jobs(smoke)) == []
    with_it = replace(smoke, methods=(settings,))
    checks.check(with_it)
    job, *_ = hedge.jobs(with_it)
    assert job.settings is settings
    assert hedge.form in FORMS
    record = hedge.run(MadeUpBench(), job)
    members = 2 * CURVES[name]
    assert len(record.arms) == len(set(record.arms)) == members
    points = record.step_or_n.shape[1]
    assert record.proxy.shape == record.gold.shape == record.annotator.shape == (members, points, PROMPTS)
    np.testing.assert_allclose(record.annotator, 2 * record.gold, atol=1e-9)
    np.testing.assert_allclose(record.kl[:, 0], 0, atol=1e-12)
    assert (record.kl >= 0).all()
    assert (record.proxy[:, -1].mean(1) > record.proxy[:, 0].mean(1)).all()
    assert set(record.diagnostics) == {d.name for d in DIAGNOSTICS} == {d.name for d in hedge.diagnostics}
    again = hedge.run(MadeUpBench(), job)
    np.testing.assert_array_equal(record.gold, again.gold)


def test_what_stands_beside_the_curves():
    pool = MadeUpBench().pool()
    proxy_MKQ = np.stack([np.zeros((3, PROMPTS)), np.arange(3.0)[:, None] + np.zeros((3, PROMPTS))])
    gold_MKQ = np.arange(2 * 3 * PROMPTS, dtype=float).reshape(2, 3, PROMPTS)
    found = beside(pool, [Arm(0), Arm(1)], proxy_MKQ, gold_MKQ)
    np.testing.assert_allclose((found["gold_even"] + found["gold_odd"]) / 2, gold_MKQ.mean(2))
    np.testing.assert_allclose(found["gold_odd"] - found["gold_even"], 1)
    slope = np.polyfit(*((x - x.mean(1, keepdims=True)).ravel() for x in (pool.proxy_MQN[1], pool.gold_QN)), 1)[0]
    np.testing.assert_allclose(found["regressional"], [[0, 0, 0], [0, slope, 2 * slope]], atol=1e-12)
    assert slope_within(np.ones((2, 3)), np.ones((2, 3))) == 0
