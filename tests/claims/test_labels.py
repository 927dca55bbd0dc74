"""What labels buy: each statement holds in a made-up run where it is so, and fails where the opposite is."""

import numpy as np
import pytest

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.claims import claim
from rmo.claims.evidence import Evidence
from rmo.report.figures.drawing import Files
from rmo.report.figures.labels import labels

RECIPES = ("", "choice=uncertain", "choice=disagreement", "prompts=500", "prompts=4000", "flip=0.25")
BETTER = (0.0, 0.3, 0.6, -0.2, 0.2, -0.4)  # gold sd beyond random clean labels, were the papers right


def made(sign: float) -> list:
    """Best-of-n of three RM sizes and three seeds with every recipe, on 4,000 comparisons and, plainly, on 1,000."""
    rng, d, curves = np.random.default_rng(0), np.linspace(0, 2.5, 20), []
    runs = [(recipe, 4000, better) for recipe, better in zip(RECIPES, BETTER, strict=True)] + [("", 1000, -0.5)]
    for params in (100, 1000, 10_000):
        for recipe, comparisons, better in runs:
            for seed in range(3):
                height = 1 + sign * better + 0.02 * rng.normal()
                gold_KQ = (height * d * (5 - d) / 6.25)[:, None] + 0.01 * rng.normal(size=(len(d), 8))
                id = CurveId("bon", params, comparisons, rm_recipe=Settings.parse(recipe), seed=seed)
                curves.append(from_prompts(id, np.arange(1, 21), d**2, gold_KQ, gold_KQ))
    return curves


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "fails")])
def test_statements_about_labels_follow_the_data(sign, verdict):
    evidence = Evidence(made(sign), draws=2)
    mine = [c for c in claim.claims() if c.name in ("H50", "H51", "H52", "H53")]
    rows = [claim.judge(c, evidence) for c in mine]
    assert [row["verdict"] for row in rows] == [verdict] * 4
    assert np.allclose([row["statistic"] for row in rows], [0.45 * sign, 0.3 * sign, 0.4 * sign, 0.4 * sign], atol=0.05)


def test_without_such_rms_they_are_not_listed():
    evidence = Evidence([c for c in made(1) if not c.id.rm_recipe], draws=2)
    listed = {c.name for c in claim.claims() if claim.applies(c, evidence)}
    assert not listed & {"H50", "H51", "H52", "H53"}


def test_the_figure_has_a_line_per_size_and_a_mark_per_recipe():
    figure = labels(Files(made(1), {}))
    _, right = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["100", "1k", "10k", *sorted(RECIPES[1:])]
    gained = right.lines[0].get_ydata()
    np.testing.assert_allclose(gained, 0.5 / 3, atol=0.02)  # gold sd per thousand labels
