"""InferenceTimePessimism (Huang et al. 2025): draws weighted by relu((r - lambda) / beta), lambda such that their mean
weight is 1.

That is the policy of the most reward less beta/2 times chi-squared from the initial policy, where best-of-n and tilts
pay in KL: chi-squared charges more for weight on the few draws with the highest scores, where a proxy errs most. Two
methods: over 1/beta on all draws of the pool, the limit of many draws (`pessimism`), and over n at fixed beta, where
lambda comes from n draws and one of them is given by its weight (`pessimism_n`), which shows whether gold falls in n.
The paper finds lambda from n draws and then accepts fresh ones by their weights (rejection); what is given has the same
law but for which draws it is taken from.

With p = w / N, p is the projection of r / (beta N) onto the simplex (Martins and Astudillo 2016), which is solved by
sorting. At 1/beta = 0 it is the initial policy; at 1/beta -> infinity the best draw alone. KL of the pool's tilt is
that of the weights, exactly; over n it is the mean of theirs over sets of n draws, a bound, as one does not see which
set a response came from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.config import Experiment, MethodSettings
from rmo.config.names import scored, scores_name
from rmo.methods import tilt
from rmo.methods.bench import Arm, Bench, Pool, Record
from rmo.methods.best_of_n import grid
from rmo.methods.method import Job, Method, Need, register


@dataclass(frozen=True)
class Pessimism(MethodSettings):
    """Chi-squared tilts of the pool, over 1/beta."""

    points: int = 24
    """Points of the curve, evenly spaced in the root of KL."""
    least_draws: float = 20.0
    """The curve ends where so few draws count."""


@dataclass(frozen=True)
class PessimismOverN(MethodSettings):
    """The same with lambda from n draws, over n."""

    betas: tuple[float, ...] = (0.1, 0.3)
    """In units of the calibrated proxy's score; one curve for each."""
    max_n: int = 1024
    """Largest n."""
    points: int = 24
    """Points of the curve, on a log grid of n."""
    passes: int = 4
    """How often the pool is dealt out into sets of n."""


def pessimistic(scores_QN: np.ndarray, strength: float) -> np.ndarray:
    """Weights f64[Q, N] of every prompt's draws at 1/beta = `strength`; rows sum to 1."""
    draws = scores_QN.shape[1]
    z_QN = (scores_QN - scores_QN.max(axis=1, keepdims=True)) * (strength / draws)
    return np.maximum(z_QN - thresholds(z_QN)[:, None], 0.0)


def thresholds(z_QN: np.ndarray) -> np.ndarray:
    """tau f64[Q] for which the sum of relu(z - tau) over each row is 1; z is at most 0."""
    falling_QN = -np.sort(-z_QN, axis=1)
    count_N = np.arange(1, z_QN.shape[1] + 1)
    tau_QN = (np.cumsum(falling_QN, axis=1) - 1) / count_N
    used_Q = (falling_QN > tau_QN).sum(axis=1)  # how many draws have a weight: the first always
    return np.take_along_axis(tau_QN, used_Q[:, None] - 1, axis=1)[:, 0]


