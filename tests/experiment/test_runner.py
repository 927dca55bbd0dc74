"""Runs of the smoke experiment: resumed after a kill bit for bit, made again where it must be, the same on any mesh."""

import dataclasses
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from rmo.artifacts.stages import Optimised, Stage
from rmo.checkpoints import saved_model
from rmo.experiment import graph, runner
from rmo.experiment.stages.report import publish
from rmo.runtime import files, sharding
from rmo.runtime.files import RunError, read_csv, read_json, write_json
from rmo.tracking import status
from tests.helpers.flags import FAST
from tests.helpers.smoke import CLI, ENV, ROOT, SMOKE, copied
from tests.helpers.tables import close


def test_second_run_recomputes_nothing(smoke):
    before = {p: p.stat().st_mtime_ns for p in smoke.rglob("*") if p.is_file() and p.parent != smoke}
    started = time.monotonic()
    got = subprocess.run([*CLI, "--runs", str(smoke.parent)], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert got.returncode == 0
    assert time.monotonic() - started < 30
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_going_back_to_an_earlier_setting_shows_its_own_report(smoke, tmp_path):
    """Everything at the top of a run directory belongs to one experiment, whichever was asked for last."""
    here = copied(smoke, tmp_path)
    other = dataclasses.replace(SMOKE, fits=dataclasses.replace(SMOKE.fits, level=0.5))
    first = (here / "report.html").read_text()
    runner.execute(run := graph.open_run(other, here, sharding.make_mesh()))
    publish(run)
    assert "50% intervals" in (here / "report.html").read_text()
    publish(graph.open_run(SMOKE, here))
    assert (here / "report.html").read_text() == first
    assert read_json(here / "experiment.json")["fits"]["level"] == SMOKE.fits.level
    unfinished = dataclasses.replace(SMOKE, seed=5)
    publish(graph.open_run(unfinished, here))
    assert read_json(here / "experiment.json")["seed"] == SMOKE.seed  # nothing is half replaced


def test_the_report_is_drawn_again_with_what_was_made_again(smoke, tmp_path):
    """Whoever removes the directory of a stage gets fits and report again too."""
    here = copied(smoke, tmp_path)
    run = graph.open_run(SMOKE, here, sharding.make_mesh())
    shutil.rmtree(run.path("fits"))
    assert runner.execute(run, ("fits",)) == ["fits"]
    assert not run.done("report")  # whoever comes next draws it: a job of its own, the command that was killed here
    assert runner.execute(run) == ["report"]
    assert runner.execute(run) == []
    shutil.rmtree(run.path("bon/w8x1-main"))
    assert runner.execute(run) == ["bon/w8x1-main", "fits", "report"]


def made_by_other_code(run, name):
    """Write into a finished stage that other code made it."""
    file = run.path(name) / "cost.json"
    write_json(file, read_json(file) | {"code": "000000000000"})
    Stage(run.path(name)).mark_done(run.stages[name].path)


def written(here):
    return {file: file.stat().st_mtime_ns for file in here.rglob("*") if file.is_file()}


def test_what_other_code_made_is_marked_and_made_again_with_all_that_rests_on_it(smoke, tmp_path):
    """And nothing else: not a best-of-n that rests on other scores."""
    here = copied(smoke, tmp_path)
    run = graph.open_run(SMOKE, here, sharding.make_mesh(1))
    every = list(run.stages)
    assert runner.remake(run, every) == []
    made_by_other_code(run, "scores/w16x1-main")
    lines = status.lines(status.look(here, {name: stage.path for name, stage in run.stages.items()}))
    assert [line.split()[1] for line in lines if line.startswith("done*")] == ["scores/w16x1-main"]
    assert "--remake" in lines[-1]
    before, curves = written(here), (smoke / "curves.csv").read_bytes()
    again = ["scores/w16x1-main", "bon/w16x1-main", "fits", "report"]
    assert runner.remake(run, every) == again
    assert not any(run.path(name).exists() for name in again)  # parts of the scores too
    kept = {file: at for file, at in before.items() if file.exists()}
    assert len(kept) > len(before) / 2
    assert runner.execute(run) == again
    now = written(here)
    assert all(now[file] == at for file, at in kept.items() if file.parent != here)
    publish(run)
    assert (here / "curves.csv").read_bytes() == curves
    assert runner.remake(run, every) == []


def test_making_a_stage_again_removes_what_was_made_part_by_part(smoke, tmp_path):
    """And stages that were not asked for but rest on it: they would stand for results that are gone."""
    run = graph.open_run(SMOKE, copied(smoke, tmp_path))
    made_by_other_code(run, "samples")
    assert runner.remake(run, ["sft", "gold", "comparisons"]) == []
    assert runner.remake(run, ["samples"]) == [name for name in run.stages if name not in ("sft", "gold")]
    assert [name for name in run.stages if run.path(name).exists()] == ["sft", "gold"]


def test_a_kill_while_stages_are_removed_is_survived(smoke, tmp_path, monkeypatch):
    """What is left still says that other code made it: the same command goes on removing."""
    run = graph.open_run(SMOKE, copied(smoke, tmp_path))
    made_by_other_code(run, "samples")

    def half(directory):
        for file in sorted(directory.rglob("*.npz"))[::2]:
            file.unlink()
        raise Kill

    with monkeypatch.context() as patched:
        patched.setattr(runner, "remove", half)
        with pytest.raises(Kill):
            runner.remake(run, ["samples"])
    assert not run.done("samples")
    assert "samples" in runner.remake(run, ["samples"])
    assert not run.path("samples").exists()


class Kill(BaseException):
    """Stands for SIGKILL: nothing below catches it."""


@pytest.mark.parametrize(
    ("owner", "step"),
    [(saved_model, "save_params"), (Stage, "write_cost"), (Stage, "mark_done"), (files.shutil, "rmtree")],
)
def test_a_kill_between_any_two_steps_of_a_stage_is_survived(owner, step, tmp_path, monkeypatch):
    """Saving, describing, marking done, cleaning up: dying in any of them costs a repetition, never the stage."""
    tiny = dataclasses.replace(SMOKE, sft=dataclasses.replace(SMOKE.sft, texts=256, epochs=1))
    run = graph.open_run(tiny, tmp_path / "run", sharding.make_mesh(1))
    left = run.path("sft") / "scratch" / "left"  # so short a training saves no state of its own
    left.mkdir(parents=True)
    for name in "abc":
        (left / name).write_text("")

    def dying(path, *args, **kwargs):
        if step == "rmtree":  # half of it is gone already
            for file in sorted(Path(path).rglob("*"))[::2]:
                if file.is_file():
                    file.unlink()
        raise Kill

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, dying)
        with pytest.raises(Kill):
            runner.execute(run, ("sft",))
    assert runner.execute(run, ("sft",)) == ([] if step == "rmtree" else ["sft"])
    assert run.done("sft")
    assert not (run.path("sft") / "scratch").exists()


