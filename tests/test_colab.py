"""The notebooks of colab/: run from top to bottom as they stand, but for smaller sizes and, of the hub, stand-ins."""

import ast
import importlib
import itertools
import json
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from scipy import stats

from rmo.artifacts.stages import Optimised
from rmo.cli import main
from rmo.runtime.files import read_csv, read_json
from rmo.worlds.chitchat import short_replies
from tests.helpers.checkpoints import write_checkpoint, write_tokenizer
from tests.worlds.test_real_text import OTHER, PROMPTS, REPLIES, jsonl

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "colab").glob("*.ipynb"))
TEN, FIT, CHANGE, PYTHIA, ENGLISH = (file.stem for file in FILES)
HOME = "rmo-research/rmo"
TINY = (
    "--sft.texts 1024 --sft.epochs 1 --policy.width 16 --policy.layers 1 --policy.heads 2 --gold.model.width 32 "
    "--gold.model.layers 1 --gold.texts 1600 --gold.epochs 1 --bon.prompts 8 --bon.draws 128 --bon.max-n 32 "
    "--bon.points 12 --comparisons.prompts 160 --proxies.sweeps.0.recipes.0.comparisons 512 --ppo.kl-max 1 "
    "--ppo.max-steps 12 --ppo.prompts 128 --ppo.batch 64 --ppo.read-draws 2 --ppo.policy-optimizer.lr 2e-3 "
    "--fits.bootstrap 30 "
)


def read(name):
    return nbformat.read(ROOT / "colab" / f"{name}.ipynb", as_version=4)


def code(book):
    """(source without magics, cell) of every cell that Python runs."""
    for cell in book.cells:
        if cell.cell_type == "code" and not cell.source.startswith("%%"):
            yield re.sub(r"^( *)[!%].*$", r"\1pass", cell.source, flags=re.M), cell


def execute(name, directory, parameters, replace=()):
    """The notebook with its outputs: `parameters` follow the cell of that tag, names of the hub are replaced.

    A command that fails does not stop a notebook, so its message is looked for: what refuses is named by the caller.
    """
    book = read(name)
    for old, new in replace:
        assert any(old in cell.source for cell in book.cells)
        for cell in book.cells:
            cell.source = cell.source.replace(old, new)
    at = next(i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ()))
    lines = "".join(f"{key} = {value!r}\n" for key, value in parameters.items())
    book.cells.insert(at + 1, nbformat.v4.new_code_cell(lines))
    directory.mkdir(exist_ok=True)
    (directory / "configs").symlink_to(ROOT / "configs")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    flags = " ".join(f for f in os.environ["XLA_FLAGS"].split() if "device_count" not in f)
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    try:
        NotebookClient(book, timeout=600, resources={"metadata": {"path": str(directory)}}).execute(env=env)
    except CellExecutionError as error:
        pytest.fail(f"{printed(book)}\n{error}")  # as a rule a command before the cell said why
    return book


def printed(book):
    return "\n".join(o.text for c in book.cells for o in c.get("outputs", ()) if o.output_type == "stream")


def pictures(book):
    kinds = [o.get("data", {}) for c in book.cells for o in c.get("outputs", ())]
    return sum("image/png" in kind or "image/svg+xml" in kind for kind in kinds)


