"""Iterated RLHF: each statement holds in a made-up run where it is so, and fails where the opposite is."""

from dataclasses import replace

import numpy as np
import pytest

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.claims import claim
from rmo.claims.evidence import Evidence
from rmo.report.figures.drawing import Files
from rmo.report.figures.rounds import iterated, predicted
from tests.helpers.tables import table_of

ALPHA, BETA, END = 0.9, 0.4, 5.0
WAYS = {"": 0.0, "data=concatenated": 0.3, "start=initial": 0.3, "data=concatenated start=initial": 0.7}
MINE = [f"H{n}" for n in range(40, 46)]
AGAIN = 0.3  # what a second RM on the same labels brings by itself


def made(sign: float = 1.0, share: float = 1.0, noise: float = 0.01, ways=WAYS, ks=(2, 4)) -> Evidence:
    """PPO and rounds against one RM, three seeds: rounds gain `share` of what the paper predicts beyond one round and,
    with a sign, what Wolf et al. found: less in every later round, and by data and start."""
    rng, curves, d = np.random.default_rng(0), [], np.linspace(0, END, 41)

    def add(method: str, settings: str, gold: np.ndarray, gap: np.ndarray) -> None:
        for seed in range(3):
            own = (1 + noise * rng.normal()) * gold[:, None] + noise * d[:, None] * rng.normal(size=(1, 8))
            id = CurveId(method, 1000, 4000, policy_params=9000, settings=Settings.parse(settings), seed=seed)
            curves.append(from_prompts(id, np.arange(len(d)), d**2, own + gap[:, None], own))

    once = predicted(ALPHA, BETA, 1, END, d)
    add("ppo", "", once, 0.2 * d)
    for k in ks:
        falling = sign * 0.03 * (d - END) * d * (k - 1)  # none at the end
        for way, better in ways.items():
            gold = once + share * (predicted(ALPHA, BETA, k, END, d) - once) - falling
            gold = gold + (sign * better - sign * 0.15 * (k > 2)) * d / END
            add("rounds", f"rounds={k} {way}".strip(), gold, (0.2 - 0.1 * sign) * d)
    return Evidence(curves, draws=2)


def judged(evidence: Evidence, *names: str) -> list[dict]:
    by_name = {c.name: c for c in claim.claims()}
    return [claim.judge(by_name[name], evidence) for name in names]


def test_the_prediction_at_the_end_of_every_round():
    """d(a - b log d) + b d log k at the end of round k, and the rounds before it on the way; by hand for two rounds."""
    d = END * np.arange(1, 5) / 4
    gold = predicted(ALPHA, BETA, 4, END, d)
    np.testing.assert_allclose(gold, d * (ALPHA - BETA * np.log(d)) + BETA * d * np.log([1, 2, 3, 4]), rtol=1e-12)
    np.testing.assert_allclose(np.diff(gold, prepend=0), gold[0], rtol=1e-12)  # each gains as much
    np.testing.assert_allclose(predicted(1.0, 0.5, 2, 2.0, np.array([1.0, 2.0])), [1.0, 2.0])
    half = predicted(1.0, 0.5, 2, 2.0, np.array([1.5]))
    np.testing.assert_allclose(half, 1.0 + 0.5 * (1 - 0.5 * np.log(0.5)))


@pytest.mark.parametrize(
    ("share", "statistic", "verdict"), [(1.0, 0.0, "holds"), (0.6, -0.4, "holds"), (0.0, -1.0, "fails"), (2.0, 1.0, "fails")]
)  # fmt: skip
def test_the_papers_prediction_is_judged_by_the_share_of_its_gain(share, statistic, verdict):
    (row,) = judged(made(sign=0.0, share=share, ways={"": 0.0}), "C22")
    assert row["statistic"] == pytest.approx(statistic, abs=0.1)
    assert row["verdict"] == verdict
    assert row["seeds"] == 3


def test_without_noise_the_prediction_is_met_exactly():
    (row,) = judged(made(sign=0.0, noise=1e-12, ways={"": 0.0}, ks=(2,)), "C22")
    assert row["statistic"] == pytest.approx(0, abs=1e-3)  # lines are read between points


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "fails")])
def test_statements_about_rounds_follow_the_data(sign, verdict):
    rows = judged(made(sign), *MINE)
    assert [row["verdict"] for row in rows] == [verdict] * 6, [(row["claim"], row["statistic"]) for row in rows]
    by_name = {row["claim"]: row["statistic"] for row in rows}
    assert by_name["H41"] == pytest.approx(-0.1 * sign * END, abs=0.1)
    assert by_name["H43"] == pytest.approx(0.35 * sign, abs=0.05)
    assert by_name["H44"] == pytest.approx(0.35 * sign, abs=0.05)
    assert by_name["H45"] == pytest.approx(0.4 if sign > 0 else -0.7, abs=0.05)


def test_equal_gains_are_undecided_and_without_rounds_nothing_is_listed():
    (row,) = judged(made(sign=0.0, ways={"": 0.0}), "H40")
    assert row["statistic"] == pytest.approx(0, abs=0.02)
    assert row["verdict"] == "undecided"
    one_way = made(ways={"": 0.0}, ks=(2,))
    by_name = {c.name: c for c in claim.claims()}
    assert [name for name in MINE if claim.applies(by_name[name], one_way)] == ["H40", "H41"]
    alone = Evidence([c for c in one_way.curves if c.method == "ppo"], draws=2)
    assert [name for name in MINE if claim.applies(by_name[name], alone)] == []
    assert "no runs of 2 or more rounds" in judged(alone, "C22")[0]["why"]


