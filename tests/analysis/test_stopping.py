"""What to do, from the signs: one piece of advice for each case, in one line."""

from dataclasses import replace

import numpy as np
import pytest

from rmo.analysis.curve import Curve
from rmo.analysis.curve_id import CurveId
from rmo.analysis.stopping import Seen, Signs, forecasts, measured, step_at
from tests.helpers.made_curves import PPO, made

CURVE = Curve(CurveId("ppo"), 10 * np.arange(21.0), np.arange(21.0), np.zeros(21), np.zeros(21))  # KL 20 at step 200
FLAT, FALLS, RISES = Seen(7, 0.1, 0.1, 0.1), Seen(7, 1, 0.8, 0.1), Seen(20, 1, 0, 0.1)
# A peak at KL 8, known to within 4, with points on both sides.
SIGNS = Signs([CURVE], [FLAT], 0.9, 20, 0.1, 8, 6, 10, 0.97, 2, False)


@pytest.mark.parametrize(
    ("changes", "verdict", "kl", "sentence"),
    [
        ({}, "stop", 8,
         "stop at KL 8 (step 80): the probability that gold has turned by KL 20 is 97%, and its peak lies between KL 6 (step 60) and 10 (step 100)"),
        ({"seen": [FALLS, FALLS]}, "stop", 8,
         "stop at KL 8 (step 80): by KL 20 gold has fallen by 0.8 (standard error 0.1), and its peak lies between KL 6 (step 60) and 10 (step 100)"),
        ({"low": 5, "high": 25}, "stop", 8,
         "stop at KL 8 (step 80): the probability that gold has turned by KL 20 is 97%, and its peak lies between KL 5 (step 50) and 25, which reaches past the data (KL 20)"),
        ({"peak": 0, "low": 0, "high": 0.1}, "stop", 0,
         "do not optimise against this proxy: gold falls from the start; the probability that gold has turned by KL 20 is 97%"),
        ({"high": 40, "seen": [FALLS]}, "stop", 7,
         "stop at KL 7 (step 70), where gold was highest: by KL 20 gold has fallen by 0.8 (standard error 0.1), though the fit does not say where its peak is"),
        ({"peak": 0, "low": 0, "high": 0.1, "seen": [RISES]}, "undecided", 0,
         "undecided: gold has probably turned by KL 20 (step 200) (97%); its peak lies at KL 0 (step 0) or beyond: do not optimise further"),
        ({"peak": 30, "low": 25, "high": 35, "turned": 0.1}, "go on", 30,
         "go on to KL 30: the peak lies beyond the data, between KL 25 and 35; the probability that gold has turned by KL 20 is 10%"),
        ({"peak": 30, "low": 25, "high": 44, "turned": 0.1}, "go on", 30,
         "go on to KL 30: the peak lies beyond the data, between KL 25 and 44; the probability that gold has turned by KL 20 is 10%; measure gold again by KL 40: beyond it no forecast held"),
        ({"high": np.inf}, "undecided", 8,
         "undecided: gold has probably turned by KL 20 (step 200) (97%); its peak lies at KL 6 (step 60) or beyond: do not optimise further"),
        ({"peak": np.inf, "high": np.inf, "turned": 0.6}, "undecided", 20,
         "undecided: gold has probably turned by KL 20 (step 200) (60%): do not optimise further"),
        ({"blind": True, "held": 1, "turned": 0.2, "peak": 30}, "undecided", 25,
         "undecided: the data do not show a peak up to KL 20 (step 200) (the probability that gold has turned by KL 20 is 20%); go on to KL 25, measure gold on the way and fit again"),
        ({"r2": -1, "peak": np.inf, "low": np.inf, "high": np.inf, "turned": np.nan}, "undecided", 20,
         "undecided: the form fits worse than a constant (R² -1); as measured, gold was highest at KL 7 (step 70), and by KL 20 gold has fallen by 0.1 (standard error 0.1) since"),
        ({"reach": 0}, "undecided", 0, "undecided: a curve never leaves KL 0: leave it out"),
    ],
)  # fmt: skip
def test_advice(changes, verdict, kl, sentence):
    assert replace(SIGNS, **changes).advice() == (verdict, pytest.approx(kl), sentence)
    assert sentence.count("\n") == 0


def test_best_of_n_is_told_in_n():
    curve = replace(CURVE, id=CurveId("bon"))
    assert replace(SIGNS, curves=[curve]).advice().sentence.startswith("stop at KL 8 (n 80)")


def test_the_step_is_where_the_kl_is_first_passed():
    hovers = replace(CURVE, kl=np.concatenate([np.arange(11.0), 10 - np.arange(10.0)]))
    assert step_at([CURVE, hovers], 10) == 100
    assert step_at([CURVE, hovers], 11) is None  # one never goes there
    assert step_at([CURVE], np.inf) is None
    assert step_at([replace(CURVE, step_or_n=CURVE.step_or_n * np.nan)], 10) is None


def test_measured_without_a_form():
    gold = np.concatenate([np.linspace(0, 1, 11), np.linspace(0.9, 0, 10)])
    seen = measured(replace(CURVE, gold=gold, fall_se=np.full(21, 0.25)))
    assert seen.top == 10
    assert seen.rise == pytest.approx(0.9333, abs=1e-3)  # the mean of three neighbours
    assert seen.fall == pytest.approx(seen.rise - 0.1)
    assert seen.error == 0.25
    assert measured(replace(CURVE, gold=gold, gold_se=np.full(21, 0.3))).error == pytest.approx(0.3 * 2**0.5)
    assert measured(replace(CURVE, gold=gold)).error == pytest.approx(0.1 / 3**0.5)


def test_forecasts_of_the_true_form_hold_and_of_another_do_not():
    curve = made("ppo", 0.9, 0.45)
    assert [row["holds"] for row in forecasts(curve.d, curve.gold, PPO, 0.3)] == [True] * 5
    bend = np.where(curve.kl < 15, curve.gold, curve.gold - (curve.kl - 15) ** 2)
    assert not forecasts(curve.d, bend, PPO, 0.3)[-1]["holds"]
