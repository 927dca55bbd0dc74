"""Errors of a disk in the middle of small files: named, and nothing half done is taken for done."""

import errno
import os
import resource
import shutil

import jax
import pytest

from rmo.runtime.checkpointer import Checkpoints, load_params, need_whole, save_params, writing
from rmo.runtime.errors import of_system
from rmo.runtime.files import RunError, read_json, remove, unlink, write_json
from rmo.runtime.lock import Held, Lock
from tests.faults.disk import Disk


@pytest.mark.parametrize(("kind", "fault"), [
    ("open to write", "EACCES"), ("write", "ENOSPC"), ("write", "EIO"), ("write", "short write"), ("close", "ENOSPC"),
    ("rename", "EIO"), ("mkdir", "ENOSPC"),
])  # fmt: skip
def test_a_small_file_that_cannot_be_written_is_named_and_stays_as_it_was(tmp_path, kind, fault):
    """The error of a write names no file by itself."""
    file = tmp_path / "stage" / "info.json"

    def write():
        write_json(file, {"x": [2] * 9})

    def begin():
        if kind == "mkdir":
            shutil.rmtree(tmp_path / "stage", ignore_errors=True)
        else:
            write_json(file, {"x": 1})

    begin()
    with Disk(tmp_path) as traced:
        write()
    begin()
    at = [operation.kind for operation in traced.seen].index(kind)
    with pytest.raises(OSError, match="stage") as caught, Disk(tmp_path, at, fault):
        write()
    assert ("the same command" in of_system(caught.value)) == (fault != "EIO")
    if kind != "mkdir":
        assert os.listdir(file.parent) == ["info.json"]
        assert read_json(file) == {"x": 1}
    write()
    assert read_json(file) == {"x": [2] * 9}


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path):
    """C++ code writes it, and has words of its own for a file that may not grow."""
    path, before = tmp_path / "stage" / "params", resource.getrlimit(resource.RLIMIT_FSIZE)
    params = {"w": jax.random.normal(jax.random.key(0), (100_000,))}
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(RunError, match=f"cannot write {path}.*the same command continues") as caught:
            save_params(path, params)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    save_params(path, params)
    assert load_params(path, params)["w"].shape == (100_000,)


def test_parts_of_a_checkpoint_that_orbax_did_not_join_are_noticed(tmp_path):
    """After one EIO on the listing before it joins them it says that all is saved (`kills`: ppo/gold 611 EIO)."""
    path, params = tmp_path / "stage" / "params", {"w": jax.random.normal(jax.random.key(0), (100,))}
    save_params(path, params)
    need_whole(path)
    (path / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(RunError, match=f"cannot write {path}: its parts were not joined: see .*the same command"):
        need_whole(path)
    save_params(path, params)
    assert load_params(path, params)["w"].shape == (100,)


@pytest.mark.parametrize("saves", ["parameters", "a training"])
def test_what_is_said_to_be_saved_after_one_error_is_saved(tmp_path, saves):
    """At any listing or opening in it, which orbax passes over in places: either there is an error, or what was saved
    is there; and the next save is whole."""
    new = {"w": jax.numpy.arange(100.0)}
    old = jax.tree.map(jax.numpy.zeros_like, new)

    def save(where, state, step):
        Checkpoints(where).save(step, state) if saves == "a training" else save_params(where / "params", state)

    def saved(where):
        return Checkpoints(where).restore(old)[0] if saves == "a training" else load_params(where / "params", old)

    with Disk(tmp_path) as traced:
        save(tmp_path / "traced", new, 1)
    tried = [k for k, operation in enumerate(traced.seen) if operation.kind in ("list", "open")]
    noticed = 0
    for k in tried:
        where = tmp_path / str(k)
        try:
            with Disk(tmp_path, k, "EIO"):
                save(where, new, 1)
        except (OSError, RunError):
            noticed += 1
            save(where, new, 2)
        assert (saved(where)["w"] == new["w"]).all()
    assert noticed


def test_what_orbax_cannot_read_of_what_it_wrote_is_the_disks_fault(tmp_path):
    why = f"cannot write {tmp_path}: No ArrayMetadata .*the same command continues"
    with pytest.raises(RunError, match=why), writing(tmp_path):
        raise ValueError("No ArrayMetadata found for process_index=0 in the checkpoint directory: state")
    with pytest.raises(RunError, match=f"cannot write {tmp_path}: Path is not a directory: x: see"), writing(tmp_path):
        raise NotADirectoryError("Path is not a directory: x")
    with pytest.raises(ValueError, match="shapes"), writing(tmp_path):
        raise ValueError("shapes differ")


def test_what_cannot_be_removed_is_said(tmp_path):
    """Else parts that other code made would be taken for new ones."""
    (tmp_path / "stage" / "draws").mkdir(parents=True)
    (tmp_path / "stage" / "draws" / "0.npz").write_text("old")
    with Disk(tmp_path) as traced:
        remove(tmp_path / "stage")
    assert not (tmp_path / "stage").exists()
    (tmp_path / "stage" / "draws").mkdir(parents=True)
    (tmp_path / "stage" / "draws" / "0.npz").write_text("old")
    at = [operation.kind for operation in traced.seen].index("unlink")
    with pytest.raises(OSError, match="draws"), Disk(tmp_path, at, "EACCES"):
        remove(tmp_path / "stage")
    remove(tmp_path / "stage")
    remove(tmp_path / "stage")  # gone already: nothing to say


def test_a_holder_that_cannot_be_read_is_not_taken_for_dead(tmp_path):
    """It was moved away, and whoever came next worked beside the one that was alive."""
    with Lock(tmp_path / "stage") as lock:
        for fault in ("EIO", "EACCES"):
            with Disk(tmp_path) as traced, pytest.raises(Held):
                Lock(tmp_path / "stage").__enter__()
            at = [operation.kind for operation in traced.seen].index("open")
            with pytest.raises(OSError, match="HOLDER"), Disk(tmp_path, at, fault):
                Lock(tmp_path / "stage").__enter__()
            assert lock.mine()
    assert os.listdir(tmp_path / "stage") == []


def test_a_directory_that_was_not_empty_says_what_to_do():
    assert of_system(OSError(errno.ENOTEMPTY, "Directory not empty", "d")).endswith("the same command continues")


def test_what_a_buckets_service_refuses_says_where_and_what_to_do():
    """A deletion or a listing, around which nothing names the file."""
    advice = "see that this account may read and write there, the same command continues"
    said = of_system(OSError("Forbidden: b/bucket/o/runs%2Fsmoke%2Ffits-1%2FDONE\nno right to it"))
    assert said == f"Forbidden: gs://bucket/runs/smoke/fits-1/DONE no right to it: {advice}"
    assert of_system(OSError("Forbidden: b/my-bucket/o no right")) == f"Forbidden: gs://my-bucket/ no right: {advice}"
    assert of_system(OSError("something else")) == "something else"


def test_a_directory_in_the_place_of_a_file_is_to_be_removed():
    assert of_system(IsADirectoryError(errno.EISDIR, "Is a directory", "run/PUBLISHED")) == (
        "[Errno 21] Is a directory: 'run/PUBLISHED': a directory stands where a file belongs, remove it and give the "
        "same command again"
    )


def test_a_directory_is_no_file_to_be_unlinked(tmp_path):
    (tmp_path / "PUBLISHED").mkdir()
    with pytest.raises(RunError, match=f"{tmp_path}/PUBLISHED is a directory, and a file goes there: remove"):
        unlink(tmp_path / "PUBLISHED")
    unlink(tmp_path / "missing")
