"""The wandb mirror, with the true library: names, stopping and continuing, and all the ways in which it may fail.

What a whole run mirrors is read back in tests/experiment/test_mirror.py.
"""

import contextlib
import dataclasses
import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rmo.cli import main
from rmo.experiment import graph, mirror, runner
from rmo.runtime import files, hosts, sharding
from rmo.tracking import dashboard, wandb_mirror
from rmo.tracking.wandb_mirror import Wandb
from tests.helpers.smoke import ROOT, SMOKE
from tests.helpers.wandb_files import read_all

TINY = dataclasses.replace(SMOKE, sft=dataclasses.replace(SMOKE.sft, texts=256, epochs=4), tags=("mine",))
STEPS = 16


@pytest.fixture(autouse=True)
def off(monkeypatch):
    for name in ("shared", "run"):
        monkeypatch.setattr(Wandb, name, None)
    for name in ("announced", "failed"):
        monkeypatch.setattr(Wandb, name, False)
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)


def sft(root, mirrored=True):
    """Make the SFT stage; returns its directory."""
    run = graph.open_run(TINY, root, sharding.make_mesh(1))
    if mirrored:
        Wandb.start("project", root, TINY, mirror.tags(TINY))
    runner.execute(run, ("sft",))
    return run.path("sft")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """SFT without a mirror: `content` of its directory."""
    return content(sft(tmp_path_factory.mktemp("plain") / "smoke", mirrored=False))


def content(directory):
    """The bytes of all files but those that hold times (weights too: the held-out loss in info.json is theirs)."""
    assert (directory / "DONE").exists()
    found = {path.name: path.read_bytes() if path.is_file() else b"" for path in directory.iterdir()}
    done = found["DONE"].split(b"\n")[0]  # it goes on with checksums, those of times too
    return found | dict.fromkeys(("speed.jsonl", "cost.json"), b"") | {"DONE": done}


def test_numbers_have_the_names_that_the_readme_says():
    row = {"loss": [1.0, 3.0, math.nan], "tokens": 7, "text": "x", "params": {"total": 5}, "none": None}
    found = wandb_mirror.numbers("proxies", row)
    assert math.isnan(found.pop("proxies/loss/2"))
    assert found == {
        "proxies/loss": 2.0, "proxies/loss/0": 1.0, "proxies/loss/1": 3.0, "proxies/tokens": 7, "proxies/params/total": 5,
    }  # fmt: skip


def test_a_stopped_stage_continues_its_wandb_run(tmp_path, plain, monkeypatch, capsys):
    """Told to stop between checkpoints, twice: one run, every step once, in the end; the second host finds the id."""
    seen = []
    for stop in (3, 7, None):
        calls = iter(range(10**6))
        monkeypatch.setattr(hosts, "preempted", lambda: stop is not None and next(calls) >= stop)  # noqa: B023
        if stop is None:
            directory = sft(tmp_path)
        else:
            with pytest.raises(hosts.Preempted):
                sft(tmp_path)
        seen.append(read_all(tmp_path)["sft"])
    assert content(directory) == plain
    assert len({said.run.run_id for said in seen}) == 1
    assert [said.code for said in seen] == [1, 1, 0]
    assert seen[0].steps != seen[-1].steps == list(range(STEPS))
    assert seen[-1].rows[0].keys() >= {"sft/loss", "sft/grad_norm", "speed/seconds"}
    group = seen[-1].run.run_group
    assert re.fullmatch("smoke-[0-9a-f]{8}", group)
    out = capsys.readouterr().out
    assert out.count(f"wandb: offline, to send: wandb sync {tmp_path}/wandb (group {group})") == 1  # once a process


