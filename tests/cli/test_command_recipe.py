"""The steps of rmo/cli/README.md "To add a command", as they are written there."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rmo.cli import main

ROOT = Path(main.__file__).parents[2]
README = Path(main.__file__).with_name("README.md").read_text()


def test_a_new_command_is_one_file(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    (tmp_path / "count_points.py").write_text(re.sub("^   ", "", code, flags=re.M))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(main.COMMANDS, "count", importlib.import_module("count_points").main)
    curves = ROOT / "configs" / "results" / "tiny" / "curves.csv"
    monkeypatch.setattr("sys.argv", ["rmo", "count", str(curves)])
    main.main()
    assert int(capsys.readouterr().out) == len(curves.read_text().splitlines()) - 1
    monkeypatch.setattr("sys.argv", ["rmo", "count", "--curvs", "x"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("rmo: ")


def test_every_command_has_a_file_and_a_line_of_help():
    files = {path.stem for path in (ROOT / "rmo" / "cli" / "commands").glob("*.py")} - {"__init__"}
    assert files == {function.__module__.rpartition(".")[2] for function in main.COMMANDS.values()}
    assert set(re.findall(r"^  rmo (\w+)", main.HELP, re.M)) == set(main.COMMANDS)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from rmo.cli.main import main; sys.argv = ['rmo', 'fit', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join({'scipy', 'matplotlib', 'flax', 'optax', 'wandb', 'transformers'} & sys.modules.keys()) or 0)"
    )
    got = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (got.returncode, got.stderr) == (0, "")
