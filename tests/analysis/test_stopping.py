"""What to do, from the signs: one piece of advice for each case, in one line."""

from dataclasses import replace

import numpy as np
import pytest

from rmo.analysis import scaling
from rmo.analysis.curve import Curve
from rmo.analysis.curve_id import CurveId
from rmo.analysis.measured import Measured, Smooth
from rmo.analysis.next_read import NextRead
from rmo.analysis.stopping import Signs, forecasts, step_at
from tests.helpers.made_curves import PPO, made

CURVE = Curve(CurveId("ppo"), 10 * np.arange(21.0), np.arange(21.0), np.zeros(21), np.zeros(21))  # KL 20 at step 200


def seen(top: float, rise: float, fall: float, error: float = 0.1, own: bool = True) -> Measured:
    """Gold that rises in a straight line from 0 to its top and falls in one; `error` is that of a difference."""
    gold = np.interp(CURVE.kl, [0, top, 20], [0, rise, rise - fall]) if top else -fall * CURVE.kl / 20
    one = np.full(21, error / 2**0.5)
    return Measured(CURVE.kl, gold, one, np.full(21, error), Smooth(gold, np.diag(one**2), one), own)


SOME, FALLS, RISES, DOWN = seen(7, 0.15, 0.15), seen(7, 1, 0.8), seen(20, 1, 0), seen(0, 0, 0.25)
# A peak at KL 8, known to within 4, with points on both sides.
SIGNS = Signs([CURVE], SOME, 0.9, 20, 0.1, 8, 6, 10, 0.97, 2, False)


