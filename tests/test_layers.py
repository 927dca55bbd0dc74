"""Which room may import which, which module may import a library, and idioms that must not come back."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Room -> the rooms that it may import.
ARRAYS = {"runtime", "config", "models"}
CORE = {*ARRAYS, "training", "analysis", "methods"}
MATERIAL = {*ARRAYS, "training", "worlds", "checkpoints"}
ROOMS = {
    "runtime": {"config"},
    "config": {"runtime"},
    "models": {"runtime", "config"},
    "training": {*ARRAYS, "tracking"},
    "analysis": {"runtime", "models"},
    "methods": {*ARRAYS, "training", "worlds", "tracking"},
    "worlds": {*ARRAYS, "training", "checkpoints", "tracking"},
    "checkpoints": {*ARRAYS},
    "claims": {"runtime", "analysis"},
    "report": {"runtime", "config", "analysis", "claims", "checkpoints"},
    "tracking": {"runtime", "config", "analysis", "report"},
    "experiment": {*CORE, *MATERIAL, "claims", "report", "tracking"},
    "planning": {*CORE, *MATERIAL, "experiment", "tracking"},
    "logs": {*CORE, *MATERIAL, "tracking"},
}
ROOMS["cli"] = {*ROOMS}
# File -> rooms above its own that it may import inside functions: a check stands beside what it checks.
LATER = {"config/checks": {"worlds", "experiment"}}
# Library -> files that may import it.
OWNERS = {
    "flax": {"models/transformer"},
    "orbax": {"runtime/files"},
    "wandb": {"tracking/wandb_mirror", "tracking/dashboard"},
    "wandb_workspaces": {"tracking/dashboard"},
    "transformers": {"checkpoints/tokenizers", "checkpoints/hf"},
    "tokenizers": {"checkpoints/tokenizers"},
    "safetensors": {"checkpoints/weights"},
    "huggingface_hub": {"checkpoints/hf", "worlds/sources"},
    "pyarrow": {"logs/score_tables", "worlds/sources"},
    "tensorflow_datasets": {"worlds/comparisons", "worlds/sources"},
    "tyro": {"cli/options"},
    "matplotlib": {"report/figures"},
    "tqdm": {"tracking/progress"},
    "plotext": {"tracking/watch"},
    "fsspec": {"runtime/files"},
    "psutil": {"runtime/lock"},
    "plotly": {"report/page/interactive", "report/page/document"},
    "etils": {"runtime/files"},
}
# Imported inside functions only: `import rmo` must stay fast.
LAZY = {"safetensors", "huggingface_hub", "orbax", "wandb", "wandb_workspaces", "transformers", "tokenizers",
        "tensorflow_datasets", "pyarrow", "plotly", "plotext"}  # fmt: skip
FORBIDDEN_NAMES = {"pmap", "pjit", "PRNGKey", "xmap", "host_callback", "pickle"}
FILES = sorted((ROOT / "rmo").rglob("*.py"))


def place(file: Path) -> str:
    return file.relative_to(ROOT / "rmo").with_suffix("").as_posix()


def for_types_alone(tree: ast.AST) -> set[int]:
    """Ids of the nodes under `if TYPE_CHECKING`."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {id(node) for block in blocks for node in ast.walk(block)}


def imports(tree: ast.AST) -> list[tuple[str, bool]]:
    """(what is imported, whether at top level) of every import; of `from rmo import config` rmo.config."""
    top, types = {id(node) for node in ast.iter_child_nodes(tree)}, for_types_alone(tree)
    out = []
    for node in ast.walk(tree):
        if id(node) in types:
            continue
        if isinstance(node, ast.Import):
            out += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "rmo":
            out += [(f"rmo.{alias.name}", id(node) in top) for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.ImportFrom):
            out.append((node.module or "", id(node) in top))
    return out


@pytest.mark.parametrize("file", FILES, ids=place)
def test_imports_go_one_way(file):
    room = place(file).split("/")[0]
    for module, top in imports(ast.parse(file.read_text())):
        library, *rest = module.split(".")
        if library == "rmo":
            may = {room, *ROOMS.get(room, ()), *(() if top else LATER.get(place(file), ()))}
            assert rest[0] in may, f"{place(file)}: {room} may not import {rest[0]}"
        if library in OWNERS:
            owners = OWNERS[library]
            assert any(place(file).startswith(o) for o in owners), f"only {owners} may import {library}"
        assert not (library in LAZY and top), f"{place(file)} imports {library} at the top"


@pytest.mark.parametrize("file", FILES, ids=place)
def test_forbidden_idioms(file):
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        assert name not in FORBIDDEN_NAMES, f"{place(file)} uses {name}"
        if isinstance(node, ast.With):
            used = [item.context_expr for item in node.items]
            assert not any(isinstance(x, ast.Name) and x.id == "mesh" for x in used), "with mesh: is stale"
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


def test_launch_holds_no_hyperparameter():
    for script in (ROOT / "launch").glob("*.sh"):
        assert "--ppo" not in script.read_text()
        assert "--lr" not in script.read_text()
