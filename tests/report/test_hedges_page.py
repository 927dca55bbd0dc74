"""The page of what each way buys: sections by RM, costs from stages, what is said where they are not known, a browser."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rmo.analysis.curve import Curve, CurveError, from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.spent import Spent, labels, members
from rmo.cli import main
from rmo.report import hedges
from tests.helpers.browser import SIZES, opened

D = np.sqrt(np.array([0.0, 1, 2, 4, 8]))
GOLD = np.array([0.0, 1.0, 2.0, 1.5, 0.5])
ID = CurveId("bon", 500, 1000, policy_params=9, seed=0)


def curve(id: CurveId, height: float, prompts: int = 20) -> Curve:
    noise = 0.1 * np.random.default_rng(int(height * 100)).standard_normal((5, prompts)) * (D > 0)[:, None]
    table = height * GOLD[:, None] + noise
    return from_prompts(id, np.arange(5), D**2, table, table)


def made() -> list[Curve]:
    """Best-of-n and PPO against two seeds of one RM, with a setting, and an ensemble; PPO alone against another RM."""
    out = []
    for seed in (0, 1):
        mine = replace(ID, seed=seed)
        out += [curve(mine, 1 + 0.1 * seed), curve(replace(mine, method="ppo"), 0.7)]
        out += [curve(replace(mine, method="ppo", settings=Settings(kl_coef=0.1)), 0.8)]
        out += [curve(replace(mine, method="ppo", rm_params=900), 0.8)]
    out.append(curve(replace(ID, seed=None, rm_combined="mean: mean of 2"), 1.5))
    return [*out, curve(replace(ID, rm_params=7, rm_comparisons=None, rm_combined="gold"), 9.0)]


def test_sections_are_rms_and_rows_are_ways():
    (section, alone) = hedges.at_one_rm(made())
    assert [g.id.rm_params for g in alone] == [900]
    found = hedges.rows_of(section, {}, 0.95)
    assert [row["label"] for row in found[:2]] == [
        "best-of-n, mean: mean of 2",
        "best-of-n, best single seed, picked by gold",
    ]
    assert [row["label"] for row in found[2:]] == [
        "best-of-n, mean of 2 seeds",
        "RL (PPO), kl_coef=0.1, mean of 2 seeds",
        "RL (PPO), mean of 2 seeds",
    ]
    assert [row["labels"]["value"] for row in found] == [2000, 2000, 1000, 1000, 1000]
    assert [row["labels"]["rank"] for row in found] == [4, 4, 1, 1, 1]
    assert found[0]["gold"]["rank"] == 1
    assert found[-1]["gold"]["rank"] > 2
    assert all(row["seconds"] is None for row in found)  # and never 0


def test_attacks_are_no_ways_to_optimise(tmp_path):
    attack = replace(ID, method="ppo", settings=Settings(backdoor=4.0))
    marked = replace(ID, rm_recipe=Settings(confounded=0.8))
    curves = [*made(), *(curve(replace(id, seed=seed), 5.0) for id in (attack, marked) for seed in (0, 1))]
    for name, some in (("without", made()), ("with", curves)):
        RunFiles(tmp_path / name).fits.write_curves(some)
    without, found = (hedges.measure([tmp_path / name], 0.95) for name in ("without", "with"))
    assert found["sections"][0]["rows"] == without["sections"][0]["rows"]
    assert (without["attacks"], found["attacks"]) == (0, 2)
    said = "2 curves (means over seeds) with a backdoor"
    assert [said in hedges.markdown(one) for one in (without, found)] == [False, True]


def test_what_has_no_rm_stands_beside_every_rm():
    direct = curve(CurveId("ppo", 0, 1000, policy_params=9, settings=Settings(beta=1)), 1.2)
    sections = hedges.at_one_rm([*made(), direct])
    assert [sum(g.params == 0 for g in groups) for groups in sections] == [1, 1]
    assert [g.id.settings for (g,) in hedges.at_one_rm([direct])] == [Settings(beta=1)]


def test_seconds_are_shares_of_stages_and_all_seeds_are_paid_for_the_best():
    costs = {c.id: Spent(10.0, 4.0 * members(c.id), 2.0) for c in made()}
    by = {row["label"]: row for row in hedges.rows_of(hedges.at_one_rm(made())[0], costs, 0.95)}
    assert by["best-of-n, mean of 2 seeds"]["seconds"]["value"] == pytest.approx(16)
    assert by["best-of-n, mean: mean of 2"]["seconds"]["value"] == pytest.approx(20)
    assert by["best-of-n, best single seed, picked by gold"]["seconds"]["value"] == pytest.approx(32)
    assert by["best-of-n, mean: mean of 2"]["on_front"]
    assert not by["best-of-n, best single seed, picked by gold"]["on_front"]
    unknown = {**costs, ID: Spent(10.0, None, 2.0)}
    by = {row["label"]: row for row in hedges.rows_of(hedges.at_one_rm(made())[0], unknown, 0.95)}
    assert by["best-of-n, mean of 2 seeds"]["seconds"] is None


def test_labels_of_ensembles_count_every_member():
    assert labels(ID) == 1000
    assert labels(replace(ID, rm_combined="uwo: uncertainty_penalised of 5")) == 5000
    assert labels(replace(ID, rm_comparisons=None)) is None


def test_one_way_is_nothing_to_compare(tmp_path):
    RunFiles(tmp_path).fits.write_curves([curve(ID, 1.0)])
    with pytest.raises(CurveError, match="in more than one way"):
        hedges.measure([tmp_path], 0.95)


@pytest.fixture
def written(tmp_path, monkeypatch, capsys):
    RunFiles(tmp_path / "kept").fits.write_curves(made())
    monkeypatch.setattr("sys.argv", ["rmo", "hedges", str(tmp_path / "kept")])
    main.main()
    assert "RM of 500 parameters, 1,000 comparisons" in capsys.readouterr().out
    return tmp_path / "kept"


def test_a_table_alone_is_read_and_says_what_it_does_not_know(written):
    found = json.loads((written / "hedges.json").read_text())
    assert found["one_way_only"] == 1
    text = (written / "hedges.md").read_text()
    assert hedges.NO_COSTS in text
    assert hedges.ALONE in text
    assert "1 RMs that were optimised against in one way only" in text
    assert text.count("| best-of-n") == 3


@pytest.mark.parametrize("size", SIZES)
def test_the_page_opens_by_itself(written, size):
    with opened(written / "hedges.html", size) as page:
        assert page.locator("table tr").count() == 6
        assert page.locator("figure svg").count() == 1
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0  # tables and pictures scroll by themselves


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "rmo hedges needs a run directory"),
        (("{tmp}/none",), "does not exist: give a run directory"),
        (("{tmp}/kept", "--level", "2"), "--level is 2.0: it must lie between 0 and 1"),
    ],
)
def test_one_line_says_what_is_wrong(written, monkeypatch, capsys, tmp_path, args, said):
    monkeypatch.setattr("sys.argv", ["rmo", "hedges", *(arg.format(tmp=tmp_path) for arg in args)])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
