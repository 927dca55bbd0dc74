"""The steps of rmo/logs/README.md "To add a trainer's log", as they are written there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rmo.cli import main
from rmo.logs import trainers
from rmo.runtime.files import read_json

README = Path(trainers.__file__).with_name("README.md").read_text()
SECTION = README.split("## To add a trainer's log\n")[1].split("\n## ")[0]
LENGTH = 50.0


def test_a_new_trainer_is_one_entry(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(trainers.TRAINERS, "sparrow", None)  # so that it is gone afterwards
    del trainers.TRAINERS["sparrow"]
    (entry,) = re.findall(r"```python\n(.*?)```", SECTION, re.S)
    exec(re.sub("^   ", "", entry, flags=re.M), vars(trainers))

    rows = []
    for step, kl in enumerate(np.linspace(0, 5, 30) ** 2):
        gold = kl**0.5 * (0.9 - 0.2 * np.log(max(kl, 1e-9)))
        rows.append({"step": step, "train/sparrow/tokens_per_second": 1e4, "train/sparrow/kl": kl / LENGTH,
                     "train/sparrow/kl_step": 1e-3, "train/sparrow/rm_score": kl**0.5,
                     "train/sparrow/length": LENGTH, "eval/gold": gold})  # fmt: skip
    (tmp_path / "sparrow.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def rmo(command):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", command.split())
        main.main()

    (command,) = re.findall(r"`(rmo fit .*?)`", SECTION)
    rmo(f"{command} --bootstrap 50")
    assert "kl = train/sparrow/kl, gold = eval/gold, proxy = train/sparrow/rm_score" in capsys.readouterr().out
    (group,) = read_json(tmp_path / "sparrow_fit" / "coefficients.json")["ppo"]["groups"]
    assert group["alpha"] == pytest.approx(0.9, abs=0.01)

    for wrong, message in (
        (command.split(" --per-token")[0], "kl of sparrow is a mean per token, not the sum over a response: add --per"),
        (f"{command} --kl sparrow/kl_step", "kl_step of sparrow is between the policy before and after an update"),
    ):
        with pytest.raises(SystemExit):
            rmo(wrong)
        assert message in capsys.readouterr().err