def failures(text):
    """What commands said that failed, one line each."""
    assert "Traceback" not in text
    return re.findall(r"^rmo: (.*)$", text.replace("\r", ""), flags=re.M)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One directory of runs, so that equal programs are compiled once."""
    return tmp_path_factory.mktemp("colab") / "runs"


def test_the_tiny_experiment(tmp_path, runs):
    sizes = TINY + "--proxies.sweeps.0.sizes 2 --ppo.against.0.sizes 2 --gold-as-proxy.ppo-seeds 0"
    book = execute(TEN, tmp_path / "here", {"SIZES": sizes, "RUNS": str(runs)})
    text, root = printed(book), runs / "ten_minutes"
    assert failures(text) == []
    assert all(row["state"] == "done" for row in read_json(root / "stages.json") if row["stage"] != "report")
    page = (root / "report.html").read_text()
    assert "Reward-model overoptimization: ten_minutes" in page
    shown = book.cells[-2].outputs[0].data["text/html"]
    assert shown.startswith("<div><iframe srcdoc=")
    assert "Reward-model overoptimization: ten_minutes" in shown
    assert pictures(book) == 9
    assert "best of 1,000: 5.91 nats" in text  # log 1000 - 0.999
    assert re.search(r"^sft: done in \d", text, flags=re.M)  # lines, no bars
    assert "%|" not in text
    assert {row["method"] for row in read_csv(root / "curves.csv")} == {"bon", "ppo", "tilt"}


def test_fits_give_the_truth_of_the_logs_back(tmp_path):
    out = tmp_path / "logs"
    book = execute(FIT, tmp_path / "here", {"LOGS": str(out), "BOOTSTRAP": 200, "PROMPTS": 60, "DRAWS": 400})
    text, peak = printed(book), float(np.exp(2 * (0.9 / 0.45 - 1)))  # of d (a - b log d)
    for name in ("trainer_state", "openrlhf", "verl", "kl"):
        (group,) = read_json(out / f"{name}_fit" / "coefficients.json")["ppo"]["groups"]
        assert group["peak_kl"] == pytest.approx(peak, rel=0.05), name
        assert group["peak_kl_interval"][0] < peak < group["peak_kl_interval"][1]
        assert group["advice"]["verdict"] == "stop"
    (early,) = read_json(out / "early_fit" / "coefficients.json")["ppo"]["groups"]
    assert early["advice"]["verdict"] != "stop"
    refused = failures(text)
    assert len(refused) == 2
    assert "is a mean per token" in refused[0]
    assert "is between the policy before and after an update" in refused[1]
    for doubt in ("is negative at 2 of 40", "is exactly 0 at 12 of 40", "sampling/temperature is 0.7"):
        assert doubt in text
    # Best-of-n: gold is 2 x - x^2 / 2, so E[gold of the best of n] by the density of the largest of n normals.
    x = np.linspace(-8, 8, 20_001)
    expected = lambda n: np.trapezoid((2 * x - x**2 / 2) * n * stats.norm.cdf(x) ** (n - 1) * stats.norm.pdf(x), x)
    best = max(range(1, 101), key=expected)
    (group,) = read_json(out / "scores_bon" / "coefficients.json")["bon"]["groups"]
    assert group["peak_kl"] == pytest.approx(np.log(best) - (best - 1) / best, rel=0.15)
    assert pictures(book) == 2


@pytest.mark.slow
def test_one_thing_is_changed(tmp_path, runs):
    sizes = TINY + "--proxies.sweeps.0.sizes 2 --proxies.seeds 2 --ppo.against.0.sizes 2"
    sizes += " --gold-as-proxy.ppo-seeds 0"
    book = execute(CHANGE, tmp_path / "here", {"SIZES": sizes, "RUNS": str(runs)})
    text = printed(book)
    assert failures(text) == []
    assert "members x prompts x responses: (2, 8, 128)" in text
    assert (runs / "penalised_bon" / "report.html").exists()
    wide = [line.split() for line in text.splitlines() if "w24x2" in line and line.startswith("missing")]
    made = {f"{kind}/w24x2-main" for kind in ("proxies", "scores", "bon")}
    assert {words[1] for words in wide} == {"trunks/w24x2", *made}
    assert len(list((runs / "change" / "bon").glob("w24x2-main-*/DONE"))) == 1
    assert len(list((runs / "change").glob("sft-*"))) == 1  # made once, for all three experiments
    (stage,) = (runs / "change" / "ppo").iterdir()
    assert [str(arm.settings) for arm in Optimised(stage).arms()] == ["", "kl_coef=0.05"]
    assert pictures(book) == 5


def stand_ins(directory):
    """(hub name, local directory) of checkpoints in the places of 04's, and its options for prompts and answers."""
    small = {"num_hidden_layers": 1, "max_position_embeddings": 256}
    lm = lambda name, width: write_tokenizer(
        write_checkpoint(
            directory / name, "gpt_neox", vocab_size=300, hidden_size=width, num_attention_heads=2, **small
        ),
        300,
        pad=False,
    )
    gold = write_checkpoint(directory / "gold", "qwen3", "rm", vocab_size=90, **small)
    names = {
        "EleutherAI/pythia-160m": lm("policy", 32), "EleutherAI/pythia-14m": lm("a", 8),
        "EleutherAI/pythia-31m": lm("b", 16), "EleutherAI/pythia-70m": lm("c", 24),
        "Skywork/Skywork-Reward-V2-Qwen3-0.6B": write_tokenizer(gold, 90, chat=True, texts=OTHER),
    }  # fmt: skip
    prompts = jsonl(directory / "prompts.jsonl", [{"prompt": p} for p in PROMPTS])
    answers = [{"instruction": p, "output": REPLIES[i % len(REPLIES)]} for i, p in enumerate(PROMPTS)]
    shown = jsonl(directory / "shown.jsonl", answers)
    return [(k, str(v)) for k, v in names.items()], f"--world.prompts {prompts} --world.demonstrations {shown} "


