"""The import direction, and idioms that must not come back."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each module may import only those before it.
ORDER = ["shape", "config", "hints", "checks", "flops", "hosts", "progress", "metrics", "losses", "curve", "resample", "fit", "selection", "advice",
         "summary", "bon", "sharding", "product", "attention", "models", "files", "compiling", "mirror", "log", "lock", "status", "watch",
         "families", "weights", "hf", "sample", "train", "reward", "objectives", "data", "store", "sources", "text", "serve",
         "world", "corpus", "reader", "run", "ppo", "climb", "audit", "gold", "programs", "plan", "evidence", "judge", "claims_rm", "claims_data",
         "claims_policy", "claims", "results", "plots", "exhibits", "figures", "appendix",
         "beyond", "interactive", "page", "tables", "excerpts", "costs", "markdown", "report", "compare", "scores", "loggers", "logfiles", "logs", "stages", "pipeline", "dashboard", "options", "main"]  # fmt: skip
# Arrays and numbers in, never a config.
PURE = {"metrics", "losses", "curve", "resample", "fit", "selection", "advice", "summary", "bon", "loggers"}
OWNERS = {  # library -> modules that may import it
    "flax": {"models"}, "orbax": {"files"}, "wandb": {"mirror", "dashboard"}, "wandb_workspaces": {"dashboard"}, "transformers": {"data", "hf"}, "tokenizers": {"data"}, "safetensors": {"weights"}, "huggingface_hub": {"hf", "sources"}, "pyarrow": {"scores", "sources"},
    "tensorflow_datasets": {"data", "sources"}, "tyro": {"config", "options"}, "matplotlib": {"plots", "figures", "appendix", "beyond"}, "tqdm": {"progress"}, "plotext": {"watch"}, "fsspec": {"files"}, "psutil": {"lock"}, "plotly": {"interactive", "page"}, "etils": {"files"},
}  # fmt: skip
# Imported inside functions only.
LAZY = {
    "safetensors",
    "huggingface_hub",
    "orbax",
    "wandb",
    "wandb_workspaces",
    "transformers",
    "tokenizers",
    "tensorflow_datasets",
    "pyarrow",
    "plotly",
    "plotext",
}
FORBIDDEN_NAMES = {"pmap", "pjit", "PRNGKey", "xmap", "host_callback"}
FILES = sorted((ROOT / "rmo").glob("*.py"))


def imports(tree: ast.AST) -> list[tuple[str, list[str], bool]]:
    """(module, names, at top level) of every import."""
    top = {id(node) for node in ast.iter_child_nodes(tree)}
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            out += [(alias.name, [], id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            out.append((node.module or "", [alias.name for alias in node.names], id(node) in top))
    return out


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_imports_point_down(file):
    if file.stem == "__init__":
        assert not imports(ast.parse(file.read_text()))
        return
    assert file.stem in ORDER, f"{file.name} has no place in the order of modules: give it one"
    below = set(ORDER[: ORDER.index(file.stem)])
    for module, names, top in imports(ast.parse(file.read_text())):
        ours = (
            set(names) - {"__version__"}
            if module == "rmo"
            else {module.split(".")[1]}
            if module.startswith("rmo.")
            else set()
        )
        assert ours <= below, f"{file.name} imports {ours - below}"
        assert not (file.stem in PURE and "config" in ours), f"{file.name} takes arrays, not configs"
        library = module.split(".")[0]
        if library in OWNERS:
            assert file.stem in OWNERS[library], f"only {OWNERS[library]} may import {library}, not {file.name}"
        assert not (library in LAZY and top), f"{file.name} imports {library} at the top: import rmo must stay fast"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_forbidden_idioms(file):
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        assert name not in FORBIDDEN_NAMES, f"{file.name} uses {name}"
        assert name != "pickle", f"{file.name} uses pickle"
        if isinstance(node, ast.With):
            for item in node.items:
                assert not (isinstance(item.context_expr, ast.Name) and item.context_expr.id == "mesh"), (
                    "with mesh: is stale"
                )
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


def test_modules_stay_small():
    for file in FILES:
        assert len(file.read_text().splitlines()) <= 400, f"{file.name} is asking to be two ideas"


def test_launch_holds_no_hyperparameter():
    for script in (ROOT / "launch").glob("*.sh"):
        assert "--ppo" not in script.read_text()
        assert "--lr" not in script.read_text()
