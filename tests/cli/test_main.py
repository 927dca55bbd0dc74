"""What the command line prints when something goes wrong: settings that exist, tracebacks only where they are wanted."""

import dataclasses
import errno
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from rmo.cli import devices, main, options
from rmo.cli.commands.run import RunOptions
from rmo.config import checks
from rmo.experiment import graph, memory_advice, runner
from rmo.methods import method as methods
from rmo.runtime import checkpointer, errors, files, hosts, sharding

ROOT = Path(__file__).parents[2]
SMOKE = checks.load(ROOT / "configs" / "smoke.py")
SETTING = r"\b(?:sft|gold|policy|bon|ppo|proxies|fits)\.\w[\w.]*\w"


def test_advice_on_memory_names_settings_that_exist():
    kinds = {name.split("/")[0] for name in graph.plan(SMOKE)} - {"report"}
    lines = {**memory_advice.MEMORY, **{method.name: method.less_memory for method in methods.every()}}
    assert kinds <= lines.keys()
    for line in lines.values():
        for setting in re.findall(SETTING, line):
            owner = SMOKE
            for name in setting.split("."):
                assert name in {field.name for field in dataclasses.fields(owner)}, setting
                owner = getattr(owner, name)


@pytest.mark.parametrize(
    ("exhaust", "asked"), [(lambda: jnp.zeros(2**50), "4503599627370496 bytes"), (lambda: np.zeros(2**53), "64.0 PiB")]
)
def test_a_stage_that_runs_out_of_memory_says_what_takes_less(exhaust, asked, tmp_path):
    run = graph.open_run(SMOKE, tmp_path / "smoke", sharding.make_mesh(1))
    run.stages["sft"] = dataclasses.replace(run.stages["sft"], make=lambda run, out: exhaust())
    with pytest.raises(files.RunError) as error:
        runner.execute(run, ("sft",))
    said = str(error.value)
    assert said.startswith(f"sft ran out of memory (asked for {asked}): raise sft.optimizer.accumulate")
    assert "rmo plan" in said
    assert "\n" not in said
    assert len(said) < 600  # what `leave` prints


def test_memory_is_not_blamed_for_other_errors(tmp_path, monkeypatch):
    quota = "RESOURCE_EXHAUSTED: too many requests per minute"
    assert not errors.out_of_memory(RuntimeError(quota))

    def exhausted(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 2.00GiB.")

    from orbax.checkpoint import v1 as ocp

    monkeypatch.setattr(ocp, "load", exhausted)
    with pytest.raises(RuntimeError, match="Out of memory"):  # not: remove the directory and run again
        checkpointer.load_params(tmp_path, {})


@pytest.fixture
def rmo(monkeypatch, capsys):
    """rmo(arguments) -> what it says on stderr, ending with exit code 2."""

    def call(*args):
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["rmo", *args])
        with pytest.raises(SystemExit) as end:
            main.main()
        assert end.value.code == 2
        return capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("fly", "no command 'fly'; there are run, list"),
        ("lsit", "no command 'lsit'; perhaps list"),
        ("fit configs/results/tiny/curve.csv", "curve.csv: no such file; perhaps configs/results/tiny/curves.csv"),
        ("fit configs/results/tiny/figures/x.csv", "configs/results/tiny holds along_the_path.svg, annotator.json"),
        ("fit x.csv --levl 1", "perhaps --level (float, now 0.95)"),
        ("bon configs/results/tiny/curve.csv", "no such file; perhaps configs/results/tiny/curves.csv"),
        ("report configs/result/", "perhaps configs/results"),
        ("score ./configs/results/tin LICENSE", "no such directory; perhaps configs/results/tiny"),
        ("list configs/smoke.py --only ppoo", "no such stage; perhaps ppo"),
        ("run smoke", "no config file smoke; perhaps configs/smoke.py"),
        ("list configs/results", "configs/results is a directory: give the config file"),
        ("fit configs/results/tiny/fig1a.svg", "a page or a picture, not a log: give CSV, JSON"),
    ],
)
def test_errors_are_one_line_that_names_what_is_near(args, message, rmo):
    said = rmo(*args.split())
    assert message in said
    assert said.startswith("rmo: ")
    assert said.count("\n") == 1


def test_a_closed_pipe_ends_quietly_but_a_lost_connection_is_an_error(monkeypatch):
    for args in (["fit", "--help"], ["--help"]):
        code = f"import sys; from rmo.cli.main import main; sys.argv = ['rmo', *{args}]; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 0)

    def lost(args):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setitem(main.COMMANDS, "list", lost)
    monkeypatch.setattr(sys, "argv", ["rmo", "list"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == hosts.LOST  # launchers start again


@pytest.mark.parametrize(("args", "environ", "shown"), [(["--traceback"], "", True), ([], "1", True), ([], "", False)])
def test_tracebacks_are_shown_where_they_are_wanted(args, environ, shown, rmo, monkeypatch):
    monkeypatch.setenv("RMO_TRACEBACK", environ)
    said = rmo(*args, "fit", "none.csv")
    assert said.splitlines()[-1].startswith("rmo: none.csv: no such file")
    assert ("Traceback" in said) == shown


def test_an_accelerator_that_jax_does_not_see_is_pointed_out(tmp_path, monkeypatch, capsys):
    for name in ("JAX_PLATFORMS", "TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    devices.count()
    assert capsys.readouterr().err == ""
    (tmp_path / "nvidia-smi").write_text("")
    (tmp_path / "nvidia-smi").chmod(0o755)
    devices.count()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "an NVIDIA GPU, but JAX sees only the CPU: EXTRAS=dev,cuda" in said
    monkeypatch.setenv("TPU_NAME", "mine")
    assert "EXTRAS=dev,tpu" in errors.overlooked()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert errors.overlooked() == ""


def test_options_are_named_as_the_parser_names_them(capsys):
    named = {name for name, _ in errors.options(RunOptions(SMOKE))}
    with pytest.raises(SystemExit):
        options.parse(RunOptions, ["--help"], "rmo run", RunOptions(SMOKE))
    shown = set(re.findall(r"^[│ ]*(--[a-z][\w.-]+)", capsys.readouterr().out, re.M)) - {"--help"}
    assert len(shown) > 150
    assert {name.replace(".no-", ".") for name in shown} <= named


def test_errors_that_nobody_can_catch_are_printed_unless_they_only_echo_one(monkeypatch, capsys):
    printed = []
    monkeypatch.setattr(sys, "__unraisablehook__", lambda found: printed.append(str(found.exc_value)))
    for error in (RuntimeError("Event loop is closed"), RuntimeError("another"), ValueError("Event loop is closed")):
        errors.unless_echo(SimpleNamespace(exc_value=error))
    assert printed == ["another", "Event loop is closed"]


def test_a_command_prints_no_echoes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    monkeypatch.setattr(sys, "argv", ["rmo", "--help"])
    main.main()
    assert sys.unraisablehook is errors.unless_echo
    assert "rmo run CONFIG" in capsys.readouterr().out