def test_rows_that_a_run_has_are_not_sent(monkeypatch):
    """wandb would drop them too, each with a warning."""
    sent = []
    monkeypatch.setattr(Wandb, "kind", "ppo")
    monkeypatch.setattr(Wandb, "run", SimpleNamespace(starting_step=2, log=lambda row, step: sent.append((step, row))))
    for step in range(4):
        Wandb.log(step, {"kl": [4.0, 9.0]}, {"wait": 1.0})
    assert [step for step, _ in sent] == [2, 3]
    row = {"kl": 6.5, "kl/0": 4.0, "kl/1": 9.0, "sqrt_kl": 2.5, "sqrt_kl/0": 2.0, "sqrt_kl/1": 3.0}
    assert sent[0][1] == {f"ppo/{name}": value for name, value in row.items()} | {"speed/wait": 1.0}


def test_run_directories_do_not_mix(tmp_path):
    for name in ("a", "b"):
        Wandb.start("project", tmp_path / name, TINY, [])
        with Wandb.stage("sft", "sft-1"):
            pass
    a, b = (read_all(tmp_path / name)["sft"].run for name in ("a", "b"))
    assert a.run_id != b.run_id
    assert a.run_group != b.run_group


@pytest.mark.parametrize("what", ["missing", "init", "log", "log_artifact", "finish"])
def test_a_failing_wandb_is_one_line_and_the_run_goes_on(tmp_path, plain, monkeypatch, capsys, what):
    import wandb

    def fails(*_, **__):
        raise wandb.errors.CommError("no\nnetwork")

    if what == "missing":
        monkeypatch.setitem(sys.modules, "wandb", None)
    elif what == "init":
        monkeypatch.setattr(wandb, "init", fails)
    else:
        monkeypatch.setattr(wandb.Run, what, fails)
    if what == "log_artifact":  # SFT keeps none
        monkeypatch.setattr(runner, "mirror", lambda *_: Wandb.keep({}))
    assert content(sft(tmp_path)) == plain
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rmo: wandb failed")]
    assert len(said) == 1, said
    assert ("no network" in said[0]) == (what != "missing")
    assert Wandb.run is None
    assert (Wandb.shared is None) == (what == "missing")


@pytest.mark.parametrize("failures", [1, 2])
def test_a_failure_costs_a_stage_and_two_the_mirror(tmp_path, monkeypatch, capsys, failures):
    import wandb

    modes, init = [], wandb.init

    def fails_at_first(**settings):
        modes.append(settings["mode"])
        if len(modes) <= failures:
            raise wandb.errors.CommError("timed out")
        return init(**settings)

    monkeypatch.setattr(wandb, "init", fails_at_first)
    Wandb.start("project", tmp_path, TINY, [])
    assert Wandb.shared
    Wandb.shared["mode"] = "online"
    for name in "abc":
        with Wandb.stage(name, name):
            Wandb.log(0, {"loss": 1.0}, {})
    out = capsys.readouterr().out
    assert modes == ["online", "offline", "offline"][: 4 - failures]
    assert out.count("rmo: wandb failed (timed out)") == failures
    assert out.count(f"wandb: offline, to send: wandb sync {tmp_path}/wandb") == 2 - failures
    assert [list(said.rows) for said in read_all(tmp_path).values()] == [[0], [0]] * (2 - failures)


def test_the_seconds_of_a_stage_are_without_the_mirror(tmp_path, monkeypatch):
    clock = [0.0]

    def takes(seconds):
        return lambda *_: clock.__setitem__(0, clock[0] + seconds)

    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for where, name in ((Wandb, "begin"), (Wandb, "end"), (runner, "mirror")):
        monkeypatch.setattr(where, name, takes(60.0))
    run = graph.open_run(TINY, tmp_path, sharding.make_mesh(1))
    run.stages["sft"] = dataclasses.replace(run.stages["sft"], make=takes(3.0))
    assert runner.make(run, "sft") == files.read_json(run.path("sft") / "cost.json")["seconds"] == 3.0


# With a server, and with none.

