"""Gold by step: the regressions against brute force, and how often the verdicts are right."""

import itertools

import numpy as np
import pytest

from rmo.analysis import by_step


def brute(values, mode):
    """Squares left by the closest curve that rises to a mode and falls, of all partitions into levels."""
    best = np.inf
    size = len(values)
    for cuts in itertools.product((False, True), repeat=size - 1):
        parts = np.split(values, [i + 1 for i, cut in enumerate(cuts) if cut])
        fit = np.concatenate([np.full(len(part), part.mean()) for part in parts])
        steps = np.diff(fit)
        if (steps[:mode] >= -1e-12).all() and (steps[mode:] <= 1e-12).all():
            best = min(best, float(((values - fit) ** 2).sum()))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_regressions_are_the_closest_curves(seed):
    values = np.random.default_rng(seed).normal(size=7)
    weight = np.ones(7)
    fit, left = by_step.rising(values, weight)
    assert (np.diff(fit) >= -1e-12).all()
    for k in range(7):
        assert left[k] == pytest.approx(brute(values[: k + 1], k), abs=1e-9)
    shape = by_step.unimodal(values, weight)
    assert shape.error == pytest.approx(min(brute(values, mode) for mode in range(7)), abs=1e-9)
    assert ((values - shape.fit) ** 2).sum() == pytest.approx(shape.error, abs=1e-9)


def run(kind, seed, k=30, noise=0.1, together=0.0):
    x = np.linspace(0, 1, k)
    truth = {
        "rises": 1.5 * x,
        "levels off": np.minimum(3 * x, 1.0),
        "flat": 0 * x,
        "turns": np.minimum(2 * x, 2 - 2 * x),
    }[kind]
    return 10.0 * np.arange(k), truth + by_step.draws(np.full(k, noise), together, 1, seed)[0]


def share(verdict, kind, seeds=20, **more):
    return np.mean([by_step.judge(*run(kind, seed, **more), count=200)["verdict"] == verdict for seed in range(seeds)])


@pytest.mark.parametrize("kind", ["rises", "levels off", "flat"])
@pytest.mark.parametrize(("together", "most"), [(0.0, 0.05), (0.6, 0.4)])
def test_what_does_not_fall_is_hardly_ever_stopped(kind, together, most):
    """Of noise that wanders, 30 reads say too little for that: 1 run of 5 is stopped, where it costs nothing."""
    assert share("stop", kind, together=together) <= most


def test_what_falls_is_stopped_near_its_peak():
    judged = [by_step.judge(*run("turns", seed), count=200) for seed in range(20)]
    assert np.mean([one["verdict"] == "stop" for one in judged]) >= 0.7
    assert np.mean([one["interval"][0] <= 145 <= one["interval"][1] for one in judged]) >= 0.85
    assert np.median([abs(one["step"] - 145) for one in judged]) <= 30


def test_what_rises_goes_on_and_what_is_flat_is_undecided():
    assert share("go on", "rises", noise=0.05) > 0.5
    assert share("undecided", "flat") > 0.9


def test_nobody_is_sent_below_what_was_measured():
    """Gold at the advised step is within two of the noise's standard deviations of the highest in its interval."""
    for seed in range(10):
        step, gold = run("turns", seed, noise=0.2)
        found = by_step.judge(step, gold, count=200)
        inside = (step >= found["interval"][0]) & (step <= found["interval"][1])
        assert gold[inside].max() - found["gold"] <= 2 * 0.35


def test_few_reads_many_reads_and_reads_without_noise():
    assert "gold was read 3 times, and 5 are needed" in by_step.judge(np.arange(3.0), np.arange(3.0))["sentence"]
    x = np.linspace(0, 1, 5000)
    many = by_step.judge(
        np.arange(5000.0), np.minimum(x, 1 - x) + 0.1 * np.random.default_rng(0).normal(size=5000), count=200
    )
    assert many["verdict"] == "stop"
    assert many["step"] == pytest.approx(2500, abs=400)
    exact = by_step.judge(np.arange(20.0), np.minimum(np.arange(20.0), 10), count=200)
    assert exact["verdict"] == "undecided"


def test_the_logs_own_errors_count():
    """A fall that neighbours make look large is none beside large standard errors."""
    step = np.arange(20.0)
    gold = np.minimum(step, 19 - step) / 10
    assert by_step.judge(step, gold, np.full(20, 0.01), count=200)["verdict"] == "stop"
    assert by_step.judge(step, gold, np.full(20, 1.0), count=200)["verdict"] == "undecided"
