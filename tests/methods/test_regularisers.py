"""Regularisers of RL: the door, by a toy, and every one of the folder."""

import dataclasses
import importlib
import pkgutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rmo.methods.ppo as package
from rmo import config
from rmo.analysis.curve_id import Settings
from rmo.config import Against, checks
from rmo.experiment.graph import plan
from rmo.methods.bench import Arm, RewardRow
from rmo.methods.ppo import door
from rmo.methods.ppo import update as ppo
from rmo.methods.ppo.regulariser import Regulariser
from tests.methods.test_ppo import first, make

SMOKE = checks.load(Path(__file__).parents[2] / "configs" / "smoke.py")


@dataclass(frozen=True)
class Flat(Regulariser):
    """Every episode earns its coefficient."""

    against: Against = field(default_factory=lambda: Against("flat", sizes=(0,)))
    coefs: tuple[float, ...] = (0.25, 3.0)
    setting: ClassVar[str] = "flat"
    recorded: ClassVar[tuple[str, ...]] = ("largest",)

    def check(self, e, need):
        need(max(self.coefs, default=0) < 10, f"Flat.coefs is {self.coefs}: that is too much")

    def reward(self, score_B, logps_BR, ref_logps_BR, tokens_BR, mask_BR, coef):
        said = {"longest": mask_BR.sum(axis=1).max(), "largest": (tokens_BR * mask_BR).max()}
        return jnp.full_like(score_B, coef), said


def with_methods(*settings):
    return dataclasses.replace(SMOKE, methods=settings)


@partial(jax.jit, static_argnames="s")
def judged(s, frozen, task, state):
    return ppo.judge(s, frozen, task, state, ppo.draw(s, frozen, state, jax.random.key(7)))


def test_an_episode_earns_what_a_regulariser_says():
    """With lambda 1 and a critic of zeros the first token's return is all that was earned; the proxy stays the RM's."""
    s, frozen, members, critics = make(lam=1.0)
    state, task = ppo.begin(s, frozen.reference, jax.tree.map(jnp.zeros_like, first(critics))), first(members)
    plain, shown = judged(s, frozen, task, state)
    flat, said = judged(dataclasses.replace(s, regulariser=Flat()), frozen, task._replace(coef=jnp.float32(3)), state)
    np.testing.assert_allclose(flat.returns[:, 0], 3, rtol=1e-6)
    assert np.ptp(plain.returns[:, 0]) > 0.1
    np.testing.assert_allclose(plain.returns[:, 0].mean(), shown["proxy"], rtol=1e-5)
    assert float(said["proxy"]) == float(shown["proxy"])
    assert int(said["longest"]) == int(flat.mask.sum(axis=1).max())
    assert int(said["largest"]) == int((flat.tokens * flat.mask).max())


def test_what_it_records_stands_beside_ppos_diagnostics():
    """By member; at the first read no iteration was made."""
    read = {name: np.ones((2, 1, 3), np.float32) for name in ("kl", "proxy", "gold", "entropy")}
    samples = {name: np.ones((2, 1, 3, 4), np.int32) for name in ("tokens", "mask")}
    last = {"largest": np.array([[np.nan], [7.0]]), "longest": np.array([[np.nan], [3.0]])}
    history = {"read": read | samples, "last": last, "iteration": np.array([[0], [5]])}
    found = door.record_of([Arm(0)], history, door.METHOD, Flat.recorded).diagnostics
    np.testing.assert_array_equal(found["largest"], [[np.nan, 7]])
    assert set(found) == {"entropy", "largest"}


def test_its_coefficients_are_members_beside_the_kl_penalties():
    rows = [RewardRow(str(i), 10, Settings(), 0, i) for i in range(2)]
    flat = Flat(against=Against("flat", kl_coefs=(0.0, 0.1)))
    found = door.arms(rows, door.Plan(flat.against, regulariser=flat))
    assert [arm.reward for arm in found] == [0, 1] * 4
    said = ["flat=0.25", "flat=3", "kl_coef=0.1 flat=0.25", "kl_coef=0.1 flat=3"]
    assert [str(arm.settings) for arm in found[::2]] == said


def test_its_stages_are_ppos_and_old_ones_keep_their_names():
    before = {name: stage.path for name, stage in plan(SMOKE).items() if name not in ("fits", "report")}
    after = {name: stage.path for name, stage in plan(with_methods(Flat())).items()}
    assert [name for name in after if name not in before] == ["ppo/w8x1-flat", "fits", "report"]
    assert all(after[name] == path for name, path in before.items())
    wider = plan(with_methods(Flat(against=Against("flat"))))
    assert wider["ppo/w8x1-flat"].path == after["ppo/w8x1-flat"]  # whether other sizes run too is no matter
    assert plan(with_methods(Flat(coefs=(0.25,))))["ppo/w8x1-flat"].path != after["ppo/w8x1-flat"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([Flat(coefs=(99.0,))], r"Flat.coefs is \(99.0,\): that is too much"),
        ([Flat(coefs=())], r"Flat.coefs is \(\): give one or several above 0"),
        ([Flat(coefs=(0.5, 0.0))], r"Flat.coefs is \(0.5, 0.0\)"),
        ([Flat(against=Against("main"))], "two entries of one name"),
        ([Flat(against=Against("flat", sizes=(9,)))], r"Flat.against.sizes is \(9,\)"),
        ([Flat(), Flat(against=Against("again", sizes=(0,)))], "optimises one proxy twice"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(config.ConfigError, match=said) as error:
        checks.check(with_methods(*settings))
    assert "\n" not in str(error.value)


def kinds():
    """Every regulariser of the folder."""
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return [kind for kind in Regulariser.__subclasses__() if kind.__module__.startswith("rmo.")]


def test_each_makes_stages_of_its_own_and_is_a_part_of_ppos_iteration():
    for kind in kinds():
        e = with_methods(kind())
        checks.check(e)
        new = {name for name in plan(e) if name not in plan(SMOKE)}
        assert new == {f"ppo/{size}-{kind().against.name}" for size in ("w8x1", "w16x1", "w24x1")}
        s, frozen, members, critics = make()
        s, task = dataclasses.replace(s, regulariser=kind()), first(members)._replace(coef=jnp.float32(0.1))
        state = ppo.begin(s, frozen.reference, first(critics))
        _, out = jax.eval_shape(partial(ppo.iteration, s, frozen), task, state)
        assert "earned" in out
    assert len({kind.setting for kind in kinds()}) == len(kinds())