SCRIPT = """
import json, os, signal, sys, urllib.request; from pathlib import Path; import jax.numpy as jnp
from rmo import config; from rmo.tracking import wandb_mirror as mirror; from rmo.tracking.jsonl import Log; from rmo.tracking.wandb_mirror import Wandb
root = Path(sys.argv[1])

def write_rows(begin, end, before_the_end=lambda: None):
    Wandb.start("project", root, config.Experiment(name="e"), [])
    with Wandb.stage("sft", "sft-1"):
        log = Log(root / "sft-1", "sft", 20)
        log.resume(begin)
        for step in range(begin, end):
            log.write(step, {"loss": jnp.float32(step)})
        log.close()
        before_the_end()
"""


def with_rows(root, script, **env):
    """Run a script that continues a stage's log, at a terminal where wandb could ask; returns what it printed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    clean |= {"HOME": str(root), "NETRC": str(root / "netrc"), "TERM": "xterm", "JAX_PLATFORMS": "cpu"}
    ours, theirs = os.openpty()
    got = subprocess.run(
        [sys.executable, "-c", SCRIPT + script, root / "run"],
        cwd=ROOT, env=clean | env, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=90,
    )  # fmt: skip
    os.close(theirs)
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", 0) as terminal:
        print(terminal.read(10**5).decode())
    assert got.returncode == 0
    return got.stdout


def test_without_an_account_nothing_asks(tmp_path):
    assert "wandb: offline, to send: wandb sync " in with_rows(tmp_path, "write_rows(0, 3)")
    assert read_all(tmp_path / "run")["sft"].steps == [0, 1, 2]


ONLINE = """
url = os.environ["WANDB_BASE_URL"]
received = lambda: [(row["_step"], row["sft/loss"]) for row in json.load(urllib.request.urlopen(f"{url}/{name}"))]
write_rows(0, 10)
name = config.digest((root / "wandb" / "id").read_text(), "sft-1")
assert received() == [(step, step) for step in range(10)]
write_rows(6, 15)  # 6 to 9 come again
assert received() == [(step, step) for step in range(15)]
urllib.request.urlopen(urllib.request.Request(f"{url}/{name}/8", method="DELETE"))  # 8 to 14 never arrived
write_rows(12, 18)  # 8 to 11 are in the stage's file only
assert received() == [(step, step) for step in range(18)]
mirror.PATIENCE["finish_timeout"] = 2.0
write_rows(18, 20, lambda: os.kill(int(os.environ["SERVER"]), signal.SIGKILL))
assert len((root / "sft-1" / "metrics.jsonl").read_text().splitlines()) == 20
with Wandb.stage("gold", "gold-1"):
    Wandb.log(0, {"loss": 1.0}, {})
"""


def test_a_server_gets_every_row_once(tmp_path):
    """Also rows that it had not received when the run was stopped, and not those that come again; when it is lost the
    run goes on, offline."""
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "wandb_server.py")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    url = server.stdout.readline().strip()
    env = {"WANDB_BASE_URL": url, "WANDB_API_KEY": "local-" + 40 * "0", "SERVER": str(server.pid)}
    try:
        said = with_rows(tmp_path, ONLINE, **env)
    finally:
        server.kill()
        server.wait()
    assert f"wandb: {url}/me/project (group e-" in said
    assert "rmo: wandb failed (Timed out" in said
    assert read_all(tmp_path / "run")["gold"].rows[0]["gold/loss"] == 1.0


# The dashboard.


def test_the_dashboard_is_what_the_library_takes(tmp_path):
    from wandb_workspaces.workspaces import Workspace, internal

    out = tmp_path / "dashboard.json"
    main.COMMANDS["dashboard"](["project", "--out", str(out)])
    view = internal.View.model_validate(files.read_json(out))
    made = Workspace._from_model(view)
    assert made.project == "project"
    assert [section.name for section in made.sections] == ["Overoptimization", *dashboard.line_charts(), "Report"]
    panels = [panel for section in made.sections for panel in section.panels]
    assert not [panel for panel in panels if "Unknown" in type(panel).__name__]
    again = dashboard.definition(made)
    assert again == files.read_json(out)


def test_what_a_dashboard_lacks_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(dashboard.DashboardError, match="pip install wandb-workspaces"):
        dashboard.workspace("project")
