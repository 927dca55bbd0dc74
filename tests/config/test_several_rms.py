"""What cannot be combined is refused in one line, before any work."""

import dataclasses

import pytest

from rmo import config
from rmo.config import Combined, checks
from rmo.experiment import graph

BASE = config.Experiment(proxies=config.Proxies(seeds=3))


def combined(*entries, seeds=3):
    sweep = dataclasses.replace(BASE.proxies.sweeps[0], combined=entries)
    return dataclasses.replace(BASE, proxies=dataclasses.replace(BASE.proxies, sweeps=(sweep,), seeds=seeds))


def planned(e):
    checks.check(e)
    return graph.plan(e)


def refused(e, message):
    with pytest.raises(config.ConfigError, match=message) as error:
        planned(e)
    assert "\n" not in str(error.value)


def test_every_way_to_combine_is_planned():
    ways = ("mean", "worst_case", "uncertainty_penalised", "median", "mean_less_deviation", "pessimistic")
    e = combined(*(Combined(how, how) for how in (*ways, "weight_averaged")))
    assert "scores/w16x1-main" in planned(e)


@pytest.mark.parametrize(
    ("entry", "seeds", "message"),
    [
        (Combined(seeds=(1,)), 3, "combined mean is an ensemble of one: give it two seeds or more"),
        (Combined(), 1, "combined mean is an ensemble of one"),
        (Combined(seeds=(0, 0)), 3, r"seeds \(0, 0\) names a seed twice"),
        (Combined(seeds=(0, 7)), 3, "seeds has 7: proxies.seeds holds indices 0 to 2"),
        (Combined(how="geometric"), 3, "no way to combine RMs is called 'geometric'"),
        (Combined(how="pessimistic", coefficient=0.0), 3, "coefficient is 0: pessimistic divides by it"),
        (Combined(how="mean_less_deviation", coefficient=-1.0), 3, "must be at least 0"),
    ],
)
def test_wrong_combinations_are_refused(entry, seeds, message):
    refused(combined(entry, seeds=seeds), message)
