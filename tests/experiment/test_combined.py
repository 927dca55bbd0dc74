"""Several RMs as one reward, from the config to the report: a smoke run with four combinations, PPO against two."""

import dataclasses
import re
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo.analysis.curve_id import CurveId
from rmo.artifacts.run_files import Fits, RunFiles
from rmo.config import Against, Combined, Ensemble, Model, Recipe, Sweep
from rmo.experiment import graph
from rmo.experiment.ensembles import EnsembleScored
from rmo.experiment.pool import Scored
from rmo.models import transformer
from rmo.models.sampling import join
from rmo.models.transformer import RewardModel
from rmo.report.page import texts
from rmo.report.page.ensembles_section import ensembles_section
from rmo.rewards import combination
from rmo.rewards.calibration import Calibration
from rmo.rewards.reward import Reward, RewardParams
from rmo.runtime import sharding
from rmo.runtime.files import read_csv
from tests.helpers.smoke import CLI, ENV, ROOT, SMOKE, copied

SWEEP = Sweep(
    recipes=(Recipe(1024),),
    combined=(
        Combined("mean"),
        Combined("worst", "worst_case"),
        Combined("uwo", "uncertainty_penalised"),
        Combined("warm", "weight_averaged"),
    ),
)
MEMBERS = ("first", "second", *(c.name for c in SWEEP.combined))


def experiment():
    return dataclasses.replace(
        SMOKE,
        proxies=dataclasses.replace(SMOKE.proxies, sweeps=(SWEEP,)),
        ensembles=(Ensemble(how="worst_case"),),
        ppo=dataclasses.replace(
            SMOKE.ppo, against=(Against(name="climb", sizes=(0,), combined=(0, 3), ensembles=(0,)),)
        ),
    )


CONFIG = "from tests.experiment.test_combined import experiment as experiment\n"


@pytest.fixture(scope="module")
def combined(smoke, tmp_path_factory):
    """A finished run, from the smoke run's policy, gold, pool, comparisons and proxies; returns its directory."""
    top = tmp_path_factory.mktemp("combined")
    here = copied(smoke, top)
    (top / "config.py").write_text(CONFIG)
    command = [*CLI[:-1], str(top / "config.py"), "--runs", str(top)]
    got = subprocess.run(command, cwd=ROOT, env=ENV | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-2000:]
    made = set(re.findall(r"^stage \d+ of \d+: (\w+)", got.stderr, flags=re.M))
    assert made == {"scores", "bon", "ppo", "fits", "report"}
    return here


def test_every_combination_has_curves(combined):
    found = [curve for curve in Fits(combined).curves() if not curve.id.against_gold]
    how = {
        "mean: mean of 2",
        "worst: worst_case of 2",
        "uwo: uncertainty_penalised of 2",
        "warm: weight_averaged of 2",
    }
    sizes = {curve.id.rm_params for curve in found}
    assert len(sizes) == 3
    for rm_params in sizes:
        of_size = [c for c in found if (c.method, c.id.rm_params) == ("bon", rm_params)]
        of_sizes = {"sizes: worst_case of 6 in 3 sizes"} if rm_params == max(sizes) else set()  # its largest RM's
        assert {c.id.rm_combined for c in of_size} == how | {""} | of_sizes
        assert all(c.id.seed is None for c in of_size if c.id.rm_combined)
    climbed = [curve for curve in found if curve.method == "ppo"]
    assert [curve.id.rm_combined for curve in climbed] == [
        "", "", "mean: mean of 2", "warm: weight_averaged of 2", "sizes: worst_case of 6 in 3 sizes"
    ]  # fmt: skip
    for curve in found:
        assert curve.proxy[-1] > curve.proxy[0]
        if curve.method == "bon":
            assert curve.proxy[0] == pytest.approx(0, abs=1e-6)


def test_how_far_rms_are_apart_is_beside_what_is_selected(combined):
    """In paths.csv, of combined rewards alone; not of averaged weights in PPO, where one RM is run."""
    rows = Fits(combined).table("paths")
    known = {(row["method"], CurveId.of_cells(row).rm_combined.partition(":")[0]) for row in rows if row["spread"] >= 0}
    names = {"mean", "worst", "uwo", "warm", "sizes"}
    assert known == {("bon", name) for name in names} | {("ppo", "mean"), ("ppo", "sizes")}


def test_an_ensemble_over_sizes_is_made_of_every_sizes_calibrated_scores(combined):
    run = graph.open_run(experiment(), combined)
    scored, parts = EnsembleScored(run, experiment().ensembles[0]), [Scored(run, size, SWEEP) for size in range(3)]
    tables = np.stack([table for part in parts for table in list(part.pool().proxy_MQN)[:2]])
    own, pool = scored.files.calibrations()[0].calibration, scored.pool()
    np.testing.assert_allclose(pool.proxy_MQN[0] / own.scale + own.shift, tables.min(0), atol=1e-9)
    np.testing.assert_allclose(pool.spread_MQN[0], tables.std(0), atol=1e-9)
    assert pool.proxy_MQN[0].mean() == pytest.approx(0, abs=1e-9)


