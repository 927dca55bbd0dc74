"""The commands that README shows, and `rmo fit`, on a finished smoke run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from rmo.cli import main
from tests.helpers.checkpoints import write_checkpoint, write_tokenizer
from tests.helpers.gguf_files import write_gguf
from tests.helpers.smoke import ENV, ROOT, copied


def commands() -> list[str]:
    """Every `rmo ...` of README's code blocks, as written."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.S | re.M)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line[line.index("rmo ") :] for line in lines if line.startswith(("rmo ", "launch/local.sh rmo "))]


def test_readmes_commands(smoke, tmp_path, monkeypatch, capsys):
    """They run as they stand, but for the names of files, and `plan`, which test_tpu_plan.py has."""
    smoke = copied(smoke, tmp_path / "runs")
    text = "la tu ke"
    made = {
        "TEXTS.jsonl": [{"prompt": text, "response": text}], "PROMPTS.jsonl": [{"prompt": text}],
        "SCORES.jsonl": [
            {"prompt": f"q{q}", "proxy": p, "gold": p - p * p / 4 + 0.1 * g}
            for q in range(3) for p, g in np.random.default_rng(q).normal(size=(40, 2)).tolist()
        ],
        "LOG": [{"step": k, "objective/kl": k * k, "eval/gold": k * (1 - 0.1 * k), "proxy": k} for k in range(9)],
    }  # fmt: skip
    where = {"CONFIG": "configs/smoke.py", "configs/tiny.py": "configs/smoke.py", "runs/tiny": str(smoke),
             "runs/mine": str(tmp_path / "mine"), "PROJECT": f"project --out {tmp_path}/dashboard.json",
             "MODEL": str(next(smoke.glob("sft-*"))), "--kl COLUMN": "--kl objective/kl",
             "--gold COLUMN": "--gold eval/gold", "FILE.gguf": str(tmp_path / "x.gguf"),
             "DIR": str(tmp_path / "converted")}  # fmt: skip
    llama = write_checkpoint(tmp_path / "llama", "llama", rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    write_gguf(tmp_path / "x.gguf", llama, write_tokenizer(tmp_path / "tokenizer"))
    for name, rows in made.items():
        where[name] = str(tmp_path / name.replace("LOG", "log.jsonl"))
        Path(where[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine").mkdir()
    for file in [*smoke.glob("*.csv"), *smoke.glob("*.json")]:
        (tmp_path / "mine" / file.name).write_text(file.read_text())
    monkeypatch.chdir(ROOT)

    def leave(code, why):
        raise AssertionError(f"{code}: {why}")

    monkeypatch.setattr(main.hosts, "leave", leave)
    seen = set()
    for command in commands():
        for name, value in where.items():
            command = re.sub(rf"(?<![\w/.]){re.escape(name)}(?![\w/.])", value, command)
        words = command.split()
        seen.add(words[1])
        if words[1] == "plan":
            continue
        if words[1] == "score":
            words[2] = str(next(smoke.glob("gold-*")))
        if words[1] == "sample":
            words += ["--length", "6"]  # smoke's policy takes 14 tokens
        if words[1] in ("run", "list"):
            words += ["--runs", str(smoke.parent)]
        if "--ppo.kl-max" in words:
            words[1] = "list"  # only that the option exists; it would be another experiment
        monkeypatch.setattr(sys, "argv", words)
        main.main()
        assert capsys.readouterr().out.strip(), command
    assert seen == main.COMMANDS.keys()


def test_fit_command_on_the_run_and_on_foreign_curves(smoke, tmp_path):
    def rmo(*args):
        code = "from rmo.cli.main import main; main()"
        return subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, env=ENV, capture_output=True, text=True)

    got = rmo("fit", str(smoke / "curves.csv"), "--out", str(tmp_path / "own"), "--bootstrap", "50")
    assert got.returncode == 0, got.stderr
    assert json.loads((tmp_path / "own" / "coefficients.json").read_text()).keys() == {"bon", "ppo", "tilt"}
    d = np.linspace(0, 3, 20)
    lines = ["kl,gold", *(f"{x * x},{x * (0.5 - 0.12 * x)}" for x in d)]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    got = rmo("fit", str(tmp_path / "mine.csv"))
    assert got.returncode == 0, got.stderr
    assert "a 0.500" in got.stdout
    assert "b 0.120" in got.stdout
    assert (tmp_path / "mine_fit" / "bon.svg").exists()
