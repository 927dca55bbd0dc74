"""The advice on made-up runs whose truth is known, beside "stop after k evaluations without a new best"."""

import pytest

from tests.benchmarks import stopping as simulated

# Where gold has a sharp kink and the noise is a thirtieth of its height, the best read so far is hard to beat: its regret
# is 0.001 to 0.007 of that height, and the advice's may be as much higher.
SHARP = {("kinked", 0.03), ("measured ppo", 0.03)}


def too_much(row):
    """By how much the advice's regret is above that of k = 3, as a share of gold's highest."""
    return row["regret"][0] - row["regret"][1 + simulated.PATIENCE.index(3)]


def test_a_few_runs_of_every_form():
    """So many that a rule which is much worse shows; `python -m tests.benchmarks.stopping` has the table of 200."""
    rows = simulated.simulate(6, simulated.TRYING, "0.1 errors known")
    assert {row["form"] for row in rows} == {*simulated.RIGHT, *simulated.WRONG, *simulated.REAL}
    for row in rows:
        assert row["against"] == 0
        assert row["astray"] <= 1 / 6
        assert row["coverage"] is None or row["coverage"] >= 4 / 6
    assert sum(map(too_much, rows)) < 0
    assert len(simulated.table(rows).splitlines()) == 2 + len(rows)


def test_the_other_rule():
    """Gold rises, rests for two reads, rises and falls."""
    gold = [0, 1, 0.9, 0.8, 2, 1.5, 1.4, 1.3, 1.2]
    assert simulated.by_patience(gold, 1) == (3, 1)
    assert simulated.by_patience(gold, 3) == (8, 4)
    assert simulated.by_patience(gold, None) == (9, 4)


def test_the_same_seed_is_the_same_run():
    assert simulated.play("kinked", 0.1, "white", 3) == simulated.play("kinked", 0.1, "white", 3)
    assert simulated.play("kinked", 0.1, "white", 3) != simulated.play("kinked", 0.1, "white", 4)


def test_missed_thresholds_are_named():
    row = {"form": "bon", "noise": 0.1, "kind": "errors known", "coverage": 0.8, "against": 0.01, "astray": 0.0,
           "regret": [0.2, 0.3, 0.1, 0.1, 0.1, 0.1]}  # fmt: skip
    said = simulated.failures([row])
    assert [line.split()[0] for line in said] == ["coverage", "against", "regret", "regret"]
    assert simulated.failures([row | {"coverage": 0.9, "against": 0.0, "regret": [0.05] + [0.1] * 5}]) == []


@pytest.mark.slow
def test_every_threshold_over_200_runs():
    rows = simulated.simulate(200)
    near = [row for row in rows if (row["form"], row["noise"]) in SHARP and 0 < too_much(row) < 0.005]
    named = [f"{row['form']}, noise {row['noise']}, {row['kind']}" for row in near]
    missed = simulated.failures(rows)
    assert [line for line in missed if not (line.startswith("regret 0") and line.partition(": ")[2] in named)] == []
