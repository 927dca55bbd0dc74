"""What cannot be combined is refused in one line, before any work."""

import dataclasses

import pytest

from rmo import config
from rmo.config import Against, Combined, Ensemble, Model, Recipe, Sweep, checks, with_each_left_out
from rmo.experiment import graph

BASE = config.Experiment(proxies=config.Proxies(seeds=3))


def combined(*entries, seeds=3):
    sweep = dataclasses.replace(BASE.proxies.sweeps[0], combined=entries)
    return dataclasses.replace(BASE, proxies=dataclasses.replace(BASE.proxies, sweeps=(sweep,), seeds=seeds))


SIZES = (Model(width=16, layers=1, heads=2), Model(width=32, layers=1, heads=2), Model(width=48, layers=1, heads=2))


def over_sizes(*entries, against=(), **proxies):
    here = dataclasses.replace(BASE.proxies, sizes=SIZES, **proxies)
    ppo = dataclasses.replace(BASE.ppo, against=(Against(ensembles=against),))
    return dataclasses.replace(BASE, proxies=here, ensembles=entries, ppo=ppo)


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


def test_ensembles_over_sizes_are_stages_of_their_own():
    plan = planned(over_sizes(Ensemble("two", sizes=(0, 2)), Ensemble("all", "worst_case"), against=(1,)))
    upstream = {stage.name for stage in plan["scores/ensemble-two"].upstream}
    assert upstream == {"samples", "scores/w16x1-main", "scores/w48x1-main"}
    assert {"bon/ensemble-two", "bon/ensemble-all", "ppo/ensemble-all-main"} <= set(plan)
    assert "ppo/ensemble-two-main" not in plan
    alone = planned(over_sizes())
    new = {"fits", "report"} | {name for name in plan if "ensemble-" in name}
    assert {name: stage.path for name, stage in plan.items() if name not in new} == {
        name: stage.path for name, stage in alone.items() if name not in new
    }


@pytest.mark.parametrize(
    ("entry", "more", "message"),
    [
        (Ensemble(sizes=(1,)), {}, "ensembles.0 is of one RM size: give it two or more"),
        (Ensemble(sizes=(1, 1)), {}, r"ensembles.0.sizes \(1, 1\) names a size twice"),
        (Ensemble(sizes=(1, 3)), {}, r"ensembles.0.sizes is \(1, 3\): sweep main has sizes \(0, 1, 2\)"),
        (Ensemble(sweep="other"), {}, "ensembles.0.sweep is 'other': proxies.sweeps with best-of-n has main"),
        (Ensemble(recipe=1), {}, "ensembles.0.recipe has 1"),
        (Ensemble(seeds=(3,)), {}, "ensembles.0: seeds has 3"),
        (
            Ensemble(how="weight_averaged"),
            {},
            "weight_averaged averages parameters, which RMs of different sizes do not",
        ),
        (Ensemble(how="pessimistic", coefficient=0.0), {}, "ensemble sizes: coefficient is 0"),
        (Ensemble(), {"against": (1,)}, "ppo.against.0.ensembles has 1: the ensembles holds indices 0 to 0"),
        (Ensemble(), {"sweeps": (Sweep(sizes=(1,)),)}, "ensembles.0 is of one RM size"),
    ],
)
def test_wrong_ensembles_are_refused(entry, more, message):
    refused(over_sizes(entry, **more), message)


def test_ppo_against_an_ensemble_that_is_not_there():
    refused(over_sizes(against=(0,)), "ppo.against.0.ensembles has 0: there are no ensembles")


def test_an_ensemble_without_each_of_its_seeds():
    found = with_each_left_out(Combined("uwo", "uncertainty_penalised", coefficient=0.7), 3)
    assert [c.name for c in found] == ["uwo", "uwo-without-0", "uwo-without-1", "uwo-without-2"]
    assert [c.seeds for c in found] == [(), (1, 2), (0, 2), (0, 1)]
    assert {(c.how, c.coefficient) for c in found} == {("uncertainty_penalised", 0.7)}
    planned(combined(*found))
    assert [e.seeds for e in with_each_left_out(Ensemble(seeds=(0, 2)), 3)[1:]] == [(2,), (0,)]
    refused(combined(*with_each_left_out(Combined(), 2), seeds=2), "mean-without-0 is an ensemble of one")


def test_ppo_against_ensembles_of_clean_and_of_noisy_labels():
    """They are other rewards, however alike they are called; the same one twice is refused."""
    sweeps = (
        Sweep(combined=(Combined(), Combined("worst", "worst_case"))),
        Sweep("noise", (Recipe(flip=0.25),), combined=(Combined(),)),
    )
    both = Against(combined=(0,)), Against("noise", sweep="noise", combined=(0,))
    proxies = dataclasses.replace(BASE.proxies, sweeps=sweeps)
    e = dataclasses.replace(BASE, proxies=proxies, ppo=dataclasses.replace(BASE.ppo, against=both))
    assert {"ppo/w16x1-main-mean", "ppo/w16x1-noise-mean"} <= set(planned(e))
    twice = dataclasses.replace(e, ppo=dataclasses.replace(BASE.ppo, against=(Against(combined=(0, 0)),)))
    refused(twice, "optimises one proxy twice")
