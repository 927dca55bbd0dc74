"""What the stages of a finished smoke run hold."""

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from rmo import config
from rmo.artifacts.curves_csv import COLUMNS
from rmo.artifacts.run_files import Fits
from rmo.artifacts.stages import Comparisons, Samples
from rmo.experiment import graph
from rmo.experiment.stages import fits
from rmo.runtime import sharding
from rmo.runtime.files import read_json
from rmo.worlds import comparisons
from tests.helpers.smoke import SMOKE


def test_everything_is_there(smoke):
    table = Fits(smoke).curves()
    assert len(table) == (3 + 1) * 2 + 3  # (proxies under best-of-n, under PPO) x seeds, and gold under these and tilts
    for curve in table:
        assert curve.kl[0] < 1e-5
        assert (np.diff(curve.step_or_n) > 0).all()
        if curve.method == "bon":
            assert curve.gold[0] == pytest.approx(0, abs=1e-6)
            assert curve.proxy[0] == pytest.approx(0, abs=1e-6)
            assert (np.diff(curve.proxy) > 0).all()
        else:
            assert curve.kl[-1] > 1.5
            assert curve.proxy[-1] > curve.proxy[0]
    header = (smoke / "curves.csv").read_text().splitlines()[0]
    assert header == ",".join(COLUMNS)
    assert set(read_json(smoke / "coefficients.json")) == {"bon", "ppo", "tilt"}
    gold = read_json(smoke / "gold.json")
    assert {"policy samples", "best-of-n path", "PPO path"} < set(gold)
    assert gold["policy samples"]["gold_mean"] == pytest.approx(0, abs=0.1)  # centred on the initial policy
    page = (smoke / "report.html").read_text()
    drawn = {path.stem for path in (smoke / "figures").glob("*.svg")}
    assert page.count("<figure>") == len(drawn)
    assert {"fig1a", "fig1b", "fig2", "fig3a", "fig8", "fig11", "fig16", "fig26b", "beirami", "rival_forms"} < drawn
    assert re.search("<h3>No analogue in this run</h3>.*<li>Figure 9[^<]*: no KL penalties</li>", page)
    assert page.index("id=fig1a") < page.index("id=claims") < page.index("id=fig2")  # what readers came for is first
    assert f"<b>{html.escape(SMOKE.note)}</b>" in page  # that its numbers mean nothing
    claims = read_json(smoke / "claims.json")
    assert {c["verdict"] for c in claims} == {"undecided"}  # two RM seeds decide nothing
    assert all(c["why"] for c in claims)
    assert not re.search(r"<(script|link|img|iframe)[^>]* (src|href)=['\"]?(http|//)", page)  # self-contained
    assert "&lt;eos&gt;" in page  # decoded text is shown
    assert not list(smoke.rglob("*.part")) + list(smoke.rglob("scratch"))


def test_fits_go_on_without_a_method_whose_curves_are_too_short(smoke, tmp_path, capsys, monkeypatch):
    """No curve of PPO, whose form is steep at 0, comes so far; the run says so in one line and fits the others."""
    far = replace(SMOKE.fits, min_d=100.0, bootstrap=10)
    run = graph.open_run(replace(SMOKE, fits=far), smoke, sharding.make_mesh(1))
    monkeypatch.setattr(fits, "audit", lambda run: {})  # of gold, which is slow
    run.stages["fits"].make(run, tmp_path)
    fitted = Fits(tmp_path).read("coefficients")
    assert {name: len(part["groups"]) for name, part in fitted.items()} == {"bon": 4, "ppo": 0, "tilt": 1}
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fits: ")]
    assert said == ["fits: ppo: no curve has 3 points with sqrt(KL) > 100: a fit of two needs 3"]
    assert len(Fits(tmp_path).curves()) == len(Fits(smoke).curves())


def test_gold_is_calibrated_on_the_initial_policy(smoke):
    run = graph.open_run(SMOKE, smoke)
    samples = Samples(run.path("samples"))
    tables = [samples.draws(q).gold for q in range(SMOKE.bon.prompts)]
    scores = run.gold_calibration()(np.stack(tables).astype(np.float64))
    assert scores.mean() == pytest.approx(0, abs=1e-6)
    assert scores.std() == pytest.approx(1, abs=1e-5)


def test_comparisons_split_by_prompt_and_agree_with_gold(smoke):
    files = Comparisons(graph.open_run(SMOKE, smoke).path("comparisons"))
    train, held = (comparisons.read_comparisons(files.dataset, split) for split in ("train", "validation"))
    assert not set(train.prompt) & set(held.prompt)
    assert len(held.tokens) == 120
    assert (train.gold[:, 0] >= train.gold[:, 1]).all()  # hard labels
    info = files.info()
    assert info["agreement_with_gold"] + info["ties"] >= 0.999


def test_purposes_do_not_share_prompts_on_disk(smoke):
    run = graph.open_run(SMOKE, smoke)
    width = SMOKE.world.prompt
    read = {row.tobytes() for row in Samples(run.path("samples")).prompts.tokens}
    pairs = comparisons.read_comparisons(Comparisons(run.path("comparisons")).dataset, "train").tokens[:, 0, :width]
    ppo = run.world.prompts(run.rng("ppo prompts"), SMOKE.ppo.prompts, "optimise").tokens
    compared, optimised = ({np.ascontiguousarray(row).tobytes() for row in rows} for rows in (pairs, ppo))
    assert read
    assert not read & compared
    assert not read & optimised
    assert not compared & optimised


def test_labels():
    gap = np.random.default_rng(0).normal(size=200_000)
    for c, expected in [
        (config.Comparisons(), np.ones_like(gap)),
        (config.Comparisons(labels="flipped", flip=0.2), np.full_like(gap, 0.8)),
        (config.Comparisons(labels="sampled", temperature=0.5), 1 / (1 + np.exp(-np.abs(gap) / 0.5))),
    ]:
        agrees = comparisons.label(np.random.default_rng(1), gap, c) == (gap > 0)
        assert agrees.mean() == pytest.approx(expected.mean(), abs=0.005)
    ties = comparisons.label(np.random.default_rng(1), np.zeros(10_000), config.Comparisons())
    assert ties.mean() == pytest.approx(0.5, abs=0.02)