@pytest.mark.slow
def test_models_of_the_hub(tmp_path):
    replace, sources = stand_ins(tmp_path)
    sizes = sources + (
        "--world.prompt 40 --world.response 8 --sft.texts 64 --sft.epochs 1 --sft.batch 32 --comparisons.prompts 64 "
        "--proxies.sweeps.0.recipes.0.comparisons 128 --proxies.sweeps.0.sizes 0 --proxies.seeds 1 --proxies.batch 32 --bon.prompts 8 "
        "--bon.draws 64 --bon.max-n 16 --bon.points 8 --bon.chunk 64 --ppo.against.0.sizes 0 --ppo.prompts 32 "
        "--ppo.batch 32 --ppo.epochs 1 --ppo.minibatches 2 --ppo.kl-max 1 --ppo.d-step 0.2 --ppo.max-steps 12 "
        "--ppo.policy-optimizer.lr 3e-3 --fits.bootstrap 30"
    )
    runs = tmp_path / "runs"
    book = execute(PYTHIA, tmp_path / "here", {"SIZES": sizes, "RUNS": str(runs)}, replace)
    text, root = printed(book), runs / "pythia_small"
    refused = [line for line in failures(text) if "libtpu" not in line]  # `rmo plan`, where that is not installed
    assert refused == []
    assert "CpuDevice" in text
    assert (root / "report.html").exists()
    assert all(row["state"] == "done" for row in read_json(root / "stages.json") if row["stage"] != "report")
    assert pictures(book) == 2
    scored = [json.loads(line) for line in (tmp_path / "here" / "optimised_gold.jsonl").read_text().splitlines()]
    assert len(scored) == 3
    assert all(f"{row['score']:+.2f}  {row['response']!r}" in text for row in scored)


def test_real_english(tmp_path, runs):
    """On a few of the chats, with networks and samples so few that its numbers mean nothing."""
    turns = jsonl(tmp_path / "turns.jsonl", list(itertools.islice(short_replies(), 3000)))
    sizes = (
        f"--world.prompts {turns} --world.demonstrations {turns} --world.tokenizer bpe:512 --policy.vocab 512 "
        "--policy.width 16 --policy.layers 1 --sft.texts 1500 --sft.epochs 1 --gold.model.width 16 --gold.model.layers 1 "
        "--gold.texts 2400 --gold.epochs 1 --comparisons.prompts 400 --proxies.sweeps.0.recipes.0.comparisons 256 "
        "--proxies.sweeps.1.recipes.0.comparisons 64 --proxies.steps 4 --proxies.trunk.texts 256 --proxies.sizes.2.width 32 "
        "--bon.prompts 8 --bon.draws 64 --bon.max-n 16 --bon.points 8 --ppo.against.0.sizes 2 --ppo.prompts 128 --ppo.kl-max 0.5 --ppo.d-step 0.1 --ppo.max-steps 6 "
        "--ppo.policy-optimizer.lr 3e-3 --gold-as-proxy.ppo-seeds 0 --fits.bootstrap 30"
    )
    book = execute(ENGLISH, tmp_path / "here", {"SIZES": sizes, "RUNS": str(runs)}, [("ppo/w64x2", "ppo/w32x2")])
    text, root = printed(book), runs / "chat_small"
    assert failures(text) == []
    assert (root / "report.html").exists()
    assert re.search(r"^\+0\.\d\d  that sounds great, i love it!$", text, flags=re.M)
    assert re.search(r"^-0\.\d\d  that is not good at all$", text, flags=re.M)
    rows = read_json(root / "annotator.json")
    assert len(re.findall(r"^(bon|ppo|tilt) .*judge less gold [+-]", text, flags=re.M)) == len(rows) > 4
    again = {line.split()[1] for line in text.splitlines() if line.startswith("stale")}
    assert {"prompts", "gold", "ppo/w32x2-main"} <= again  # with another judge
    assert pictures(book) == 3


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_notebooks_in_git(file):
    """No outputs, a badge, one way to install, sizes in one cell, and nothing of rmo that is not there."""
    book = read(file.stem)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert f"https://colab.research.google.com/github/{HOME}/blob/main/colab/{file.name}" in book.cells[0].source
    tagged = lambda tag: [cell for cell in cells if tag in cell.metadata.get("tags", ())]
    (install,), (_,) = tagged("install"), tagged("parameters")
    assert install.source == next(c.source for c in read(TEN).cells if "install" in c.metadata.get("tags", ()))
    assert f"git clone -q --depth 1 https://github.com/{HOME} " in install.source
    for source, cell in code(book):
        tree = ast.parse(source)
        for node in ast.walk(tree):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef), "what needs a function belongs into rmo"
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rmo":
                for alias in node.names:
                    whole = importlib.import_module(node.module)
                    assert hasattr(whole, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
        assert set(re.findall(r"^ *!rmo (\w+)", cell.source, flags=re.M)) <= set(main.COMMANDS)
    assert f"]({file.name})" in (ROOT / "colab" / "README.md").read_text()
