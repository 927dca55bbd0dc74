"""Verdicts respond to data: for every claim a world in which it holds, one in which it fails, and too few seeds."""

import ast
import importlib
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from rmo.analysis.curve import forward, from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.analysis.sweeps import Missing
from rmo.claims import claim, rm_data
from rmo.claims.claim import claims, judge, of_the_paper
from rmo.claims.evidence import Evidence, View
from rmo.methods.paper import BEST_OF_N
from rmo.report.page.verdicts import count_verdicts
from rmo.runtime.types import Row

SIZES = (500, 1000, 5000, 20_000, 100_000)
DATA = (250, 1000, 2000, 8000, 36_000)
Q, BIG, SMALL = 24, 90_000, 20_000
PLAIN = Settings()
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Truth:
    """What is true of a made-up run. l is log10(RM size / 1000), c a share of the comparisons' decades, d sqrt(KL)."""

    bon_a: tuple[float, float] = (0.5, 0.1)  # at l = 0, per decade
    bon_b: tuple[float, float] = (0.2, -0.03)
    rl_a: tuple[float, float] = (0.9, 0.0)
    rl_b: tuple[float, float] = (0.45, -0.06)
    u_law: float = 0.0  # of (l - 0.85)^2 in every coefficient: no line in l
    wave: float = 0.0  # of gold about the forms
    late_bon: float = 0.0  # a turn that only shows beyond 60% of the KL range
    late_rl: float = 0.0
    proxy_a: float = 1.5
    proxy_bend: float = 0.02
    proxy_late: float = 0.01  # of d^3
    rl_proxy_a: float = 0.4
    rl_proxy_late: float = 0.002
    proxy_turns: float = 0.0
    data_gain: float = 0.3  # share of gold lost per decade of comparisons missing
    data_fall: float = 0.05  # more beta of RL per decade of comparisons missing
    small_gain: float = 0.05  # share of the full gain in loss below 2,000 comparisons
    size_helps_early: bool = False
    size_helps_late: float = 0.02
    tiny_accuracy: float = 0.51
    epochs: float = 0.0  # share of the gain of unique data that repeated data give
    unique: float = 0.3
    loss_is_gold: bool = False  # validation loss is a function of gold, whatever the size
    loss_explains: bool = True
    big_gain: float = -0.1
    big_start: float = 0.3
    big_peak: float = 1.0  # factor on d of RL's peak
    big_gap: float = 1.0
    big_steps: float = 0.8  # factor on d at equal steps
    exponent: float = 2.0  # of KL in steps
    tight: float = 1.0  # exponent of the winners' KL in the bound
    first_gap: float = 0.0
    penalty_gold: float = 0.0
    penalty_proxy: float = 0.3
    lr_effect: float = 0.3
    rounds: float = 1.0
    causal_fall: float = 0.0


