"""Which room may import which, which module may import a library, and idioms that must not come back."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The rooms in order. Each may import those before it, less those that its promise keeps out.
ORDER = [
    "runtime", "config", "models", "rewards", "training", "methods", "analysis", "checkpoints", "worlds", "artifacts",
    "claims", "report", "tracking", "experiment", "planning", "logs", "cli",
]  # fmt: skip
# The hour's core: it knows no file of a run and no large library.
CORE = ("models", "rewards", "training", "methods", "analysis")
FILES_OF_A_RUN = {"checkpoints", "worlds", "artifacts"}
# Arrows that run against the order, each with its reason.
BACK = {
    ("config", "worlds"),  # a world's checks stand beside the world; imported when an experiment is checked
    ("config", "methods"),  # of a method beside the method
    ("config", "experiment"),  # and those of a kind of gold beside that kind
    ("methods", "analysis"),  # analysis.curve_id names what a curve is of, for both
}
# Library -> files that may import it.
OWNERS = {
    "flax": {"models/transformer"},
    "orbax": {"runtime/checkpointer"},
    "wandb": {"tracking/wandb_mirror", "tracking/dashboard"},
    "wandb_workspaces": {"tracking/dashboard"},
    "transformers": {"checkpoints/tokenizers", "checkpoints/hf", "checkpoints/opening", "worlds/"},
    "tokenizers": {"checkpoints/tokenizers"},
    "gguf": {"checkpoints/gguf_file"},
    "safetensors": {"checkpoints/weight_files", "checkpoints/weights"},
    "huggingface_hub": {"checkpoints/opening", "worlds/hub_files"},
    "pyarrow": {"artifacts/tables", "logs/wandb_files", "worlds/containers", "worlds/packed_text"},
    "tensorflow_datasets": {"worlds/comparisons", "worlds/containers"},
    "tyro": {"config/experiment", "cli/options"},
    "matplotlib": {"report/figures"},
    "tqdm": {"tracking/progress"},
    "plotext": {"tracking/watch"},
    "fsspec": {"runtime/files"},
    "psutil": {"runtime/lock", "planning/memory"},
    "plotly": {"report/page/interactive", "report/page/document"},
    "etils": {"runtime/files"},
}
# Imported inside functions only: `import rmo` must stay fast.
LAZY = {"safetensors", "gguf", "huggingface_hub", "orbax", "wandb", "wandb_workspaces", "transformers", "tokenizers",
        "tensorflow_datasets", "pyarrow", "plotly", "plotext"}  # fmt: skip
FORBIDDEN_NAMES = {"pmap", "pjit", "PRNGKey", "xmap", "host_callback", "pickle"}
FILES = sorted((ROOT / "rmo").rglob("*.py"))


def place(file: Path) -> str:
    return file.relative_to(ROOT / "rmo").with_suffix("").as_posix()


def for_types(tree: ast.AST) -> set[int]:
    """Nodes below `if TYPE_CHECKING:`, which nothing runs."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {id(inner) for block in blocks for statement in block.body for inner in ast.walk(statement)}


def imports(tree: ast.AST) -> list[tuple[str, bool]]:
    """(what is imported, whether at top level) of every import; of `from rmo import config` rmo.config."""
    top, skipped = {id(node) for node in ast.iter_child_nodes(tree)}, for_types(tree)
    out = []
    for node in ast.walk(tree):
        if id(node) in skipped:
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
    if room == "__init__":
        assert not imports(ast.parse(file.read_text()))
        return
    below = {*ORDER[: ORDER.index(room)], room} | {b for a, b in BACK if a == room}
    if room in CORE:
        below -= FILES_OF_A_RUN
    for module, top in imports(ast.parse(file.read_text())):
        library, *rest = module.split(".")
        if library == "rmo":
            assert rest[0] in below, f"{place(file)}: {room} may not import {rest[0]}"
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
