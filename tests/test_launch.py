"""The launchers: clean shell, the right calls in the right order, clean-up on failure, resumption; a real Slurm."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
TPU = ["--zone", "z", "--type", "v5litepod-64", "--runs", "gs://b/runs"]
GKE = ["--image", "i", "--accelerator", "tpu-v5-lite-podslice", "--topology", "8x8", "--runs", "gs://b/runs"]


@pytest.fixture
def stubs(tmp_path):
    """stubs(name, script): a command that records its calls, one line each, before the bash script runs."""
    (tmp_path / "bin").mkdir()

    class Stubs:
        calls = tmp_path / "calls"

        def __init__(self):
            path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
            self.env = {**os.environ, "PATH": path, "POLL": "0", "STATE": str(tmp_path / "state"), "FAIL": ""}

        def __call__(self, name, script="true"):
            file = tmp_path / "bin" / name
            record = f'printf "%s" "{name}" >> {self.calls}; printf " %s" "$@" >> {self.calls}; echo >> {self.calls}\n'
            file.write_text(f"#!/usr/bin/env bash\n{record}{script}\n")
            file.chmod(file.stat().st_mode | stat.S_IXUSR)

        def run(self, script, *args, env=None, timeout=120):
            return subprocess.run(
                [LAUNCH / script, *args], env=self.env | (env or {}), capture_output=True, text=True, timeout=timeout
            )

        def said(self, pattern="."):
            lines = self.calls.read_text().splitlines() if self.calls.exists() else []
            return [line for line in lines if re.search(pattern, line)]

    return Stubs()


def test_shellcheck():
    found = shutil.which("shellcheck")
    assert found, "shellcheck comes with the dev extra"
    got = subprocess.run(
        [found, "-x", *sorted(map(str, LAUNCH.glob("*.sh")))], cwd=ROOT, capture_output=True, text=True
    )
    assert got.returncode == 0, got.stdout


def test_scripts_hold_no_hyper_parameter_and_explain_themselves(stubs):
    from rmo.config import PPO, BestOfN, Optimizer

    names = {name.replace("_", "-") for kind in (PPO, BestOfN, Optimizer) for name in kind.__dataclass_fields__}
    field = re.compile(r"--[a-z.-]+\.(" + "|".join(names) + r")\b")
    assert field.search("rmo run c.py --ppo.kl-max 3")
    for script in LAUNCH.glob("*.sh"):
        assert not field.search(script.read_text()), script
        if script.name not in ("common.sh", "local.sh", "slurm_job.sh"):
            got = stubs.run(script.name, "--help")
            assert f"launch/{script.name} " in got.stdout + got.stderr
    table = (ROOT / "README.md").read_text()
    for script in ("processes.sh", "slurm.sh", "tpu_vm.sh", "gke.sh"):
        assert f"launch/{script}" in table


# Slurm.


def test_slurm_submits_an_array_per_kind_that_waits_for_what_it_needs(stubs, tmp_path):
    stubs("sbatch", f'n=$(grep -c ^sbatch {stubs.calls}); echo "$((100 + n));cluster"')
    got = stubs.run("slurm.sh", str(ROOT / "configs/smoke.py"), "--runs", str(tmp_path), "--", "--partition=gpu")
    assert got.returncode == 0, got.stderr
    calls = stubs.said()
    names = [re.search(r"--job-name rmo-(\S+)", c)[1] for c in calls]
    assert names == [
        "sft",
        "gold",
        "samples",
        "comparisons",
        "proxies",
        "scores",
        "bon",
        "ppo",
        "tilt",
        "fits",
        "report",
    ]
    assert all("--partition=gpu" in c and "--requeue" in c and "--signal TERM@" in c for c in calls)
    assert "--dependency" not in calls[0]
    assert "--dependency afterok:101 " in calls[1]
    assert "--array 0-2 " in calls[4]
    assert calls[4].endswith("proxies/w8x1-main proxies/w16x1-main proxies/w24x1-main")
    assert "--dependency afterok:103:105 " in calls[5]  # samples, proxies
    assert "--dependency afterok:106 " in calls[6]


def test_slurm_submits_only_what_is_left_and_passes_fields_on(stubs, tmp_path):
    stubs("sbatch", "echo 1")
    listed = subprocess.run(
        [sys.executable, "-c", "from rmo.cli.main import main; main()", "list", "configs/smoke.py", "--seed", "3"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for path in [line.split()[-1] for line in listed.splitlines()[:4]]:  # sft, gold, samples, comparisons
        (tmp_path / "smoke" / path).mkdir(parents=True)
        (tmp_path / "smoke" / path / "DONE").write_text("")
        (tmp_path / "smoke" / path / "cost.json").write_text('{"seconds": 1}')
    got = stubs.run("slurm.sh", str(ROOT / "configs/smoke.py"), "--runs", str(tmp_path), "--seed", "3")
    assert got.returncode == 0, got.stderr
    calls = stubs.said()
    assert [re.search(r"rmo-(\S+)", c)[1] for c in calls] == [
        "proxies",
        "scores",
        "bon",
        "ppo",
        "tilt",
        "fits",
        "report",
    ]
    assert "--dependency" not in calls[0]
    assert " 2 --seed 3 proxies/" in calls[0]


def test_slurm_takes_back_what_it_submitted_if_it_cannot_submit_all(stubs, tmp_path):
    stubs("sbatch", f'n=$(grep -c ^sbatch {stubs.calls}); [ $n -lt 3 ] || exit 1; echo "$n"')
    stubs("scancel")
    got = stubs.run("slurm.sh", str(ROOT / "configs/smoke.py"), "--runs", str(tmp_path))
    assert got.returncode == 1
    assert "refused samples" in got.stderr
    (cancelled,) = stubs.said("^scancel")
    assert sorted(cancelled.split()[1:]) == ["1", "2"]


ENDS = [(75, 0, True), (137, 2, True), (75, 3, False), (2, 0, False), (77, 0, False)]


@pytest.mark.parametrize(
    ("tasks", "code", "restarts", "requeued"), [(1, 0, 0, False), *((tasks, *end) for tasks in (1, 2) for end in ENDS)]
)
def test_a_slurm_job_is_queued_again_only_if_that_helps(stubs, tasks, code, restarts, requeued):
    """Of two tasks, one of which lost the other, the other's code decides."""
    stubs("srun", f"exit {code}" if tasks == 1 else f'echo {code} >> "$5"; echo 76 >> "$5"; exit 134')
    stubs("scontrol", "exit 1")  # else the script waits for Slurm to end it
    env = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_RESTART_COUNT": str(restarts)}
    got = subprocess.run(
        [LAUNCH / "slurm_job.sh", "3", "c.py", "/runs", "2", "--seed", "3", "sft", "gold"],
        cwd=ROOT, env=stubs.env | env, capture_output=True, text=True,
    )  # fmt: skip
    assert got.returncode == (code if tasks == 1 or code in (2, 77) else 134)
    (call,) = stubs.said("^srun")
    assert call.endswith("launch/local.sh rmo run c.py --runs /runs --seed 3 --only =gold")
    assert stubs.said("^scontrol") == (["scontrol requeue 7_1"] if requeued else [])


