"""Which groups belong together, and curves on one grid."""

from dataclasses import replace

import numpy as np
import pytest

from rmo.analysis import sweeps
from rmo.analysis.curve import Curve, common_d, regrid
from rmo.analysis.curve_id import GOLD, NO_RM, CurveId, Settings
from rmo.analysis.fitting import group

D = np.linspace(0, 2, 9)


def curve(params=100, comparisons=1000, seed=0, policy=7, recipe="", settings="", d=D) -> Curve:
    id = CurveId("bon", params, comparisons, Settings.parse(recipe), "", policy, Settings.parse(settings), seed)
    return Curve(id, np.arange(len(d)), d**2, d, d - d**2)


GRID = [
    *(curve(p, c) for p in (100, 200, 300) for c in (1000, 4000)),
    curve(200, 250), curve(300, 250), curve(100, 4000, settings="kl_coef=0.1"), curve(100, 4000, policy=5),
    curve(200, 1000, recipe="epochs=4"), curve(300, 1000, recipe="epochs=3"),
    curve(100, 1000, recipe="epochs=4 dropout=0.1"),
]  # fmt: skip


def ids(groups):
    return [(g.params, g.comparisons) for g in groups]


def test_main_family_and_plain_groups():
    groups = group(GRID, "bon")
    assert ids(sweeps.main_family(groups, "bon")) == [(100, 4000), (200, 4000), (300, 4000)]
    assert len(sweeps.plain(groups, "bon")) == 8
    assert ids(sweeps.plain(groups, "bon", settings=Settings(kl_coef=0.1))) == [(100, 4000)]
    assert ids(sweeps.plain(groups, "bon", policy_params=5)) == [(100, 4000)]
    with pytest.raises(sweeps.Missing, match="no ppo curves"):
        sweeps.main_family([], "ppo")
    for alone in (GOLD, NO_RM):  # is in no sweep over RM sizes
        without = [replace(c, id=replace(c.id, rm_combined=alone)) for c in GRID]
        with pytest.raises(sweeps.Missing, match="no bon curves"):
            sweeps.main_family(group(without, "bon"), "bon")


def test_numbers_of_comparisons():
    groups = group(GRID, "bon")
    assert sweeps.most_swept(groups, "bon") == 200  # 200 and 300 have three each; 100 has two
    assert ids(sweeps.by_comparisons(groups, "bon", 200, 3)) == [(200, 250), (200, 1000), (200, 4000)]
    with pytest.raises(sweeps.Missing, match="fewer than 3 numbers"):
        sweeps.by_comparisons(groups, "bon", 100, 3)


def test_repeated_data_is_compared_with_as_much_new_data():
    four, three = sweeps.repeated(group(GRID, "bon"), "bon")
    assert four[0] == 4
    assert ids(four[1:]) == [(200, 1000), (200, 1000), (200, 4000)]
    assert [str(g.id.rm_recipe) for g in four[1:]] == ["epochs=4", "", ""]
    assert three[0] == 3
    assert three[3] is None  # nobody trained on 3,000


def test_one_epoch_is_what_a_recipe_calls_so_where_others_are_trained_for_more():
    once = [curve(200, 1000, recipe="epochs=1"), curve(200, 4000, recipe="epochs=1")]
    four, three = sweeps.repeated(group([*GRID, *once], "bon"), "bon")
    assert ids(four[1:]) == [(200, 1000), (200, 1000), (200, 4000)]
    assert [str(g.id.rm_recipe) for g in four[1:]] == ["epochs=4", "epochs=1", "epochs=1"]
    assert three[2:] == (None, None)  # nobody was trained once at this size
    assert len(sweeps.plain(group([*GRID, *once], "bon"), "bon")) == 8


def test_curves_meet_on_one_grid():
    same, other = [curve(), curve(seed=1)], curve(seed=2, d=np.array([0, 0.5, 1.5]))
    np.testing.assert_array_equal(common_d(same), D)
    np.testing.assert_allclose(common_d([*same, other]), np.linspace(0, 1.5, 64))
    hovering = Curve(
        CurveId("ppo"), np.arange(5), np.array([0, 1.0, 4.0, 2.25, 9.0]), np.zeros(5), np.array([0, 1.0, 2, 99, 3])
    )
    # The read at KL 2.25 came after one at 4: first passage counts, so 99 is never seen.
    np.testing.assert_allclose(regrid(np.array([0.5, 1.5, 2.5]), hovering, hovering.gold), [0.5, 1.5, 2.5])
    table_KQ = np.stack([hovering.gold, -hovering.gold], axis=1)
    np.testing.assert_allclose(regrid(np.array([0.5, 2.5]), hovering, table_KQ), [[0.5, -0.5], [2.5, -2.5]])
