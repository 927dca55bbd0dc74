"""What people see in a terminal: progress, `rmo list` and `rmo watch`, on a made run directory."""

import io
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from rmo.analysis.curve_id import CurveId
from rmo.artifacts.run_files import PLANNED
from rmo.artifacts.stages import Optimised
from rmo.methods.bench import Arm, Record
from rmo.methods.method import find
from rmo.runtime import code, files, lock
from rmo.tracking import progress, status, watch
from tests.helpers.smoke import ROOT

STAGES = {
    name: f"{name}-0123456789"
    for name in ("sft", "proxies/w8x1-main", "bon/w8x1-main", "bon/w16x1-main", "bon/w8x1-data", "ppo/w8x1-main", "fits", "report")
}  # fmt: skip
N = np.array([1, 4, 16, 64])


def done(directory, seconds, **other):
    files.write_json(directory / "cost.json", {"seconds": seconds, "code": code.code_hash(), **other})
    files.write_text(directory / "DONE", "x\n")


def best_of_n(directory, gold_MK, ids):
    gold = np.repeat(np.array(gold_MK, float)[..., None], 3, axis=-1) + np.array([-1, 0, 1])  # prompts around the mean
    members, ns = [Arm(m) for m in range(len(ids))], np.tile(N, (len(ids), 1))
    optimised = Optimised(directory)
    optimised.write_arms("scores/w8x1-main", members, ids)
    optimised.write(Record(members, ns, np.log(ns), gold + 5, gold))
    done(directory, 12.5)


@pytest.fixture
def run(tmp_path):
    """sft and two best-of-n stages done, PPO half way (its last line half written), one stage stopped, a stale one."""
    root = tmp_path / "tiny"
    files.write_json(root / PLANNED, STAGES)
    done(root / STAGES["sft"], 4.0)
    first, second, other = CurveId("bon", 801, 100, seed=0), CurveId("bon", 801, 100, seed=1), CurveId("bon", 801, 50)
    best_of_n(root / STAGES["bon/w8x1-main"], [[0, 1, 3, 1], [0, 3, 5, 3], [9, 9, 9, 9]], [first, second, other])
    best_of_n(root / STAGES["bon/w8x1-data"], [[0, 0, 0, 7]], [first])
    ppo = root / STAGES["ppo/w8x1-main"]
    climbing = [CurveId("ppo", 801, 100, seed=0), CurveId("ppo", 801, 100, seed=1)]
    Optimised(ppo).write_arms("scores/w8x1-main", [Arm(0), Arm(1)], climbing)
    reads = [
        {"step": 0, "iteration": [0, 0], "kl": [0, 0], "gold": [0, 0], "proxy": [0, 0]},
        {"step": 1, "iteration": [2, 3], "kl": [1, 1], "gold": [1, 3], "proxy": [1, 1]},
        {"step": 2, "iteration": [4, 3], "kl": [4, 1], "gold": [2, 3], "proxy": [2, 1]},  # the second rests
        {"step": 3, "iteration": [9, 6], "kl": [16, 4], "gold": [0, 1], "proxy": [3, 4]},
    ]
    files.write_text(ppo / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in reads) + '{"step": 4, "iter')
    speed = [{"step": k, "of": 11, "seconds": 2.0} for k in range(4)]
    files.write_text(ppo / "speed.jsonl", "".join(json.dumps(row) + "\n" for row in speed) + '{"st')
    (root / STAGES["proxies/w8x1-main"]).mkdir(parents=True)
    done(root / "fits-aaaaaaaaaa", 33.0)
    return root


