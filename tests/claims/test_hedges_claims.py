"""Hedges at inference: each statement holds in a made-up run where it is so, and fails where the opposite is."""

import numpy as np
import pytest

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.claims import claim
from rmo.claims.evidence import Evidence
from rmo.report.figures.drawing import Files
from rmo.report.figures.inference import both_ways, hedged_regret, inference_methods, regressional
from tests.helpers.tables import table_of

NAMES = ("H1", "H2", "H3", "H4", "H5")
SETTINGS = {"bon": [""], "best_of_poisson": [""], "soft_best_of_n": ["temperature=0.1", "temperature=0.3"],
            "pessimism_n": ["beta=0.1", "beta=0.3"]}  # fmt: skip


def made(right: bool) -> list:
    """Best-of-n against the smallest RM falls by 0.3; hedges do as the papers say, or the opposite."""
    rng, d, curves = np.random.default_rng(0), np.linspace(0, 2.5, 40), []
    peaked = 1 - (d / 1.4 - 1) ** 2
    rising = d * (5 - d) / 6.25
    for params in (100, 10_000):
        for method, settings in SETTINGS.items():
            for setting in settings:
                for seed in range(3):
                    falls = {"bon": right, "best_of_poisson": True, "soft_best_of_n": not right}
                    gold = peaked if falls.get(method, not right) else rising
                    wrong = 0.3 * d if method == "best_of_poisson" and not right else 0 * d
                    gold_KQ = (gold * (1 + 0.01 * rng.normal()) + wrong)[:, None] + 0.004 * rng.normal(size=(40, 8))
                    if method == "best_of_poisson" and not right:  # halves of the prompts peak far apart
                        gold_KQ[:, ::2], gold_KQ[:, 1::2] = (1 - d)[:, None], (d - 1.5 + d**2 / 9)[:, None]
                    id = CurveId(method, params, 4000, settings=Settings.parse(setting), seed=seed)
                    curves.append(from_prompts(id, np.arange(1, 41), d**2, gold_KQ, gold_KQ))
    return curves


@pytest.mark.parametrize(("right", "verdict"), [(True, "holds"), (False, "fails")])
def test_statements_about_hedges_follow_the_data(right, verdict):
    evidence = Evidence(made(right), draws=2)
    rows = [claim.judge(c, evidence) for c in claim.claims() if c.name in NAMES]
    assert {row["claim"]: row["verdict"] for row in rows} == dict.fromkeys(NAMES, verdict), rows


def test_without_hedges_they_are_not_listed():
    evidence = Evidence([c for c in made(True) if c.method == "bon"], draws=2)
    assert not {c.name for c in claim.claims() if claim.applies(c, evidence)} & set(NAMES)


def points(gold_even, gold_odd):
    return [{"gold_even": a, "gold_odd": b} for a, b in zip(gold_even, gold_odd, strict=True)]


def test_regret_both_ways_by_hand():
    """Best on even prompts is place 1, on odd ones place 2: there gold is lower by 0.5, and by 0.2."""
    assert both_ways(points([0, 2, 1.5, 1], [0, 0.8, 1, 0.5])) == pytest.approx((0.35, 0.75))


def test_figures():
    curves = made(True)
    table = [
        {**c.id.cells(), "kl": kl, "gold": g, "regressional": 2 * g, "gold_even": g, "gold_odd": g}
        for c in curves if c.method == "best_of_poisson" for kl, g in zip(c.kl, c.gold, strict=True)
    ]  # fmt: skip
    files = Files(curves, {}, diagnostics={"best_of_poisson": table_of(table)})
    labels = [text.get_text() for text in inference_methods(files).legends[0].get_texts()]
    assert labels[:4] == ["best-of-n", "soft best-of-n, temperature=0.1", "soft best-of-n, temperature=0.3", "best-of-Poisson"]  # fmt: skip
    solid, dashed = hedged_regret(files).axes[0].lines[:2]
    np.testing.assert_allclose(solid.get_ydata(), 0, atol=1e-12)
    (fall,) = {round(float(x), 1) for x in dashed.get_ydata()}
    assert fall == 0.6
    gold, straight = regressional(files).axes[0].lines[:2]
    np.testing.assert_allclose(straight.get_ydata(), 2 * gold.get_ydata(), atol=0.02)
