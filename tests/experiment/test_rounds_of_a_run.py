"""Iterated RLHF on a smoke run's artefacts: one round is PPO, and a run killed between rounds ends as one that was not."""

import dataclasses
import json
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo.artifacts.stages import Optimised, Scores
from rmo.config import checks
from rmo.experiment import graph, retraining
from rmo.experiment.run import Run
from rmo.methods.ppo import loop
from rmo.methods.rounds.door import Rounds
from rmo.runtime.files import SCRATCH
from rmo.worlds import comparisons as data
from tests.helpers.flags import EXACT
from tests.helpers.smoke import CLI, ENV, ROOT, SMOKE, copied

TWO = Rounds(2, comparisons=128, data="concatenated")
AGAIN = Rounds(2, comparisons=128, start="initial")
REWEIGHTED = Rounds(2, data="reweighted")
ONCE = """import dataclasses
from rmo.methods.rounds.door import Rounds
from tests.experiment.test_rounds_of_a_run import SHORT, SMOKE

def experiment():
    return dataclasses.replace(SMOKE, ppo=SHORT, methods=(Rounds(1),))
"""
SHORT = dataclasses.replace(SMOKE.ppo, kl_max=0.4, max_steps=12, patience=6)


class Kill(BaseException):
    """Stands for SIGKILL: nothing below catches it."""


@pytest.fixture(scope="module")
def run(smoke, tmp_path_factory) -> Run:
    """Stages before the methods are those of the smoke run, which are only read."""
    from rmo.runtime import sharding

    e = dataclasses.replace(SMOKE, ppo=SHORT, methods=(TWO, AGAIN, REWEIGHTED))
    return graph.open_run(e, smoke, sharding.make_mesh(1))


def make(run: Run, name: str, out) -> Optimised:
    (stage,) = [stage for known, stage in run.stages.items() if known == name]
    stage.make(run, out)
    return Optimised(out)