def test_list_says_what_every_stage_is_at(run):
    with lock.Lock(run / STAGES["ppo/w8x1-main"]):
        found = status.look(run, STAGES)
    rows = {row["stage"]: row for row in found}
    assert {name: row["state"] for name, row in rows.items()} == {
        "sft": "done", "proxies/w8x1-main": "stopped", "bon/w8x1-main": "done", "bon/w16x1-main": "missing",
        "bon/w8x1-data": "done", "ppo/w8x1-main": "running", "fits": "stale", "report": "missing",
    }  # fmt: skip
    climbing = rows["ppo/w8x1-main"]
    assert (climbing["step"], climbing["of"], climbing["seconds"], climbing["holder"]["pid"]) == (
        4,
        11,
        8.0,
        os.getpid(),
    )
    assert 0 <= climbing["age"] < 60
    assert rows["fits"]["before"] == 33.0
    lines = status.lines(found)
    assert max(map(len, lines)) <= 100
    table = [line for line in lines if not line.startswith(" ")]
    assert [line.split()[-1] for line in table] == list(STAGES.values())  # the launchers read the last word
    assert len({line.index(path) for line, path in zip(table, STAGES.values(), strict=True)}) == 1
    assert "4 of 11; by " in lines[lines.index(table[5]) + 1]
    assert status.total(found, run).startswith("3 of 8 done, 1 running, 1 stopped, 37 s so far, in ")


def test_list_marks_what_other_code_made(run):
    done(run / STAGES["sft"], 4.0, code="000000000000")
    done(run / STAGES["bon/w8x1-data"], 12.5)
    found = status.look(run, STAGES)
    assert [row["stage"] for row in found if row["other_code"]] == ["sft"]
    lines = status.lines(found)
    assert lines[0].startswith("done*   sft ")
    assert "*: made by other code than this; `rmo run CONFIG --remake` makes those again" in lines[-2]


def test_a_sweep_whose_name_ends_like_main_is_not_the_first_to_be_drawn(tmp_path):
    """In a directory that does not say what was planned, those of `main` are drawn."""
    names = ("bon/w16x1-main", "bon/w8x1-a-main", "bon/w8x1-main", "ppo/w8x1-main-mean", "ppo/w8x1-x-main")
    for name in names:
        (tmp_path / f"{name}-0123456789").mkdir(parents=True)
    found = list(watch.stages(tmp_path))
    assert found[:3] == ["bon/w16x1-main", "bon/w8x1-main", "ppo/w8x1-main-mean"]
    assert watch.chosen(found, ()) == ["bon/w16x1-main", "bon/w8x1-main", "ppo/w8x1-main-mean"]


def test_a_dead_holder_works_on_nothing(run):
    directory = run / STAGES["ppo/w8x1-main"]
    files.write_json(directory / "HOLDER", lock.Lock(directory).me | {"host": "elsewhere"})
    old = time.time() - lock.SILENCE - 1
    os.utime(directory / "HOLDER", (old, old))
    row = status.state(directory)
    assert (row["state"], row["holder"]) == ("stopped", None)


def test_time_left_is_said_only_where_it_is_known():
    def row(stage, state, seconds=None, before=None):
        return {"stage": stage, "state": state, "seconds": seconds, "before": before}

    found = [row("bon/a", "done", 100.0), row("bon/b", "done", 140.0), row("bon/c", "missing"), row("fits", "missing")]
    assert "about 2 min left before fits and report" in status.left(found, ["bon/c", "fits"])
    assert status.left([*found, row("ppo/a", "missing")], ["bon/c", "ppo/a"]) == ""  # none of its kind is done
    again = [*found, row("ppo/a", "stale", None, 3600.0)]
    assert "about 62 min left, until" in status.left(again, ["bon/c", "ppo/a"])
    found[1]["seconds"] = 300.0  # these stages differ too much to speak for another
    assert status.left(found, ["bon/c", "fits"]) == ""


