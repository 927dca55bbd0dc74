"""Tests run on 8 fake CPU devices with JAX's own checks on."""

import gc
import os
from pathlib import Path

from tests.helpers.flags import FAST

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {FAST}"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("WANDB_MODE", "offline")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_threefry_partitionable", True)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Equal programs of different tests are compiled once, by whichever of pytest-xdist's processes comes first."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "PYTEST_XDIST_WORKER" in os.environ else top
    jax.config.update("jax_compilation_cache_dir", str(top / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


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
