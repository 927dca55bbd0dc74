"""Several processes are one run: same curves, one writer, saved when told to stop, survivors told when one is lost.
A stage instance has one holder. A bucket serves as the run directory."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rmo.runtime import files, hosts, lock
from tests.helpers.flags import FAST
from tests.helpers.tables import close

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from rmo.cli.main import main; main()", "run", "configs/smoke.py"]
ENV = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FAST}
FEW = ["--gold.kind", "random", "--only", "sft", "gold", "samples", "comparisons"]
SAVED = "asked to stop, and saved; the same command continues"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(runs, *args, env=ENV):
    return subprocess.Popen(
        [*CLI, "--runs", str(runs), *args],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(runs, *args, env=ENV):
    """Two processes with four devices each."""
    four = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=4 {FAST}"}
    where = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    return [start(runs, *args, env=env | four | where | {"JAX_PROCESS_ID": str(i)}) for i in range(2)]


def finish(*processes, codes=(0,), timeout=580):
    said = []
    for process in processes:
        out, _ = process.communicate(timeout=timeout)
        said.append(out)
    assert all(process.returncode in codes for process in processes), ([p.returncode for p in processes], said)
    return said


def until(sign, *processes, seconds=300):
    """Wait until sign() is true; fails if a process ends before."""
    for _ in range(seconds * 20):
        if sign():
            return
        for process in processes:
            assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def lines(runs, stage):
    return sum(len(f.read_text().splitlines()) for f in runs.glob(f"smoke/{stage}/metrics.jsonl"))


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}, ("a:1", 4, 3)),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4"}, "give all three"),
        ({"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}, "needs a port"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "4"}, "0 to 3"),
    ],
)
def test_processes_named_explicitly(environ, found):
    if isinstance(found, str):
        with pytest.raises(hosts.HostsError, match=found):
            hosts.explicit(environ)
    else:
        assert hosts.explicit(environ) == found


def test_processes_that_a_cluster_names():
    assert not hosts.several({})
    assert not hosts.several({"SLURM_JOB_ID": "5", "SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost"})
    assert hosts.several({"SLURM_STEP_NUM_TASKS": "2"})
    assert hosts.several({"TPU_WORKER_HOSTNAMES": "a,b"})
    assert hosts.several({"MEGASCALE_NUM_SLICES": "2"})
    assert hosts.several({"RMO_HOSTS": "1"})


def test_two_processes_equal_one_that_was_stopped_between(tmp_path):
    """One is told to stop during SFT and continues; two with four devices each make the same samples and labels.

    Both have eight devices: one device sums SFT's gradients in another order, and its weights drift from theirs.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    eight = ENV | {"XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {FAST}"}
    process = start(one, *FEW, "--sft.epochs", "4", env=eight)
    until(lambda: lines(one, "sft*") > 5, process)
    process.send_signal(signal.SIGTERM)
    (said,) = finish(process, codes=(hosts.PREEMPTED,))
    assert said.strip().splitlines()[-1] == f"rmo: {SAVED}"
    steps = lines(one, "sft*")
    (scratch,) = one.glob("smoke/sft*/scratch/checkpoints")
    assert [path.name for path in scratch.iterdir()] == [str(steps)]
    finish(start(one, *FEW, "--sft.epochs", "4", env=eight))
    finish(*start_two(two, *FEW, "--sft.epochs", "4"))
    for path in (one / "smoke").glob("samples*/draws/*.npz"):
        mine, theirs = (files.read_npz(p) for p in (path, two / path.relative_to(one)))
        np.testing.assert_array_equal(mine["tokens"], theirs["tokens"])
        np.testing.assert_allclose(mine["logps"], theirs["logps"], atol=1e-4)
        np.testing.assert_allclose(mine["gold"], theirs["gold"], atol=1e-4)
    said = [json.loads(next(where.glob("smoke/comparisons*/info.json")).read_text()) for where in (one, two)]
    assert said[0] == said[1]
    cost = json.loads(next(two.glob("smoke/sft*/cost.json")).read_text())
    assert (cost["devices"], cost["processes"]) == (8, 2)
    assert not list(two.rglob("HOLDER"))


def test_processes_that_share_no_directory_are_told_so(tmp_path):
    where = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    first = start(tmp_path / "a", *FEW, env=ENV | where | {"JAX_PROCESS_ID": "0"})
    second = start(tmp_path / "b", *FEW, env=ENV | where | {"JAX_PROCESS_ID": "1"})
    out, _ = second.communicate(timeout=100)
    assert second.returncode == 2
    assert "must be a directory that all processes share" in out
    first.kill()
    first.communicate()


