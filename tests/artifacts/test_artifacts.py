"""The files of stages: what is written is what is read; old and foreign tables of curves."""

import numpy as np
import pytest

from rmo.analysis.curve import Curve
from rmo.analysis.curve_id import CurveId, Settings
from rmo.artifacts.measured import curves, diagnostic_rows
from rmo.artifacts.run_files import Fits
from rmo.artifacts.stages import Calibrated, Optimised, Proxies, ProxyRow, Scores, Stage
from rmo.methods.bench import JUDGED, Arm, Record, RewardRow
from rmo.methods.method import find
from rmo.rewards.calibration import Calibration

M, K, Q, R = 2, 3, 4, 5
REWARDS = [
    RewardRow("0", 1024, Settings({"epochs": 4}), 0, 0),
    RewardRow("1", 1024, Settings({"epochs": 4}), 0, 1),
    RewardRow("mean", 1024, Settings({"epochs": 4}), 0, None, "mean of 2"),
]


def record(**more):
    rng = np.random.default_rng(0)
    kl = np.tile([0.0, 1.0, 2.0], (M, 1))
    arms = [Arm(0), Arm(2, Settings({"kl_coef": 0.1}))]
    scores = rng.normal(size=(2, M, K, Q))
    return Record(arms, np.tile([0, 5, 9], (M, 1)), kl, scores[0], scores[1], **more)


@pytest.fixture
def scores(tmp_path):
    found = Scores(tmp_path / "scores" / "w8x1-main-0123456789")
    found.write("samples", "main", {"total": 900, "non_embedding": 801}, {"total": 70, "non_embedding": 64}, REWARDS)
    return found


def test_a_record_comes_back_as_it_was(tmp_path, scores):
    rng = np.random.default_rng(1)
    given = record(
        real=np.array([[True, True, True], [True, True, False]]),
        judged={name: rng.random((M, K, Q)) for name in JUDGED},
        diagnostics={"entropy": rng.random((M, K))},
        tokens=rng.integers(9, size=(M, K, Q, R)),
        mask=rng.random((M, K, Q, R)) < 0.5,
    )
    optimised = Optimised(tmp_path / "ppo")
    optimised.write_arms("scores/w8x1-main", given.arms, [scores.id_of("ppo", arm) for arm in given.arms])
    optimised.write(given)
    found = Optimised(tmp_path / "ppo").record
    assert list(found.arms) == list(given.arms)
    for name in ("step_or_n", "kl", "proxy", "gold", "real", "tokens", "mask"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
    assert found.draw is None
    assert found.kl_given is None
    for name in ("judged", "diagnostics"):
        got, want = getattr(found, name), getattr(given, name)
        assert got.keys() == want.keys()
        for key in want:
            np.testing.assert_array_equal(got[key], want[key])


def test_curves_are_identified_and_begin_at_the_initial_policy(tmp_path, scores):
    start = np.arange(3.0 * Q).reshape(3, Q), np.ones(Q)
    scores.write_start(*start)
    given = record(real=np.array([[True, True, True], [True, True, False]]))
    optimised = Optimised(tmp_path / "ppo")
    optimised.write_arms("scores/w8x1-main", given.arms, [scores.id_of("ppo", arm) for arm in given.arms])
    optimised.write(given)
    single, combined = curves(find("ppo"), optimised, Scores(scores.directory))
    assert single.id == CurveId("ppo", 801, 1024, Settings({"epochs": 4}), "", 64, seed=0)
    assert combined.id == CurveId(
        "ppo", 801, 1024, Settings({"epochs": 4}), "mean of 2", 64, Settings({"kl_coef": 0.1})
    )
    assert combined.step_or_n.tolist() == [0, 5]  # the third point is not real
    np.testing.assert_allclose(combined.proxy, (given.proxy[1, :2] - start[0][2]).mean(-1))
    np.testing.assert_allclose(single.gold, (given.gold[0] - start[1]).mean(-1))


def test_rows_of_a_method_have_all_numbers_that_its_record_holds(tmp_path, scores):
    """Also those that only one of its stages records, as a regulariser's."""
    scores.write_start(np.zeros((3, Q)), np.zeros(Q))
    triggered = np.array([[np.nan, 0.25, 0.5], [np.nan, 0.0, 1.0]])
    given = record(diagnostics={"entropy": np.ones((M, K)), "triggered": triggered})
    optimised = Optimised(tmp_path / "ppo")
    optimised.write_arms("scores/w8x1-main", given.arms, [scores.id_of("ppo", arm) for arm in given.arms])
    optimised.write(given)
    rows = diagnostic_rows(find("ppo"), optimised, Scores(scores.directory), {})
    np.testing.assert_array_equal([row["triggered"] for row in rows], triggered.ravel())
    assert [row["step"] for row in rows] == [0, 5, 9] * M


def test_rewards_and_proxies_come_back_as_they_were(tmp_path, scores):
    assert scores.rows() == REWARDS
    assert (scores.sweep, scores.samples, scores.params(), scores.policy_params()) == ("main", "samples", 801, 64)
    calibrated = [Calibrated(Calibration(0.5, 2.0), 0.01), Calibrated(Calibration(-1.0, 0.25), 0.2)]
    scores.write_calibrations(calibrated)
    assert scores.calibrations() == calibrated
    rows = [ProxyRow(1024, Settings({"flip": 0.25}), 1, seed, 64, 0.6, 0.7) for seed in range(2)]
    proxies = Proxies(tmp_path / "proxies")
    proxies.write({"total": 900, "non_embedding": 801}, rows, {"through_text": {}})
    assert proxies.rows() == rows
    assert proxies.params()["non_embedding"] == 801


def test_tables_of_curves_come_back_as_they_were(tmp_path):
    id = CurveId("ppo", 801, 1024, Settings({"epochs": 4}), "mean of 2", 64, Settings({"kl_coef": 0.1}), seed=1)
    x = np.array([0.0, 0.5, 1.25])
    fits = Fits(tmp_path)
    fits.write_curves([Curve(id, np.arange(3), x, x * 2, x / 3, gold_se=x / 8)])
    (found,) = fits.curves()
    assert found.id == id
    np.testing.assert_allclose(found.gold, x / 3, rtol=1e-8)
    np.testing.assert_allclose(found.gold_se, x / 8, rtol=1e-8)
    assert found.proxy_se is None


def test_who_made_a_stage_is_known_once_it_was_finished(tmp_path):
    stage = Stage(tmp_path)
    assert stage.made_by() is None
    stage.write_cost({"seconds": 1.0})
    assert stage.made_by() == ""  # before such hashes were recorded
    stage.write_cost({"seconds": 1.0, "code": "0123456789ab"})
    stage.mark_undone()
    assert stage.made_by() == "0123456789ab"
    assert not stage.done


def test_a_log_that_is_being_written_is_read_as_far_as_it_is(tmp_path):
    assert Stage(tmp_path).metrics() == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n{"st')
    assert Stage(tmp_path).metrics() == [{"step": 0}, {"step": 1}]