# TPU VMs.

GCLOUD = r"""
case "$*" in *"$FAIL"*) [ -z "$FAIL" ] || exit 1 ;; esac
case "$*" in
  *"queued-resources create"*) echo created > $STATE ;;
  *"queued-resources delete"*) rm -f $STATE $STATE.gone ;;
  *"queued-resources describe"*)
    [ -f $STATE ] || { echo "ERROR: NOT_FOUND" >&2; exit 1; }
    echo asked >> $STATE
    if [ -f $STATE.gone ]; then echo SUSPENDED; elif [ "$(grep -c . $STATE)" -lt 3 ]; then echo WAITING; else echo ACTIVE; fi ;;
  *"cat rmo/exit"*)
    if [ -f $STATE.preempt ]; then mv $STATE.preempt $STATE.gone; exit 1; fi
    echo ${EXIT:-0} ;;
esac
"""


def steps(stubs):
    kinds = {"create": "resources create", "setup": "launch/local.sh rmo --help", "copy": "tpu-vm scp", "run": "RMO_HOSTS=1",
             "logs": "tail -n", "fetch": "storage cp", "delete": "resources delete"}  # fmt: skip
    found = [next((kind for kind, sign in kinds.items() if sign in call), "") for call in stubs.said("^gcloud")]
    return [kind for i, kind in enumerate(found) if kind and (i == 0 or found[i - 1] != kind)]


