"""The numbers of the table of hedges, by hand on made-up curves; ranks with ties."""

from dataclasses import replace

import numpy as np
import pytest

from rmo.analysis import hedges
from rmo.analysis.curve import Curve, from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.analysis.fitting import Group, group

D = np.sqrt(np.array([0.0, 1, 2, 4, 8]))
GOLD = np.array([0.0, 1.0, 2.0, 1.5, 0.5])  # peaks at KL 2; at twice that 1.5
ID = CurveId("bon", 500, 1000, seed=0)


def plain(id: CurveId, gold: np.ndarray) -> Curve:
    return Curve(id, np.arange(len(D)), D**2, gold, gold)


def with_prompts(id: CurveId, gold: np.ndarray, noise: float = 0.0, prompts: int = 40, seed: int = 0) -> Curve:
    own = noise * np.random.default_rng(seed).standard_normal((len(D), prompts)) * (D > 0)[:, None]
    return from_prompts(id, np.arange(len(D)), D**2, gold[:, None] + own, gold[:, None] + own)


def only(curves: list[Curve]) -> list[hedges.Way]:
    return hedges.ways([g for method in ("bon", "ppo") for g in group(curves, method)])


def test_numbers_of_a_curve_by_hand():
    curves = [plain(replace(ID, seed=s), GOLD + s * 0.2 * (D > 0)) for s in (0, 1)]
    (row,) = hedges.table(only(curves), 0.95)
    assert row["gold"]["value"] == pytest.approx(2.1)
    assert row["kl"]["value"] == pytest.approx(2)
    assert row["twice"]["value"] == pytest.approx(1.6)
    low, high = row["gold"]["interval"]
    assert low < 2.1 < high
    assert row["kl"]["interval"] is None  # both seeds peak at the same point: nothing is known of its error
    assert (row["halved"], row["reach_kl"], row["seeds"]) == (False, pytest.approx(8), 2)


def test_a_peak_past_half_of_the_data_has_nothing_at_twice_its_kl():
    late = np.array([0.0, 0.5, 1, 2, 3])
    (row,) = hedges.table(only([plain(replace(ID, seed=s), late + s * D) for s in (0, 1)]), 0.95)
    assert row["kl"]["value"] == pytest.approx(8)
    assert row["twice"] is None


def test_a_peak_is_picked_on_other_prompts_than_it_is_read_on():
    flat = (D > 0).astype(float)
    found = [only([with_prompts(ID, flat, 3.0, 40, seed)])[0].gold_N[0] for seed in range(200)]
    naive = [with_prompts(ID, flat, 3.0, 40, seed).gold.max() for seed in range(200)]
    assert np.mean(found) == pytest.approx(1, abs=0.1)
    assert np.mean(naive) > 1.3


def test_regret_is_of_a_stop_decided_elsewhere():
    """Without noise: a rule that says KL 4 loses 0.5; one that says the peak loses nothing."""
    for curves in ([with_prompts(ID, GOLD)], [plain(replace(ID, seed=s), GOLD) for s in (0, 1)]):
        (way,) = only(curves)
        assert way.regret_N(lambda _: 4.0)[0] == pytest.approx(0.5)
        assert way.regret_N(lambda _: 2.0)[0] == pytest.approx(0)
        assert way.regret_N(lambda _: 100.0)[0] == pytest.approx(1.5)  # no farther than the data
        assert way.regret_N(lambda _: None) is None
    (alone,) = only([plain(ID, GOLD)])
    assert alone.regret_N(lambda _: 4.0) is None  # no other data to decide it on


def test_a_rule_sees_other_prompts_than_those_it_is_judged_on():
    seen = []
    (way,) = only([with_prompts(ID, GOLD, 1.0)])
    way.regret_N(lambda curves: seen.append(curves[0].gold_KQ) or 2.0)
    whole = way.group.curves[0].gold_KQ
    np.testing.assert_array_equal(seen[0], whole[:, 0::2])
    np.testing.assert_array_equal(seen[1], whole[:, 1::2])


def test_the_advice_of_a_fit_stops_near_the_peak_of_its_form():
    d = np.linspace(0, 3, 40)
    gold = d * (2 - 0.6 * d)  # peaks at d = 5/3
    assert hedges.advised([Curve(ID, np.arange(40), d**2, gold, gold)]) == pytest.approx((5 / 3) ** 2, rel=0.02)
    assert hedges.advised([Curve(ID, np.arange(2), d[:2] ** 2, gold[:2], gold[:2])]) is None


