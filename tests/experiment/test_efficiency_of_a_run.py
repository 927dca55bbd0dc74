"""What a run says of its optimisers' efficiency, and of the annotator along every path."""

import numpy as np
import pytest

from rmo.analysis.curve_id import CurveId
from rmo.artifacts.run_files import Fits, RunFiles
from rmo.artifacts.stages import Samples
from rmo.experiment import annotator, graph
from rmo.experiment.efficiency import PARTS
from rmo.worlds.world import Texts
from tests.helpers.smoke import SMOKE


@pytest.fixture(scope="module")
def run(smoke):
    return graph.open_run(SMOKE, smoke)


def records(smoke):
    return {name: optimised.record for _, name, optimised in RunFiles(smoke).optimised()}


def test_parts_add_up_at_every_point(smoke):
    rows = Fits(smoke).table("efficiency")
    assert {row["method"] for row in rows} == {"bon", "ppo", "tilt"}
    assert len(rows) == sum(row["rm_combined"] == "gold" for row in Fits(smoke).table("curves"))
    for row in rows:
        for what in ("kl", "gold"):
            parts = [row[name] for name in PARTS if name.startswith(what)]
            assert sum(parts) == pytest.approx(row[what], abs=1e-6)
        assert min(row["kl_length"], row["kl_words"]) >= 0
    explained = Fits(smoke).read("efficiency")["explained"]
    assert 0 <= explained[0] <= explained[1] <= 1


def test_the_initial_policy_has_the_pools_wording(smoke):
    """Best-of-1 and the tilt by nothing exactly, a read of few texts about."""
    found = records(smoke)
    start = found["bon/gold"].wording
    assert start.lengths[0, 0].sum() == pytest.approx(1, abs=1e-5)
    for name, near in (("tilt/gold", 1e-5), ("bon/w8x1-main", 1e-5), ("ppo/gold", 0.25)):
        mine = found[name].wording
        np.testing.assert_allclose(mine.lengths[0, 0], start.lengths[0, 0], atol=near, err_msg=name)
        np.testing.assert_allclose(mine.rates[0, 0], start.rates[0, 0], atol=near, err_msg=name)
    assert found["bon/gold"].wording.texts[0, 0] == pytest.approx(SMOKE.bon.prompts * SMOKE.bon.draws)
    assert (np.diff(found["bon/gold"].wording.texts[0]) < 0).all()
    assert found["ppo/gold"].wording.texts[0, 0] == SMOKE.bon.prompts * SMOKE.ppo.read_draws
    length = found["ppo/gold"].diagnostics["length"][0]  # with EOS
    words = found["ppo/gold"].wording.lengths[0] @ np.arange(SMOKE.world.response + 1)
    assert ((length - 1 - 1e-4 <= words) & (words <= length + 1e-4)).all()


def test_the_annotator_is_read_along_every_path(smoke, run):
    for name, record in records(smoke).items():
        assert record.annotator is not None, name
        assert np.isfinite(record.annotator[:, record.points(0)]).all(), name
    found = records(smoke)["bon/gold"].annotator[0]
    assert found[0].mean() == pytest.approx(0, abs=1e-6)
    assert found[-1].mean() > 0.2  # gold has learned something of it
    table = annotator.pool(run, Samples(run.path("samples")))
    assert (table.mean(), table.std()) == (pytest.approx(0, abs=1e-9), pytest.approx(1))
    ids = [CurveId.of_cells(row) for row in Fits(smoke).read("annotator")]
    assert {(id.method, id.rm_params, id.rm_combined) for id in ids} == {
        (id.method, id.rm_params, id.rm_combined) for id in map(CurveId.of_cells, Fits(smoke).table("curves"))
    }
    for row in Fits(smoke).read("annotator"):
        assert -1 <= row["rank_correlation"] <= 1
        low, high = row["gap_interval"]
        assert low <= row["gap"] <= high
        assert row["gap_kl"] <= row["peak_kl"]


def test_the_annotator_scores_responses_as_the_world_does(run):
    samples = Samples(run.path("samples"))
    draws = [samples.draws(q) for q in range(SMOKE.bon.prompts)]
    tokens, mask = (np.stack([getattr(d, name)[:3] for d in draws]) for name in ("tokens", "mask"))
    got = annotator.responses(run, tokens, mask)
    np.testing.assert_allclose(got, annotator.pool(run, samples)[:, :3], atol=1e-9)
    prompts = samples.prompts
    one = Texts(prompts.tokens[2:3], prompts.mask[2:3], tokens[2, 1:2], mask[2, 1:2])
    assert annotator.calibration(run)(run.world.score(one))[0] == pytest.approx(got[2, 1])


def test_the_report_has_the_figures_and_tables(smoke):
    drawn = {path.stem for path in (smoke / "figures").glob("*.svg")}
    assert {"efficiency", "gold_and_annotator"} <= drawn
    page = (smoke / "report.html").read_text()
    assert page.index("id=gold>") < page.index("they part at KL") < page.index("id=perfect")
    assert "| Gold as its own proxy | gold at KL 1 |" in (smoke / "results.md").read_text()