def make(t: Truth, seeds: int = 3) -> Evidence:
    curves, rows = [], []

    def add(method, gold, proxy, seed, p, c=DATA[-1], policy=SMALL, kl=None, step=None, recipe=PLAIN, **settings):
        rng = np.random.default_rng(len(curves))
        kl = np.linspace(0, 9 if method == "bon" else 36, 31) if kl is None else kl
        d = np.sqrt(kl)
        id = CurveId(method, p, c, recipe, "", policy, Settings(settings), seed)
        tilt = 1 + 0.002 * rng.normal()
        table = lambda f: (f(d) * tilt)[:, None] + 0.01 * d[:, None] * rng.normal(size=(1, Q))
        step = np.arange(1, len(kl) + 1) if step is None else step
        curve = from_prompts(id, step, kl, table(proxy), table(gold))
        given = np.repeat((kl**t.tight)[:, None], Q, 1) * (1 + 0.001 * rng.normal(size=(1, Q)))
        curves.append(replace(curve, kl_given=given.mean(1), kl_given_KQ=given) if method == "bon" else curve)

    level = lambda p: np.log10(p / 1000)
    missing = lambda c: np.log10(DATA[-1] / c)
    bon_proxy = lambda d: t.proxy_a * d - t.proxy_bend * d**2 + t.proxy_late * d**3
    rl_proxy = lambda d: t.rl_proxy_a * d + t.rl_proxy_late * d**3 - t.proxy_turns * np.maximum(d - 4, 0) ** 2

    def bon_gold(p, c=DATA[-1], scale=1.0):
        a, b = (x[0] + x[1] * level(p) + t.u_law * (level(p) - 0.85) ** 2 for x in (t.bon_a, t.bon_b))
        late = lambda d: t.late_bon * np.maximum(d - 9**0.5 * 0.6**0.5, 0) ** 2
        return lambda d: (
            scale * (1 - t.data_gain * missing(c)) * (d * (a - b * d) + late(d) + t.wave * np.sin(5 * d) * d)
        )

    def rl_gold(p, c=DATA[-1], scale=1.0, stretch=1.0):
        a = t.rl_a[0] + t.rl_a[1] * level(p)
        b = t.rl_b[0] + t.rl_b[1] * level(p) + t.u_law * (level(p) - 0.85) ** 2 + t.data_fall * missing(c)
        late = lambda d: t.late_rl * np.maximum(d - 6 * 0.6**0.5, 0) ** 2
        form = lambda d: (
            d * (a - b * np.log(np.maximum(d, 1e-9))) + t.wave * np.sin(3 * d) * d - t.first_gap * d * np.exp(-d)
        )
        return lambda d: scale * (1 - t.data_gain * missing(c)) * (form(d / stretch) + late(d))

    steps = lambda factor=1.0: 10 * (np.linspace(0, 36, 31) ** (1 / t.exponent)) / factor
    for s in range(seeds):
        for p in SIZES:
            add("bon", bon_gold(p), bon_proxy, s, p)
            add("ppo", rl_gold(p), rl_proxy, s, p, step=steps())
            for c in DATA[:-1]:
                noise = 0.0 if t.loss_explains else 0.5 * level(p)
                add("bon", bon_gold(p, c, 1 + noise), bon_proxy, s, p, c)
            peak_few = 1 - t.data_gain * missing(2000)
            more = 1 - t.data_gain * missing(8000)
            scale = (peak_few + t.epochs * (more - peak_few)) / peak_few
            add("bon", bon_gold(p, 2000, scale), bon_proxy, s, p, 2000, recipe=Settings(epochs=4))
        for c in DATA[1:-1]:
            add("ppo", rl_gold(1000, c), rl_proxy, s, 1000, c, step=steps())
        for p in (SIZES[1], SIZES[-1]):
            add("bon", bon_gold(p, scale=1 + t.big_gain), bon_proxy, s, p, policy=BIG)
            gold = rl_gold(p, scale=1 + t.big_gain, stretch=t.big_peak)
            shift = lambda d, gold=gold, p=p: gold(d) + t.big_gap * (rl_proxy(d) - rl_gold(p)(d))
            add("ppo", gold, shift, s, p, policy=BIG, step=steps(t.big_steps))
        p = SIZES[3]
        gold, proxy = rl_gold(p), rl_proxy
        lifted = lambda f, x: lambda d: f(d) + x * np.minimum(d, 1)
        for coef in (0.05, 0.2):
            add("ppo", lifted(gold, t.penalty_gold), lifted(proxy, t.penalty_proxy), s, p, step=steps(), kl_coef=coef)
            there = lifted(gold, t.penalty_gold + t.lr_effect)
            add("ppo", there, lifted(proxy, t.penalty_proxy), s, p, step=steps(), kl_coef=coef, lr_scale=2)
        add("ppo", gold, proxy, s, p, step=steps(), lr_scale=2)
        b = t.rl_b[0] + t.rl_b[1] * level(p)
        iterated = lambda d, gold=gold, b=b: gold(d) + t.rounds * b * d * np.log(2)
        add("rounds", iterated, rl_proxy, s, p, step=steps(), rounds=2)
        causal = lambda d: 0.3 * d - t.causal_fall * np.maximum(d - 1.5, 0) ** 2
        add("bon", causal, bon_proxy, s, p, recipe=Settings(confounded=0.8))
        rng = np.random.default_rng(100 + s)
        for p in (50, *SIZES):
            for c in DATA:
                share = 1.0 if c == DATA[-1] else t.small_gain * c / 1000 if c < 2000 else 0.5 * (c / 8000) ** 0.3
                if t.size_helps_early and c < 2000:
                    share = 0.5 if level(p) > 0.5 else 0.002
                full = 0.1 if not t.loss_explains else 0.1 + t.size_helps_late * (level(p) + 0.4)
                loss = np.log(2) - max(full * share, 0) + 1e-5 * rng.normal()
                if t.loss_is_gold and p != 50:
                    loss = 0.6 - 0.05 * float(bon_gold(p, c)(3.0))
                accuracy = t.tiny_accuracy if p == 50 else 0.7
                rows.append({"rm_params": p, "rm_comparisons": c, "rm_recipe": PLAIN, "seed": s, "validation_loss": loss,
                             "validation_accuracy": accuracy + 1e-4 * rng.normal()})  # fmt: skip
        for recipe, marked in ((PLAIN, 0.5), (Settings(confounded=0.8), 0.7)):
            rows.append({"rm_params": SIZES[3], "rm_comparisons": DATA[-1], "rm_recipe": recipe, "seed": s,
                         "validation_loss": None, "marked_preferred": marked + 1e-3 * rng.normal()})  # fmt: skip
    noise = np.random.default_rng(7).normal(size=Q)
    starts = {SMALL: np.zeros(Q), BIG: t.big_start + 0.01 * (noise - noise.mean())}
    return Evidence(curves, rows, starts, draws=60)


