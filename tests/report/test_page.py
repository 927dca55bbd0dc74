"""The page as a reader has it: one file that asks for nothing else, and answers to a pointer."""

import pytest

from rmo.analysis import scaling
from rmo.analysis.curve_id import CurveId
from rmo.report.run_report import write_curves
from tests.helpers import browser
from tests.helpers.curves import made_up


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    curves = [made_up(CurveId("bon", params, seed=seed)) for params in (500, 5000) for seed in (0, 1)]
    summary = scaling.summarise(curves, draws=20, rank_draws=5)
    return write_curves(tmp_path_factory.mktemp("page"), curves, summary, "made up", " Scores are made up.")


@pytest.mark.parametrize("size", browser.SIZES)
def test_curves_answer_to_a_pointer(report, size):
    with browser.opened(report, size) as page:
        names = page.eval_on_selector_all("#bon-plot .legendtext", "found => found.map(x => x.textContent)")
        assert names == ["500 parameters", "5,000 parameters"]
        proxy, seeds = 3, 4  # traces of a group: band, fit, gold, proxy, dots
        assert "mean of 2 seeds" in browser.hover(page, "bon-plot", proxy, 10)
        assert "n 11" in browser.hover(page, "bon-plot", seeds, 10)
        page.locator("#bon-plot .updatemenu-button").nth(1).click()
        assert page.locator("#bon-plot .xtitle").text_content() == "KL, nats"
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
