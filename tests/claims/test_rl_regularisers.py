"""RL regularised and stopped: each statement holds in a made-up run where it is so, and fails where the opposite is."""

import numpy as np
import pytest

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.claims import claim
from rmo.claims.evidence import Evidence
from rmo.report.figures import regularisers as figures
from rmo.report.figures.drawing import Files
from tests.helpers.tables import table_of

MINE = {f"H{i}" for i in range(10, 20)}
END = 4.0


def peaked(d, top=2.0):
    """Gold that is highest, 1, at d = `top`."""
    return d / top * (2 - d / top)


def made(better: float = 0.0, peaks=(2.0, 2.0, 2.0), faded: float = 2.0, kinds=("chi2_coef", "length_coef", "bounded")):
    """PPO of three RM sizes and seeds; beside it, against the second, everything else, with so much more gold. The proxy
    gains a tenth from d = `faded` on."""
    rng, d, curves = np.random.default_rng(0), np.linspace(0, END, 33), []

    def add(method, params, top, lift=0.0, end=END, **settings):
        own = d * end / END
        for seed in range(3):
            gold = peaked(own, top) * (1 + 0.01 * rng.normal()) + lift * own / end
            proxy = np.minimum(own, faded) + 0.1 * np.maximum(own - faded, 0)
            noise = 0.01 * rng.normal(size=(len(d), 8))
            id = CurveId(method, params, 4000, settings=Settings(settings), seed=seed)
            curves.append(from_prompts(id, np.arange(33), own**2, proxy[:, None] + noise, gold[:, None] + noise))

    for params, top in zip((100, 1000, 10_000), peaks, strict=True):
        add("ppo", params, top)
    for kind in kinds:
        add("ppo", 1000, peaks[1], better, end=2.0 if kind == "chi2_coef" else END, **{kind: 0.5})
    for method in ("rloo", "grpo", "weight_average"):
        add(method, 1000, peaks[1], better, **({"responses": 8} if method == "rloo" else {}))
    return curves


def verdicts(curves, names=MINE) -> dict[str, str]:
    evidence = Evidence(curves, draws=2)
    return {c.name: claim.judge(c, evidence)["verdict"] for c in claim.claims() if c.name in names}


@pytest.fixture(scope="module")
def alike():
    """As the statements have it, where nothing else changes gold at a given KL."""
    return verdicts(made())


def test_what_stops_early_and_changes_nothing_else_holds(alike):
    assert {name: alike[name] for name in ("H10", "H11", "H12", "H13", "H14")} == dict.fromkeys(
        ("H10", "H11", "H12", "H13", "H14"), "holds"
    )
    assert alike["H15"] == "holds"  # the penalised run ends at the peak, the other goes on to 0
    assert alike["H18"] == alike["H19"] == "holds"


@pytest.mark.parametrize("sign", [1, -1])
def test_what_changes_gold_at_a_given_kl_fails(sign):
    found = verdicts(made(better=sign * 0.9))
    assert {found[name] for name in ("H10", "H11", "H12", "H13", "H14")} == {"fails"}
    assert {found[name] for name in ("H16", "H17")} == {"holds" if sign > 0 else "fails"}


def test_a_penalty_that_keeps_no_gold_fails():
    assert verdicts(made(peaks=(4.0, 4.0, 4.0)), {"H15"}) == {"H15": "fails"}  # nothing is lost without it


def test_rules_that_stop_far_from_the_peak_fail():
    assert verdicts(made(faded=0.5), {"H18"}) == {"H18": "fails"}
    assert verdicts(made(peaks=(1.0, 3.9, 1.0)), {"H19"}) == {"H19": "fails"}


def test_without_such_runs_they_are_not_listed():
    curves = [c for c in made() if c.method == "ppo" and not c.id.settings]
    evidence = Evidence(curves, draws=2)
    assert {c.name for c in claim.claims() if claim.applies(c, evidence)} & MINE == {"H18", "H19"}


def files(curves, **more) -> Files:
    return Files(curves, {}, diagnostics={name: table_of(rows) for name, rows in more.items()})


def test_the_figure_draws_everything_beside_ppo():
    left, right = figures.regularisers(files(made())).axes
    texts = [text.get_text() for text in left.get_legend().get_texts()]
    assert texts == ["as it stands", "bounded=0.5", "chi2_coef=0.5", "length_coef=0.5", "gold", "proxy"]
    texts = [text.get_text() for text in right.get_legend().get_texts()]
    assert texts == ["PPO", "RLOO responses=8", "GRPO", "weight average", "gold", "proxy"]
    with pytest.raises(figures.Missing, match="no RL with a regulariser"):
        figures.regularisers(files([c for c in made() if c.method == "ppo" and not c.id.settings]))


def test_the_figure_of_stops_shows_what_each_rule_loses():
    curves = made(peaks=(1.8, 2.0, 2.2))
    rows = [
        {**c.id.cells(), "kl": kl, "entropy": 2 - kl**0.5 / 2, "length": 10.0}
        for c in curves
        if c.method == "ppo" and not c.id.settings
        for kl in c.kl
    ]
    left, right = figures.stopping_without_gold(files(curves, ppo=rows)).axes
    assert [label.get_text() for label in right.get_yticklabels()] == [
        "proxy's gain",
        "others' peaks",
        "entropy",
        "length",
    ]
    lost = [float(line.get_xdata()[0]) for line in right.lines if len(line.get_xdata()) == 1]
    assert max(lost[:3]) < 0.1
    assert lost[3] == pytest.approx(1, abs=0.25)  # length never moved: it went on to the end
    stopped = left.lines[1].get_ydata()
    np.testing.assert_allclose(stopped, 2.0**2, atol=1.2)