def test_ranks_share_a_place_with_the_best_of_it():
    apart = np.zeros((5, 5), bool)

    def told(*pairs):
        for i, j in pairs:
            apart[i, j] = apart[j, i] = True

    told((0, 2), (0, 3), (1, 3), (2, 4), (3, 4), (0, 4), (1, 4))
    values = [5.0, 4.0, 3.0, 2.0, 1.0]
    # 0 leads; 1 cannot be told from it; 2 can, and leads from place 3; 3 cannot be told from 2; 4 can.
    assert hedges.ranks(values, apart) == [1, 1, 3, 3, 5]
    assert hedges.ranks(values[::-1], apart[::-1, ::-1]) == [5, 3, 3, 1, 1]
    assert hedges.ranks([1.0, None, 2.0], ~np.eye(3, dtype=bool), larger=False) == [1, None, 2]
    assert hedges.ranks([2.0, 1.0], np.zeros((2, 2), bool)) == [1, 1]


def test_rows_on_the_same_prompts_are_told_apart_by_their_difference():
    """A tenth apart under noise of one on the same prompts: their difference has no noise at all."""
    base = with_prompts(ID, GOLD, 1.0)
    better = replace(
        base,
        id=replace(ID, settings=Settings(kl_coef=0.1)),
        gold=base.gold + 0.1 * D,
        gold_KQ=base.gold_KQ + 0.1 * D[:, None],
    )
    other = with_prompts(replace(ID, settings=Settings(kl_coef=0.2)), GOLD + 0.01, 1.0, seed=5)
    rows = hedges.table(only([base, better, other]), 0.95)
    by = {row["settings"]: row["gold"] for row in rows}
    assert by["kl_coef=0.1"]["rank"] == 1
    assert by[""]["rank"] > 1
    widths = [gold["interval"][1] - gold["interval"][0] for gold in by.values()]
    assert min(widths) > 0.2  # by their own intervals they could not be


def test_what_has_no_error_is_told_from_nothing():
    rows = hedges.table(only([plain(ID, GOLD), plain(replace(ID, method="ppo"), GOLD * 3)]), 0.95)
    assert [row["gold"]["rank"] for row in rows] == [1, 1]
    assert all(row["gold"]["interval"] is None for row in rows)


def test_beside_a_combined_reward_stands_the_best_single_seed():
    """Picked on one half of the prompts and read on the other, so that the best of three equal seeds has no bonus."""
    found, flat = [], (D > 0).astype(float)
    for seed in range(40):
        singles = [with_prompts(replace(ID, seed=s), flat, 4.0, seed=100 * seed + s) for s in range(3)]
        rows = only([*singles, with_prompts(replace(ID, seed=None, rm_combined="mean: mean of 3"), GOLD + 1)])
        best = [way for way in rows if way.best_seed]
        assert len(rows) == 3
        found.append(best[0].gold_N[0])
    assert np.mean(found) == pytest.approx(1, abs=0.35)
    unlike = [with_prompts(replace(ID, seed=s), GOLD * (1 + s)) for s in range(3)]
    rows = only([*unlike, with_prompts(replace(ID, seed=None, rm_combined="x of 3"), GOLD)])
    (best,) = [way for way in rows if way.best_seed]
    assert best.gold_N[0] == pytest.approx(6)
    (mean,) = [way for way in rows if not way.best_seed and not way.group.id.rm_combined]
    assert mean.gold_N[0] == pytest.approx(4)
    assert not [way for way in only(unlike) if way.best_seed]


def test_the_front_is_what_nothing_beats_at_as_little():
    assert hedges.front([3.0, 2, 2, 1, 9], [10.0, 5, 6, 7, None]) == [True, True, False, False, False]
    assert hedges.front([1.0, 1.0], [2.0, 2.0]) == [True, True]


def test_a_method_with_a_rule_of_its_own_is_judged_by_it(monkeypatch):
    from rmo.methods.method import find

    monkeypatch.setattr(hedges, "find", lambda name: replace(find(name), stop=lambda c: 4.0))
    (row,) = hedges.table([hedges.ways([Group(ID.group, (with_prompts(ID, GOLD),))])[0]], 0.95)
    assert row["own_stop"]
    assert row["regret"]["value"] == pytest.approx(0.5)
