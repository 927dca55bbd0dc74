"""Averages of weights: their ends are the start and PPO's end, and what they need of other stages is there."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.config import Against, checks
from rmo.experiment import graph
from rmo.methods import weight_average
from rmo.methods.bench import Arm
from rmo.methods.ppo import loop
from rmo.methods.ppo.chi_squared import ChiSquared
from rmo.methods.weight_average import WeightAverage, along, averaged
from rmo.training.tracker import Silent
from tests.methods.test_ppo import make

SMOKE = checks.load(Path(__file__).parents[2] / "configs" / "smoke.py")


def with_methods(*settings):
    return dataclasses.replace(SMOKE, methods=settings)


def test_an_average_is_exact_at_both_ends_and_a_mean_between():
    start = {"w": jnp.array([0.1, -3.0])}
    end = {"w": jnp.array([[0.3, 1e8], [7.0, 0.0]])}
    np.testing.assert_array_equal(averaged(start, end, 1.0)["w"], end["w"])
    np.testing.assert_array_equal(averaged(start, end, 0.0)["w"], jnp.tile(start["w"], (2, 1)))
    np.testing.assert_allclose(averaged(start, end, 0.25)["w"][1], [0.75 * 0.1 + 0.25 * 7, -2.25])


def test_its_curve_goes_from_the_start_to_what_ppo_reads():
    s, frozen, members, _ = make(read_draws=8)
    rng = np.random.default_rng(0)
    end = jax.tree.map(lambda x: x[None] + 0.05 * rng.normal(size=(2, *x.shape)).astype(np.float32), frozen.reference)
    shares = np.array([0.0, 0.5, 1.0])
    history = along(s, frozen, members, end, shares, Silent(), loop.nothing_else)
    kl = history["read"]["kl"].mean(-1)
    np.testing.assert_allclose(kl[0], 0, atol=1e-6)
    assert (np.diff(kl, axis=0) > 0).all()
    np.testing.assert_array_equal(history["iteration"], np.tile(shares[:, None], (1, 2)))
    assert history["read"]["tokens"].shape == (3, 2, 4, s.length)
    record = weight_average.door.record_of([Arm(0), Arm(1)], history, weight_average.METHOD)
    assert "entropy" in record.diagnostics
    assert record.real.all()


def test_its_stages_stand_behind_ppos():
    before = graph.plan(SMOKE)
    stages = graph.plan(with_methods(WeightAverage(points=5)))
    stage = stages["weight_average/w8x1-main"]
    assert [s.name for s in stage.upstream] == ["scores/w8x1-main", "ppo/w8x1-main"]
    assert stages["ppo/w8x1-main"].path == before["ppo/w8x1-main"].path
    assert [name for name in stages if name not in before] == ["weight_average/w8x1-main"]
    both = with_methods(ChiSquared(against=Against("chi", sizes=(1,))), WeightAverage(of=("main", "chi")))
    assert "weight_average/w16x1-chi" in graph.plan(both)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([WeightAverage(of=("no",))], "WeightAverage.of has 'no': PPO optimises against main"),
        ([WeightAverage(of=())], "WeightAverage.of is empty"),
        ([WeightAverage(of=("main", "main"))], "names one entry twice"),
        ([WeightAverage(points=3)], "a curve needs at least 4"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(config.ConfigError, match=said) as error:
        checks.check(with_methods(*settings))
    assert "\n" not in str(error.value)
