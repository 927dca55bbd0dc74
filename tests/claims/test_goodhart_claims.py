"""Kinds of Goodhart: each statement holds in a made-up run where it is so, and fails where the opposite is."""

import numpy as np
import pytest

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.claims import claim
from rmo.claims.evidence import Evidence
from rmo.claims.goodhart import lost
from rmo.report.figures import goodhart_kinds
from rmo.report.figures.drawing import Files

MINE = ("C25", "H54", "H55", "H56", "H57", "H58")
CONFOUNDED = Settings(confounded=0.8)


def causal(slope: float = 0.5, fall: float = 0.0, accuracy: float = -0.1, marked: float | None = 0.3):
    """Best-of-n of two RM sizes and three seeds, unselected and confounded: gold of the latter rises `slope` times as
    fast, and loses `fall` in the last third. Their metrics differ by these."""
    rng, d, curves, rows = np.random.default_rng(0), np.linspace(0, 2.5, 20), [], []
    for params in (100, 1000):
        for recipe in (Settings(), CONFOUNDED):
            for seed in range(3):
                gold = d * (1 if not recipe else slope) * (1 + 0.01 * rng.normal())
                gold = gold - (fall * np.maximum(d - 5 / 3, 0) * 1.2 if recipe else 0)
                noise = 0.01 * rng.normal(size=(len(d), 8))
                id = CurveId("bon", params, 4000, rm_recipe=recipe, seed=seed)
                curves.append(from_prompts(id, np.arange(1, 21), d**2, gold[:, None] + noise, gold[:, None] + noise))
                extra = 0.001 * rng.normal() + bool(recipe) * np.array([accuracy, marked or 0])
                known = {"rm_params": params, "rm_comparisons": 4000, "rm_recipe": recipe, "seed": seed}
                known["marked_preferred"] = None if marked is None else 0.5 + extra[1]
                rows.append({**known, "validation_loss": 0.6, "validation_accuracy": 0.7 + extra[0]})
    return curves, rows


def adversarial(found: bool = True):
    """PPO of three seeds against one RM, without and with a backdoor, which it finds halfway, or never; then gold falls
    off the law."""
    rng, d, curves, rows = np.random.default_rng(1), np.linspace(0.0, 4, 41), [], []
    for coef in (0, 4):
        for seed in range(3):
            gold = d * (1 - 0.5 * np.log(np.maximum(d, 1e-9))) * (1 + 0.01 * rng.normal())
            gold = gold - (3.0 * (d > 2) * np.minimum(d - 2, 0.5) if coef and found else 0)
            noise = 0.01 * rng.normal(size=(len(d), 8))
            id = CurveId("ppo", 1000, 4000, settings=Settings({"backdoor": coef} if coef else {}), seed=seed)
            curves.append(from_prompts(id, np.arange(41), d**2, d[:, None] + noise, gold[:, None] + noise))
            for x in d if coef else ():
                share = np.nan if x == 0 else 0.95 * (found and x > 2) + 0.001
                rows.append({**id.cells(), "kl": x**2, "triggered": float(share)})
    return curves, {"ppo": rows}


def verdicts(evidence: Evidence) -> dict[str, tuple[str, float]]:
    rows = [claim.judge(c, evidence) for c in claim.claims() if c.name in MINE and claim.applies(c, evidence)]
    return {row["claim"]: (row["verdict"], row["statistic"]) for row in rows}


def test_causal_statements_hold_where_gold_is_lower_and_does_not_fall():
    found = verdicts(Evidence(*causal(), draws=2))
    assert {name: verdict for name, (verdict, _) in found.items()} == dict.fromkeys(("C25", "H54", "H55"), "holds")
    assert [statistic for _, statistic in found.values()] == pytest.approx([0, -0.1, 0.3], abs=0.03)


def test_causal_statements_fail_where_gold_falls_and_the_mark_is_not_learned():
    found = verdicts(Evidence(*causal(slope=1.0, fall=3.0, accuracy=0.1, marked=-0.3), draws=2))
    assert {name: verdict for name, (verdict, _) in found.items()} == dict.fromkeys(("C25", "H54", "H55"), "fails")


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
    assert made["H56"][1] == pytest.approx(0.951 if found else 0.001)


def files(curves, health=None) -> Files:
    return Files(curves, {}, [], [], health or {}, {}, {})


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
