"""What the report says of the hierarchical fit and of RM sizes that were left out of it."""

from dataclasses import replace

import numpy as np
import pytest

from rmo.analysis.curve_id import Settings
from rmo.analysis.scaling import summarise
from rmo.analysis.sweeps import Missing
from rmo.report.figures.drawing import Files
from rmo.report.figures.forecasts import left_out_sizes
from rmo.report.page import markdown, over_sizes
from tests.helpers.made_sweeps import made_sweep


@pytest.fixture(scope="module")
def files():
    rng = np.random.default_rng(0)
    curves = [c for m in ("bon", "ppo") for g in made_sweep(rng, m, 5, 2, prompts=8).groups for c in g.curves]
    return Files(curves, summarise(curves, draws=20, rank_draws=3))


def test_tables_have_a_row_per_size_and_the_law(files):
    part = files.summary["bon"]
    assert over_sizes.hierarchy_table(part).count("<tr>") == 1 + 5 + 1
    shown = over_sizes.left_out_table(part)
    assert shown.count("<tr>") == 1 + 5
    assert shown.count("†") == 3  # two ends, and what the mark means
    assert over_sizes.hierarchy_table({}) == over_sizes.left_out_table({}) == ""


def test_the_figure_has_a_point_per_method_and_size(files):
    panels = left_out_sizes(files).axes
    assert [len(axis.containers) for axis in panels] == [5, 5]
    for axis, method in zip(panels, ("bon", "ppo"), strict=True):
        rows = files.summary[method]["left_out"]
        drawn = [bars.lines[0].get_ydata()[0] for bars in axis.containers]
        np.testing.assert_allclose(drawn, [row["predicted_gold"] for row in rows])
    with pytest.raises(Missing, match="fewer than four RM sizes"):
        left_out_sizes(Files(files.curves, {}))


def test_results_say_how_left_out_sizes_are_forecast(files):
    text = markdown.results(files, [])
    inside = sum(row["gold_inside"] for row in files.summary["ppo"]["left_out"])
    said = f"Highest gold of an RM size predicted from the other sizes, each left out once: {inside} of 5 lie in"
    assert any(line.startswith(f"RL (PPO): {said}") for line in text.splitlines())
    summary = {name: {"groups": part["groups"]} for name, part in files.summary.items()}
    bare = Files(files.curves, summary)
    assert "left out once" not in markdown.results(bare, [])


def test_more_than_two_methods_stand_below_each_other(files):
    """One row per size and method, none where a method was not run, and what its RMs learned from beside it."""
    two = markdown.sizes_table(files).splitlines()
    assert len(two) == 2 + 5
    assert two[0].count("|") == 1 + 1 + 2 * 4
    few = [replace(c, id=replace(c.id, method="rounds", settings=Settings(rounds=2))) for c in files.curves[:2]]
    lines = markdown.sizes_table(replace(files, curves=[*files.curves, *few])).splitlines()
    names = "RM parameters | comparisons | method | highest gold (KL) | gold at the end (KL) | its proxy | R²"
    assert lines[0] == f"| {names} |"
    assert len(lines) == 2 + 2 * 5 + 1
    smallest = [line.strip("| ").split(" | ") for line in lines[2:5]]
    assert [cells[2] for cells in smallest] == ["best-of-n", "PPO", "rounds, rounds=2"]
    assert len({tuple(cells[:2]) for cells in smallest}) == 1
    best_of_n = two[2].strip("| ").split(" | ")
    assert smallest[0][3].split() == best_of_n[1].split()
    assert smallest[0][4].startswith(f"{best_of_n[2]} (")
    assert smallest[2][3:6] == smallest[0][3:6]  # the same curves by another name
    assert smallest[2][6] == "–"  # without a fit
