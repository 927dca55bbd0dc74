"""A training state that was damaged between two calls is noticed, and what to do is said; a whole one is restored."""

import random
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from rmo.runtime.checkpointer import Checkpoints
from rmo.runtime.files import RunError

STATE = {"w": jnp.arange(4000.0).reshape(40, 100) % 7, "step": jnp.array(3)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    where = tmp_path_factory.mktemp("saved") / "sft-0123456789"
    checkpoints = Checkpoints(where)
    checkpoints.save(1, STATE)
    checkpoints.save(3, STATE)
    return where


def test_the_newest_is_restored(saved):
    found, step = Checkpoints(saved).restore(STATE)
    assert step == 3
    assert np.array_equal(found["w"], STATE["w"])


@pytest.mark.parametrize("seed", range(12))
def test_one_flipped_bit_is_noticed(saved, tmp_path, seed):
    copy, rng = tmp_path / saved.name, random.Random(seed)
    shutil.copytree(saved, copy)
    files = sorted(path for path in (copy / "scratch" / "checkpoints").rglob("*") if path.is_file())
    file = files[seed % len(files)]
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(content))
    with pytest.raises(RunError, match=rf"{file.name}.*remove .*{saved.name}/scratch/checkpoints and run again"):
        Checkpoints(copy).restore(STATE)


def test_without_a_list_it_is_restored_as_before(saved, tmp_path):
    copy = tmp_path / saved.name
    shutil.copytree(saved, copy)
    (copy / "scratch" / "checkpoints.sha256").unlink()
    assert Checkpoints(copy).restore(STATE)[1] == 3


def test_a_list_of_an_older_state_is_not_taken_for_this_ones(saved, tmp_path):
    copy = tmp_path / saved.name
    shutil.copytree(saved, copy)
    text = (copy / "scratch" / "checkpoints.sha256").read_text()
    (copy / "scratch" / "checkpoints.sha256").write_text(text.replace("3\n", "1\n", 1))
    assert Checkpoints(copy).restore(STATE)[1] == 3