def test_a_thread_that_waits_for_ever_does_not_hold_a_process_that_failed():
    """As orbax's do after a disk error in one of them: the interpreter would join them at its end."""
    code = (
        "import threading; from concurrent.futures import ThreadPoolExecutor; from rmo.runtime import hosts\n"
        "ThreadPoolExecutor().submit(threading.Event().wait)\n"
        "hosts.LINGER = 1\n"
        "hosts.leave(2, 'cannot write x')\n"
    )
    got = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=100)
    assert (got.returncode, got.stderr) == (2, "rmo: cannot write x\n")


def test_who_catches_the_exit_goes_on():
    code = (
        "import threading, time; from rmo.runtime import hosts\n"
        "hosts.LINGER = 0.1\n"
        "for _ in range(3):\n"
        "    try: hosts.leave(2, 'x')\n"
        "    except SystemExit: time.sleep(0.3)\n"
        "assert threading.active_count() == 1\n"
        "print('went on')\n"
    )
    got = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=100)
    assert (got.returncode, got.stdout) == (0, "went on\n")


def test_what_passes_is_told_from_what_does_not(monkeypatch):
    gone = ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer")
    assert not hosts.lost(gone)  # one process has nobody to lose
    monkeypatch.setattr(hosts, "alone", lambda: False)
    assert hosts.lost(gone)
    assert hosts.lost(RuntimeError("UNAVAILABLE: heartbeat"))
    assert not hosts.lost(RuntimeError("RESOURCE_EXHAUSTED: out of memory"))
    assert not hosts.lost(KeyError("connection"))
    assert hosts.passing(TimeoutError())
    assert hosts.passing(OSError(errno.ESTALE, "stale"))
    assert not hosts.passing(FileNotFoundError(errno.ENOENT, "none"))
    assert not hosts.passing(OSError(errno.ENOSPC, "full"))


def test_a_lock_outlives_a_network_that_fails_for_a_moment(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with lock.Lock(tmp_path) as held:
        real, calls = os.utime, []

        def failing(*args):
            calls.append(args)
            if len(calls) < 3:
                raise OSError(errno.ESTALE, "stale")
            return real(*args)

        monkeypatch.setattr(os, "utime", failing)
        for _ in range(100):
            if len(calls) > 4:
                break
            time.sleep(0.05)
        assert len(calls) > 4
        assert held.mine()
    assert "cannot renew" in capsys.readouterr().out


# One holder.


def test_a_stage_has_one_holder(tmp_path):
    with lock.Lock(tmp_path / "stage"):
        said = json.loads((tmp_path / "stage" / "HOLDER").read_text())
        with pytest.raises(lock.Held, match=f"process {os.getpid()} since .* remove"), lock.Lock(tmp_path / "stage"):
            pass
    assert said["pid"] == os.getpid()
    assert not (tmp_path / "stage" / "HOLDER").exists()
    with lock.Lock(tmp_path / "stage"):
        pass


@pytest.mark.parametrize(
    ("change", "silent", "held"),
    [
        ({}, 0, True),  # this process, which lives
        ({"pid": 2**22 + 1}, 0, False),  # no such process
        ({"born": 1.0}, 0, False),  # this process's number before its container was started again
        ({"pid": os.getppid(), "born": 1.0}, 0, True),  # the clock was set
        ({"pid": os.getppid(), "born": 1.0}, 100, False),  # another process has its number now
        ({"host": "elsewhere"}, 0, True),
        ({"host": "elsewhere"}, 1000, False),  # silent
        ({"host": "elsewhere", "job": "7", "start": "0"}, 0, False),  # the same job, started again
        ({"host": "elsewhere", "job": "7", "start": "1"}, 0, True),  # another step of this job
        ({"host": "elsewhere", "job": "8", "start": "0"}, 0, True),
    ],
)
def test_only_a_dead_holder_is_replaced(tmp_path, monkeypatch, change, silent, held):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(lock, "WATCH", 0.2)
    other = lock.Lock(tmp_path).me | {"job": ""} | change
    file = tmp_path / "HOLDER"
    file.write_text(json.dumps(other))
    os.utime(file, (time.time() - silent,) * 2)
    with pytest.raises(lock.Held) if held else contextlib.nullcontext(), lock.Lock(tmp_path):
        assert json.loads(file.read_text())["pid"] == os.getpid()
    assert file.exists() == held


@pytest.mark.slow
def test_of_many_that_want_a_dead_holders_stage_one_gets_it(tmp_path):
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "HOLDER").write_text(json.dumps(lock.Lock(tmp_path).me | {"pid": 2**22 + 1}))
    code = (
        "import sys, time; from pathlib import Path; from rmo.runtime.lock import Lock, Held\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "try:\n  with Lock(Path(sys.argv[1])): print('mine'); time.sleep(3)\nexcept Held: print('held')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "stage"), str(time.time() + 8)]
    racers = [subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert sorted(p.communicate()[0].strip() for p in racers) == ["held"] * 3 + ["mine"]


# A bucket.


@pytest.fixture
def bucket():
    """Environment for gs://bucket, served by a stand-in on loopback."""
    pytest.importorskip("gcsfs")
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "gcs.py"), "--port", "0", "--bucket", "bucket"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    url = server.stdout.readline().strip()
    yield ENV | {
        "STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
        "FSSPEC_GCS_TOKEN": "anon", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }  # fmt: skip
    server.terminate()
    server.wait()


