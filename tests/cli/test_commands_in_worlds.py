"""Commands on a config that runs in several worlds."""

from dataclasses import replace

import pytest

from rmo import config
from rmo.cli import options
from rmo.cli.commands import list_stages, run
from rmo.config import checks
from rmo.report import worlds
from rmo.runtime.files import RunError
from rmo.tracking import watch
from tests.helpers.smoke import SMOKE


@pytest.fixture(autouse=True)
def three(monkeypatch):
    monkeypatch.setattr(checks, "load", lambda path: replace(SMOKE, worlds=(1, 2, 3)))
    monkeypatch.setattr(options.checks, "load", checks.load)


def test_run_makes_one_world_after_the_other_and_then_the_summary(monkeypatch, tmp_path, capsys):
    made, written = [], []
    monkeypatch.setattr(run, "make", lambda options, of, *_: made.append((of.root, of.experiment.world.seed)))
    monkeypatch.setattr(worlds, "finished_worlds", lambda root: dict.fromkeys("ab"))
    monkeypatch.setattr(worlds, "unlike", lambda root: "")
    monkeypatch.setattr(worlds, "write", lambda root: written.append(root))
    run.main(["smoke.py", "--runs", str(tmp_path)])
    assert made == [(tmp_path / "smoke" / f"world-{seed}", seed) for seed in (1, 2, 3)]
    assert written == [tmp_path / "smoke"]
    assert "smoke/world-2: world 2 of 3" in capsys.readouterr().err
    made.clear()
    run.main(["smoke.py", "--runs", str(tmp_path), "--worlds", "3"])
    assert made == [(tmp_path / "smoke" / "world-3", 3)]


def test_worlds_of_two_configs_end_without_a_summary(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "make", lambda options, of, *_: None)
    monkeypatch.setattr(worlds, "finished_worlds", lambda root: dict.fromkeys("ab"))
    monkeypatch.setattr(worlds, "unlike", lambda root: "world-2 had another config than world-1")
    run.main(["smoke.py", "--runs", str(tmp_path)])
    assert "rmo: no summary over worlds: world-2 had another config" in capsys.readouterr().err


def test_list_shows_every_world_and_jobs_are_of_one(tmp_path, capsys):
    list_stages.main(["smoke.py", "--runs", str(tmp_path)])
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("smoke/world-")] == [f"smoke/world-{seed}" for seed in (1, 2, 3)]
    assert sum("gold" in line.split() for line in shown) == 3
    with pytest.raises(config.ConfigError, match="give one of them, as --worlds 1"):
        list_stages.main(["smoke.py", "--runs", str(tmp_path), "--jobs"])
    list_stages.main(["smoke.py", "--runs", str(tmp_path), "--jobs", "--worlds", "2"])
    assert capsys.readouterr().out.startswith("sft\t-\tsft\n")


def test_watch_asks_for_one_world(tmp_path):
    (tmp_path / "smoke" / "world-2").mkdir(parents=True)
    with pytest.raises(RunError, match=r"holds a run in each of several worlds: give one, e.g. .*world-2"):
        watch.stages(tmp_path / "smoke")
