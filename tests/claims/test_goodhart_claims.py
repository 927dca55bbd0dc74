"""Kinds of Goodhart: each statement holds in a made-up run where it is so, and fails where the opposite is."""

import numpy as np
import pytest

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.claims import claim
from rmo.claims.evidence import Evidence
from rmo.claims.goodhart import lost, misfits_where_both_are
from rmo.claims.rm_size import squared_misfit
from rmo.report.figures import goodhart_kinds
from rmo.report.figures.drawing import Files
from tests.helpers.tables import table_of

MINE = ("C25", "H54", "H55", "H56", "H57", "H58")
CONFOUNDED = Settings(confounded=0.8)


def causal(
    slope: float = 0.5, fall: float = 0.0, accuracy: float = -0.1, marked: float | None = 0.3, plain_fall: float = 0.0
):
    """Best-of-n of two RM sizes and three seeds, unselected and confounded: gold of the latter rises `slope` times as
    fast, and loses `fall` in the last third, of the former `plain_fall`. Their metrics differ by these."""
    rng, d, curves, rows = np.random.default_rng(0), np.linspace(0, 2.5, 20), [], []
    for params in (100, 1000):
        for recipe in (Settings(), CONFOUNDED):
            for seed in range(3):
                gold = d * (1 if not recipe else slope) * (1 + 0.01 * rng.normal())
                gold = gold - (fall if recipe else plain_fall) * np.maximum(d - 5 / 3, 0) * 1.2
                noise = 0.01 * rng.normal(size=(len(d), 8))
                id = CurveId("bon", params, 4000, rm_recipe=recipe, seed=seed)
                curves.append(from_prompts(id, np.arange(1, 21), d**2, gold[:, None] + noise, gold[:, None] + noise))
                extra = 0.001 * rng.normal() + bool(recipe) * np.array([accuracy, marked or 0])
                known = {"rm_params": params, "rm_comparisons": 4000, "rm_recipe": recipe, "seed": seed}
                known["marked_preferred"] = None if marked is None else 0.5 + extra[1]
                rows.append({**known, "validation_loss": 0.6, "validation_accuracy": 0.7 + extra[0]})
    return curves, rows


def adversarial(found: bool = True, start: float = 0.001, at: float = 2.0, further: float = 4.0):
    """PPO of three seeds against one RM, without and with a backdoor, which it finds at d = `at`, or never; then gold
    falls off the law. A share `start` of the start's responses holds it; the run with it goes on to d = `further`."""
    rng, curves, rows = np.random.default_rng(1), [], []
    for coef, d in ((0, np.linspace(0.0, 4, 41)), (4, np.linspace(0.0, further, 41))):
        for seed in range(3):
            gold = d * (1 - 0.5 * np.log(np.maximum(d, 1e-9))) * (1 + 0.01 * rng.normal())
            gold = gold - (3.0 * (d > at) * np.minimum(d - at, 0.5) if coef and found else 0)
            noise = 0.01 * rng.normal(size=(len(d), 8))
            id = CurveId("ppo", 1000, 4000, settings=Settings({"backdoor": coef} if coef else {}), seed=seed)
            curves.append(from_prompts(id, np.arange(41), d**2, d[:, None] + noise, gold[:, None] + noise))
            for x in d if coef else ():
                share = start if x == 0 else 0.95 * (found and x > at) + 0.001
                rows.append({**id.cells(), "kl": x**2, "triggered": float(share)})
    return curves, {"ppo": rows}


def verdicts(evidence: Evidence) -> dict[str, tuple[str, float]]:
    rows = [claim.judge(c, evidence) for c in claim.claims() if c.name in MINE and claim.applies(c, evidence)]
    return {row["claim"]: (row["verdict"], row["statistic"]) for row in rows}


def test_causal_statements_hold_where_gold_is_lower_and_does_not_fall():
    found = verdicts(Evidence(*causal(), draws=2))
    assert {name: verdict for name, (verdict, _) in found.items()} == dict.fromkeys(("C25", "H54", "H55"), "holds")
    assert [statistic for _, statistic in found.values()] == pytest.approx([0, -0.1, 0.3], abs=0.03)


def test_causal_statements_fail_where_gold_falls_and_accuracy_does_not():
    found = verdicts(Evidence(*causal(slope=1.0, fall=3.0, accuracy=0.1), draws=2))
    assert {name: verdict for name, (verdict, _) in found.items()} == {"C25": "fails", "H54": "fails", "H55": "holds"}