IN_BUCKET = """
import json, numpy as np, pytest
from rmo.runtime import checksums, files, lock; from rmo.artifacts.stages import Stage; from rmo.tracking import jsonl as logs, watch
from rmo.analysis.curve_id import CurveId; from rmo.artifacts.stages import Optimised; from rmo.methods.bench import Arm
here = files.directory("gs://bucket/some/run")
files.write_json(here / "a.json", {"x": [1.5]})
files.write_npz(here / "b.npz", y=np.arange(3))
assert files.read_json(here / "a.json") == {"x": [1.5]}
assert files.read_npz(here / "b.npz")["y"].tolist() == [0, 1, 2]
log = logs.Log(here, "x", 3)
log.resume(0)
for step in range(3): log.write(step, {"loss": 1.0})
log.close()
assert (here / "metrics.jsonl").read_text().count("loss") == 3
log = logs.Log(here, "x", 3)
log.resume(2)
log.write(2, {"loss": 2.0})
log.close()
assert [line[-4:] for line in (here / "metrics.jsonl").read_text().splitlines()] == ["1.0}", "1.0}", "2.0}"]
with lock.Lock(here / "stage"):
    with pytest.raises(lock.Held): lock.Lock(here / "stage").__enter__()
    assert lock.Lock(here / "stage").holder()[1] < 60
assert not (here / "stage" / "HOLDER").exists()
Optimised(here / "ppo" / "w8x1-main-0123456789").write_arms("scores/w8x1-main", [Arm(0)], [CurveId("ppo")])
files.write_text(here / "ppo" / "w8x1-main-0123456789" / "metrics.jsonl", "".join(json.dumps(
    {"step": k, "iteration": [k], "kl": [k], "gold": [0.5 * k], "proxy": [k]}) + "\\n" for k in range(3)))
with lock.Lock(here / "ppo" / "w8x1-main-0123456789"):
    text, over = watch.view(here, (), 100, 30, False)
assert "ppo/w8x1-main: running" in text and "1.00 at 2.0" in text and not over, text
with files.written(here / "made") as local:
    (local / "sub").mkdir()
    (local / "sub" / "f").write_text("x")
assert (files.local(here / "made") / "sub" / "f").read_text() == "x"
stage = Stage(here / "sft-0123456789")
files.write_json(stage.directory / "info.json", {"a": 1})
files.write_bytes(stage.directory / "params" / "d" / "data", b"123")
stage.mark_done("sft-0123456789")
assert files.read_json(stage.directory / "info.json") == {"a": 1} and "params/d/data" in stage.done_file.read_text()
files.write_bytes(stage.directory / "params" / "d" / "data", b"124")
with pytest.raises(files.RunError, match="data is not what was written"): checksums.check_tree(stage.directory / "params")
files.write_bytes(stage.directory / "params" / "d" / "data", b"123")
checksums.check_tree(stage.directory / "params")
files.write_json(stage.directory / "info.json", {"a": 2})
with pytest.raises(files.RunError, match="info.json is not what was written"): stage.info()
files.remove(stage.directory / "params")
with pytest.raises(files.RunError, match="data is missing"): checksums.check_tree(stage.directory / "params")
files.remove(here)
assert not here.exists()
"""


