"""All rounds of one stage: pairs of the policies as they are, an RM on their labels, PPO until the round's KL is spent.

What is finished is kept round by round (labels, RMs, the end of PPO), so that a run that was killed goes on with the
round that it was in.
"""

import contextlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rmo.config import Against
from rmo.methods.bench import OWN, Arm, Bench, Importance
from rmo.methods.ppo import loop, setup
from rmo.methods.ppo.door import Plan
from rmo.methods.ppo.update import Task
from rmo.methods.rounds.door import Rounds
from rmo.models.transformer import Params
from rmo.rewards.reward import Reward, RewardParams
from rmo.training.importance import effective_sample_size
from rmo.training.tracker import Tracker


def course(bench: Bench, c: Rounds, members: Sequence[Arm]) -> tuple[list[dict], list[np.ndarray]]:
    """(every round's history as `loop.train_ppo` gives it; which share of its RM's comparisons is effective, f64[M] of
    every round); the last policies are kept."""
    against, chosen = Against(sweep=c.sweep, recipes=(c.recipe,)), [arm.reward for arm in members]
    reward, params = bench.reward(chosen)
    s, frozen = setup.stage(bench, 0, Plan(against), reward)
    tracker, observe = bench.tracker(c.rounds * s.reads, "read"), setup.observer(bench, s.c.read_draws)
    histories: list[dict] = []
    effective = [np.ones(len(members))]
    end: loop.Start | None = None
    for r in range(1, c.rounds + 1):
        if end is not None:
            params, weights = next_rms(bench, c, r, chosen, end.policies)
            effective.append(shares(weights, len(members)))
        tasks = tasks_of(bench, c, members, r, reward, params)
        critics = setup.first_critics(bench, s.c, s.lm, reward, params, frozen.reference)
        made = sum((history["iteration"][-1] for history in histories), np.zeros(len(members), np.int32))
        log = Onward(tracker, sum(len(history["iteration"]) for history in histories), made)
        history, states = loop.train_ppo(
            s, frozen, tasks, critics, bench.mesh, bench.checkpoints_of(f"ppo-{r}"), log,
            observe=observe, start=end if c.start == "latest" else None, keep_end=True,
        )  # fmt: skip
        histories.append(history)
        end = loop.Start(states.policy.params, states.kl)
    tracker.close()
    assert end is not None
    bench.keep_policies(end.policies, len(members))
    return histories, effective


def next_rms(
    bench: Bench, c: Rounds, r: int, chosen: Sequence[int], policies: Params
) -> tuple[RewardParams, Sequence[Importance]]:
    """(the RMs of round r, the second or later, for policies as they are; how much the comparisons count that each has
    learned from, none where all count alike)."""
    if c.data == "reweighted":
        weights = bench.importance(f"weights-{r}", chosen, policies, c.clip, c.flatten)
        return bench.retrained(f"proxies-{r}", chosen, [OWN], weights), weights
    bench.label(f"labels-{r}", chosen, policies, c.labels(bench.experiment))
    return bench.retrained(f"proxies-{r}", chosen, learned_from(c, r)), ()


def shares(weights: Sequence[Importance], members: int) -> np.ndarray:
    """Effective sample size of each member's comparisons as a share of them, f64[M]; 1 where all count alike."""
    return np.array([effective_sample_size(w.train) / len(w.train) for w in weights] or [1.0] * members)


def learned_from(c: Rounds, r: int) -> list[str]:
    """The labels that the RM of round r, the second or later, is trained on; the first has those of the run."""
    return [OWN, *(f"labels-{i}" for i in range(2, r + 1))] if c.data == "concatenated" else [f"labels-{r}"]


# Far beyond the iterations of a round, whose numbers its key is folded with.
ROUND = 2**30


def tasks_of(bench: Bench, c: Rounds, members: Sequence[Arm], r: int, reward: Reward, params: RewardParams) -> Task:
    """The first round has the random streams of PPO as it stands, so that one round is PPO."""
    tasks = setup.tasks_of(bench, members, reward, params)
    end = jnp.full(len(members), c.end(bench.experiment, r), jnp.float32)
    key = tasks.key if r == 1 else jax.vmap(lambda key: jax.random.fold_in(key, ROUND + r))(tasks.key)
    return tasks._replace(key=key, kl_max=end)


class Onward:
    """A tracker that goes on counting reads, and each member's iterations, where the rounds before ended; it hears
    nothing of rounds that are only looked at again: their lines are there, and so are those of rounds after them."""

    def __init__(self, tracker: Tracker, before: int, made_M: np.ndarray):
        self.tracker, self.before, self.made_M, self.step = tracker, before, made_M, 0
        self.at_work = False

    def resume(self, step: int) -> None:
        self.step = step

    def working(self) -> Tracker:
        """The tracker, from the first thing on that is done."""
        if not self.at_work:
            self.tracker.resume(self.before + self.step)
        self.at_work = True
        return self.tracker

    def timed(self, what: str) -> contextlib.AbstractContextManager[None]:
        return self.working().timed(what)

    def did(self, tokens: float, flops: float) -> None:
        self.working().did(tokens, flops)

    def write(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        self.working().write(self.before + step, {**metrics, "iteration": metrics["iteration"] + self.made_M})

    def show(self, done: int, **latest: ArrayLike) -> None:
        counted = {"iteration": np.asarray(latest["iteration"]) + self.made_M} if "iteration" in latest else {}
        self.working().show(self.before + done, **{**latest, **counted})

    def flush(self) -> None:
        if self.at_work:
            self.tracker.flush()

    def close(self) -> None:
        self.flush()
