"""Tests run on 8 fake CPU devices with JAX's own checks on."""

import gc
import os
import shutil
from pathlib import Path

from tests.helpers import compiled
from tests.helpers.flags import FAST

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {FAST}"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.DIRECTORY
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_threefry_partitionable", True)


def pytest_unconfigure():
    if compiled.MINE:
        shutil.rmtree(compiled.DIRECTORY, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def programs_let_go():
    """A process of Linux may map 65,530 pieces of memory and dies beyond. Every compiled program takes some, so they are
    let go between modules once there are many; those that are needed again come from the cache on disk."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def mesh():
    """All 8 fake devices on the data axis."""
    from rmo.runtime import sharding

    return sharding.make_mesh()


@pytest.fixture
def one_device():
    """A mesh of one: for what does not depend on the mesh, since eight fake devices do everything eight times."""
    from rmo.runtime import sharding

    return sharding.make_mesh(1)
