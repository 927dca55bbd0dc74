"""What a finished directory lists of its files, and that nothing is read that is not what was written."""

import os

import numpy as np
import pytest

from rmo.artifacts.stages import Stage
from rmo.runtime import checksums
from rmo.runtime.files import RunError, read_csv, read_json, read_npz, write_csv, write_json, write_npz

NAME = "scores/w8-0123456789"


@pytest.fixture
def stage(tmp_path) -> Stage:
    made = Stage(tmp_path / "run" / NAME)
    write_json(made.directory / "info.json", {"a": 1})
    write_npz(made.directory / "raw" / "00000.npz", x=[1.0, 2.0])
    (made.directory / "HOLDER").write_text("{}")
    (made.directory / "params" / "state" / "d").mkdir(parents=True)
    (made.directory / "params" / "state" / "d" / "data").write_bytes(bytes(range(200)))
    made.mark_done(NAME)
    return made


def test_what_was_written_is_read(stage):
    assert read_json(stage.directory / "info.json") == {"a": 1}
    assert read_npz(stage.directory / "raw" / "00000.npz")["x"].tolist() == [1, 2]
    checksums.check_tree(stage.directory / "params")


def test_done_lists_every_file_but_what_comes_and_goes(stage):
    lines = stage.done_file.read_text().splitlines()
    assert lines[0] == NAME
    assert [line.split()[-1] for line in lines[1:-1]] == ["info.json", "params/state/d/data", "raw/00000.npz"]


def test_another_number_is_noticed(stage):
    write_json(stage.directory / "info.json", {"a": 2})
    with pytest.raises(RunError, match=f"info.json is not what was written.*remove .*{NAME} and run again"):
        read_json(stage.directory / "info.json")


def test_a_part_one_folder_down_is_noticed_and_the_stage_is_named(stage):
    write_npz(stage.directory / "raw" / "00000.npz", x=[1.0, 3.0])
    with pytest.raises(RunError, match=f"00000.npz is not what was written.*remove .*{NAME} and run again"):
        read_npz(stage.directory / "raw" / "00000.npz")


@pytest.mark.parametrize("content", [b"", bytes(200), bytes(range(199))], ids=["emptied", "same size", "cut"])
def test_a_file_deep_in_a_checkpoint_is_noticed(stage, content):
    (stage.directory / "params" / "state" / "d" / "data").write_bytes(content)
    with pytest.raises(RunError, match="data is not what was written"):
        checksums.check_tree(stage.directory / "params")


def test_damage_after_the_first_look_is_noticed(stage):
    checksums.check_tree(stage.directory / "params")
    data = stage.directory / "params" / "state" / "d" / "data"
    data.write_bytes(bytes(200))
    os.utime(data, (1, 1))
    with pytest.raises(RunError, match="not what was written"):
        checksums.check_tree(stage.directory / "params")


def test_a_missing_file_is_missed_only_where_it_was_there(stage):
    (stage.directory / "info.json").unlink()
    (stage.directory / "params" / "state" / "d" / "data").unlink()
    assert not checksums.present(stage.directory / "never.json")
    for look in (
        lambda: stage.has_info(),
        lambda: checksums.check_tree(stage.directory / "params"),
    ):
        with pytest.raises(RunError, match=r"(info.json|data) is missing, .*run again"):
            look()


def test_a_stage_of_another_run_is_noticed(stage, tmp_path):
    other = tmp_path / "run" / "scores" / "w8-abcdefabcd"
    stage.directory.rename(other)
    with pytest.raises(RunError, match=f"abcdefabcd holds {NAME}, of another run.*remove"):
        read_json(other / "info.json")


def test_a_stage_that_was_copied_under_a_name_of_ones_own_is_read(stage, tmp_path):
    stage.directory.rename(tmp_path / "my-model")
    assert read_json(tmp_path / "my-model" / "info.json") == {"a": 1}


@pytest.mark.parametrize("at", range(0, 250, 7))
def test_a_damaged_list_is_noticed(stage, at):
    text = bytearray(stage.done_file.read_bytes())
    text[at] ^= 4
    stage.done_file.write_bytes(bytes(text))
    with pytest.raises(RunError, match=r"DONE|of another run"):
        read_json(stage.directory / "info.json")


def test_what_older_code_finished_is_read(stage):
    stage.done_file.write_text(NAME + "\n")
    write_json(stage.directory / "info.json", {"a": 2})
    assert read_json(stage.directory / "info.json") == {"a": 2}


def test_a_stage_that_is_made_again_is_read(stage):
    assert read_json(stage.directory / "info.json") == {"a": 1}  # its list is known now
    stage.mark_undone()
    write_json(stage.directory / "info.json", {"a": 2})
    assert read_json(stage.directory / "info.json") == {"a": 2}
    stage.mark_done(NAME)
    write_json(stage.directory / "info.json", {"a": 3})
    with pytest.raises(RunError, match="not what was written"):
        read_json(stage.directory / "info.json")


def test_a_table_at_the_top_of_a_run(tmp_path):
    write_csv(tmp_path / "curves.csv", ["kl"], [{"kl": 1.0}])
    (tmp_path / checksums.PUBLISHED).write_text(checksums.sealed(tmp_path, "name", ["curves.csv"]))
    assert read_csv(tmp_path / "curves.csv") == [{"kl": "1"}]
    write_csv(tmp_path / "curves.csv", ["kl"], [{"kl": 2.0}])
    with pytest.raises(RunError, match=r"curves.csv is not what was written.*: run again, which writes it anew"):
        read_csv(tmp_path / "curves.csv")


def test_the_advice_never_is_to_remove_a_whole_run(tmp_path):
    (tmp_path / "planned.json").write_text("{")
    with pytest.raises(RunError, match=r"planned.json.*run again, which writes it anew"):
        read_json(tmp_path / "planned.json")


@pytest.mark.parametrize("at", range(60, 200, 9))
def test_a_flipped_bit_in_an_array_is_noticed_without_any_list(tmp_path, at):
    write_npz(tmp_path / "part.npz", x=np.arange(20.0))
    content = bytearray((tmp_path / "part.npz").read_bytes())
    content[at] ^= 1
    (tmp_path / "part.npz").write_bytes(bytes(content))
    try:
        found = read_npz(tmp_path / "part.npz")["x"]
    except RunError as error:
        assert "part.npz" in str(error)  # noqa: PT017
    else:
        assert np.array_equal(found, np.arange(20.0))  # between the arrays


def test_an_empty_array_file_is_noticed_without_any_list(tmp_path):
    (tmp_path / "part.npz").write_bytes(b"")
    with pytest.raises(RunError, match=r"cannot read .*part.npz"):
        read_npz(tmp_path / "part.npz")


def test_a_directory_where_a_file_goes_is_named(tmp_path):
    (tmp_path / "curves.csv").mkdir()
    with pytest.raises(RunError, match=r"curves.csv is a directory, .*: remove .*curves.csv and run again"):
        write_csv(tmp_path / "curves.csv", ["kl"], [])
    assert [path.name for path in tmp_path.iterdir()] == ["curves.csv"]
