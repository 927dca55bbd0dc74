"""Two programs that do the same work, side by side: processes that take turns, so that the ratio is of one machine in
one mood. The peer's packages live in an environment of their own, `.venv-peers`.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers"
PACKAGES = ("torch==2.13.0", "transformers==5.23.0", "trl==1.12.0", "accelerate>=1.15", "datasets>=5", "scipy>=1.14")
PAIRS = 5


class SideError(RuntimeError):
    """A side ended; its own words are on the terminal."""


def peers() -> Path:
    """The Python of the peers' environment, which is made if need be."""
    python, done = PEERS / "bin" / "python", PEERS / ".installed"
    if not done.exists() or done.read_text() != str(PACKAGES):
        print(f"installing {', '.join(PACKAGES)} into {PEERS} (once; minutes)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        done.write_text(str(PACKAGES))
    return python


class Side:
    """A process that holds one side of a case, warmed up, and does its work once whenever it is told to."""

    def __init__(self, module: str, side: str, case: dict[str, Any], threads: int, devices: int = 1):
        self.name, self.threads, self.devices = f"{module}, {side}", threads, devices
        python = peers() if side == "peer" and case.get("packages", True) else sys.executable
        env = os.environ | {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2",
        }  # fmt: skip
        if devices > 1:
            env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        command = [python, "-m", "tests.benchmarks.side", module, side, str(threads), str(devices), json.dumps(case)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.first = self.hear()["first"]  # compilation and all

    def hear(self) -> dict[str, Any]:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SideError(f"{self.name}: ended with code {self.process.wait()}")
        return json.loads(line)

    def ask(self, what: str) -> dict[str, Any]:
        print(what, file=self.process.stdin, flush=True)
        return self.hear()

    def answers(self) -> dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory() as top:
            self.ask(f"answers {top}/answers.npz")
            return dict(np.load(f"{top}/answers.npz"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float = 1e-4) -> float:
    """The largest difference of what both sides compute, as a share of the largest number.

    Raises:
      AssertionError: it is above `tolerance`, or they do not compute the same things.
    """
    assert ours.keys() == theirs.keys(), (sorted(ours), sorted(theirs))
    gap = max(np.abs(ours[k] - theirs[k]).max() / np.abs(theirs[k]).max() for k in ours)
    assert gap <= tolerance, f"the sides differ by {gap:.2g} of the largest number: this would compare unlike things"
    return float(gap)


def best_side(module: str, side: str, case: dict[str, Any]) -> Side:
    """The side as it is fastest: on one thread, on as many as there are cores or, of rmo where a case's rows can be
    split, with every core a device of its own, as XLA_FLAGS=--xla_force_host_platform_device_count makes them."""
    cores = len(os.sched_getaffinity(0))
    choices = {(1, 1), (cores, 1)}
    if side == "ours" and case.get("rows"):
        choices.add((cores, cores))
    seconds = {}
    for choice in sorted(choices):
        with Side(module, side, case, *choice) as one:
            seconds[choice] = min(one.ask("run")["seconds"] for _ in range(2))
    return Side(module, side, case, *min(seconds, key=seconds.__getitem__))


def race(module: str, case: dict[str, Any], pairs: int = PAIRS, tolerance: float = 1e-4) -> dict[str, Any]:
    """Medians of both sides, each at its best number of threads, taking turns A B A B; compilation is told apart."""
    with best_side(module, "ours", case) as ours, best_side(module, "peer", case) as peer:
        gap = same(ours.answers(), peer.answers(), case.get("tolerance", tolerance))
        found = {"ours": [], "peer": []}
        for _ in range(pairs):
            for name, side in (("ours", ours), ("peer", peer)):
                found[name].append(side.ask("run"))
        share = case.get("share", 1.0)  # of the work, that the peer is asked for where all of it takes too long
        out: dict[str, Any] = {"pairs": pairs, "gap": gap, "load": os.getloadavg()[0], "share": share}
        for name, side in (("ours", ours), ("peer", peer)):
            out[name] = summary(found[name]) | {"threads": side.threads, "devices": side.devices, "first": side.first}
    each = np.array([p["seconds"] / o["seconds"] / share for o, p in zip(found["ours"], found["peer"], strict=True)])
    ratio = out["peer"]["seconds"] / out["ours"]["seconds"] / share
    return out | {"ratio": ratio, "ratio_range": [float(each.min()), float(each.max())]}


def alone(module: str, case: dict[str, Any], side: str = "ours", runs: int = PAIRS) -> dict[str, Any]:
    """Medians of one side on every core."""
    with Side(module, side, case, len(os.sched_getaffinity(0))) as one:
        return summary([one.ask("run") for _ in range(runs)]) | {
            "threads": one.threads,
            "devices": 1,
            "first": one.first,
        }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [run["seconds"] for run in runs]
    parts = {k: float(np.median([run["parts"][k] for run in runs])) for k in runs[0]["parts"]}
    return {
        "seconds": float(np.median(seconds)), "range": [min(seconds), max(seconds)],
        "peak_bytes": runs[-1]["peak_bytes"], "parts": parts,
    }  # fmt: skip