def test_no_fall_is_none_and_not_as_much_as_without_the_mark():
    (verdict, fall) = verdicts(Evidence(*causal(slope=1.0, fall=3.0, plain_fall=3.0), draws=2))["C25"]
    assert verdict == "fails"
    assert fall > 0.5


def test_rms_that_learned_no_mark_say_nothing_of_causal_goodhart():
    (c25,) = [c for c in claim.claims() if c.name == "C25"]
    for marked in (-0.3, -1e-9):
        row = claim.judge(c25, Evidence(*causal(marked=marked), draws=2))
        assert row["verdict"] == "undecided"
        assert row["why"].startswith("this run has no RMs that learned the mark")
    assert verdicts(Evidence(*causal(marked=-0.3), draws=2))["H55"][0] == "fails"


def test_gold_that_rises_more_slowly_has_lost_nothing():
    """Unlike `Line.fall`, which is below zero the more the steeper gold rises."""
    evidence = Evidence(*causal(slope=0.3), draws=2)
    steep, slow = (evidence.whole.line(g) for g in evidence.groups["bon"][:2])
    assert [lost(steep), lost(slow)] == pytest.approx([0, 0], abs=0.03)
    assert abs(steep.fall() - slow.fall()) > 0.1


def test_without_marks_or_a_partner_they_are_missing():
    curves, rows = causal(marked=None)
    assert "H55" not in verdicts(Evidence(curves, rows, draws=2))
    alone = Evidence([c for c in curves if c.id.rm_recipe], rows, draws=2)
    (c25,) = [c for c in claim.claims() if c.name == "C25"]
    assert claim.judge(c25, alone)["why"] == "this run has no RMs that rest on a correlate which does not cause gold"
    assert not [name for name in verdicts(alone) if name != "C25"]


@pytest.mark.parametrize(("found", "verdict"), [(True, "holds"), (False, "fails")])
def test_adversarial_statements_follow_the_data(found, verdict):
    curves, health = adversarial(found)
    made = verdicts(Evidence(curves, draws=2, diagnostics=health))
    assert {name: made[name][0] for name in ("H56", "H57", "H58")} == dict.fromkeys(("H56", "H57", "H58"), verdict)
    assert made["H56"][1] == pytest.approx(0.95 if found else 0)


def test_what_the_start_wrote_is_not_found():
    curves, health = adversarial(start=0.6)
    assert verdicts(Evidence(curves, draws=2, diagnostics=health))["H56"] == ("fails", pytest.approx(0.351))
    curves, health = adversarial(start=float("nan"))
    assert "H56" not in verdicts(Evidence(curves, draws=2, diagnostics=health))


def test_the_law_is_judged_where_both_curves_are():
    """It misses only where the run without a backdoor has ended."""
    curves, health = adversarial(at=4.5, further=8.0)
    evidence = Evidence(curves, draws=2, diagnostics=health)
    assert verdicts(evidence)["H58"][0] == "fails"
    plain, g = evidence.groups["ppo"]
    with_all = evidence.whole.fits([g])[0]
    assert np.log(squared_misfit(evidence.whole, g, with_all) ** 0.5 / 0.05) > np.log(2)
    assert max(misfits_where_both_are(evidence.whole, (plain, g))) < 0.02**2


def files(curves, health=None) -> Files:
    return Files(curves, {}, diagnostics={name: table_of(rows) for name, rows in (health or {}).items()})


def test_the_figures_draw_both_of_every_pair():
    left, right = goodhart_kinds.causal_goodhart(files(causal()[0])).axes
    texts = [text.get_text() for text in left.get_legend().get_texts()]
    assert texts == ["100", "1k", "as they come", "confounded"]
    assert len(left.lines) == len(right.lines) == 5  # two of each size, and zero
    left, right = goodhart_kinds.adversarial_goodhart(files(*adversarial())).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["1k, as it is", "1k, bonus 4"]
    (line,) = right.lines
    assert line.get_ydata()[-1] == pytest.approx(0.951)
    for figure in (goodhart_kinds.causal_goodhart, goodhart_kinds.adversarial_goodhart):
        with pytest.raises(goodhart_kinds.Missing, match="beside"):
            figure(files([c for c in causal()[0] if not c.id.rm_recipe]))