# claim -> (what makes it true beside the defaults, what breaks it)
CASES: dict[str, tuple[dict, dict]] = {
    "C1a": ({}, {"bon_b": (-0.1, 0.0)}),
    "C1b": ({}, {"rl_b": (-0.1, 0.0)}),
    "C1c": ({}, {"proxy_turns": 0.5}),
    "C2a": ({}, {"wave": 0.5}),
    "C2b": ({}, {"wave": 0.5}),
    "C2c": ({}, {"late_bon": 3.0}),
    "C2d": ({}, {"late_rl": 3.0}),
    "C3a": ({}, {"bon_a": (0.5, -0.1)}),
    "C3b": ({}, {"bon_b": (0.2, 0.05)}),
    "C3c": ({}, {"rl_b": (0.3, 0.05)}),
    "C3d": ({}, {"rl_a": (0.9, 0.4)}),
    "C3e": ({}, {"bon_a": (0.5, 0.0), "bon_b": (0.2, 0.0), "rl_b": (0.45, 0.0), "u_law": 0.2}),
    "C4a": ({}, {"bon_a": (0.5, -0.1), "bon_b": (0.2, 0.0)}),
    "C4b": ({}, {"wave": 0.2}),
    "C5a": ({}, {"proxy_bend": 0.3}),
    "C5b": ({}, {"proxy_late": -0.05}),
    "C5c": ({}, {"rl_proxy_late": -0.002}),
    "C5d": ({}, {"proxy_late": 0.3, "rl_proxy_late": 0.3}),
    "C6": ({}, {"tiny_accuracy": 0.7}),
    "C7a": ({}, {"data_gain": -0.3}),
    "C7b": ({}, {"data_gain": -0.3, "data_fall": 0.0}),
    "C7c": ({}, {"data_gain": -0.3}),
    "C7d": ({"data_gain": 0.0}, {"data_gain": 0.0, "data_fall": -0.05}),
    "C8a": ({}, {"small_gain": 0.4}),
    "C8b": ({}, {"size_helps_early": True}),
    "C8c": ({}, {"size_helps_late": -0.02}),
    "C9a": ({}, {"epochs": 1.0, "bon_a": (0.9, 0.1)}),
    "C9b": ({}, {"data_gain": -0.3}),
    "C10": ({"loss_is_gold": True}, {"loss_explains": False}),
    "C11a": ({}, {"big_gain": 0.2}),
    "C11b": ({}, {"big_gain": 0.2}),
    "C11c": ({}, {"big_start": -0.3}),
    "C12": ({"rl_b": (0.45, 0.0)}, {"rl_b": (0.45, 0.0), "big_peak": 1.6}),
    "C13": ({"big_gain": 0.0}, {"big_gap": 2.0}),
    "C14": ({}, {"big_steps": 1.3}),
    "C15a": ({}, {"rl_a": (0.5, 0.0), "rl_b": (0.5, 0.0), "bon_b": (0.1, 0.0)}),
    "C15b": ({}, {"rl_proxy_a": 3.0}),
    "C16a": ({}, {"tight": 0.7}),
    "C16b": ({}, {"exponent": 1.0}),
    "C17a": ({"rl_proxy_a": 1.5, "first_gap": 3.0}, {}),
    "C17b": ({}, {"rl_a": (0.1, 0.0), "rl_b": (0.3, 0.0)}),
    "C18": ({}, {"rl_proxy_a": 1.5, "rl_proxy_late": 0.01, "proxy_bend": 0.02}),
    "C19": ({}, {"penalty_gold": 0.5}),
    "C20a": ({}, {"penalty_proxy": -0.3}),
    "C20b": ({}, {"penalty_gold": 0.8}),
    "C21": ({}, {"lr_effect": 0.0}),
    "C22": ({}, {"rounds": 0.0}),
    "C23": ({}, {"bon_a": (1.3, 0.1)}),
    "C24": ({}, {"rl_b": (-0.1, 0.0)}),
    "C25": ({}, {"causal_fall": 0.5}),
}  # fmt: skip
BY_NAME = {c.name: c for c in claims() if of_the_paper(c.name)}


