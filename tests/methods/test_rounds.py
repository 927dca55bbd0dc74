"""Iterated RLHF without a run: its settings, what it refuses, how rounds become one curve, what its log hears."""

import dataclasses

import numpy as np
import pytest

from rmo import config
from rmo.analysis.curve_id import CurveId, Settings
from rmo.config import Comparisons, Recipe, Sweep, checks
from rmo.methods.bench import Arm, Importance, RewardRow
from rmo.methods.rounds import course, door
from rmo.methods.rounds.door import Rounds
from rmo.training.tracker import Silent
from tests.helpers.smoke import SMOKE


def with_rounds(*settings, **changes):
    return dataclasses.replace(SMOKE, methods=settings, **changes)


def test_rounds_end_at_equal_steps_of_the_root_of_kl():
    e = with_rounds()
    ends = [Rounds(4, kl=9.0).end(e, r) for r in (1, 2, 3, 4)]
    np.testing.assert_allclose(np.sqrt(ends), [0.75, 1.5, 2.25, 3.0])
    assert Rounds(1).end(e, 1) == e.ppo.kl_max  # one round is PPO
    assert Rounds(3).end(e, 3) == e.ppo.kl_max


def test_a_stage_per_entry_and_a_curve_per_seed():
    e = with_rounds(Rounds(2), Rounds(4, size=1, data="concatenated", start="initial", comparisons=512, kl=1.5))
    checks.check(e)
    first, second = door.jobs(e)
    assert (first.name, first.scores) == ("w8x1-main-rounds2", "w8x1-main")
    assert second.name == "w16x1-main-rounds4-concatenated-initial-comparisons512-kl1.5"
    rows = [RewardRow(str(m), 1024, Settings(), m // 3, m % 3) for m in range(6)]
    rows += [RewardRow("mean", 1024, Settings(), 0, None, "mean: mean of 3")]
    assert door.arms(rows, Rounds(2)) == [Arm(m, Settings(rounds=2)) for m in range(3)]
    assert [arm.reward for arm in door.arms(rows, Rounds(2, recipe=1, seeds=2))] == [3, 4]
    both = door.arms(rows, Rounds(2, data="concatenated", start="initial"))
    assert both[0].settings == Settings(rounds=2, data="concatenated", start="initial")
    assert list(door.jobs(SMOKE)) == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Rounds(0), "Rounds.rounds is 0: it must be at least 1"),
        (Rounds(2, size=3), "Rounds.size is 3: sweep main has sizes"),
        (Rounds(2, sweep="mane"), "Rounds.sweep is 'mane': proxies.sweeps has main"),
        (Rounds(2, recipe=1), "Rounds.recipe is 1: sweep main has recipes 0 to 0"),
        (Rounds(2, seeds=3), r"Rounds.seeds is 3: there are 2 \(proxies.seeds\)"),
        (Rounds(2, comparisons=1200), "300 prompts a round: comparisons.prompts gives 270 to train on"),
        (Rounds(2, comparisons=63), r"Rounds.comparisons is 63: it must be at least one batch \(64\)"),
        (Rounds(8), r"the first of 8 rounds ends at sqrt\(KL\) 0.177, before gold is read once"),
        (Rounds(2, data="all"), "data is 'all'"),
        (Rounds(2, kl=-1.0), "kl is -1.0: it must be at least 0"),
        (Rounds(1, data="reweighted"), "Rounds.data is 'reweighted' with 1 round, in which no RM is trained anew"),
        (Rounds(2, data="reweighted", comparisons=256), "Rounds.comparisons is 256 with data 'reweighted'"),
        (Rounds(2, data="reweighted", clip=0.0), "Rounds.clip is 0: it must be above 0"),
        (Rounds(2, data="reweighted", flatten=-0.5), "flatten is -0.5: it must be at least 0"),
        (Rounds(2, data="reweighted", flatten=1.5), "Rounds.flatten is 1.5: it must be at least 0 and at most 1"),
        (Rounds(2, data="reweighted", flatten=0.0, clip=2.0), "Rounds.clip is 2 with flatten 0, where all comparisons"),
        (Rounds(2, flatten=1.0), "Rounds.clip and Rounds.flatten are for data 'reweighted', and data is 'latest'"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings, says):
    with pytest.raises(config.ConfigError, match=says) as refused:
        checks.check(with_rounds(settings))
    assert "\n" not in str(refused.value)


def test_what_else_is_refused():
    with pytest.raises(config.ConfigError, match="two entries of Rounds"):
        checks.check(with_rounds(Rounds(2), Rounds(2, seeds=1)))
    few = Sweep("few", (Recipe(400, prompts=100),))
    proxies = dataclasses.replace(SMOKE.proxies, sweeps=(*SMOKE.proxies.sweeps, few))
    with pytest.raises(config.ConfigError, match="trains on 100 prompts: rounds label new pairs as they come"):
        checks.check(with_rounds(Rounds(2, sweep="few"), proxies=proxies))
    marked = dataclasses.replace(few, recipes=(Recipe(256, confounded=0.8),))
    proxies = dataclasses.replace(SMOKE.proxies, sweeps=(*SMOKE.proxies.sweeps, marked))
    with pytest.raises(config.ConfigError, match="trains on confounded comparisons: rounds label new pairs"):
        checks.check(with_rounds(Rounds(2, sweep="few"), proxies=proxies))
    more = Comparisons(prompts=400, pairs=4)  # the run's own prompts are what a round may have
    checks.check(with_rounds(Rounds(2, comparisons=1200), comparisons=more))


def history(iteration_KM, kl_KM):
    """A history of `loop.train_ppo` that knows the KL of every prompt, the same on all, and a proxy that tells reads."""
    iteration_KM, kl_KM = np.array(iteration_KM, np.int32), np.array(kl_KM, np.float32)
    kl_KMQ = np.repeat(kl_KM[..., None], 5, axis=2)
    read = dict.fromkeys(("kl", "proxy", "gold", "accuracy", "confidence", "support", "kl_k1", "length"), kl_KMQ)
    words = {"tokens": np.zeros((*kl_KMQ.shape, 6), np.int32), "mask": np.ones((*kl_KMQ.shape, 6), bool)}
    return {"read": read | words, "last": {"clip_fraction": kl_KM}, "iteration": iteration_KM}


ARMS = [Arm(0), Arm(1)]
FIRST = history([[0, 0], [3, 4], [5, 6], [5, 8]], [[0, 0], [0.5, 0.3], [1.1, 0.8], [1.1, 1.2]])


def test_rounds_that_go_on_are_one_curve():
    """Member 0 has finished its first round before member 1; the second round's first read is no new point."""
    second = history([[0, 0], [2, 1], [4, 1]], [[1.1, 1.2], [1.8, 4.1], [4.2, 4.1]])
    record = door.one_record(ARMS, [FIRST, second], "latest", [100, 150])
    steps = [record.step_or_n[m, record.points(m)].tolist() for m in range(2)]
    assert steps == [[0, 3, 5, 7, 9], [0, 4, 6, 8, 9]]
    kl = [record.kl[m, record.points(m)] for m in range(2)]
    np.testing.assert_allclose(kl[0], [0, 0.5, 1.1, 1.8, 4.2], rtol=1e-6)
    np.testing.assert_allclose(kl[1], [0, 0.3, 0.8, 1.2, 4.1], rtol=1e-6)
    round_ = [record.diagnostics["round"][m, record.points(m)].tolist() for m in range(2)]
    assert round_ == [[1, 1, 1, 2, 2], [1, 1, 1, 1, 2]]
    labels = record.diagnostics["labels"][0, record.points(0)]
    assert labels.tolist() == [100, 100, 100, 150, 150]
    assert record.tokens is not None
    assert record.tokens.shape == (2, 7, 5, 6)


def test_of_rounds_that_start_again_the_curve_has_what_lies_beyond():
    second = history([[0, 0], [2, 3], [4, 5], [6, 7]], [[0, 0], [0.9, 1.3], [1.4, 1.1], [4.2, 4.0]])
    record = door.one_record(ARMS, [FIRST, second], "initial", [100, 150])
    kl = [record.kl[m, record.points(m)] for m in range(2)]
    np.testing.assert_allclose(kl[0], [0, 0.5, 1.1, 1.4, 4.2], rtol=1e-6)
    np.testing.assert_allclose(kl[1], [0, 0.3, 0.8, 1.2, 1.3, 4.0], rtol=1e-6)
    assert record.step_or_n[0, record.points(0)].tolist() == [0, 3, 5, 9, 11]


def test_rounds_that_reweight_label_nothing_more():
    """In what they ask of the run, in what `rmo hedges` counts, and along the curve."""
    c = Rounds(3, data="reweighted")
    few = dataclasses.replace(SMOKE.comparisons, prompts=300)  # rounds that label could not have 1,024 more of
    checks.check(with_rounds(c))
    assert (c.labels(with_rounds(c)), Rounds(3).labels(with_rounds(c))) == (0, 1024)
    (job,) = door.jobs(with_rounds(c, comparisons=few))
    assert job.name == "w8x1-main-rounds3-reweighted"
    ids = [CurveId("rounds", 100, 1024, settings=x.settings()) for x in (c, Rounds(3), Rounds(3, comparisons=100))]
    assert [door.labels(id) for id in ids] == [1024, 3 * 1024, 1024 + 200]
    assert door.labels(CurveId("rounds", 100, settings=c.settings())) is None
    second = history([[0, 0], [2, 3], [4, 5], [6, 7]], [[1.1, 1.2], [1.5, 1.6], [2.0, 2.1], [4.2, 4.0]])
    effective = [np.ones(2), np.array([0.5, 0.25])]
    record = door.one_record(ARMS, [FIRST, second], "latest", [1024, 1024], effective)
    assert (record.diagnostics["labels"] == 1024).all()
    np.testing.assert_array_equal(record.diagnostics["effective"], [[1] * 4 + [0.5] * 4, [1] * 4 + [0.25] * 4])
    assert "effective" not in door.one_record(ARMS, [FIRST], "latest", [1024]).diagnostics


def test_rounds_that_weigh_alike_are_runs_of_their_own():
    """Beside those that reweight, and told from them by their settings."""
    alike = Rounds(2, data="reweighted", flatten=0.0)
    e = with_rounds(Rounds(2, data="reweighted"), alike)
    checks.check(e)
    assert [job.name for job in door.jobs(e)][1] == "w8x1-main-rounds2-reweighted-flatten0"
    assert alike.settings() == Settings(rounds=2, data="reweighted", flatten=0)


def test_shares_are_effective_sizes():
    weights = [Importance(np.array([1.0, 1.0]), np.ones(1)), Importance(np.array([0.0, 2.0]), np.ones(1))]
    np.testing.assert_array_equal(course.shares(weights, 2), [1, 0.5])
    np.testing.assert_array_equal(course.shares((), 3), [1, 1, 1])


def test_one_round_is_its_history():
    record = door.one_record(ARMS, [FIRST], "initial", [100])
    assert record.step_or_n[:, [0, 1, 2]].tolist() == [[0, 3, 5], [0, 4, 6]]
    assert [len(record.points(m)) for m in range(2)] == [3, 4]  # member 0's last read is none of its own


def test_what_rounds_learn_from():
    assert course.learned_from(Rounds(4), 3) == ["labels-3"]
    assert course.learned_from(Rounds(4, data="concatenated"), 3) == ["own", "labels-2", "labels-3"]


class Heard(Silent):
    """Writes down what it hears."""

    def __init__(self):
        self.said = []

    def resume(self, step):
        self.said.append(("resume", step))

    def write(self, step, metrics):
        self.said.append(("write", step, metrics["iteration"].tolist()))

    def close(self):
        self.said.append(("close", 0))


def test_the_log_goes_on_counting_and_hears_nothing_of_rounds_that_are_done():
    heard = Heard()
    none, made = np.zeros(2, np.int32), np.array([30, 40], np.int32)
    done, at_work = course.Onward(heard, 0, none), course.Onward(heard, 7, made)
    done.resume(7)  # all of its reads are in the checkpoint, and its lines in the log
    done.close()
    assert heard.said == []
    at_work.resume(2)
    for step, iteration in ((2, [5, 5]), (3, [6, 8])):
        at_work.write(step, {"iteration": np.array(iteration, np.int32)})
    at_work.close()
    assert heard.said == [("resume", 9), ("write", 9, [35, 45]), ("write", 10, [36, 48])]