@pytest.mark.parametrize(
    ("changes", "verdict", "kl", "sentence"),
    [
        ({}, "stop", 8,
         "stop at KL 8 (step 80): the probability that gold has turned by KL 20 is 97%, and its peak lies between KL 6 (step 60) and 10 (step 100)"),
        ({"seen": FALLS}, "stop", 8,
         "stop at KL 8 (step 80): by KL 20 gold has fallen by 0.8 (standard error 0.1), and its peak lies between KL 6 (step 60) and 10 (step 100)"),
        ({"low": 5, "high": 25}, "stop", 8,
         "stop at KL 8 (step 80): the probability that gold has turned by KL 20 is 97%, and its peak lies between KL 5 (step 50) and 25, which reaches past the data (KL 20)"),
        ({"seen": FALLS, "peak": 12, "high": 14}, "stop", 8,
         "stop at KL 8 (step 80): by KL 20 gold has fallen by 0.8 (standard error 0.1), and its peak lies between KL 6 (step 60) and 14 (step 140); the fit has it at KL 12, where gold was read below its highest"),
        ({"seen": FALLS, "peak": 2, "low": 1, "high": 3}, "stop", 7,
         "stop at KL 7 (step 70), where gold was highest: by KL 20 gold has fallen by 0.8 (standard error 0.1); this follows the measurement, not the fit: at the fitted peak, KL 2 (step 20), measured gold is lower by 0.71 (standard error 0.1)"),
        ({"seen": DOWN, "peak": 0, "low": 0, "high": 0.1}, "stop", 0,
         "do not optimise against this proxy: gold falls from the start; the probability that gold has turned by KL 20 is 97%; measured gold has fallen by 0.25 (standard error 0.1) since KL 0 (step 0), though the highest of 21 reads is high by chance too"),
        ({"high": 40, "seen": FALLS}, "stop", 7,
         "stop at KL 7 (step 70), where gold was highest: by KL 20 gold has fallen by 0.8 (standard error 0.1), though the fit does not say where its peak is"),
        ({"peak": 0, "low": 0, "high": 0.1, "seen": RISES}, "undecided", 0,
         "undecided: gold has probably turned by KL 20 (step 200) (97%); its peak lies at KL 0 (step 0) or beyond: do not optimise further"),
        ({"turned": 0.9}, "undecided", 8,  # the fit alone is not sure enough
         "undecided: gold has probably turned by KL 20 (step 200) (90%); its peak lies at KL 6 (step 60) or beyond: do not optimise further"),
        ({"peak": 30, "low": 25, "high": 35, "turned": 0.1, "seen": RISES}, "go on", 30,
         "go on to KL 30: the peak lies beyond the data, between KL 25 and 35; the probability that gold has turned by KL 20 is 10%"),
        ({"peak": 30, "low": 25, "high": 44, "turned": 0.1, "seen": RISES}, "go on", 30,
         "go on to KL 30: the peak lies beyond the data, between KL 25 and 44; the probability that gold has turned by KL 20 is 10%; measure gold again by KL 40: beyond it no forecast held"),
        ({"peak": 30, "low": 25, "high": 35, "turned": 0.1, "seen": FALLS}, "stop", 7,  # the fit says: go on
         "stop at KL 7 (step 70), where gold was highest: by KL 20 gold has fallen by 0.8 (standard error 0.1), though the fit does not say where its peak is"),
        ({"high": np.inf}, "undecided", 8,
         "undecided: gold has probably turned by KL 20 (step 200) (97%); its peak lies at KL 6 (step 60) or beyond: do not optimise further"),
        ({"peak": np.inf, "high": np.inf, "turned": 0.6}, "undecided", 20,
         "undecided: gold has probably turned by KL 20 (step 200) (60%): do not optimise further"),
        ({"high": np.inf, "seen": seen(7, 1, 0.25)}, "undecided", 8,
         "undecided: gold has probably turned by KL 20 (step 200) (97%); its peak lies at KL 6 (step 60) or beyond: do not optimise further; measured gold has fallen by 0.25 (standard error 0.1) since KL 7 (step 70), though the highest of 21 reads is high by chance too"),
        ({"high": np.inf, "seen": seen(7, 1, 0.25, own=False)}, "undecided", 8,
         "undecided: gold has probably turned by KL 20 (step 200) (97%); its peak lies at KL 6 (step 60) or beyond: do not optimise further; measured gold has fallen by 0.25 (standard error 0.1, from the scatter) since KL 7 (step 70), though the highest of 21 reads is high by chance too"),
        ({"blind": True, "held": 1, "turned": 0.2, "peak": 30}, "undecided", 25,
         "undecided: the data do not show a peak up to KL 20 (step 200) (the probability that gold has turned by KL 20 is 20%); go on to KL 25, measure gold on the way and fit again"),
        ({"blind": True, "held": 1, "turned": 0.2, "peak": 30, "next": NextRead(25, 4, 0.6, False)}, "undecided", 25,
         "undecided: the data do not show a peak up to KL 20 (step 200) (the probability that gold has turned by KL 20 is 20%); go on to KL 25, measure gold on the way and fit again; gold read at KL 25 with 4 times the samples of a read so far would decide most (60% of the doubt)"),
        ({"high": np.inf, "next": NextRead(20, 1, 0.9, True)}, "undecided", 8,
         "undecided: gold has probably turned by KL 20 (step 200) (97%); its peak lies at KL 6 (step 60) or beyond: do not optimise further; gold read at KL 20 (step 200) with as many samples as so far would decide, if it comes out as expected"),
        ({"r2": -1, "peak": np.inf, "low": np.inf, "high": np.inf, "turned": np.nan}, "undecided", 20,
         "undecided: the form fits worse than a constant (R² -1); as measured, gold was highest at KL 7 (step 70), and by KL 20 gold has fallen by 0.15 (standard error 0.1)"),
        ({"r2": -1, "peak": np.inf, "low": np.inf, "high": np.inf, "turned": np.nan, "seen": RISES}, "undecided", 20,
         "undecided: the form fits worse than a constant (R² -1); as measured, gold was highest at KL 20 (step 200), and it has not fallen by KL 20"),
        ({"reach": 0}, "undecided", 0, "undecided: a curve never leaves KL 0: leave it out"),
    ],
)  # fmt: skip
def test_advice(changes, verdict, kl, sentence):
    said = replace(SIGNS, **changes).advice()
    assert (said.verdict, said.kl, said.sentence) == (verdict, pytest.approx(kl), sentence)
    assert sentence.count("\n") == 0
    assert said.follows == (
        "neither" if verdict == "undecided" else "measurement" if "where gold was highest" in sentence else "fit"
    )


