"""Where compiled programs are kept."""

import os
import subprocess
import sys

import pytest

CODE = """
import jax, sys
from pathlib import Path
from rmo.runtime import sharding
sharding.compilation_cache(Path(sys.argv[1]))
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize("elsewhere", ["", "shared"])
def test_beside_the_runs_if_nothing_else_is_said(tmp_path, elsewhere):
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    if elsewhere:
        env["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / elsewhere)
    command = [sys.executable, "-c", CODE, str(tmp_path / ".jax_cache")]
    got = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert got.stdout.strip() == str(tmp_path / (elsewhere or ".jax_cache"))
