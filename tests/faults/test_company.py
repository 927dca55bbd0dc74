"""A seeded sample of company.py, and what it found: a clock that is set, a hanging holder, a terminal that goes away."""

import contextlib
import json
import os
import pty
import random
import signal
import subprocess
import sys
import time

import pytest

from rmo.runtime import compiling, files, hosts, lock
from rmo.tracking import status
from tests.faults import company, kills, one_stage
from tests.helpers.smoke import CLI, ENV, ROOT
from tests.runtime.test_hosts import FEW, finish, start_two


def problems(cases):
    found = list(cases)
    assert found
    return [case for case in found if case.problem]


def test_holders_of_one_stage(tmp_path):
    assert problems(company.holders(4, 0, tmp_path)) == []


def test_wandb_failing_at_any_call(tmp_path):
    assert problems(company.wandb_failing(0, tmp_path)) == []


def test_readers_gone(tmp_path):
    assert problems(company.readers_gone(tmp_path)) == []


def test_told_to_stop_anywhere(tmp_path):
    """Two stages; the campaign takes every one."""
    one_stage.prepare(tmp_path)
    finished, rng = one_stage.Finished(tmp_path / "whole"), random.Random(0)
    with one_stage.often():
        finished.make("=sft", "=gold", "=samples")
        found = [
            company.stopped_again_and_again(finished, kills.fresh(tmp_path), stage, rng)
            for stage in ("gold", "samples")
        ]
    assert [problem for _, problem in found] == ["", ""]
    assert all(asked for asked, _ in found)


@pytest.fixture
def fast(monkeypatch):
    for name, seconds in (("BEAT", 0.1), ("SILENCE", 0.6), ("WATCH", 0.3)):
        monkeypatch.setattr(lock, name, seconds)


def test_a_clock_that_is_set_forward_takes_no_living_holders_stage(tmp_path, monkeypatch, fast):
    """The looker's clock is three days ahead of the holder's: it looks dead for long, and gives signs of life."""
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "elsewhere")
    with lock.Lock(tmp_path):
        monkeypatch.setattr(lock.socket, "gethostname", lambda: "here")
        real = time.time
        monkeypatch.setattr(lock.time, "time", lambda: real() + 3 * 86400)
        with pytest.raises(lock.Held):
            lock.Lock(tmp_path).__enter__()


@pytest.mark.parametrize("ahead", [3 * 86400, 0, -3 * 86400])
def test_a_dead_holder_is_replaced_whatever_the_clock_says(tmp_path, fast, ahead):
    """Its last sign of life may lie in the future."""
    dead = lock.Lock(tmp_path).me | {"host": "elsewhere"}
    (tmp_path / "HOLDER").write_text(json.dumps(dead))
    at = time.time() - 1 + ahead
    os.utime(tmp_path / "HOLDER", (at, at))
    with lock.Lock(tmp_path):
        pass


def test_who_was_taken_for_dead_writes_nothing_more(tmp_path):
    """A holder slept, another took its stage: the next thing that it would write ends it, before its next beat."""
    code = (
        "import json, sys; from pathlib import Path; from rmo.runtime import files, lock\n"
        "where = Path(sys.argv[1])\n"
        "with lock.Lock(where) as held:\n"
        "    (where / 'HOLDER').write_text(json.dumps(held.me | {'pid': 1}))\n"
        "    real = lock.since_boot\n"
        "    lock.since_boot = lambda: real() + 100\n"
        "    files.write_text(where / 'late', 'x')\n"
    )
    got = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert got.returncode == hosts.HELD, got.stderr
    assert "was taken over by another run: this one stops" in got.stdout
    assert not (tmp_path / "late").exists()
    assert (tmp_path / "HOLDER").exists()


def test_writing_under_a_lock_costs_nothing(tmp_path, monkeypatch):
    """Between two beats no file is read."""
    with lock.Lock(tmp_path):
        monkeypatch.setattr(lock.Lock, "holder", None)
        for _ in range(3):
            files.need_hold()
        monkeypatch.undo()


def test_a_terminal_that_goes_away_has_the_run_saved(tmp_path):
    """Its window is closed: the run ends as on SIGTERM, and nobody reading its last line is no error."""
    here, there = pty.openpty()

    def own_terminal():
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run below nohup
        import fcntl
        import termios

        fcntl.ioctl(1, termios.TIOCSCTTY, 0)

    command = [*CLI, "--runs", str(tmp_path), "--only", "sft", "--sft.epochs", "8"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENV, stdin=there, stdout=there, stderr=there, preexec_fn=own_terminal
    )
    os.close(there)
    os.set_blocking(here, False)
    for _ in range(4000):
        with contextlib.suppress(BlockingIOError):
            os.read(here, 65536)
        if any(len(f.read_text().splitlines()) > 5 for f in tmp_path.glob("smoke/sft*/metrics.jsonl")):
            break
        assert process.poll() is None
        time.sleep(0.05)
    os.close(here)
    assert process.wait(timeout=200) == hosts.PREEMPTED
    assert list(tmp_path.glob("smoke/sft*/scratch/checkpoints/*"))
    assert not list(tmp_path.rglob("HOLDER"))


def test_below_nohup_a_hangup_is_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asked = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(hosts._Stop, "asked", False)
    try:
        hosts.join()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        hosts.join()
        signal.raise_signal(signal.SIGHUP)
        assert hosts.preempted()
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, asked)


@pytest.mark.slow
def test_load_changes_no_byte(tmp_path):
    """Two processes of one run, alone and beside four busy loops: log-probabilities, gold and losses are the same."""
    names = ("*/metrics.jsonl", "*/info.json", "samples*/draws/*.npz")
    found = []
    for name, busy in (("quiet", 0), ("loaded", 4)):
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            finish(*start_two(tmp_path / name, *FEW), timeout=3000)
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
        root = tmp_path / name / "smoke"
        found.append({str(p.relative_to(root)): p.read_bytes() for pattern in names for p in root.glob(pattern)})
    assert len(found[0]) > 10
    assert company.differing(*found) == ""


@pytest.mark.parametrize("jump", [3 * 86400.0, -3 * 86400.0])
def test_a_clock_that_is_set_while_a_program_is_compiled(jump):
    """Its seconds stay those that passed: costs are what is left when they are subtracted."""
    counted, event = compiling.Compiling(), "/jax/core/compile/jaxpr_trace_duration"
    began = time.monotonic()
    compiling._note(event, time.time(), time.time() + jump)
    assert 0 <= counted.seconds <= time.monotonic() - began + 0.01


def test_ages_are_never_negative(tmp_path):
    """A file of tomorrow, since the clock was set back."""
    (tmp_path / "DONE").write_text("")
    os.utime(tmp_path / "DONE", (time.time() + 86400,) * 2)
    assert status.age(tmp_path / "DONE") == 0