def gold_and_slope(scores_QN: np.ndarray, gold_QN: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """(expected gold, its derivative with respect to 1/beta) of the pool's tilt, f64[Q] each."""
    weights_QN = pessimistic(scores_QN, strength)
    used_QN = weights_QN > 0
    score_QN = scores_QN / scores_QN.shape[1]
    middle_Q = np.sum(score_QN * used_QN, axis=1) / used_QN.sum(axis=1)
    slope_Q = np.sum(used_QN * (score_QN - middle_Q[:, None]) * gold_QN, axis=1)
    return np.sum(weights_QN * gold_QN, axis=1), slope_Q


def dealt(
    proxy_QN: np.ndarray, tables: Sequence[np.ndarray], order_QN: np.ndarray, n: int, strength: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """(KL of the weights f64[Q], expected value of every table f64[Q] each): means over the sets of n draws that the
    pool is dealt out into, in the order `order_QN`; draws that are left over are in none."""
    prompts, sets = len(proxy_QN), proxy_QN.shape[1] // n

    def in_sets(table_QN: np.ndarray) -> np.ndarray:
        return np.take_along_axis(table_QN, order_QN, axis=1)[:, : sets * n].reshape(prompts * sets, n)

    weights_SN = pessimistic(in_sets(proxy_QN), strength)
    found = [np.sum(weights_SN * in_sets(table_QN), axis=1) for table_QN in tables]
    kl_Q, *means = (x.reshape(prompts, sets).mean(axis=1) for x in (tilt.kl_of(weights_SN), *found))
    return kl_Q, means


def jobs(e: Experiment, kind: type[MethodSettings] = Pessimism) -> Iterator[Job]:
    """One stage for every `scores` stage."""
    for settings in e.methods:
        if isinstance(settings, kind):
            for size, sweep, policy in scored(e):
                name = scores_name(e, size, sweep, policy)
                yield Job(name, name, settings, policy)


def jobs_over_n(e: Experiment) -> Iterator[Job]:
    """The same over n."""
    return jobs(e, PessimismOverN)


def check(e: Experiment, need: Need) -> None:
    """The curve has a length."""
    for s in e.methods:
        if isinstance(s, Pessimism):
            need(s.points >= 4, f"Pessimism.points is {s.points}: a curve needs at least 4")
            few = f"Pessimism.least_draws is {s.least_draws:g}: 1 to less than the {e.bon.draws} draws (bon.draws)"
            need(1 <= s.least_draws < e.bon.draws, few)


def check_over_n(e: Experiment, need: Need) -> None:
    """The penalties are penalties, the curve has a length, and the pool is large enough for it."""
    for s in e.methods:
        if isinstance(s, PessimismOverN):
            need(bool(s.betas), "PessimismOverN.betas is empty: give at least one, such as (0.1,)")
            need(len(set(s.betas)) == len(s.betas), f"PessimismOverN.betas is {s.betas}: one is there twice")
            for beta in s.betas:
                need(bool(0 < beta < np.inf), f"PessimismOverN.betas has {beta:g}: above 0, where it is best-of-n")
            need(s.points >= 4, f"PessimismOverN.points is {s.points}: a curve needs at least 4")
            need(s.passes >= 1, f"PessimismOverN.passes is {s.passes}: at least 1")
            many = f"PessimismOverN.max_n is {s.max_n}: 4 to the {e.bon.draws} draws (bon.draws)"
            need(4 <= s.max_n <= e.bon.draws, many)


def run(bench: Bench, job: Job) -> Record:
    """Tilts of the pool by every reward."""
    assert isinstance(job.settings, Pessimism)
    return of_pool(bench.pool(), [reward.name for reward in bench.rewards], job.settings, bench.rng)


def of_pool(pool: Pool, names: Sequence[str], settings: Pessimism, rng: Callable[[str], np.random.Generator]) -> Record:
    """The curves over 1/beta, of rewards of these names."""
    return tilt.of_pool(pool, names, settings.points, settings.least_draws, rng, pessimistic)


def run_over_n(bench: Bench, job: Job) -> Record:
    """From sets of n draws of the pool, for every reward at every beta."""
    assert isinstance(job.settings, PessimismOverN)
    return of_pool_over_n(bench.pool(), [reward.name for reward in bench.rewards], job.settings, bench.rng)


def of_pool_over_n(
    pool: Pool, names: Sequence[str], settings: PessimismOverN, rng: Callable[[str], np.random.Generator]
) -> Record:
    """The curves over n, of rewards of these names."""
    ns, arms, kls, found = grid(settings.max_n, settings.points), [], [], []
    for m, (name, proxy_QN) in enumerate(zip(names, pool.proxy_MQN, strict=True)):
        tables = [proxy_QN, pool.gold_QN, *([] if pool.annotator_QN is None else [pool.annotator_QN])]
        for beta in settings.betas:
            draw = rng(f"pessimism's sets {name}")  # the same sets for every beta
            kl_KQ, sums = np.zeros((len(ns), len(proxy_QN))), np.zeros((len(tables), len(ns), len(proxy_QN)))
            for _ in range(settings.passes):
                order_QN = draw.permuted(np.indices(proxy_QN.shape)[1], axis=1)
                for k, n in enumerate(ns):
                    kl_Q, means = dealt(proxy_QN, tables, order_QN, int(n), 1 / beta)
                    kl_KQ[k] += kl_Q / settings.passes
                    sums[:, k] += np.stack(means) / settings.passes
            arms.append(Arm(m, Settings(beta=beta)))
            kls.append(kl_KQ.mean(axis=1))
            found.append(sums)
    proxy, gold, *annotator = np.stack(found, axis=1)
    step = np.tile(ns, (len(arms), 1))
    return Record(arms, step, np.stack(kls), proxy=proxy, gold=gold, annotator=annotator[0] if annotator else None)


METHOD = register(
    Method(
        name="pessimism",
        title="inference-time pessimism",
        short="pessimism",
        axis="1/beta",
        kl="exact",
        kl_axis="KL distance between chi-squared tilted and equally weighted draws, nats (square-root scale)",
        form="d(a - b d)",
        jobs=jobs,
        run=run,
        check=check,
        less_memory="on the host lower bon.draws or bon.prompts",
        rank=22,
    )
)
OVER_N = register(
    Method(
        name="pessimism_n",
        title="inference-time pessimism of n draws",
        short="pessimism of n",
        axis="n",
        kl="bound",
        kl_axis="KL distance between pessimistic choice of n draws and initial policy, nats (square-root scale)",
        form="d(a - b d)",
        jobs=jobs_over_n,
        run=run_over_n,
        check=check_over_n,
        less_memory="on the host lower bon.draws or bon.prompts",
        rank=23,
    )
)
