"""`rmo run --jobs`: stages in several processes at a time."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rmo.artifacts.stages import Stage
from rmo.experiment import graph, side_by_side
from rmo.experiment.run import StageOf
from rmo.runtime import hosts
from rmo.runtime.files import SCRATCH, RunError, read_csv
from tests.helpers.smoke import CLI, ENV, ROOT, SMOKE


def chain(*needs):
    """Stages of a plan, given as (name, names of what each needs)."""
    out = {}
    for name, before in needs:
        out[name] = StageOf(name, lambda run, path: None, (), tuple(out[b] for b in before))
    return out


def test_what_most_waits_for_comes_first_and_of_equals_the_last_of_the_plan():
    stages = chain(
        ("sft", []), ("gold", ["sft"]), ("small", ["gold"]), ("large", ["gold"]), ("other", ["gold"]), ("ppo", ["small"]),
        ("bon", ["large"]), ("tilt", ["large"]), ("fits", ["ppo", "bon", "tilt", "other"]),
    )  # fmt: skip
    assert side_by_side.order(stages) == ["sft", "gold", "large", "small", "tilt", "bon", "ppo", "other", "fits"]


def test_every_stage_comes_after_what_it_needs():
    stages = graph.plan(SMOKE)
    seen = set()
    for name in side_by_side.order(stages):
        assert {before.name for before in stages[name].upstream} <= seen
        seen.add(name)
    assert seen == set(stages)


def test_cores_are_shared_out_equally():
    assert side_by_side.shares({0, 1, 2, 5, 6}, 2) == [[0, 1], [2, 5]]
    assert side_by_side.shares({3}, 2) == [[3], [3]]


def make_done(run, *names):
    for name in names:
        stage = Stage(run.path(name))
        stage.directory.mkdir(parents=True)
        stage.write_cost({"seconds": 1})
        stage.mark_done(run.stages[name].path)


def test_what_gathers_a_stage_is_made_again_after_it(tmp_path):
    """As by one process, which unmakes it: a stage that was removed by hand, of a run that was finished."""
    run = graph.open_run(SMOKE, tmp_path)
    make_done(run, *run.stages)
    assert side_by_side.to_make(run, list(run.stages)) == []
    Stage(run.path("ppo/w8x1-main")).mark_undone()
    (run.path("sft") / SCRATCH).mkdir()  # as a kill leaves it
    assert side_by_side.to_make(run, list(run.stages)) == ["ppo/w8x1-main", "fits", "report"]
    assert side_by_side.to_make(run, ["ppo/w8x1-main"]) == ["ppo/w8x1-main"]
    assert not (run.path("sft") / SCRATCH).exists()


def test_what_a_stage_needs_must_be_there_or_asked_for(tmp_path):
    run = graph.open_run(SMOKE, tmp_path)
    with pytest.raises(RunError, match="gold needs sft, which is not done: run without --only, or add sft"):
        side_by_side.execute(run, "smoke", ["gold"], ["false"], 2)


def job(run, what):
    """A command that makes sft as `what` does, in the shell's words, and waits for what comes next."""
    at, cost = run.path("sft"), '{"seconds": 1}'
    made = f"mkdir -p {at}; echo '{cost}' > {at}/cost.json; touch {at}/DONE"
    return ["sh", "-c", f"read name; made() {{ {made}; }}; {what}; cat > {at}/after || true"]


@pytest.mark.parametrize(("what", "raised", "said"), [
    ("echo wrong >&2; exit 3", SystemExit, "3"), ("exit 0", SystemExit, "1"),
    (f"exit {hosts.PREEMPTED}", hosts.Preempted, "^$"),
    ("kill -9 $$", RunError, "the process that made sft was killed by signal 9: the same command continues; if memory"),
    ("made; echo $name; exit 4", SystemExit, "4"), ("echo $name", RunError, "sft was not made although nothing failed"),
])  # fmt: skip
def test_a_job_that_fails_ends_all(tmp_path, capfd, what, raised, said):
    run = graph.open_run(SMOKE, tmp_path)
    with pytest.raises(raised, match=said):
        side_by_side.execute(run, "smoke", ["sft"], job(run, what), 2)
    if raised is SystemExit:
        assert ": see above" in capfd.readouterr().err


def test_only_its_name_says_that_a_stage_is_done(tmp_path, capfd):
    run = graph.open_run(SMOKE, tmp_path)
    noise = "echo wandb: offline; echo sft is nearly done; printf 'not UTF-8: \\377\\n' >&2; made; echo $name"
    side_by_side.execute(run, "smoke", ["sft"], job(run, noise), 16)
    said = capfd.readouterr().err
    assert "not UTF-8" in said
    assert said.count("1 of 1 stages done") == 1
    assert (run.path("sft") / "after").exists()  # it was told that there is nothing more before it ended


def test_a_job_prints_beside_its_answers():
    code = "from rmo.experiment.side_by_side import Given\nfor name in Given(): print('at', name)"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT
    ) as job:
        for name in ("sft\n", "gold\n"):  # its end while a stage is made would say that whoever gives stages is gone
            job.stdin.write(name)
            job.stdin.flush()
            assert job.stdout.readline() == name
        assert job.communicate() == ("", "at sft\nat gold\n")
    assert job.returncode == 0


def test_told_to_stop_while_jobs_begin_it_was_stopped(tmp_path, monkeypatch):
    """A scheduler's SIGTERM reaches jobs too, which die of it until they are ready to save."""
    run = graph.open_run(SMOKE, tmp_path)
    monkeypatch.setattr(hosts, "preempted", lambda: True)
    with pytest.raises(hosts.Preempted):
        side_by_side.execute(run, "smoke", ["sft"], job(run, "kill -15 $$"), 2)


def test_stopped_in_the_middle_and_continued_it_ends_as_one_process_does(tmp_path, smoke):
    command = [*CLI, "--runs", str(tmp_path), "--jobs", "2"]
    job = subprocess.Popen(command, cwd=ROOT, env=ENV, stderr=subprocess.PIPE, text=True)
    said = []
    for line in job.stderr:
        said.append(line)
        if line.startswith("3 of 20 stages done"):
            job.send_signal(signal.SIGTERM)
    assert job.wait() == hosts.PREEMPTED
    assert "".join(said).count("asked to stop, and saved") == 3  # both jobs, and who started them
    got = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-2000:]
    assert got.stdout.strip().endswith("report.html")
    assert 10 < got.stderr.count("stages done") <= 17  # at least three were done before
    ours, theirs = (read_csv(of / "curves.csv") for of in (tmp_path / "smoke", smoke))
    assert [row["method"] for row in ours] == [row["method"] for row in theirs]
    for name in ("kl", "gold", "proxy"):
        values = (np.array([float(row[name]) for row in rows]) for rows in (ours, theirs))
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-4)


def test_jobs_end_with_the_one_that_started_them(tmp_path):
    command = [*CLI, "--runs", str(tmp_path), "--jobs", "2"]
    job = subprocess.Popen(command, cwd=ROOT, env=ENV, stderr=subprocess.PIPE, text=True)
    for line in job.stderr:
        if line.startswith("stage "):
            break
    children = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) == 2
    job.kill()
    job.wait()
    deadline = time.monotonic() + 60
    while any(alive(int(pid)) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
