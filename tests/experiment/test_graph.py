"""Which stages there are, what each depends on, and which ones `--only` and schedulers pick."""

import dataclasses
from pathlib import Path

import pytest

from rmo import config
from rmo.config import Combined
from rmo.config.names import comparisons_name
from rmo.experiment import graph
from rmo.experiment.stages.report import status
from rmo.methods import method as methods
from rmo.methods.method import Job, find
from rmo.runtime.files import RunError
from tests.helpers.smoke import SMOKE


def paths(e):
    return {name: stage.path for name, stage in graph.plan(e).items()}


def changed(e):
    """Stages that a changed experiment does not share with the smoke experiment."""
    before = paths(SMOKE)
    return [name for name, path in paths(e).items() if before.get(name) != path]


def test_the_report_depends_on_the_whole_experiment_and_nothing_else_on_its_note():
    assert changed(dataclasses.replace(SMOKE, note="Another note.")) == ["report"]
    assert changed(dataclasses.replace(SMOKE, ppo=dataclasses.replace(SMOKE.ppo, kl_max=3.0)))[-1] == "report"
    assert changed(dataclasses.replace(SMOKE, name="mine", tags=("mine",))) == []


def test_combined_rewards_change_no_stage_before_their_scores():
    sweep = dataclasses.replace(SMOKE.proxies.sweeps[0], combined=(Combined("mean"),))
    combined = dataclasses.replace(SMOKE, proxies=dataclasses.replace(SMOKE.proxies, sweeps=(sweep,)))
    assert {name.split("/")[0] for name in changed(combined)} == {"scores", "bon", "ppo", "fits", "report"}


def test_a_method_that_learns_from_labels_waits_for_the_comparisons_and_for_no_rm(monkeypatch):
    """Its stage of labels is there where a method asks for it, and depends on what the labels depend on alone."""

    def jobs(e):
        yield Job("toy", comparisons_name(e.proxies.sweeps[0]), ())

    methods.every()
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))
    assert "scores/comparisons-main" not in graph.plan(SMOKE)
    methods.register(dataclasses.replace(methods.find("tilt"), name="toy", jobs=jobs))
    made = graph.plan(SMOKE)
    assert [stage.name for stage in made["toy/toy"].upstream] == ["scores/comparisons-main"]
    assert [stage.name for stage in made["scores/comparisons-main"].upstream] == ["samples", "comparisons"]
    before = paths(SMOKE)
    for change, same in (({"optimizer": config.Optimizer(lr=1.0)}, True), ({"seeds": 3}, False)):
        e = dataclasses.replace(SMOKE, proxies=dataclasses.replace(SMOKE.proxies, **change))
        assert (graph.plan(e)["toy/toy"].path == made["toy/toy"].path) == same
        assert graph.plan(e)["proxies/w8x1-main"].path != before["proxies/w8x1-main"]


def test_stale_is_detected(smoke):
    other = dataclasses.replace(SMOKE, proxies=dataclasses.replace(SMOKE.proxies, batch=32))
    states = {row["stage"]: row["state"] for row in status(graph.open_run(other, smoke))}
    for name in ("sft", "gold", "samples", "comparisons"):
        assert states[name] == "done"
    for name in ("proxies/w8x1-main", "scores/w8x1-main", "bon/w8x1-main", "ppo/w8x1-main", "fits"):
        assert states[name] == "stale"


def test_only_picks_a_kind_or_one_instance():
    """`sft` is also that of another policy, whose name begins so; `=sft` is not."""
    e = dataclasses.replace(SMOKE, other_policies=(config.OtherPolicy(dataclasses.replace(SMOKE.policy, width=48)),))
    run = graph.open_run(e, Path("nowhere"))
    other = f"sft/48x{SMOKE.policy.layers}"
    assert graph.matching(run, ("sft",)) == ["sft", other]
    assert graph.matching(run, ("=sft",)) == ["sft"]
    assert graph.matching(run, (other, f"={other}")) == [other]
    assert graph.matching(run, ("=proxies/w8x1-main", "fits")) == ["proxies/w8x1-main", "fits"]
    with pytest.raises(RunError, match="no such stage"):
        graph.matching(run, ("=proxies",))


def test_groups_hold_every_stage_once_and_wait_for_all_that_comes_before():
    e = dataclasses.replace(SMOKE, other_policies=(config.OtherPolicy(dataclasses.replace(SMOKE.policy, width=48)),))
    run = graph.open_run(e, Path("nowhere"))
    names = [name for _, _, names in graph.groups(run) for name in names]
    assert sorted(names) == sorted(run.stages)
    before = {}
    for group, needs, names in graph.groups(run):
        done = {name for need in needs for name in before[need]}
        for name in names:
            assert {stage.name for stage in run.stages[name].upstream} <= done
        before[group] = names


def test_a_stage_waits_for_those_whose_policies_it_takes(monkeypatch):
    bon = find("bon")
    job = dataclasses.replace(next(iter(bon.jobs(SMOKE))), after=("ppo/w8x1-main",))
    toy = dataclasses.replace(bon, name="toy", rank=50, jobs=lambda e: [job])
    monkeypatch.setitem(graph.methods._METHODS, "toy", toy)
    stage = graph.plan(SMOKE)["toy/w8x1-main"]
    assert [s.name for s in stage.upstream] == ["scores/w8x1-main", "ppo/w8x1-main"]
    early = dataclasses.replace(toy, rank=0)  # before PPO, whose stages are not there yet
    monkeypatch.setitem(graph.methods._METHODS, "toy", early)
    with pytest.raises(config.ConfigError, match="toy/w8x1-main needs ppo/w8x1-main: no stage before it is called so"):
        graph.plan(SMOKE)
