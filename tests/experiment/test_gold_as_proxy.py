"""Gold as its own proxy: the one reward of a stage, equal to gold along every path, and in no sweep over RM sizes."""

import dataclasses

import numpy as np
import pytest

from rmo.analysis.sweeps import Missing
from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.stages import Samples, Scores, Stage
from rmo.config import GoldAsProxy
from rmo.experiment import graph
from rmo.experiment.pool import GoldScored
from rmo.methods.bench import Arm
from rmo.methods.ppo.door import Plan, arms, jobs
from rmo.report.figures.drawing import load
from tests.helpers.smoke import SMOKE


def test_gold_is_its_own_proxy_along_every_path(smoke):
    f, gold = load(smoke), Stage(RunFiles(smoke).where["gold"]).info()["params"]["non_embedding"]
    for method in ("bon", "ppo", "tilt"):
        (curve,) = f.gold(method).curves
        np.testing.assert_allclose(curve.proxy, curve.gold, atol=1e-5)
        assert (curve.id.rm_params, curve.id.rm_combined, curve.id.seed) == (gold, "gold", 0)
        assert curve.kl[-1] > 1
        assert curve.gold[-1] > curve.gold[1] > 0  # nothing is lost to a proxy's errors


def test_selection_by_gold_itself_gives_more_gold_than_by_any_proxy(smoke):
    f = load(smoke)
    best = f.gold("bon").curves[0].gold[1:]
    assert all((best > curve.gold[1:]).all() for g in f.sizes("bon") for curve in g.curves)


def test_no_optimiser_gets_more_gold_at_a_kl_than_tilts_of_the_pool(smoke):
    """Best-of-n's KL is a bound, and of few draws; PPO's reads are of few texts."""
    f = load(smoke)
    (frontier,) = f.gold("tilt").curves
    assert frontier.kl[-1] == pytest.approx(np.log(SMOKE.bon.draws / SMOKE.tilt.least_draws), rel=0.02)
    for method in ("bon", "ppo"):
        (curve,) = f.gold(method).curves
        within = curve.kl <= frontier.kl[-1]
        most = np.interp(curve.kl[within], frontier.kl, frontier.gold)
        assert (curve.gold[within] - curve.gold[0] < most + 0.1).all()  # the first read of few texts is not 0
    assert "tilt" not in {method.name for method in f.methods()}  # it has no curve against a proxy


def test_no_sweep_over_rm_sizes_holds_gold(smoke):
    f = load(smoke)
    for method in f.methods():
        assert not any(g.id.against_gold for g in f.sizes(method.name))
        assert any(g.id.against_gold for g in f.all(method.name))
        part = f.summary[method.name]
        assert [row["rm_combined"] for row in part["groups"]] == [""] * part["main"] + ["gold"]
    only = dataclasses.replace(f, curves=[curve for curve in f.curves if curve.id.against_gold])
    assert only.methods() == []
    with pytest.raises(Missing):
        only.sizes("bon")
    with pytest.raises(Missing):
        dataclasses.replace(f, curves=[c for c in f.curves if not c.id.against_gold]).gold("bon")


def test_its_scores_are_golds_own_calibrated(smoke):
    scored = GoldScored(graph.open_run(SMOKE, smoke))
    pool, samples = scored.pool(), Samples(RunFiles(smoke).where["samples"])
    np.testing.assert_array_equal(pool.proxy_MQN[0], pool.gold_QN)
    assert pool.gold_QN.mean() == pytest.approx(0, abs=1e-6)
    (found,) = Scores(RunFiles(smoke).where["scores/gold"]).calibrations()
    assert (found.calibration, found.error) == (samples.calibration(), 0.0)


def test_several_seeds_are_members_of_one_program_and_curves_of_one_group(smoke):
    e = dataclasses.replace(SMOKE, gold_as_proxy=GoldAsProxy(ppo_seeds=3))
    (job,) = (job for job in jobs(e) if job.name == "gold")
    scores = Scores(RunFiles(smoke).where["scores/gold"])
    assert isinstance(job.details, Plan)
    members = arms(scores.rows(), job.details)
    assert members == [Arm(0, seed=seed) for seed in range(3)]
    ids = [scores.id_of("ppo", arm) for arm in members]
    assert [id.seed for id in ids] == [0, 1, 2]
    assert len({id.group for id in ids}) == len({id.same_rm for id in ids}) == 1


def test_without_it_nothing_else_changes():
    without = dataclasses.replace(SMOKE, gold_as_proxy=GoldAsProxy(pool=False, ppo_seeds=0))
    every, left = graph.plan(SMOKE), graph.plan(without)
    assert {name for name in every if name not in left} == {"scores/gold", "bon/gold", "ppo/gold", "tilt/gold"}
    assert {name for name in left if left[name].path != every[name].path} == {"fits", "report"}