def test_every_claim_has_its_cases_and_its_number():
    assert [name for name in BY_NAME if of_the_paper(name)] == list(CASES)
    assert {int(name[1:].rstrip("abcde")) for name in CASES} == set(range(1, 26))
    for c in claims():
        assert c.region[0] < c.region[1]
        assert c.figure
        assert c.measured


@pytest.mark.parametrize("name", CASES)
def test_a_claim_holds_where_it_is_true_and_fails_where_it_is_broken(name):
    true, broken = CASES[name]
    for expected, changes in (("holds", true), ("fails", broken)):
        row = judge(BY_NAME[name], make(replace(Truth(), **changes)))
        assert row["verdict"] == expected, (changes, row["statistic"], row["interval"], row["threshold"], row["why"])
        assert row["seeds"] == 3
        assert row["n_runs"] >= 3
        assert row["interval"][0] - 1e-9 <= row["statistic"] <= row["interval"][1] + 1e-9


def test_a_small_rm_is_never_the_largest():
    """RL against the largest RM alone on several numbers of comparisons: best-of-n's smallest is the small RM then."""
    whole = make(Truth())
    moved = lambda c: c.method == "ppo" and c.id.policy_params == SMALL and c.id.rm_comparisons in DATA[1:-1]
    curves = [replace(c, id=replace(c.id, rm_params=SIZES[-1])) if moved(c) else c for c in whole.curves]
    assert sum(map(moved, whole.curves)) == 9  # three seeds of three numbers
    sparse = Evidence(curves, whole.reward_models, whole.starts, draws=60)
    assert rm_data.swept_by_both(whole.whole) == SIZES[1]
    assert rm_data.swept_by_both(sparse.whole) == SIZES[0]
    assert judge(BY_NAME["C7a"], sparse)["verdict"] == "holds"
    assert "only for the largest RM" in judge(BY_NAME["C7b"], sparse)["why"]


def test_two_seeds_decide_nothing():
    evidence = make(Truth(), seeds=2)
    for c in claims():
        row = judge(c, evidence)
        assert row["verdict"] == "undecided", row
        assert "a verdict needs 3" in row["why"] or "this run has" in row["why"]


def test_an_interval_across_the_threshold_is_undecided():
    row = judge(BY_NAME["C11c"], make(replace(Truth(), big_start=0.0)))
    assert row["verdict"] == "undecided"
    assert "straddles" in row["why"]
    assert "about these two policies" in row["why"]


def test_what_is_undecided_says_how_many_seeds_would_decide_it():
    """Proxies of the smallest RM whose seeds differ far more than prompts do: more seeds are what is lacking."""
    curves = []
    for c in make(Truth()).curves:
        if c.id.rm_params == SIZES[0]:
            tilt = (0.0, 0.5, -0.4)[c.id.seed or 0] * c.d[:, None]
            c = replace(c, proxy_KQ=c.proxy_KQ + tilt, proxy=c.proxy + tilt[:, 0])
        curves.append(c)
    row = judge(BY_NAME["C1c"], Evidence(curves, draws=0))
    assert row["verdict"] == "undecided"
    assert row["seeds_needed"] > 3
    assert f"about {row['seeds_needed']} seeds would decide it" in row["why"]
    assert judge(BY_NAME["C1c"], make(Truth()))["seeds_needed"] is None


def test_a_statistic_that_jumps_gets_percentiles_and_asks_for_no_seeds(monkeypatch):
    monkeypatch.setattr(claim, "_CLAIMS", dict(claim._CLAIMS))

    @claim.claim("C98", (0.5, np.inf), "fig1a", smooth=False)
    def c98(view):
        """Gold is high at the end.

        Share of RM sizes whose gold ends above 1.1."""
        return float(np.mean([view.line(g).gold[-1] > 1.1 for g in view.sizes("bon")]))

    row = judge(claim._CLAIMS["C98"], make(replace(Truth(), bon_a=(0.9, 0.1))))
    assert row["interval"][0] <= row["statistic"] <= row["interval"][1]
    assert row["seeds_needed"] is None