def test_tpu_vm_makes_runs_on_all_workers_fetches_and_deletes(stubs, tmp_path, monkeypatch):
    stubs("gcloud", GCLOUD)
    got = stubs.run("tpu_vm.sh", "up", "slice", "configs/smoke.py", *TPU, "--spot", "--seed", "3")
    assert got.returncode == 0, got.stderr
    assert steps(stubs) == ["create", "copy", "setup", "run", "logs", "fetch", "delete"]
    (create,) = stubs.said("resources create")
    assert "--accelerator-type v5litepod-64 --runtime-version v2-alpha-tpuv5-lite --spot" in create
    for call in [*stubs.said("RMO_HOSTS"), *stubs.said("tpu-vm scp"), *stubs.said("local.sh rmo --help")]:
        assert "--worker=all" in call
    assert "rmo run configs/smoke.py --runs gs://b/runs --seed 3" in stubs.said("RMO_HOSTS")[0]
    assert all("--worker=0" in call for call in stubs.said("tail -n"))


def test_tpu_vm_starts_again_after_preemption(stubs, tmp_path):
    stubs("gcloud", GCLOUD)
    (tmp_path / "state.preempt").write_text("")
    got = stubs.run("tpu_vm.sh", "up", "slice", "configs/smoke.py", *TPU)
    assert got.returncode == 0, got.stderr
    assert "was told to stop" in got.stderr
    again = ["create", "copy", "setup", "run", "logs", "delete"]
    assert steps(stubs) == [*again, *again[:-1], "fetch", "delete"]


@pytest.mark.parametrize(
    ("env", "last", "code"),
    [({"FAIL": "resources create"}, ["delete"], 1), ({"EXIT": "2"}, ["logs", "delete"], 2)],
)
def test_tpu_vm_leaves_no_slice_behind(stubs, env, last, code):
    stubs("gcloud", GCLOUD)
    got = stubs.run("tpu_vm.sh", "up", "slice", "configs/smoke.py", *TPU, "--restarts", "1", env=env)
    assert got.returncode == code, got.stderr
    assert steps(stubs)[-len(last) :] == last


def test_tpu_vm_refuses_what_cannot_work(stubs):
    stubs("gcloud")
    for args, why in [
        (["up", "s", "configs/smoke.py", "--zone", "z", "--type", "v4-8", "--runs", "here"], "gs://"),
        (["up", "s", "/abs.py", *TPU], "inside the repository"),
        (["create", "s", "--zone", "z"], "--type"),
        (["create", "s"], "--zone"),
        (["fly", "s", "--zone", "z"], "no command fly"),
    ]:
        got = stubs.run("tpu_vm.sh", *args, "--keep")
        assert got.returncode == 2
        assert why in got.stderr
    assert not stubs.said("create|RMO_HOSTS")


def test_dry_runs_call_nothing(stubs):
    for name in ("gcloud", "kubectl", "sbatch"):
        stubs(name)
    for script, args, sign in [
        ("tpu_vm.sh", ["up", "s", "configs/smoke.py", *TPU], "queued-resources create s"),
        ("gke.sh", ["configs/smoke.py", *GKE], "kind: JobSet"),
        ("slurm.sh", ["configs/smoke.py"], "sbatch --parsable"),
    ]:
        got = subprocess.run(
            [LAUNCH / script, *args, "--dry-run"], cwd=ROOT, env=stubs.env, capture_output=True, text=True
        )
        assert got.returncode == 0, got.stderr
        assert sign in got.stdout
    assert not stubs.said()


# GKE.


