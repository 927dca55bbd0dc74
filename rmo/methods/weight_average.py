"""Averages of an optimised policy's weights with its start's: start + s (policy - start), s from 0 to 1.

Rame et al. (2024, WARP: "linear interpolation towards initialization") find more reward at a given KL on this line than
training passes through. The policies are those that stages of PPO kept; an average is read as PPO reads its policies,
on the same prompts with the same random numbers, so that s = 1 is PPO's end.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmo.config import Experiment, MethodSettings
from rmo.methods.bench import Bench, Record
from rmo.methods.method import Job, Need, register
from rmo.methods.ppo import door

if TYPE_CHECKING:
    from rmo.methods.climb import Observe
    from rmo.methods.ppo.update import Frozen, Setup, Task
    from rmo.models.transformer import Params
    from rmo.training.tracker import Tracker


@dataclass(frozen=True)
class WeightAverage(MethodSettings):
    """Policies that PPO ended with, averaged with their start."""

    of: tuple[str, ...] = ("main",)
    """Names of entries of ppo.against, or of a regulariser's `against`."""
    points: int = 11
    """Shares s, evenly spaced from 0 to 1."""


def entries(e: Experiment) -> list[WeightAverage]:
    """The settings, of which an experiment may have several."""
    return [settings for settings in e.methods if isinstance(settings, WeightAverage)]


def jobs(e: Experiment) -> Iterator[Job]:
    """One stage for every stage of PPO from the main policy against the entries that are named."""
    for settings in entries(e):
        for job in door.jobs(e):
            plan = job.details
            if isinstance(plan, door.Plan) and plan.against.name in settings.of and not (plan.gold_seeds or job.policy):
                after = (f"{door.METHOD.name}/{job.name}",)
                yield Job(job.name, job.scores, (settings.points, job.settings), details=plan, after=after)


def check(e: Experiment, need: Need) -> None:
    """The stages are there, each once, and the curve can be fitted."""
    found = entries(e)
    there = [against.name for against in [*e.ppo.against, *(r.against for r in door.regularisers(e))]]
    names = [name for settings in found for name in settings.of]
    for name in names:
        known = f"PPO optimises against {', '.join(there) or 'nothing'}"
        need(name in there, f"WeightAverage.of has {name!r}: {known}")
    need(len(set(names)) == len(names), f"WeightAverage.of names one entry twice: {', '.join(names)}")
    for settings in found:
        need(bool(settings.of), "WeightAverage.of is empty: name entries of ppo.against")
        need(settings.points >= 4, f"WeightAverage.points is {settings.points}: a curve needs at least 4")


def run(bench: Bench, job: Job) -> Record:
    """Read every member's policy at every share."""
    from rmo.methods.ppo import setup
    from rmo.runtime import sharding

    assert isinstance(job.settings, tuple)
    assert isinstance(job.details, door.Plan)
    members = door.arms(bench.rewards, job.details)
    bench.begin(members)
    s, frozen, tasks = setup.start(bench, job.policy, job.details, members)
    frozen, tasks = sharding.place((frozen, tasks), sharding.shardings_of((frozen, tasks), bench.mesh))
    shares, (stage,) = np.linspace(0, 1, job.settings[0]), job.after
    tracker, observe = bench.tracker(len(shares), "read"), setup.observer(bench, s.c.read_draws)
    history = along(s, frozen, tasks, bench.kept(stage), shares, tracker, observe)
    return door.record_of(members, history, METHOD)


def averaged(start: "Params", end: "Params", share: float) -> "Params":
    """(1 - share) start + share end, of every member: `end` has a leading axis of them. Exact at both ends."""
    import jax

    return jax.tree.map(lambda a, b: ((1 - share) * a[None] + share * b).astype(a.dtype), start, end)


def along(
    s: "Setup",
    frozen: "Frozen",
    tasks: "Task",
    end: "Params",
    shares: np.ndarray,
    tracker: "Tracker",
    observe: "Observe",
) -> dict:
    """What is read of the averages at every share, as `loop.train_ppo` gives it: arrays [K, M, ...]."""
    import jax
    import jax.numpy as jnp

    from rmo.methods import climb
    from rmo.methods.ppo import loop
    from rmo.methods.ppo.update import PPOState
    from rmo.runtime import hosts
    from rmo.training.update import TrainState

    reads = []
    tracker.resume(0)
    for k, share in enumerate(shares):
        policy = TrainState((), averaged(frozen.reference, end, float(share)), ())  # type: ignore[arg-type]
        state = PPOState((), (), (), (), policy, ())  # type: ignore[arg-type]  # a read looks at the policy alone
        with tracker.timed("read"):
            whole = jax.block_until_ready(loop.read(s, frozen, tasks, state))
        observed = observe(*hosts.fetch((whole["tokens"], whole["mask"])))
        reads.append(hosts.fetch(climb.kept(s.c.read_draws, whole)) | observed)
        means = {name: jnp.mean(whole[name], axis=-1) for name in ("kl", "proxy", "gold", "length", "entropy")}
        tracker.write(k, {**means, METHOD.axis: jnp.full(len(tasks.key), share)})
    tracker.close()
    stacked = {name: np.stack([read[name] for read in reads]) for name in reads[0]}
    steps = np.repeat(shares[:, None], stacked["kl"].shape[1], axis=1)
    return {"read": stacked, "last": {}, "iteration": steps}


SHOWN = ("kl_k1", "kl_k3", "entropy", "length", "unfinished", "proxy_cut", "gold_cut")

METHOD = register(
    dataclasses.replace(
        door.METHOD,
        name="weight_average",
        title="average of weights with the start's",
        short="weight average",
        axis="share",
        jobs=jobs,
        run=run,
        check=check,
        shared_alpha=False,
        diagnostics=tuple(d for d in door.METHOD.diagnostics if d.name in SHOWN),
        charts=tuple(chart for chart in door.METHOD.charts if not chart[0].startswith("last_")),
        less_memory="set or lower ppo.chunk, lower ppo.read_draws; policy.dtype bfloat16",
        rank=6,
    )
)