@pytest.mark.slow  # with the emitters it takes as long to compile as all the others
def test_one_round_is_ppo(smoke, tmp_path):
    """Bit for bit, with the fusion emitters that users have: the same RMs, prompts and random streams."""
    here = copied(smoke, tmp_path)
    (tmp_path / "config.py").write_text(ONCE)
    command = [*CLI[:-1], str(tmp_path / "config.py"), "--runs", str(tmp_path), "--only", "ppo", "rounds"]
    got = subprocess.run(command, cwd=ROOT, env=ENV | {"XLA_FLAGS": EXACT}, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-2000:]
    stages = graph.open_run(checks.load(tmp_path / "config.py"), here).stages
    ppo, once = (Optimised(here / stages[name].path) for name in ("ppo/w8x1-main", "rounds/w8x1-main-rounds1"))
    assert [id.settings.number("rounds") for id in once.ids()] == [1, 1]
    a, b = ppo.record, once.record
    assert a.kl.max() > 0.2
    for name in ("step_or_n", "kl", "proxy", "gold", "real", "tokens", "mask", "annotator"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name, x in a.diagnostics.items():
        np.testing.assert_array_equal(x, b.diagnostics[name], err_msg=name)
    assert (b.diagnostics["round"] == 1).all()


def test_rounds_go_on_and_a_killed_run_ends_as_one_that_was_not(run, tmp_path, monkeypatch):
    name = "rounds/w8x1-main-rounds2-concatenated-comparisons128"
    whole = make(run, name, tmp_path / "whole")
    record = whole.record
    real, calls = loop.read, []

    def dying(*args):
        calls.append(1)
        if len(calls) == 2:
            raise Kill
        return real(*args)

    labelled = retraining.label

    def label_and_die(*args):
        labelled(*args)
        monkeypatch.setattr(loop, "read", dying)

    monkeypatch.setattr(retraining, "label", label_and_die)  # so that it dies in its second round
    with pytest.raises(Kill):
        make(run, name, tmp_path / "killed")
    monkeypatch.setattr(loop, "read", real)
    monkeypatch.setattr(retraining, "label", labelled)
    sampled = []
    monkeypatch.setattr(retraining, "judged_pairs", lambda *args: sampled.append(1))
    monkeypatch.setattr(retraining, "trained", lambda *args: sampled.append(2))
    resumed = make(run, name, tmp_path / "killed")
    assert sampled == []  # what was finished is not made again
    for field in ("step_or_n", "kl", "proxy", "gold", "real", "tokens", "mask"):
        np.testing.assert_array_equal(getattr(record, field), getattr(resumed.record, field), err_msg=field)
    lines = [(tmp_path / where / "metrics.jsonl").read_text() for where in ("whole", "killed")]
    assert lines[0] == lines[1]
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == list(range(record.kl.shape[1]))
    for m in range(2):
        keep = record.points(m)
        round_ = record.diagnostics["round"][m, keep]
        assert set(round_) == {1, 2}
        assert (np.diff(record.step_or_n[m, keep]) > 0).all()
        assert record.kl[m, keep][round_ == 2].min() > 0.05  # it went on from where it was
        labels = record.diagnostics["labels"][m, keep]
        assert set(labels) == {1024, 1152}
    check_labels(run, tmp_path / "whole")


def check_labels(run: Run, out) -> None:
    """What the second round learned from: pairs that gold prefers as it should, to other prompts than those it is judged
    on; with the run's own, whose zero is the initial policy's."""
    scored = graph.source_of(0, run.experiment.proxies.sweeps[0], 0)(run)
    for m in range(2):
        train, held = retraining.read_labels(retraining.labels_file(out / SCRATCH / "labels-2", m))
        assert len(train.prompt) == 128
        assert len(held.prompt) == 30 * 4  # as many prompts as the run holds out
        assert not set(train.prompt) & set(held.prompt)
        assert (train.gold[:, 0] >= train.gold[:, 1]).all()  # hard labels
    learned = retraining.gathered(scored, out, "proxies-2", [0, 1], ["own", "labels-2"])
    assert [order.steps for order in learned.orders] == [1152 // 64] * 2
    assert len(learned.rows.prompt) == 2 * 1152
    mine = data.read_comparisons(own_dataset(run), "train")
    assert {row.tobytes() for row in learned.rows.tokens[:1024, 0]} <= {row.tobytes() for row in mine.tokens[:, 0]}
    params = retraining.retrained(scored, out, "proxies-2", [0, 1], ["own", "labels-2"])
    zeros = retraining.zeros_of(scored, run.rm(scored.shape), params.params, 2)
    np.testing.assert_allclose(params.calibration.shift, zeros, rtol=1e-5)
    assert (np.asarray(params.calibration.scale) > 0).all()
    assert Scores(run.path("scores/w8x1-main")).rows()[0].comparisons == 1024


def own_dataset(run: Run):
    from rmo.artifacts.stages import Comparisons as Files

    return Files(run.path("comparisons")).dataset


def test_rounds_that_start_again_pass_beyond_the_round_before(run, tmp_path):
    record = make(run, "rounds/w8x1-main-rounds2-initial-comparisons128", tmp_path).record
    for m in range(2):
        keep = record.points(m)
        round_, kl = record.diagnostics["round"][m, keep], record.kl[m, keep]
        assert kl[round_ == 2].min() > kl[round_ == 1].max()
        second = record.diagnostics["round"][m] == 2
        assert record.kl[m, second][0] == pytest.approx(0, abs=1e-6)  # read at the initial policy, off the curve


def test_weights_for_the_policy_that_wrote_the_pairs_are_those_of_the_plain_rm(run, tmp_path):
    """Every weight is exactly 1, and RMs that are trained with them are, bit for bit, those without."""
    scored = graph.source_of(0, run.experiment.proxies.sweeps[0], 0)(run)
    start = run.load("sft", run.lm(), master=True)
    policies = jax.tree.map(lambda x: jnp.stack([x, x]), start)
    weights = retraining.importance(scored, tmp_path, "weights-2", [0, 1], policies, 3.0, 0.5)
    for one in weights:
        assert (len(one.train), len(one.held_out)) == (1024, 30 * 4)
        np.testing.assert_array_equal(np.concatenate(one), 1)
    plain = retraining.retrained(scored, tmp_path / "plain", "proxies-2", [0, 1], ["own"])
    weighted = retraining.retrained(scored, tmp_path / "weighted", "proxies-2", [0, 1], ["own"], weights)
    jax.tree.map(np.testing.assert_array_equal, plain, weighted)


def test_rounds_on_reweighted_labels_label_nothing_and_survive_a_kill(run, tmp_path, monkeypatch):
    name = "rounds/w8x1-main-rounds2-reweighted"
    monkeypatch.setattr(retraining, "label", lambda *args: pytest.fail("labels were made"))
    whole = make(run, name, tmp_path / "whole").record
    real = retraining.retrained

    def dying(*args):
        raise Kill

    monkeypatch.setattr(retraining, "retrained", dying)
    with pytest.raises(Kill):
        make(run, name, tmp_path / "killed")
    monkeypatch.setattr(retraining, "retrained", real)
    monkeypatch.setattr(retraining, "log_ratios", lambda *args: pytest.fail("weights were made again"))
    resumed = make(run, name, tmp_path / "killed").record
    for field in ("step_or_n", "kl", "proxy", "gold", "real", "tokens", "mask"):
        np.testing.assert_array_equal(getattr(whole, field), getattr(resumed, field), err_msg=field)
    np.testing.assert_array_equal(whole.diagnostics["effective"], resumed.diagnostics["effective"])
    for m in range(2):
        round_, effective = (whole.diagnostics[x][m, whole.points(m)] for x in ("round", "effective"))
        assert (effective[round_ == 1] == 1).all()
        assert ((effective[round_ == 2] > 0) & (effective[round_ == 2] < 1)).all()
        assert (whole.diagnostics["labels"][m] == 1024).all()