def test_ppo_sees_of_several_sizes_what_best_of_n_sees(combined):
    """The pool's draws, read as PPO reads, have the scores of the table."""
    run = graph.open_run(experiment(), combined, sharding.make_mesh())
    scored = EnsembleScored(run, experiment().ensembles[0])
    reward, p = scored.reward([0, 0])
    draws, prompts = scored.samples.draws(1), scored.samples.prompts
    before, mask = (np.repeat(x[1:2], len(draws.tokens), axis=0) for x in (prompts.tokens, prompts.mask))
    seen = jax.vmap(reward, in_axes=(0, None, None))(p, *join(before, mask, draws.tokens, draws.mask))
    for scores_N in seen:
        np.testing.assert_allclose(scores_N, scored.pool().proxy_MQN[0][1], atol=1e-3)


def test_single_rms_are_as_without_combinations(combined, smoke):
    """However they are called: PPO's stages have another name here."""

    def single(run):
        lines = (run / "curves.csv").read_text().splitlines()
        column = lines[0].split(",").index("rm_combined")
        return [line for line in lines if not line.split(",")[column]]

    assert len(single(smoke)) > 50
    assert single(combined) == single(smoke)


@pytest.fixture(scope="module")
def tables(combined):
    """Scores f64[Q, N] of the pool by every reward of the smallest size, and the same before their own calibration."""
    scored = Scored(graph.open_run(experiment(), combined), 0, SWEEP)
    calibrated = dict(zip(MEMBERS, scored.pool().proxy_MQN, strict=True))
    own = [found.calibration for found in scored.files.calibrations()]
    before = {name: calibrated[name] / c.scale + c.shift for name, c in zip(MEMBERS, own, strict=True)}
    return calibrated, before


def test_combined_scores_are_what_they_are_called(tables):
    calibrated, before = tables
    both = np.stack([calibrated["first"], calibrated["second"]])
    np.testing.assert_allclose(before["mean"], both.mean(0), atol=1e-9)
    np.testing.assert_allclose(before["worst"], both.min(0), atol=1e-9)
    np.testing.assert_allclose(before["uwo"], both.mean(0) - 0.5 * both.var(0), atol=1e-9)
    assert (before["worst"] <= before["mean"] + 1e-9).all()
    assert (before["worst"] < before["mean"]).any()
    for table in calibrated.values():
        assert table.mean() == pytest.approx(0, abs=1e-6)


def test_the_average_of_two_rms_is_neither(tables):
    calibrated, _ = tables
    assert all(np.abs(calibrated["warm"] - calibrated[one]).max() > 0.1 for one in ("first", "second"))


def test_the_average_of_two_copies_of_one_rm_is_that_rm():
    rm = RewardModel(Model(width=8, layers=1, heads=2), 24, 10)
    params = transformer.init(rm, jax.random.key(0))
    copies = jax.tree.map(lambda x: jnp.stack([x, x]), params)
    of_params = combination.find("weight_averaged").params
    assert of_params is not None
    tokens = np.random.default_rng(0).integers(1, 24, (5, 10)).astype(np.int32)
    mask = np.ones_like(tokens, bool)
    want, got = (Reward(rm)(RewardParams(p, Calibration()), tokens, mask) for p in (params, of_params(copies)))
    np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


def test_texts_of_a_method_are_shown_whatever_its_stages_are_called(combined):
    """PPO's stages are called `climb`, the sweep `main`; those against combined rewards are not shown in their place."""
    shown = texts.main_stages(RunFiles(combined), "main")
    assert [method.name for method, _ in shown[min(shown)]] == ["bon", "ppo"]
    (_, ppo) = shown[min(shown)][1]
    assert len(ppo.record.arms) == 2
    page = (combined / "report.html").read_text()
    assert page.count("<p class=prompt>PPO: ") == 3


def test_the_report_lists_what_ensembles_gain_and_cost(combined):
    page = (combined / "report.html").read_text()
    section = page[page.index("<h2 id=ensembles>") :].split("<h2", 2)[1]
    peaks = [row for row in read_csv(combined / "ensembles.csv") if row["place"] == "peak"]
    assert section.count("<tr>") == 1 + len(peaks) > 1
    for row in peaks:
        assert row["rm_combined"] in section
        assert f"<td>{float(row['gold']):.3f}</td>" in section
        assert f"<td>{float(row['gain']):.3f}</td>" in section
        assert f"<td>{int(row['labels']):,}</td>" in section
    assert ensembles_section([]) == []  # a run without any says nothing