def advised(kl, gold, gold_se=None, method="ppo"):
    """The advice on one run."""
    curve = Curve(CurveId(method), 10.0 * np.arange(len(kl)), kl, gold * np.nan, gold - gold[0], gold_se=gold_se)
    (group,) = scaling.summarise([curve], 400, rank_draws=1)[method]["groups"]
    return group["advice"]


@pytest.mark.parametrize("seed", range(5))
def test_a_fit_that_peaks_where_gold_was_measured_far_below_its_highest_is_not_followed(seed):
    """Gold rises to 1.2 at KL 1.2 and decays to -1: the form's best fit peaks near KL 0.6, at 0.7 of it."""
    kl = 9.5 * np.linspace(0, 1, 51) ** 1.37
    truth = np.where(kl < 1.2, kl**0.6 * 1.2 ** (1 - 0.6), 2.2 * np.exp(-(kl - 1.2) / 3) - 1)
    gold = truth + 0.03 * np.random.default_rng(seed).normal(size=51)
    found = advised(kl, gold)
    assert found["verdict"] == "stop"
    assert found["follows"] == "measurement"
    assert 0.9 < found["kl"] < 1.6
    assert np.interp(found["kl"], kl, gold) > gold.max() - 2 * 0.03
    assert found["fell_by"] == pytest.approx(truth.max() - truth[-1], abs=4 * found["fell_se"])


def test_a_fall_by_the_files_own_errors_is_said_where_the_fit_is_undecided():
    n = 2.0 ** np.arange(11)
    kl = np.log(n) - (n - 1) / n
    gold = np.array([0, 0.2, 0.34, 0.38, 0.45, 0.52, 0.48, 0.54, 0.48, 0.5, 0.45])
    found = advised(kl, gold, np.full(11, 0.02), "bon")
    assert found["verdict"] == "undecided"
    assert "; measured gold has fallen by 0.09 (standard error 0.03) since KL 3.86 (n 70)" in found["sentence"]
    unsure = advised(kl, gold, np.full(11, 0.045), "bon")  # 0.09 is 1.4 errors
    assert "measured gold has fallen" not in unsure["sentence"]


def test_the_next_read_is_in_the_advice_where_it_is_undecided():
    kl = np.linspace(0, 3, 16) ** 2
    gold = 0.8 * kl**0.5 + 0.1 * np.random.default_rng(0).normal(size=16)
    found = advised(kl, gold, np.full(16, 0.1))
    read = found["next_read"]
    assert found["verdict"] == "undecided"
    assert f"gold read at KL {read['kl']:.3g}" in found["sentence"]
    assert ("times the samples" in found["sentence"]) == (read["times"] > 1)
    falls = advised(kl, 3 - 3 * (kl**0.5 - 1.5) ** 2, np.full(16, 0.05))
    assert (falls["verdict"], falls["next_read"]) == ("stop", None)


def test_best_of_n_is_told_in_n():
    curve = replace(CURVE, id=CurveId("bon"))
    assert replace(SIGNS, curves=[curve]).advice().sentence.startswith("stop at KL 8 (n 80)")


def test_the_step_is_where_the_kl_is_first_passed():
    hovers = replace(CURVE, kl=np.concatenate([np.arange(11.0), 10 - np.arange(10.0)]))
    assert step_at([CURVE, hovers], 10) == 100
    assert step_at([CURVE, hovers], 11) is None  # one never goes there
    assert step_at([CURVE], np.inf) is None
    assert step_at([replace(CURVE, step_or_n=CURVE.step_or_n * np.nan)], 10) is None
    assert step_at([replace(CURVE, step_or_n=CURVE.step_or_n / 7)], 10) is None  # coefficients are no steps


def test_forecasts_of_the_true_form_hold_and_of_another_do_not():
    curve = made("ppo", 0.9, 0.45)
    assert [row["holds"] for row in forecasts(curve.d, curve.gold, PPO, 0.3)] == [True] * 5
    bend = np.where(curve.kl < 15, curve.gold, curve.gold - (curve.kl - 15) ** 2)
    assert not forecasts(curve.d, bend, PPO, 0.3)[-1]["holds"]