def test_gke_applies_one_jobset_with_a_pod_per_host(stubs, tmp_path):
    stubs("kubectl", f"cat >> {tmp_path / 'yaml'}")
    got = stubs.run("gke.sh", "configs/smoke.py", *GKE, "--hosts", "16", "--spot", "--queue", "q", "--ppo.kl-max", "20")
    assert got.returncode == 0, got.stderr
    import yaml

    made = yaml.safe_load((tmp_path / "yaml").read_text())
    job = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 16
    assert made["spec"]["failurePolicy"]["maxRestarts"] == 50
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["containers"][0]["args"] == ["configs/smoke.py", "--runs", "gs://b/runs", "--ppo.kl-max", "20"]
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2, 77]
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"


def sweep(stubs, tmp_path, state):
    """Groups come from a stub of `rmo list`, since a bucket is not at hand."""
    (tmp_path / "repo" / "launch").mkdir(parents=True)
    for file in LAUNCH.glob("*.sh"):
        shutil.copy(file, tmp_path / "repo" / "launch")
    groups = "sft\\t-\\tsft\\nproxies\\tsft\\tproxies/a proxies/b proxies/c\\n"
    (tmp_path / "repo" / "launch" / "local.sh").write_text(f"#!/usr/bin/env bash\nprintf '{groups}'\n")
    stubs("kubectl", f'case $1 in apply) cat > /dev/null ;; get) printf "{state}" ;; esac')
    return subprocess.run(
        [tmp_path / "repo" / "launch" / "gke.sh", "configs/smoke.py", *GKE, "--sweep", "2"],
        env=stubs.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_gke_sweeps_in_the_order_that_stages_need_one_another(stubs, tmp_path):
    got = sweep(stubs, tmp_path, "Completed")
    assert got.returncode == 0, got.stderr
    kinds = [re.sub(r"-\d+$", "", "apply" if "apply" in c else c.split()[3]) for c in stubs.said("apply|get")]
    a, b, c = (f"rmo-smoke-proxies-{x}" for x in "abc")
    assert kinds == ["apply", "rmo-smoke-sft", "apply", "apply", a, "apply", a, b, c]
    assert len(stubs.said("delete jobset .* --ignore-not-found")) == 4


def test_gke_sweep_stops_where_a_stage_failed(stubs, tmp_path):
    got = sweep(stubs, tmp_path, "Failed")
    assert got.returncode == 1
    assert re.search(r"rmo-smoke-sft-\d+ failed", got.stderr)
    assert len(stubs.said("apply")) == 1


# Processes on one machine.


def test_processes_start_all_again_when_one_is_lost(stubs, tmp_path):
    script = (
        f'echo "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES at $JAX_COORDINATOR_ADDRESS" >> {tmp_path}/said; '
        f"n=$(grep -c ^1 {tmp_path}/said); "
        '[ "$JAX_PROCESS_ID" = 0 ] && exit 0; [ "$n" -lt 3 ] && kill -9 $$; exit 0'
    )
    got = stubs.run("processes.sh", "2", "bash", "-c", script, env={"PORT": "9000"})
    assert got.returncode == 0, got.stderr
    assert got.stderr.count("process 1 was killed") == 2
    said = (tmp_path / "said").read_text().splitlines()
    assert sorted(said)[:2] == ["0 of 2 at 127.0.0.1:9000", "0 of 2 at 127.0.0.1:9001"]
    for codes, worst, count in [("1", 1, 1), ("76", 76, 4)]:  # a bug is not repeated; what is lost is, three times
        (tmp_path / "said").unlink()
        got = stubs.run("processes.sh", "2", "bash", "-c", f"echo x >> {tmp_path}/said; exit {codes}")
        assert got.returncode == worst
        assert len((tmp_path / "said").read_text().splitlines()) == 2 * count


# A real Slurm, on one node.


@pytest.fixture
def slurm(tmp_path):
    """A one-node cluster of this machine's own; environment for its commands."""
    if not (shutil.which("slurmctld") and shutil.which("slurmd")):
        pytest.skip("needs Debian's slurmctld and slurmd")
    place = Path(f"/tmp/rmo-slurm-{os.getpid()}")  # sockets have short names only
    for name in ("state", "spool", "cgroup"):
        (place / name).mkdir(parents=True)
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    host, user = socket.gethostname().split(".")[0], subprocess.check_output(["id", "-un"], text=True).strip()
    old = int(re.search(r"(\d+)\.", subprocess.check_output(["slurmd", "-V"], text=True))[1]) < 24
    (place / "cgroup.conf").write_text(
        f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={place}/cgroup\n" if old else "CgroupPlugin=disabled\n"
    )
    (place / "slurm.conf").write_text(f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=1
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
""")
    env = {**os.environ, "SLURM_CONF": str(place / "slurm.conf")}
    quiet = {"env": env, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for daemon in ("slurmctld", "slurmd"):
        subprocess.run([daemon], **quiet, check=True)
    try:
        for _ in range(100):
            if subprocess.run(["sinfo", "-ho", "%T"], env=env, capture_output=True, text=True).stdout.strip() == "idle":
                break
            time.sleep(0.3)
        else:
            pytest.skip(f"Slurm does not start here: {(place / 'slurmctld.log').read_text()[-500:]}")
        yield env
    finally:
        subprocess.run(["scancel", "--user", user], **quiet)
        time.sleep(2)
        for daemon in ("slurmd", "slurmctld"):
            if (place / f"{daemon}.pid").exists():
                os.kill(int((place / f"{daemon}.pid").read_text()), signal.SIGTERM)
        time.sleep(1)
        shutil.rmtree(place, ignore_errors=True)


SWEEP = '''"""Twelve proxies of smoke size, and best-of-n against each."""
from dataclasses import replace
from rmo.config import checks


def experiment():
    smoke = checks.load("{root}/configs/smoke.py")
    shapes = tuple(replace(smoke.proxies.sizes[0], width=w, heads=2) for w in range(4, 52, 4))
    sweeps = (replace(smoke.proxies.sweeps[0], sizes=()),)
    return replace(
        smoke, name="twelve", proxies=replace(smoke.proxies, sizes=shapes, sweeps=sweeps), ppo=replace(smoke.ppo, against=())
    )
'''


def stopped(pid: int) -> bool:
    """Whether a process could be halted, so that it is still at work when others look."""
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_twelve_proxies_as_an_array_of_a_real_slurm(slurm, tmp_path):
    """Every stage instance is made once, also when a job is killed in the middle and queued again."""
    config, runs = tmp_path / "twelve.py", tmp_path / "runs"
    config.write_text(SWEEP.replace("{root}", str(ROOT)))
    got = subprocess.run(
        [LAUNCH / "slurm.sh", config, "--runs", runs, "--", f"--output={tmp_path}/%x-%a.log", "--cpus-per-task=1"],
        env=slurm, capture_output=True, text=True,
    )  # fmt: skip
    assert got.returncode == 0, got.stderr
    killed, seen = "", {}
    deadline = time.time() + 1500
    while time.time() < deadline:
        for file in runs.glob("twelve/*/*/HOLDER"):
            try:
                holder = json.loads(file.read_text())
            except (OSError, ValueError):
                continue
            if not killed and file.parent.parent.name == "proxies" and stopped(holder["pid"]):
                stage = f"proxies/{file.parent.name.rsplit('-', 1)[0]}"
                second = subprocess.run(
                    [LAUNCH / "local.sh", "rmo", "run", config, "--runs", runs, "--only", stage],
                    env=os.environ, capture_output=True, text=True,
                )  # fmt: skip
                if second.returncode == 77:  # else it had just let go when it was stopped
                    assert f"process {holder['pid']}" in second.stderr
                    assert len(second.stderr.strip().splitlines()) == 1
                    killed = file.parent.name
                os.kill(holder["pid"], signal.SIGKILL if killed else signal.SIGCONT)
            seen.setdefault(file.parent.name, set()).add((holder["pid"], holder["born"]))
        left = subprocess.run(["squeue", "-h"], env=slurm, capture_output=True, text=True).stdout
        if not left.strip():
            break
        time.sleep(0.5)
    logs = {file.name: file.read_text() for file in tmp_path.glob("*.log")}
    assert (runs / "twelve" / "report.html").exists(), logs
    assert killed
    assert "was killed: queued again" in "".join(logs.values())
    proxies = sorted((runs / "twelve" / "proxies").iterdir())
    assert len(proxies) == 12
    assert all((path / "DONE").exists() for path in proxies)
    assert len(seen[killed]) == 2
    assert all(len(holders) == 1 for name, holders in seen.items() if name != killed)