@pytest.mark.parametrize(
    ("better", "h46", "h47"), [(0.6, "holds", "holds"), (0.15, "holds", "fails"), (-0.3, "fails", "fails")]
)
def test_reweighted_labels_are_compared_with_as_many_and_with_new_ones(better, h46, h47):
    """The same labels weighed alike end with `better` less of gold, new ones with half a unit more than these; that
    those too have more than one round is nothing to H46."""
    evidence = made(sign=0.0, share=0.0, noise=1e-3, ways={"": 0.0})
    plain = [c for c in evidence.curves if c.method == "rounds" and c.id.settings["rounds"] == 2]
    alike, reweighted = (Settings(rounds=2, data="reweighted", **more) for more in ({"flatten": 0.0}, {}))
    more = {Settings(rounds=2): 0.5 + AGAIN, reweighted: better + AGAIN, alike: AGAIN}
    curves = [c for c in evidence.curves if c.method == "ppo"]
    for settings, gain in more.items():
        for c in plain:
            assert c.gold_KQ is not None
            gold = c.gold_KQ + gain * (c.d / END)[:, None]
            curves.append(replace(c, id=replace(c.id, settings=settings), gold=gold.mean(1), gold_KQ=gold))
    found = Evidence(curves, draws=2)
    rows = judged(found, "H46", "H47")
    assert [row["statistic"] for row in rows] == pytest.approx([better, better - 0.5], abs=0.03)
    assert [row["verdict"] for row in rows] == [h46, h47]
    assert judged(found, "H40")[0]["n_runs"] == 3  # statements about rounds that label know nothing of them
    without = Evidence([c for c in curves if "flatten" not in c.id.settings], draws=2)
    assert "beside the same weighed alike" in judged(without, "H46")[0]["why"]
    assert judged(without, "H47")[0]["statistic"] == rows[1]["statistic"]
    assert "no runs" in judged(Evidence([c for c in curves if c.id.settings.get("data")], draws=2), "H47")[0]["why"]


def test_without_reweighted_labels_nothing_of_them_is_listed():
    by_name = {c.name: c for c in claim.claims()}
    assert not any(claim.applies(by_name[name], made(ways={"": 0.0}, ks=(2,))) for name in ("H46", "H47"))


def test_one_round_of_the_method_stands_for_ppo():
    """A run that made no PPO but one round by the same method."""
    curves = made(sign=0.0, ways={"": 0.0}).curves
    renamed = [
        replace(c, id=replace(c.id, method="rounds", settings=Settings(rounds=1))) if c.method == "ppo" else c
        for c in curves
    ]
    assert judged(Evidence(renamed, draws=2), "C22")[0]["statistic"] == pytest.approx(0, abs=0.1)


def test_the_figure_has_a_line_per_number_of_rounds_and_per_way():
    evidence = made(noise=1e-3)
    ends = [
        {**c.id.cells(), "kl": (END * r / k) ** 2, "round": float(r)}
        for c in evidence.curves
        if c.method == "rounds"
        for k in [int(c.id.settings.number("rounds"))]
        for r in range(1, k + 1)
    ]
    row = {**evidence.curves[0].id.group.cells(), "alpha": ALPHA, "beta": BETA}
    summary = {"ppo": {"groups": [row]}}
    again = [
        replace(c, id=replace(c.id, settings=Settings(rounds=2, data="reweighted", **more)), gold=c.gold + better)
        for more, better in (({}, 0.2), ({"flatten": 0.0}, -0.2))
        for c in evidence.curves
        if c.id.settings == Settings(rounds=2)
    ]
    left, right = iterated(Files([*evidence.curves, *again], summary, diagnostics={"rounds": table_of(ends)})).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == [
        "1 round", "2 rounds", "4 rounds",
        "2 rounds, first comparisons, reweighted", "2 rounds, first comparisons, all alike",
        "the paper's prediction",
    ]  # fmt: skip
    _, two, _, reweighted, alike = lines = [line for line in left.lines if not line.get_label().startswith("_")]
    assert [line.get_linestyle() for line in lines] == ["-", "-", "-", "--", "-."]
    assert two.get_color() == reweighted.get_color() == alike.get_color()
    assert alike.get_ydata()[-1] < two.get_ydata()[-1] < reweighted.get_ydata()[-1]
    assert sorted(text.get_text() for text in right.get_legend().get_texts()) == sorted(
        f"{data} comparisons, {start}"
        for data in ("latest", "all")
        for start in ("going on", "from the initial policy")
    )
    circles = [line.get_xdata() for line in left.lines if line.get_marker() == "o"]
    assert [len(x) for x in circles] == [0, 2, 4, 0, 0]  # of those that are told of
    np.testing.assert_allclose(np.sqrt(circles[2]), END * np.arange(1, 5) / 4)
    dotted = [line for line in left.lines if line.get_linestyle() == ":"]
    assert dotted[1].get_ydata()[-1] == pytest.approx(END * (ALPHA - BETA * np.log(END / 4)))
