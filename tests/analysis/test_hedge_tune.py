"""HedgeTune's root against closed forms and a fine search, and the regret of rules on other prompts."""

import numpy as np
import pytest

from rmo.analysis.goodhart import at_ranks, best_of, gold_of
from rmo.analysis.hedge_tune import Family, hedge, regret
from rmo.analysis.inference_rules import COLUMNS, FAMILIES, halves, n_at, rules
from rmo.methods import best_of_poisson
from rmo.models.metrics import kl_bon

DRAWS, MAX_N = 200, 100


def known(m, name):
    """A table of one prompt that shows on average what a known m gives, in the order of its proxy."""
    proxy_1N = np.arange(DRAWS, dtype=float)[None] / DRAWS
    return FAMILIES[name](proxy_1N, at_ranks(m, DRAWS)[None], proxy_1N, MAX_N)


@pytest.mark.parametrize(("bend", "power"), [(0.5, 9), (0.2, 30), (0.9, 3)])
def test_best_of_ns_root_is_the_closed_one(bend, power):
    """m = u - bend u^power: gold is n/(n+1) - bend n/(n+power), whose slope is 0 where (n+power)/(n+1) is the root of
    bend times power."""
    ratio = (bend * power) ** 0.5
    expected = (power - ratio) / (ratio - 1)
    family = known(lambda u: u - bend * u**power, "best_of_n")
    found = hedge(family)
    assert found.found == "root"
    assert found.parameter == pytest.approx(expected, rel=2e-3)
    fine = np.linspace(max(found.parameter - 1, 1), found.parameter + 1, 2001)
    golds = [float(family.at(float(n))[0][0]) for n in fine]
    assert fine[int(np.argmax(golds))] == pytest.approx(found.parameter, abs=2e-3)
    whole = round(expected)
    assert family.at(whole)[0][0] == pytest.approx(gold_of(lambda u: u - bend * u**power, whole), abs=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_root_is_the_top_of_a_fine_search(name):
    family = known(lambda u: u - 0.4 * u**12 - 0.3 * u**60, name)
    found = hedge(family)
    assert found.found == "root"
    assert found.why == "gold turns here"
    # Where a draw's weight becomes 0 the slope of pessimism's gold jumps.
    assert family.at(found.parameter)[1].mean() == pytest.approx(0, abs=1e-4 if name == "pessimism" else 1e-9)
    fine = np.linspace(family.places[0], family.places[-1], 301)
    golds = np.array([family.at(float(x))[0].mean() for x in fine])
    assert found.parameter == pytest.approx(fine[golds.argmax()], abs=1.01 * (fine[1] - fine[0]))
    assert found.gold >= golds.max() - 1e-12


def test_poissons_condition_is_khalafs():
    """The slope is the mean of m psi under the density, psi = u / (mu u + 1) + u - 1."""
    m, mu = (lambda u: np.sin(3 * u)), 6.0
    family = known(m, "best_of_poisson")
    x, weight = np.polynomial.legendre.leggauss(200)
    u = (x + 1) / 2
    psi = u / (mu * u + 1) + u - 1
    expected = np.sum(weight / 2 * best_of_poisson.density(u, mu) * m(u) * psi)
    assert family.at(mu)[1][0] == pytest.approx(expected, abs=1e-10)


def test_best_of_ns_condition_is_khalafs():
    m, n = (lambda u: np.exp(u)), 5.0
    x, weight = np.polynomial.legendre.leggauss(200)
    u = (x + 1) / 2
    expected = np.sum(weight / 2 * n * u ** (n - 1) * m(u) * (1 / n + np.log(u)))
    at_large = [best_of(n, draws)[1] @ at_ranks(m, draws) for draws in (100, 200)]
    assert at_large[1] == pytest.approx(expected, abs=2e-4)  # between whole n, a pool's own continuation
    assert abs(at_large[1] - expected) < abs(at_large[0] - expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_root_is_said_plainly(name):
    rises, falls = hedge(known(lambda u: u, name)), hedge(known(lambda u: -u, name))
    places = known(lambda u: u, name).places
    assert (rises.found, falls.found) == ("end", "start")
    assert (rises.parameter, falls.parameter) == (places[-1], places[0])
    assert rises.why.startswith("no root: gold is highest at the end of the range of ")
    assert falls.why == "no root: gold is highest at the initial policy, so do not optimise against this proxy"


def test_of_several_roots_the_highest_and_an_end_above_all():
    def family(top):
        f = np.poly1d([0.0]) + np.poly1d(np.polyfit([0, 1, 2, 3, 4], [0, 1, 0.5, top, 0.2], 4))
        return Family("made up", "x", np.linspace(0, 4, 30), lambda x: (np.array([f(x)]), np.array([f.deriv()(x)])))

    assert 0.5 < hedge(family(0.8)).parameter < 1.5
    assert hedge(family(2.0)).parameter > 2.5
    assert hedge(family(2.0)).why == "gold turns here, the highest of 2 turns"
    rising = Family("made up", "x", np.linspace(0, 6, 40), lambda x: (np.array([np.sin(2 * x) + x / 2]), np.array([2 * np.cos(2 * x) + 0.5])))  # fmt: skip
    found = hedge(Family(rising.name, "x", np.linspace(0, 6.6, 40), rising.at))
    assert found.found == "end"
    assert found.why.startswith("no root is as high")


def test_regret_by_hand_where_nothing_varies():
    table = np.repeat([[0.0], [2.0], [1.5]], 10, axis=1)
    assert regret(table, np.full(10, 1.5), 50) == pytest.approx((1.5, 0.5, 0.5, 0.5))
    assert regret(table, np.full(10, 2.0), 50) == pytest.approx((2.0, 0.0, 0.0, 0.0))


def test_regret_is_not_lifted_by_picking_the_best_of_equals():
    """Gold that the proxy knows nothing of is as high at every n; noise alone makes one of them the highest."""
    weights = np.stack([best_of(n, 128)[0] for n in np.geomspace(1, 64, 16)])
    found, naive = [], []
    for seed in range(60):
        table = weights @ np.random.default_rng(seed).normal(size=(128, 30))
        found.append(regret(table, table[8], 200, seed=seed))
        naive.append((table - table[8]).mean(1).max())
    assert np.mean([r.regret for r in found]) < 0.85 * np.mean(naive)
    assert np.mean([r.low < 0.005 for r in found]) > 0.85
    assert all(r.low <= r.regret <= r.high for r in found)


def tables(prompts=60, draws=256, bend=0.5, seed=0):
    rng = np.random.default_rng(seed)
    proxy = rng.normal(size=(prompts, draws))
    gold = 0.6 * proxy - bend * np.maximum(proxy - 1.2, 0) ** 2 + 0.6 * rng.normal(size=proxy.shape)
    return proxy, gold


def test_rules_on_a_proxy_that_is_wrong_at_the_top():
    proxy, gold = tables()
    rows = rules(proxy, gold, 128, list(FAMILIES), bootstrap=200)
    assert all(list(row) == COLUMNS for row in rows)
    names = [(row["method"], row["rule"]) for row in rows]
    assert names == [("best_of_n", "HedgeTune"), ("best_of_n", "fitted peak"), ("best_of_n", "lower end of fitted peak"),
                     ("best_of_n", "largest n"), *((name, "HedgeTune") for name in list(FAMILIES)[1:])]  # fmt: skip
    by_rule = dict(zip(names, rows, strict=True))
    tuned, largest = by_rule["best_of_n", "HedgeTune"], by_rule["best_of_n", "largest n"]
    assert tuned["found"] == "root"
    assert 8 < tuned["chosen"] < 60
    assert tuned["regret_high"] < 0.05 < largest["regret_low"]
    assert largest["chosen"] == 128
    ends = [by_rule["best_of_n", rule]["chosen"] for rule in ("lower end of fitted peak", "fitted peak", "largest n")]
    assert ends == sorted(ends)
    assert all(row["regret"] < 0.1 for row in rows if row["rule"] == "HedgeTune")
    assert all(row["regret_low"] <= row["regret"] <= row["regret_high"] for row in rows)


def test_rules_where_gold_only_rises():
    rows = rules(*tables(bend=0.0), 64, list(FAMILIES), bootstrap=100)
    assert {row["found"] for row in rows if row["rule"] == "HedgeTune"} == {"end"}
    assert all(row["regret"] < 0.02 for row in rows if row["rule"] in ("HedgeTune", "largest n"))


def test_choosing_and_judging_prompts_are_apart():
    """Gold of the judging prompts has no part in the choice, nor that of the choosing ones in what is read."""
    train, judged = halves(7)
    assert (train.tolist(), judged.tolist()) == ([0, 2, 4, 6], [1, 3, 5])
    proxy, gold = tables(prompts=12, draws=64)
    other = gold.copy()
    other[1::2] *= -1
    one, two = (rules(proxy, g, 32, ["best_of_n"], 50) for g in (gold, other))
    assert [row["chosen"] for row in one] == [row["chosen"] for row in two]
    assert [row["gold"] for row in one] == pytest.approx([-row["gold"] for row in two])
    with pytest.raises(ValueError, match="3 prompts: choosing on half"):
        rules(proxy[:3], gold[:3], 32, ["best_of_n"])


def test_n_of_a_kl():
    assert n_at(0.0, 50) == n_at(0.19, 50) == 1
    assert n_at(np.inf, 50) == 50
    for n in (2, 9, 31):
        assert n_at(float(kl_bon(n)), 50) == n
        assert n_at(float(kl_bon(n)) - 1e-9, 50) == n - 1
