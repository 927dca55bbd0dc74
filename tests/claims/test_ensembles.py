"""Ensembles beside single RMs: the jackknife is exact where it can be, and every statement can hold and fail."""

from dataclasses import replace

import numpy as np
import pytest

from rmo.analysis.bootstrap import error
from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.analysis.sweeps import Missing
from rmo.claims import ensemble_lines, ensembles
from rmo.claims.claim import claims, judge
from rmo.claims.ensemble_lines import best_single, line, moved, stop_d
from rmo.claims.ensemble_table import COLUMNS, Cost, rm_of, table
from rmo.claims.evidence import Evidence

SEEDS, Q, COMPARISONS, POLICY = 4, 8, 1000, 500
NOISE = Settings(flip=0.25)
D = {"bon": np.linspace(0, 2.5, 26), "ppo": np.linspace(0, 5, 26)}


def evidence(
    gold=lambda how, seeds, luck: np.mean([luck[s] for s in seeds]),
    shape=lambda how, d: d * (1 - 0.4 * d / d.max()),
    how=("mean", "worst_case", "uncertainty_penalised", "weight_averaged"),
    methods=("bon", "ppo"), spread=lambda d: 1 + 0.4 * d, jackknife=("bon", "ppo"), noise=(False, True), sizes=0.0,
):  # fmt: skip
    """Two RM sizes. Gold of an RM is a curve times 1 + its seed's luck; of an ensemble, `shape` times 1 + `gold`."""
    rng = np.random.default_rng(0)
    luck = dict(enumerate(0.05 * rng.normal(size=SEEDS)))
    of_prompt = 0.1 * rng.normal(size=Q)
    curves, rows = [], []
    for flips in noise:
        recipe = NOISE if flips else Settings()
        for params in (100, 10_000):
            for s in luck:
                known = {"rm_params": params, "rm_comparisons": COMPARISONS, "rm_recipe": recipe, "seed": s}
                rows.append({**known, "validation_loss": 0.6, "validation_accuracy": 0.7 + 0.01 * s})
            for method in methods:
                d = D[method]

                def add(height, combined, seed, hump, apart=None, method=method, d=d, params=params, recipe=recipe):
                    id = CurveId(method, params, COMPARISONS, recipe, combined, POLICY, seed=seed)
                    gold_KQ = hump[:, None] * (1 + height + of_prompt)
                    curve = from_prompts(id, np.arange(1, len(d) + 1), d**2, 1.2 * gold_KQ, gold_KQ)
                    curves.append(curve if apart is None else replace(curve, spread=apart))

                for s, of_seed in luck.items():
                    add(of_seed, "", s, shape("", d))
                for one in how:
                    sets = {one: tuple(luck)}
                    if method in jackknife:
                        sets |= {f"{one}-without-{s}": tuple(x for x in luck if x != s) for s in luck}
                    for name, seeds in sets.items():
                        label = f"{name}: {one} of {len(seeds)}"
                        add(gold(one, seeds, luck), label, None, shape(one, d), spread(d))
                if sizes and params == 10_000:
                    for name, seeds in {
                        "all": tuple(luck),
                        **{f"all-without-{s}": tuple(set(luck) - {s}) for s in luck},
                    }.items():
                        label = f"{name}: mean of {2 * len(seeds)} in 2 sizes"
                        add(gold("mean", seeds, luck) + sizes, label, None, shape("mean", d), spread(d))
    return Evidence(curves, rows, draws=10)


def named(view, method, name, params=100, noisy=False):
    return next(
        e for e in ensemble_lines.ensembles(view, method)
        if e.name == name and e.group.params == params and e.noisy == noisy
    )  # fmt: skip


def test_a_jackknife_of_a_mean_is_the_weighted_mean():
    x, w = np.array([0.3, -1.0, 2.5, 0.1]), {0: 0.2, 1: 1.9, 2: 0.4, 3: 1.5}
    without = {s: np.delete(x, s).mean() for s in range(4)}
    assert moved(x.mean(), without, w) == pytest.approx(sum(w[s] * x[s] for s in w) / 4)
    assert moved(x.mean(), without, dict.fromkeys(w, 1.0)) == pytest.approx(x.mean())


def test_its_variance_is_the_jackknifes():
    """Of any statistic: (S - 1) / S times the squared deviations of the values without each seed."""
    found = evidence(gold=lambda how, seeds, luck: np.exp(10 * np.mean([luck[s] for s in seeds])), noise=(False,))
    e, r = named(found.whole, "bon", "mean"), found.resamples
    values = np.full(len(r.share_NQ), np.nan)
    for n in (0, *r.exact):
        values[n] = line(found.view(int(n)), e).at(2.5)
    without = np.array([g.curves[0].gold[-1] for g in e.left_out.values()])
    assert error(values, r).seeds == pytest.approx(3 / 4 * np.sum((without - without.mean()) ** 2))
    assert values[0] == pytest.approx(e.curve.gold[-1])


def test_an_ensemble_that_is_its_members_mean_gains_nothing_and_that_is_sure():
    found = evidence(how=("mean",), noise=(False,))
    (row, *_) = [r for r in table(found, {}, 0.95) if (r["method"], r["place"]) == ("bon", "end")]
    assert row["gain"] == pytest.approx(0, abs=1e-12)
    assert row["gain_high"] - row["gain_low"] == pytest.approx(0, abs=1e-9)
    assert row["gold"] == pytest.approx(row["singles"])
    assert row["seeds"] == SEEDS


