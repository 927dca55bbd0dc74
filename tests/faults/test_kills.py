"""A sample of the campaign of `kills`: one stage, killed and disturbed; and that the disturber does what it says."""

import os
import random
import shutil

import pytest

from rmo.runtime.files import SCRATCH
from tests.faults import kills, one_stage
from tests.faults.disk import POSSIBLE, Disk, Killed


def busy(root):
    """A few operations of every kind."""
    (root / "a").mkdir()
    (root / "a" / "b.txt").write_text("0123456789")
    os.replace(root / "a" / "b.txt", root / "c.txt")
    assert (root / "c.txt").read_text() == "0123456789"
    names = sorted(os.listdir(root)), sorted(entry.name for entry in os.scandir(root)), sorted(root.glob("*.txt"))
    shutil.rmtree(root / "a")
    (root / "c.txt").unlink()
    return names


def count(tmp_path):
    with Disk(tmp_path) as disk:
        busy(tmp_path)
    return [operation.kind for operation in disk.seen]


def test_every_operation_is_seen_once_and_others_are_not(tmp_path):
    seen = count(tmp_path / "x") if (tmp_path / "x").mkdir() is None else []
    few = [kind for kind in seen if kind != "stat"]
    assert few[:5] == ["mkdir", "open to write", "write", "close", "rename"]
    assert few[5:10] == ["open", "read", "list", "list", "list"]
    assert few[-2:] == ["rmdir", "unlink"]
    (tmp_path / "y").mkdir()
    with Disk(tmp_path / "x") as disk:
        busy(tmp_path / "y")
    assert disk.seen == []


def test_a_kill_keeps_what_was_there_and_half_of_what_was_being_written(tmp_path):
    root = tmp_path / "x"
    root.mkdir()
    at = count(root).index("write")
    with pytest.raises(Killed), Disk(root, at, "kill", tmp_path / "left") as disk:
        busy(root)
    assert disk.struck.path == "a/b.txt"
    assert (tmp_path / "left" / "a" / "b.txt").read_text() == "01234"
    assert os.listdir.__module__ != "tests.faults.disk"  # all is as before


def test_a_full_disk_stays_full_and_can_be_read(tmp_path):
    with Disk(tmp_path, 0, "ENOSPC"):
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "a").mkdir()
        assert os.listdir(tmp_path) == []
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "a.txt").write_text("x")


def test_a_stale_listing_lacks_the_newest(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).write_text(name)
    os.utime(tmp_path / "old", (1, 1))
    with Disk(tmp_path, 0, "stale listing"):
        assert [entry.name for entry in os.scandir(tmp_path)] == ["old"]
        assert sorted(os.listdir(tmp_path)) == ["new", "old"]


def test_a_stage_disturbed_anywhere_ends_in_the_same_bytes(tmp_path):
    """One stage of those that train, save checkpoints and log; every kind of operation and fault may come."""
    one_stage.prepare(tmp_path)
    finished = one_stage.Finished(tmp_path / "whole")
    with one_stage.often():
        finished.make("=sft")
        points, seconds = kills.trace(finished, tmp_path, ["sft"])
        assert {point.operation.kind for point in points} >= set(POSSIBLE) - {"utime", "chmod", "truncate", "fsync"}
        chosen = list(kills.choose(points, seconds, POSSIBLE, 6, random.Random(0)))
        found = [(point, fault, kills.play(finished, tmp_path, point, fault)) for point, fault in chosen]
        runs = finished.before("gold", tmp_path / "late")  # as a kill leaves it when all that was asked for is done
        (runs / one_stage.NAME / finished.stages["sft"] / SCRATCH).mkdir()
        assert one_stage.command(runs, "--only==sft").code == 0
        assert not finished.difference(runs, ["sft"])
        assert not (runs / one_stage.NAME / finished.stages["sft"] / SCRATCH).exists()
    assert not [case for case in found if case[2]]
    assert sum(problem is not None for *_, problem in found) >= 4
