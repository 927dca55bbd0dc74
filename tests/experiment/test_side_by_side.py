"""`rmo run --jobs`: stages in several processes at a time."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest

from rmo.experiment import graph, side_by_side
from rmo.experiment.run import StageOf
from rmo.runtime import hosts
from rmo.runtime.files import RunError, read_csv
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


def test_cores_are_shared_out():
    assert side_by_side.shares({0, 1, 2, 5, 6}, 2) == [[0, 2, 6], [1, 5]]
    assert side_by_side.shares({3}, 2) == [[3], [3]]


def test_what_a_stage_needs_must_be_there_or_asked_for(tmp_path):
    run = graph.open_run(SMOKE, tmp_path)
    with pytest.raises(RunError, match="gold needs sft, which is not done: run without --only, or add sft"):
        side_by_side.execute(run, "smoke", ["gold"], ["false"], 2)


@pytest.mark.parametrize(("line", "raised", "said"), [
    ("exit 3", SystemExit, "3"), (f"exit {hosts.PREEMPTED}", hosts.Preempted, "^$"),
    ("kill -9 $$", RunError, "the process that made sft was killed by signal 9: the same command continues; if memory"),
])  # fmt: skip
def test_a_job_that_ends_ends_all(tmp_path, line, raised, said):
    run = graph.open_run(SMOKE, tmp_path)
    with pytest.raises(raised, match=said):
        side_by_side.execute(run, "smoke", ["sft"], ["sh", "-c", f"read name; {line}"], 2)


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