def test_gold_as_its_own_proxy_is_in_no_claim():
    """Reference runs against gold, plain and with a penalty, of either policy: every statistic is what it was."""
    evidence = make(Truth())
    size = SIZES[3]
    mine = [c for c in evidence.curves if c.id.rm_params == size and c.id.rm_comparisons == DATA[-1]]
    gold = [
        replace(c, id=replace(c.id, rm_params=394_000, rm_combined="gold"), proxy=c.gold, proxy_KQ=c.gold_KQ)
        for c in mine
    ]
    with_gold = replace(evidence, curves=[*evidence.curves, *gold])
    for c in BY_NAME.values():
        value, same = (np.ravel(c.statistic(e.view(0))) for e in (evidence, with_gold))
        np.testing.assert_array_equal(value, same, err_msg=c.name)
    alone = Evidence(gold, draws=0)
    assert "no bon curves" in judge(BY_NAME["C1a"], alone)["why"]
    assert "no PPO runs" in judge(BY_NAME["C19"], alone)["why"]


def test_a_run_without_the_data_says_what_it_lacks():
    whole = make(Truth())
    few = Evidence([c for c in whole.curves if c.method == "bon" and c.id.policy_params == SMALL], draws=20)
    rows = {c.name: judge(c, few) for c in claims()}
    assert rows["C1a"]["verdict"] == "holds"
    for name, lack in [
        ("C1b", "no ppo curves"),
        ("C11a", "one initial policy"),
        ("C19", "no PPO runs"),
        ("C6", "no RMs"),
    ]:
        assert rows[name]["verdict"] == "undecided"
        assert lack in rows[name]["why"]


def test_gold_that_only_falls_does_not_rise_and_fall():
    row = judge(BY_NAME["C1b"], make(replace(Truth(), rl_a=(-0.3, 0.0), rl_b=(0.01, 0.0))))
    assert row["verdict"] == "fails"


def test_what_never_peaks_has_no_peak_to_compare():
    rising = replace(Truth(), rl_b=(-0.1, 0.0), bon_b=(-0.1, 0.0))
    evidence = make(rising)
    for name in ("C4b", "C12", "C15a", "C17b"):
        row = judge(BY_NAME[name], evidence)
        assert row["verdict"] == "undecided"
        assert "within the measured range" in row["why"]


def test_differences_do_not_cancel():
    """A penalised policy whose gold is above at first and below later depends on the penalty, though not on average."""
    evidence = make(Truth())
    curves = []
    for c in evidence.curves:
        if set(c.id.settings) == {"kl_coef"}:
            tilt = 0.6 * np.sin(2 * np.pi * c.d / 6)[:, None]
            c = replace(c, gold_KQ=c.gold_KQ + tilt, gold=c.gold + tilt[:, 0])
        curves.append(c)
    row = judge(BY_NAME["C19"], replace(evidence, curves=curves))
    assert row["verdict"] == "fails"


def test_a_policy_that_hovers_is_read_at_its_first_passage():
    """KL that goes up and down under a penalty must not scramble gold against KL."""
    rng = np.random.default_rng(1)
    kl = np.concatenate([np.linspace(0, 5, 20), 5 + 0.3 * rng.normal(size=40)])
    gold = np.concatenate([np.linspace(0, 1, 20), np.linspace(1, -3, 40)])  # drifts while KL stands still
    table = np.repeat(gold[:, None], Q, 1)
    curve = from_prompts(CurveId("ppo", 1, seed=0), np.arange(60), kl, table, table)
    assert forward(curve.kl)[:20].all()
    line = (evidence := Evidence([curve], draws=2)).view(0).line(evidence.groups["ppo"][0])
    below = line.d**2 < 4.9
    np.testing.assert_allclose(line.gold[below], line.d[below] ** 2 / 5, atol=0.02)


def test_one_seed_twice_is_one_seed():
    evidence = make(Truth(), seeds=2)
    row = judge(BY_NAME["C3a"], Evidence([*evidence.curves, *evidence.curves], draws=20))
    assert row["seeds"] == 2
    assert row["verdict"] == "undecided"


def test_a_forecast_sees_nothing_beyond_its_cut():
    """Seeds that end at different KL: what lies beyond 60% of the shortest changes no forecast."""
    curves = []
    for s, end in enumerate((20.0, 36.0, 60.0)):
        for p in SIZES:
            kl = np.linspace(0, end, 40)
            d = np.sqrt(kl)
            table = np.repeat((d * (0.9 - 0.4 * np.log(np.maximum(d, 1e-9))))[:, None], Q, 1)
            curves.append(from_prompts(CurveId("ppo", p, seed=s), np.arange(40), kl, table, table))
    spoilt = [replace(c, gold_KQ=c.gold_KQ - 5 * (c.kl[:, None] > 12.01)) for c in curves]
    cuts = [Evidence(x, draws=2) for x in (curves, spoilt)]
    a, b = (e.view(0).fits(e.groups["ppo"], max_kl_share=0.6) for e in cuts)
    np.testing.assert_allclose(a, b)


