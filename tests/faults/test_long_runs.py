"""A small part of long_runs.py; the whole of it is slow."""

import pytest

from rmo.runtime import compiling
from tests.faults import long_runs


def test_a_day_of_checkpoints_leaves_one_and_nothing_open(tmp_path):
    looks = long_runs.day(36, tmp_path)
    warming = {"rss": 0.5, "threads": 0.1, "maps": 0.2}  # pools of threads fill over the first hundreds of steps
    assert long_runs.growing(looks, long_runs.PER_STEP | warming) == ""
    assert looks[-1].threads - looks[0].threads < 60  # other tests' are there before
    assert [path.name for path in (tmp_path / "scratch" / "checkpoints").iterdir()] == ["108"]
    assert looks[-1].log / looks[-1].at < 400  # bytes per line of both logs


def test_stage_after_stage_in_one_process(tmp_path, monkeypatch):
    """With programs let go where there are many; here, after every stage."""
    monkeypatch.setattr(compiling, "MAPS", 0)
    looks = long_runs.stages(9, tmp_path, looks=9)
    assert long_runs.growing(looks, long_runs.PER_STAGE | {"rss": 3.0}) == ""


def test_growth_is_seen():
    rows = [long_runs.Measured(10 * i, 100 + 3 * i, 20 + i, 5, 0, 9, 0) for i in range(9)]
    found = long_runs.growing(rows, long_runs.PER_STEP)
    assert found == "rss grows by 0.3 each; handles grows by 0.1 each"


@pytest.mark.slow
def test_looking_at_2000_stages_and_200000_points(tmp_path):
    for command, seconds, memory, problem in long_runs.looking(tmp_path / "runs", 20, 100):
        assert not problem, (command, problem)
        assert seconds < long_runs.SECONDS, (command, seconds)
        assert memory < long_runs.MEMORY, (command, memory)