def test_the_best_single_rm_is_chosen_without_gold():
    found = evidence(noise=(False,))
    e = named(found.whole, "bon", "mean")
    best = best_single(found.whole, e)
    np.testing.assert_allclose(best.gold, e.singles.curves[SEEDS - 1].gold)  # the highest accuracy, not the luckiest
    blind = replace(found, reward_models=[])
    with pytest.raises(Missing, match="validation accuracy"):
        best_single(blind.whole, named(blind.whole, "bon", "mean"))


def test_the_table_compares_at_peaks_at_equal_kl_and_where_the_spread_says_stop():
    found = evidence(noise=(False,), how=("mean", "weight_averaged"), sizes=0.2)
    e = named(found.whole, "bon", "mean")
    rows = table(found, {rm_of(e.group.id): Cost(4000, 400, 400)}, 0.95)
    assert all(set(row) <= set(COLUMNS) for row in rows)
    mine = {row["place"]: row for row in rows if CurveId.of_cells(row) == e.group.id}
    assert set(mine) == {"peak", "end", "kl=1", "kl=2", "kl=4", "spread"}
    assert (mine["end"]["labels"], mine["end"]["trained"], mine["end"]["members"]) == (4000, 400, 4)
    # The spread is sqrt 2 at d = 0.4142 / 0.4; the next point is d = 1.1.
    assert mine["spread"]["kl"] == pytest.approx(1.1**2)
    hump = lambda d: d * (1 - 0.4 * d / 2.5)
    assert mine["spread"]["regret"] == pytest.approx((hump(2.5) - hump(1.1)) * e.curve.gold[-1] / hump(2.5), rel=1e-6)
    assert mine["spread"]["regret_low"] < mine["spread"]["regret"] < mine["spread"]["regret_high"]
    assert "regret" not in mine["peak"]
    over_sizes = [row for row in rows if row["rm_combined"].endswith("in 2 sizes")]
    assert {row["members"] for row in over_sizes} == {8}
    assert all(row["gain"] == pytest.approx(0.2 * row["singles"] / 1, rel=0.2) for row in over_sizes)


def test_a_rule_that_never_fires_stops_at_the_end():
    found = evidence(spread=lambda d: np.ones_like(d), noise=(False,))
    assert stop_d(named(found.whole, "bon", "mean")) == 2.5


def test_without_a_jackknife_nothing_is_decided():
    row = judge(h("H36"), evidence(jackknife=("bon",), shape=falls_alone), 0.95)
    assert row["verdict"] == "undecided"
    assert "1 RM seeds; a verdict needs 3" in row["why"]


def h(name):
    return next(c for c in claims() if c.name == name)


def falls_alone(how, d):
    """Single RMs fall by half, ensembles rise."""
    return d / d.max() * (1 - 0.1 * d / d.max()) if how else 4 * d / d.max() * (1 - 0.85 * d / d.max())


def all_fall(how, d):
    return 4 * d / d.max() * (1 - 0.85 * d / d.max())


def higher(by):
    return lambda how, seeds, luck: by + np.mean([luck[s] for s in seeds])


def worse(how, d):
    return all_fall(how, d) * (1 if not how else 1 + d / d.max())


def silent(d):
    return np.ones_like(d)  # never


CASES = {  # a world in which it holds, one in which it fails
    "H30": ({"shape": falls_alone}, {"shape": all_fall}),
    "H31": ({"gold": higher(0.3)}, {"gold": higher(-0.3)}),
    "H32": ({"gold": higher(0.3)}, {"gold": higher(-0.3)}),
    "H33": ({}, {"gold": higher(-0.3)}),
    "H34": ({"shape": all_fall}, {"shape": lambda how, d: d}),
    "H35": ({"gold": higher(0.5)}, {"gold": higher(-0.5)}),
    "H36": ({"shape": falls_alone}, {"shape": worse}),
    "H37": ({"sizes": 0.3}, {"sizes": -0.3}),
    "H38": ({"shape": all_fall, "spread": lambda d: 1 + 0.28 * d}, {"shape": lambda how, d: d}),
    "H39": ({"shape": all_fall, "spread": lambda d: 1 + 0.141 * d}, {"shape": all_fall, "spread": silent}),
}


@pytest.mark.parametrize("name", CASES)
def test_every_statement_can_hold_and_fail(name):
    holds, fails = (judge(h(name), evidence(**world), 0.95) for world in CASES[name])
    assert (holds["verdict"], fails["verdict"]) == ("holds", "fails"), (holds, fails)


def test_every_statement_has_its_cases():
    assert set(CASES) == {c.name for c in claims() if c.statistic.__module__ == ensembles.__name__}


@pytest.mark.parametrize(
    ("name", "world", "why"),
    [
        ("H30", {"how": ()}, "no bon against several RMs, combined by worst_case or uncertainty_penalised"),
        ("H30", {"shape": lambda how, d: d}, "no single RMs that fall under best-of-n"),
        ("H31", {"noise": (False,)}, "no bon against several RMs trained on noisy labels"),
        ("H37", {}, "no ensemble over RM sizes beside one"),
        ("H39", {"methods": ("bon",)}, "no ppo against several RMs"),
    ],
)
def test_what_a_run_lacks_is_said(name, world, why):
    with pytest.raises(Missing, match=why):
        h(name).statistic(evidence(**world).whole)
