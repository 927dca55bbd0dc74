"""The smoke experiment, and the command that runs it as a user does."""

import os
import shutil
import sys
from pathlib import Path

from rmo.artifacts.stages import Stage
from rmo.config import checks
from rmo.runtime.checksums import DONE, PUBLISHED
from tests.helpers.flags import FAST

ROOT = Path(__file__).parents[2]
SMOKE = checks.load(ROOT / "configs" / "smoke.py")
CLI = [sys.executable, "-c", "from rmo.cli.main import main; main()", "run", "configs/smoke.py"]
ENV = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FAST}  # one device, as a user has


def copied(run: Path, to: Path) -> Path:
    """A copy of a run directory, for a test that changes it."""
    shutil.copytree(run, to / run.name, ignore=shutil.ignore_patterns("wandb"))
    return to / run.name


def resealed(run: Path) -> None:
    """Have a changed run directory say of its files what they are now, as one who means harm would."""
    for done in run.rglob(DONE):
        Stage(done.parent).mark_done(done.read_text().split("\n")[0])
    (run / PUBLISHED).unlink(missing_ok=True)
