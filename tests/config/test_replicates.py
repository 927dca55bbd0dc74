"""One config in several worlds: whose runs are other experiments, and what is refused."""

from dataclasses import dataclass, replace

import pytest

from rmo import config
from rmo.config import checks
from rmo.config.replicates import replicates, single
from rmo.experiment import graph
from tests.helpers.smoke import SMOKE

THREE = replace(SMOKE, worlds=(1, 2, 30))


def test_without_worlds_an_experiment_is_itself():
    assert replicates(SMOKE) == {"smoke": SMOKE}
    assert single(SMOKE) == ("smoke", SMOKE)


def test_every_world_has_its_own_run_and_its_own_random_numbers():
    found = replicates(THREE)
    assert list(found) == ["smoke/world-1", "smoke/world-2", "smoke/world-30"]
    assert [(e.world.seed, e.seed, e.worlds) for e in found.values()] == [(1, 1, ()), (2, 2, ()), (30, 30, ())]
    for e in found.values():
        checks.check(e)


def test_a_world_of_several_has_the_stages_of_a_run_in_that_world_alone():
    alone = replace(SMOKE, seed=2, world=replace(SMOKE.world, seed=2))
    paths = [
        {name: stage.path for name, stage in graph.plan(e).items()} for e in (alone, replicates(THREE)["smoke/world-2"])
    ]
    assert paths[0] == paths[1]
    assert graph.plan(SMOKE)["report"].path == graph.plan(THREE)["report"].path


def test_one_world_is_asked_for_where_one_run_is_needed():
    with pytest.raises(config.ConfigError, match=r"smoke runs in the worlds 1, 2, 30: give one of them, as --worlds 1"):
        single(THREE)
    assert single(replace(THREE, worlds=(2,)))[0] == "smoke/world-2"


@dataclass(frozen=True)
class Seedless(config.WorldConfig):
    prompt: int = 4
    response: int = 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"worlds": (1, 1)}, r"worlds is \(1, 1\): give seeds of at least 0, each once"),
        ({"worlds": (-1,)}, r"worlds is \(-1,\): give seeds"),
        ({"worlds": (1, 2), "world": Seedless()}, "a Seedless has no `seed` that it is drawn from; leave worlds out"),
        ({"worlds": (1, 2), "world": config.Text(prompts="p.jsonl")}, "a Text has no `seed`"),
    ],
)
def test_worlds_that_cannot_be_are_refused_in_one_line(change, said):
    with pytest.raises(config.ConfigError, match=said):
        checks.check(replace(SMOKE, **change))
