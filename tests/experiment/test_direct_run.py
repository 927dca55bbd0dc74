"""Direct alignment through a whole run: comparisons in, curve, fit, statements, figures and a page that names it out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rmo.analysis.curve_id import NO_RM, Settings
from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.stages import Comparisons, Optimised, Proxies, Scores
from rmo.config import checks
from rmo.experiment import graph
from rmo.experiment.labelled import Labelled, comparisons_of
from rmo.experiment.stages.proxies import order_of
from rmo.report.figures.direct import direct_alignment, direct_training
from rmo.report.figures.drawing import load
from rmo.report.figures.style import mean_curve
from rmo.runtime.files import RunError
from rmo.tracking import watch
from rmo.worlds import comparisons as data
from tests.helpers.flags import FAST
from tests.helpers.smoke import ROOT

CONFIG = f'''
from dataclasses import replace
from rmo.config import GoldAsProxy, Optimizer, Recipe, SFT, checks
from rmo.methods.direct.settings import Direct


def experiment():
    smoke = checks.load("{ROOT}/configs/smoke.py")
    sweep = replace(smoke.proxies.sweeps[0], recipes=(Recipe(256), Recipe(256, flip=0.25)))
    return replace(
        smoke, name="direct", ppo=replace(smoke.ppo, against=()), gold_as_proxy=GoldAsProxy(pool=False, ppo_seeds=0),
        sft=SFT(texts=256, epochs=1, batch=64, optimizer=Optimizer(lr=1e-2)), gold=replace(smoke.gold, texts=640),
        proxies=replace(smoke.proxies, sizes=smoke.proxies.sizes[:1], sweeps=(sweep,)),
        bon=replace(smoke.bon, draws=32, max_n=8, points=5), fits=replace(smoke.fits, bootstrap=10),
        methods=(Direct(losses=("dpo",), betas=(0.1, 0.5), recipes=(0, 1), epochs=4, batch=32, d_step=0.2, look=2,
                        look_draws=2, read_draws=2, optimizer=Optimizer(lr=1e-2, schedule="constant")),),
    )
'''


@pytest.fixture(scope="module")
def direct(tmp_path_factory) -> Path:
    """The directory of a run that was made through the command line."""
    where = tmp_path_factory.mktemp("direct")
    (where / "config.py").write_text(CONFIG)
    code = "from rmo.cli.main import main; main()"
    env = os.environ | {"XLA_FLAGS": FAST, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, "run", str(where / "config.py"), "--runs", str(where)]
    done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return where / "direct"


def test_its_curves_are_of_labels_and_have_no_proxy(direct):
    f = load(direct)
    groups = f.all("direct")
    assert {(g.id.settings, str(g.id.rm_recipe)) for g in groups} == {
        (Settings(loss="dpo", beta=beta), recipe) for beta in (0.1, 0.5) for recipe in ("", "flip=0.25")
    }
    for g in groups:
        assert (g.id.rm_params, g.id.rm_combined, g.comparisons) == (0, NO_RM, 256)
        assert [c.id.seed for c in g.curves] == [0, 1]
        for curve in g.curves:
            assert np.isnan(curve.proxy).all()
            assert curve.kl[0] == 0
            assert curve.kl[-1] > 0.1
            assert curve.step_or_n[-1] == 32  # 4 epochs of 8 batches
    assert "direct" not in {method.name for method in f.methods()}  # of RM sizes it has nothing to say
    assert len(f.summary["direct"]["groups"]) + len(f.summary["direct"]["too_short"]) == 4
    assert "0 |" not in (direct / "results.md").read_text().splitlines()[2].split("|")[1]


def test_its_labels_are_those_of_the_rm_of_the_same_seed(direct):
    e = checks.load(direct.parent / "config.py")
    run = graph.open_run(e, direct)
    labelled = Labelled(run, e.proxies.sweeps[0])
    assert len(labelled.files.rows()) == len(Proxies(run.path("proxies/w8x1-main")).rows())
    stage = run.stages["direct/comparisons-main"]
    found = comparisons_of(run, e.proxies.sweeps[0], dict(enumerate(labelled.files.rows())))
    train = data.read_comparisons(Comparisons(run.path("comparisons")).dataset, "train")
    recipes, rows = e.proxies.sweeps[0].recipes, labelled.files.rows()
    for i, row in enumerate(rows):
        order = order_of(run, train.prompt, recipes[row.recipe_index], row.seed or 0)
        np.testing.assert_array_equal(found.used[i], order.used)
        np.testing.assert_array_equal(found.sides[i], order.sides)
        flipped = np.mean(found.sides[i][:, 0])
        assert 0.15 < flipped < 0.35 if row.recipe_index else flipped == 0
    assert not np.array_equal(found.used[0], found.used[1])  # of two seeds
    np.testing.assert_array_equal(found.train.tokens, train.tokens)
    assert (np.diff(found.train.gold, axis=1) <= 0).all()  # gold's own labels come first
    assert [s.name for s in stage.upstream] == ["scores/comparisons-main"]
    assert len(labelled.pool().proxy_MQN) == 0
    with pytest.raises(RunError, match="holds no reward model"):
        labelled.reward([0])


def test_the_page_names_it_and_its_figures_are_drawn(direct):
    page = (direct / "report.html").read_text()
    assert "direct alignment (DPO, IPO, SLiC)" in page
    assert "Gold without a reward model" in page
    assert (direct / "figures" / "direct_alignment.svg").exists()
    assert (direct / "figures" / "direct_training.svg").exists()
    f = load(direct)
    (panel,) = direct_alignment(f).axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["0.1", "0.5", "best-of-n, RM of 801"]
    gold, along, judged = direct_training(f).axes
    assert gold.lines[0].get_xdata().tolist() == [0.1, 0.5]
    peaks = [max(mean_curve(g, "gold")[1]) for g in f.all("direct") if not g.id.rm_recipe]
    np.testing.assert_allclose(gold.lines[0].get_ydata(), peaks)
    assert along.lines[0].get_xdata()[-1] == 32
    assert all(0 <= x <= 1 for line in judged.lines for x in line.get_xdata())


def test_it_is_watched_and_its_texts_are_kept(direct):
    where = RunFiles(direct).where["direct/comparisons-main"]
    record = Optimised(where).record
    assert record.tokens is not None
    assert record.tokens.shape[:2] == record.kl.shape
    assert {"held_accuracy", "implicit", "train_loss"} <= set(record.diagnostics)
    text, _ = watch.view(direct, ("direct",), 120, 40, color=False)
    assert "comparisons-main" in text
    assert text.rstrip().endswith("none")
    start = Scores(RunFiles(direct).where["scores/comparisons-main"]).start
    assert np.isnan(start[0]).all()
    assert np.isfinite(start[1]).all()
    claims = json.loads((direct / "claims.json").read_text())
    assert all(row["verdict"] == "undecided" for row in claims if row["claim"].startswith("H2"))
