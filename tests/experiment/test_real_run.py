"""A real model in a whole run: as an RM that reads another policy's text in its own chat template, and as the policy.

`EXTRAS=dev,real launch/local.sh pytest -m real -s`; tests/README.md says how its file is installed. Both are cut down so far
that their numbers mean nothing; what they take is printed.
"""

import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmo import config
from rmo.artifacts.run_files import Fits
from rmo.artifacts.stages import Optimised
from rmo.config import Against, BestOfN, Comparisons, Recipe, Sweep, checks
from rmo.experiment import graph, runner
from rmo.experiment.run import Run
from rmo.runtime import sharding
from rmo.runtime.files import read_json
from tests.helpers.smollm2 import converted

pytestmark = pytest.mark.real
CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = checks.load(CONFIGS / "chat_small.py")
SMOLLM2 = replace(checks.load(CONFIGS / "smollm2.py").policy, dtype="float32")  # a CPU is slow at bfloat16


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(converted(tmp_path_factory.mktemp("real")))


def cut(e: config.Experiment, name: str) -> config.Experiment:
    """Few texts, comparisons and samples; two iterations of PPO."""
    return replace(
        e,
        name=name,
        gold=replace(e.gold, texts=240, epochs=1, batch=32, model=replace(e.gold.model, width=32, layers=1)),
        comparisons=Comparisons(prompts=16, pairs=4),
        proxies=replace(
            e.proxies, sweeps=(Sweep("main", (Recipe(32),)),), steps=2, batch=16, seeds=1, stop_early=False,
            trunk=replace(e.proxies.trunk, texts=128),
        ),
        bon=BestOfN(prompts=4, draws=32, max_n=8, points=6),
        ppo=replace(
            e.ppo, prompts=16, batch=8, minibatches=2, kl_max=50.0, max_steps=2, d_step=0.01, read_draws=2,
            policy_optimizer=replace(e.ppo.policy_optimizer, lr=1e-5),
        ),
        gold_as_proxy=config.GoldAsProxy(ppo_seeds=0),
        fits=config.Fits(bootstrap=20),
    )  # fmt: skip


def made(e: config.Experiment, directory: Path) -> Run:
    """All of a run; says what its stages took."""
    checks.check(e)
    run = graph.open_run(e, directory / e.name, sharding.make_mesh(1))
    started = time.monotonic()
    runner.execute(run)
    for name in run.stages:
        cost = read_json(run.path(name) / "cost.json")
        print(f"{e.name}: {name}: {cost['seconds']:.0f} s, {cost['compile_seconds']:.0f} of them compiling")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{e.name}: {time.monotonic() - started:.0f} s; at most {peak:.1f} GiB in this process so far")
    return run


def ppo_of(run: Run) -> Optimised:
    (name,) = [name for name in run.stages if name.startswith("ppo/")]
    return Optimised(run.path(name))


def test_a_real_rm_reads_another_policys_chat(model, tmp_path):
    """A proxy from SmolLM2's trunk, which reads text through its own tokenizer and chat template, beside a small one."""
    e = cut(SMALL, "read_by_smollm2")
    reader = replace(SMOLLM2, checkpoint=model, reads="chat")
    e = replace(
        e,
        world=replace(e.world, longest=96),
        policy=replace(e.policy, width=32, layers=1),
        sft=replace(e.sft, texts=1024, epochs=1),
        proxies=replace(e.proxies, sizes=(e.proxies.sizes[0], reader)),
        ppo=replace(e.ppo, against=(Against("main", sizes=(1,)),)),
    )
    run = made(e, tmp_path)
    assert (run.path("report") / "report.html").exists()
    sizes = {curve.id.rm_params for curve in Fits(run.path("fits")).curves() if not curve.id.against_gold}
    assert max(sizes) > 10**8
    record = ppo_of(run).record
    assert np.isfinite(record.proxy[0][record.points(0)]).all()


def test_ppo_on_a_real_policy(model, tmp_path):
    """Two iterations on all 135M parameters, against an RM that starts from the same trunk."""
    e = checks.load(CONFIGS / "smollm2.py")
    policy = replace(SMOLLM2, checkpoint=model)
    e = cut(e, "smollm2")
    e = replace(
        e,
        world=replace(e.world, response=16),
        policy=policy,
        proxies=replace(e.proxies, sizes=(policy,), start="random"),  # from its checkpoint
        ppo=replace(e.ppo, against=(Against("main"),)),
    )
    record = ppo_of(made(e, tmp_path)).record
    keep = record.points(0)
    kl = record.kl[0][keep]
    assert abs(kl[0]) < 1e-4
    assert 0 < kl[-1] < 50
    assert np.isfinite(record.gold[0][keep]).all()
    print("KL", kl.round(4).tolist(), "iterations", record.step_or_n[0][keep].tolist())