def test_an_edit_of_the_note_makes_the_report_again_and_nothing_else(smoke, tmp_path):
    here = copied(smoke, tmp_path)
    run = graph.open_run(dataclasses.replace(SMOKE, note="Quite another note."), here, sharding.make_mesh(1))
    assert runner.execute(run) == ["report"]
    publish(run)
    assert "<b>Quite another note.</b>" in (here / "report.html").read_text()


# Programs of a model's size that each kind of stage compiles, and how many small ones beside them at most.
PROGRAMS = {
    "sft": ({"step", "loss"}, 6), "gold": ({"step", "sample", "score"}, 3), "samples": ({"sample_n", "score_n"}, 3),
    "comparisons": ({"sample", "score"}, 2), "proxies": ({"step", "score"}, 25), "scores": ({"every_member"}, 8),
    "scores/gold": (set(), 0), "bon": (set(), 8), "tilt": (set(), 0),
    "ppo": ({"advance", "read"}, 24), "fits": ({"score"}, 0), "report": (set(), 0),
}  # fmt: skip


def test_every_program_is_compiled_once(smoke):
    """A shape or a static argument that changes from call to call would compile one again."""
    for stage in read_json(smoke / "stages.json"):
        programs = read_json(smoke / stage["path"] / "cost.json")["programs"]
        large, small = PROGRAMS.get(stage["stage"]) or PROGRAMS[stage["stage"].split("/")[0]]
        assert {name: programs.get(name) for name in large} == dict.fromkeys(large, 1), stage["stage"]
        assert sum(programs.values()) - len(large) <= small, (stage["stage"], programs)


def test_only_needs_upstream(tmp_path):
    run = graph.open_run(SMOKE, tmp_path / "smoke", sharding.make_mesh())
    with pytest.raises(RunError, match="samples needs sft"):
        runner.execute(run, ("samples",))


@pytest.mark.slow
def test_random_teacher_and_sharded_run(tmp_path):
    """The other gold, on 8 devices, up to best-of-n."""
    e = dataclasses.replace(SMOKE, gold=dataclasses.replace(SMOKE.gold, kind="random"))
    run = graph.open_run(e, tmp_path / "smoke", sharding.make_mesh())
    assert jax.device_count() == 8
    runner.execute(
        run, ("sft", "gold", "samples", "comparisons", "proxies/w8x1-main", "scores/w8x1-main", "bon/w8x1-main")
    )
    record = Optimised(run.path("bon/w8x1-main")).record
    assert (np.diff(record.proxy.mean(-1), axis=1) > 0).all()
    assert record.gold.mean(-1)[:, -1].min() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("model", [1, 2, 4])
def test_the_same_curves_on_eight_devices(smoke, tmp_path, model):
    """As 8x1, 4x2 and 2x4: those of one device, but for rounding (and what follows where it turns one drawn token)."""
    env = ENV | {"XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {FAST}"}
    command = [*CLI, "--runs", str(tmp_path), "--model-parallel", str(model)]
    got = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-2000:]
    assert len(read_csv(smoke / "curves.csv")) > 50
    close(smoke / "curves.csv", tmp_path / "smoke" / "curves.csv", 2e-4)


@pytest.mark.slow
def test_sigkill_anywhere_ends_in_the_same_bytes(tmp_path):
    """Killed with SIGKILL again and again at growing delays, the run ends with the undisturbed curves.csv; with programs
    that are compiled as users' are."""
    env, whole = ENV | {"XLA_FLAGS": ""}, tmp_path / "whole"
    subprocess.run([*CLI, "--runs", str(whole)], cwd=ROOT, env=env, capture_output=True, check=True)
    command = [*CLI, "--runs", str(tmp_path)]
    for attempt in range(12):
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=8 + 1.7 * attempt)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        else:
            break
    assert subprocess.run(command, cwd=ROOT, env=env, capture_output=True).returncode == 0
    for name in ("curves.csv", "coefficients.json", "gold.json"):
        assert (tmp_path / "smoke" / name).read_bytes() == (whole / "smoke" / name).read_bytes()