def test_files_logs_and_locks_in_a_bucket(bucket):
    got = subprocess.run([sys.executable, "-c", IN_BUCKET], cwd=ROOT, env=bucket, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr


@pytest.mark.slow
def test_stages_in_a_bucket(bucket, tmp_path):
    """Samples and comparisons from there equal those from a directory."""
    finish(start("gs://bucket/runs", *FEW, env=bucket))
    finish(start(tmp_path, *FEW))
    code = (
        "import sys; from rmo.runtime import files\n"
        "here = files.directory('gs://bucket/runs/smoke')\n"
        "for name in sys.argv[1:]: sys.stdout.buffer.write((here / name).read_bytes())\n"
    )
    names = sorted(str(p.relative_to(tmp_path / "smoke")) for p in tmp_path.glob("smoke/samples*/draws/*.npz"))
    names += [str(p.relative_to(tmp_path / "smoke")) for p in tmp_path.glob("smoke/*/info.json")]
    got = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, env=bucket, capture_output=True)
    assert got.stdout == b"".join((tmp_path / "smoke" / name).read_bytes() for name in names), got.stderr


# The whole of it, at length.


@pytest.mark.slow
def test_a_whole_run_in_a_bucket(bucket, tmp_path):
    finish(start("gs://bucket/runs", env=bucket))
    finish(start(tmp_path))
    code = "from rmo.runtime import files; import sys; sys.stdout.write(files.directory('gs://bucket/runs/smoke/curves.csv').read_text())"
    got = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=bucket, capture_output=True, text=True)
    assert got.stdout == (tmp_path / "smoke" / "curves.csv").read_text()
    finish(*start_two("gs://bucket/two", env=bucket))
    got = subprocess.run(
        [sys.executable, "-c", code.replace("runs", "two")], cwd=ROOT, env=bucket, capture_output=True, text=True
    )
    (tmp_path / "two.csv").write_text(got.stdout)
    close(tmp_path / "two.csv", tmp_path / "smoke" / "curves.csv", 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["one then two", "two then one"])
def test_told_to_stop_in_ppo_a_run_continues_on_other_hosts(tmp_path, order):
    """A checkpoint from two processes restores into one, and back; the curves are those of one device."""
    finish(start(tmp_path / "whole"))
    runs = tmp_path / "moved"
    begin = [start(runs)] if order == "one then two" else start_two(runs)
    until(lambda: lines(runs, "ppo/*") >= 3, *begin, seconds=500)
    begin[-1].send_signal(signal.SIGTERM)
    for said in finish(*begin, codes=(hosts.PREEMPTED,), timeout=60):
        assert SAVED in said
    assert list(runs.glob("smoke/ppo/*/scratch/checkpoints/*"))
    finish(*(start_two(runs) if order == "one then two" else [start(runs)]))
    close(runs / "smoke" / "curves.csv", tmp_path / "whole" / "smoke" / "curves.csv", 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_of_two_killed_in_ppo(tmp_path, victim):
    """The other ends within a minute and says why; the launcher starts both again; the bytes are the undisturbed."""
    env = ENV | {"XLA_FLAGS": f"--xla_force_host_platform_device_count=4 {FAST}", "PORT": str(free_port())}
    launcher = [ROOT / "launch" / "processes.sh", "2", *CLI[:-2], "run", "configs/smoke.py", "--runs"]
    whole = subprocess.run([*launcher, tmp_path / "whole"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    runs = tmp_path / "killed"
    process = subprocess.Popen([*launcher, runs], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    until(lambda: lines(runs, "ppo/*") >= 3, process, seconds=500)

    def members():
        found = {}
        for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
            with contextlib.suppress(OSError):
                if str(runs).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    environ = Path(f"/proc/{pid}/environ").read_bytes().decode()
                    if "JAX_PROCESS_ID=" in environ:
                        found[int(environ.split("JAX_PROCESS_ID=")[1][0])] = int(pid)
        return found

    before = members()
    os.kill(before[victim], signal.SIGKILL)
    killed = time.monotonic()
    while Path(f"/proc/{before[1 - victim]}").exists():
        assert time.monotonic() - killed < 60
        time.sleep(0.2)
    _, said = process.communicate(timeout=580)
    assert process.returncode == 0, said
    assert f"process {victim} was killed" in said
    assert f"process {1 - victim} lost another process" in said
    assert "another task died" in said or "another process of this run is gone" in said
    for name in ("curves.csv", "coefficients.json", "gold.json"):
        assert (runs / "smoke" / name).read_bytes() == (tmp_path / "whole" / "smoke" / name).read_bytes()