def test_a_peak_is_not_lifted_by_noise():
    """Pure noise about a flat curve: the highest point is far above 0, the cross-fitted peak is not."""
    rng = np.random.default_rng(0)
    heights, raw = [], []
    for seed in range(40):
        table = rng.normal(size=(30, Q))
        curve = from_prompts(CurveId("bon", 1, seed=seed), np.arange(30), np.linspace(0, 9, 30), table, table)
        evidence = Evidence([curve], draws=2)
        heights.append(evidence.view(0).line(evidence.groups["bon"][0]).peak()[1])
        raw.append(curve.gold.max())
    assert np.mean(raw) > 0.35
    assert abs(np.mean(heights)) < 0.12


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The claim of rmo/claims/README.md in a file of its own; forgotten afterwards."""
    monkeypatch.setattr(claim, "_CLAIMS", {c.name: c for c in claims()})
    example = (ROOT / "rmo" / "claims" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "half_of_the_peak.py").write_text(example)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("half_of_the_peak")
    yield {c.name: c for c in claims()}["C9z"]
    del sys.modules["half_of_the_peak"]


def test_a_claim_is_one_function_in_any_file(toy):
    names = [c.name for c in claims()]
    assert names[names.index("C9z") - 1 :][:3] == ["C9b", "C9z", "C10"]
    assert toy.text == "Best-of-n keeps half of its peak"
    assert toy.measured == "Smallest RM: gold at the end as a share of its peak"
    assert judge(toy, make(Truth()))["verdict"] == "fails"
    row = judge(toy, make(replace(Truth(), bon_b=(0.05, 0.0))))
    assert row["verdict"] == "holds"
    assert row["threshold"] == [0.5, None]
    assert row["seeds"] == row["n_runs"] == 3


def test_the_toy_claim_is_gone_again():
    assert "C9z" not in [c.name for c in claims()]


@pytest.fixture
def others(monkeypatch):
    """A claim of another paper on what a run has, and one on what it has not."""
    monkeypatch.setattr(claim, "_CLAIMS", {c.name: c for c in claims()})

    def half(view: View) -> float:
        """Best-of-n gains.

        Gold at the end."""
        return view.line(view.sizes(BEST_OF_N, 1)[0]).gold[-1]

    def absent(view: View) -> float:
        """Nothing is said.

        Nothing."""
        raise Missing("no such runs")

    claim.claim("H1", (0, claim.INF), "fig1a")(half)
    claim.claim("H2", (0, claim.INF), "fig1a")(absent)


def test_claims_of_other_papers_come_last_and_only_where_a_run_has_their_data(others):
    listed = [c.name for c in claims() if claim.applies(c, make(Truth()))]
    first = listed.index("C25") + 1
    assert listed[first] == "H1"
    assert not any(map(of_the_paper, listed[first:]))
    assert "H2" not in listed


def test_verdicts_are_counted_apart_from_those_of_other_papers():
    rows: list[Row] = [{"claim": c, "verdict": v} for c, v in (("C1", "holds"), ("C2", "fails"), ("H1", "holds"))]
    assert count_verdicts(rows[:2]) == "Of 2 statements 1 hold here, 1 fail and 0 are undecided."
    assert count_verdicts(rows) == (
        "Of 2 statements 1 hold here, 1 fail and 0 are undecided. "
        "Of 1 statements of other papers 1 hold here, 0 fail and 0 are undecided."
    )


def test_a_claim_without_two_paragraphs_is_refused():
    def c99(view):
        """Only the claim."""

    with pytest.raises(ValueError, match="c99: its docstring needs two paragraphs"):
        claim.claim("C99", (0, 1), "fig1a")(c99)


def test_claims_keep_their_words_where_python_drops_docstrings():
    code = "from rmo.claims.claim import claims; print([(c.name, c.text, c.measured) for c in claims()])"
    done = subprocess.run([sys.executable, "-OO", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == [(c.name, c.text, c.measured) for c in claims()]
    assert sum(of_the_paper(c.name) for c in claims()) == len(CASES)