def test_curves_are_means_over_seeds_as_far_as_all_of_them_are(run):
    bon = watch.curve(run / STAGES["bon/w8x1-main"], find("bon"))
    assert bon is not None
    assert bon.gold.tolist() == [0, 2, 4, 2]  # not the member of another recipe
    assert bon.proxy.tolist() == [5, 7, 9, 7]
    ppo = watch.curve(run / STAGES["ppo/w8x1-main"], find("ppo"))
    assert ppo is not None
    assert ppo.d.max() == 2.0
    at = lambda values, d: float(np.interp(d, ppo.d, values))
    assert at(ppo.gold, 1.0) == pytest.approx(2.0, abs=0.05)  # of 1 and 3
    assert at(ppo.gold, 2.0) == pytest.approx(1.5)  # of 2 and 1; the first member's point at 4 has no other
    assert at(ppo.proxy, 2.0) == pytest.approx(3.0)
    assert watch.curve(run / STAGES["bon/w16x1-main"], find("bon")) is None


def test_the_view_of_a_run_under_way(run):
    text, over = watch.view(run, (), 120, 40, color=False)
    assert not over
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 120
    legend = text.splitlines()[-1]
    assert legend.startswith("A  w8x1-main")
    assert "4.00 at 2.8   2.00 at 4.2   7.00" in legend  # highest gold 4 at log 16 nats, 2 at the end, proxy 7
    assert "1.50 at 4.0   3.00" in legend
    assert "w8x1-data" not in text
    assert "7.00 at 4.2" in watch.view(run, ("data",), 120, 40, color=False)[0]
    bars = [line for line in text.splitlines() if "┤" in line]
    assert "A" in "".join(bars)
    assert "a" in "".join(bars)
    assert "ppo/w8x1-main: stopped, 4 of 11" in text
    done(run / STAGES["report"], 1.0)
    assert watch.view(run, (), 120, 40, color=True)[1]


def test_a_method_without_a_proxy_is_watched_by_its_gold():
    reads = [{"iteration": [k], "kl": [k * k], "gold": [k]} for k in range(3)]
    found = watch.of_log(find("ppo"), reads, [])
    assert found is not None
    assert found.gold[-1] == 2.0
    assert np.isnan(found.proxy).all()
    curves = {"ppo/labels": found}
    assert watch.legend(curves, 100, color=False)[-1].endswith("2.00 at 4.0   2.00 at 4.0   none")
    drawn = watch.picture(curves, 100, 20, color=False)
    assert "A" in drawn
    assert "a" not in drawn


def test_any_run_directory_can_be_watched(run, tmp_path):
    """One that does not say what was planned, through the command; one without curves; none at all."""
    (run / PLANNED).unlink()
    assert watch.stages(run) == {
        name: path for name, path in {**STAGES, "fits": "fits-aaaaaaaaaa"}.items() if (run / path).exists()
    }
    code = "from rmo.cli.main import main; main()"
    got = subprocess.run([sys.executable, "-c", code, "watch", str(run)], cwd=ROOT, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr
    assert "gold in capitals, proxy in small letters" in got.stdout
    assert "w8x1-data" not in got.stdout
    files.write_json(tmp_path / "new" / PLANNED, STAGES)
    assert "no curves yet" in watch.view(tmp_path / "new", (), 80, 24, color=False)[0]
    with pytest.raises(files.RunError, match=r"holds no stages.*perhaps .*/tiny"):
        watch.stages(tmp_path / "tinny")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_in_a_terminal_and_lines_elsewhere(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", err := Terminal() if terminal else io.StringIO())
    monkeypatch.setattr(progress, "EVERY", -1.0)
    with progress.stage("ppo/w8x1-main", 11, 13, "; about 3 min left"):
        bar = progress.Progress("ppo w8x1-main", 4, "read")
        bar.resume(1)
        for n in (2, 3):
            bar.to(n, f"KL {n}, gold 0.5")
        bar.close()
    said = err.getvalue()
    assert said.startswith("stage 11 of 13: ppo/w8x1-main; about 3 min left\n")
    assert "KL 3, gold 0.5" in said
    assert ("\r" in said) == terminal
    assert ("ppo/w8x1-main: 2/4 reads after " in said) == ("ppo/w8x1-main: done in " in said) == (not terminal)
