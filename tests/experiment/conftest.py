"""One finished smoke run serves the tests of this folder. Tests that change it take a copy (`smoke.copied`)."""

import fcntl
import os
import subprocess

import pytest

from tests.helpers.smoke import CLI, ENV, ROOT


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A finished smoke run, made through the command line; returns its directory.

    Of several pytest-xdist processes the first makes it, the others wait.
    """
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "PYTEST_XDIST_WORKER" in os.environ else top
    made = top / "smoke_runs" / "smoke"
    with open(top / "smoke_runs.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "report.html").exists():
            make(made.parent)
    return made


def make(runs):
    command = [*CLI, "--runs", str(runs), "--wandb", "project"]
    got = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-2000:]
    assert got.stdout.strip().endswith("report.html")
    assert "\r" not in got.stderr  # no terminal: plain lines
    assert "stage 16 of 20: ppo/w8x1-main\n" in got.stderr
    assert "\nppo/w8x1-main: done in " in got.stderr
