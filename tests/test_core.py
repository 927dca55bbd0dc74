"""Model, training, methods and analysis stand alone: whoever tests an idea on them needs no run, no files, no tracker."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("models", "rewards", "training", "methods", "analysis")
LIBRARIES = {"wandb", "tensorflow_datasets", "transformers", "orbax", "matplotlib", "plotly"}
OTHER_ROOMS = {
    "worlds",
    "checkpoints",
    "artifacts",
    "claims",
    "report",
    "tracking",
    "experiment",
    "planning",
    "logs",
    "cli",
}
OTHER_MODULES = {"rmo.runtime.files", "rmo.runtime.checkpointer"}
LINES = 3000  # of ours that PPO may load


def modules_of(room: str) -> list[str]:
    files = sorted((ROOT / "rmo" / room).rglob("*.py"))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


def loaded_by(*modules: str) -> dict[str, str]:
    """Name and file of every module that a fresh interpreter has loaded once it has imported these."""
    code = f"""
import importlib, json, sys
for module in {modules!r}:
    importlib.import_module(module)
print(json.dumps({{name: getattr(module, "__file__", None) for name, module in sys.modules.items()}}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_core_loads_nothing_else():
    names = loaded_by("rmo.methods.ppo", "rmo.config.model", *(name for room in ROOMS for name in modules_of(room)))
    assert not LIBRARIES & {name.split(".")[0] for name in names}
    assert not {f"rmo.{room}" for room in OTHER_ROOMS} & names.keys()
    assert not OTHER_MODULES & names.keys()


def test_ppo_is_a_short_read():
    files = {name: file for name, file in loaded_by("rmo.methods.ppo.update").items() if name.split(".")[0] == "rmo"}
    lines = {name: len(Path(file).read_text().splitlines()) for name, file in sorted(files.items())}
    print(f"\nimport rmo.methods.ppo.update loads {sum(lines.values())} lines of ours: {lines}")
    assert sum(lines.values()) <= LINES
