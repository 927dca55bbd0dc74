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
that of the weights, exactly; over n a draw's weight is its mean over the sets that it may be in (`kl_of_dealt`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import optimize
from scipy.special import xlogy

from rmo.analysis.curve_id import Settings
from rmo.config import Experiment, MethodSettings
from rmo.methods import tilt
from rmo.methods.bench import Arm, Bench, Pool, Record
from rmo.methods.best_of_n import grid
from rmo.methods.method import Job, Method, Need, on_pools, one_entry, register
from rmo.methods.pool_diagnostics import DIAGNOSTICS, beside


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

    betas: tuple[float, ...] = (0.01, 0.1)
    """In units of the calibrated proxy's score; one curve for each."""
    max_n: int = 1024
    """Largest n."""
    points: int = 24
    """Points of the curve, on a log grid of n."""
    passes: int = 4
    """How often the pool is dealt out into sets of n."""


def chi_squared_weights(scores_QN: np.ndarray, strength: float) -> np.ndarray:
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
    weights_QN = chi_squared_weights(scores_QN, strength)
    used_QN = weights_QN > 0
    score_QN = scores_QN / scores_QN.shape[1]
    middle_Q = np.sum(score_QN * used_QN, axis=1) / used_QN.sum(axis=1)
    slope_Q = np.sum(used_QN * (score_QN - middle_Q[:, None]) * gold_QN, axis=1)
    return np.sum(weights_QN * gold_QN, axis=1), slope_Q


def dealt(proxy_QN: np.ndarray, orders: Sequence[np.ndarray], n: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """(weights f64[Q, N] of draws among the n of their set, of mean 1 in each set, summed; how often they were in one):
    the pool is dealt out into sets of n in each of these orders i[Q, N]; draws that are left over are in none."""
    total_QN, times_QN, sets = np.zeros(proxy_QN.shape), np.zeros(proxy_QN.shape), proxy_QN.shape[1] // n
    for order_QN in orders:
        chosen = order_QN[:, : sets * n]
        in_sets = np.take_along_axis(proxy_QN, chosen, axis=1).reshape(-1, n)
        weights = n * chi_squared_weights(in_sets, strength).reshape(chosen.shape)
        old, seen = (np.take_along_axis(x, chosen, axis=1) for x in (total_QN, times_QN))
        np.put_along_axis(total_QN, chosen, old + weights, axis=1)
        np.put_along_axis(times_QN, chosen, seen + 1, axis=1)
    return total_QN, times_QN


def kl_of_dealt(proxy_QN: np.ndarray, total_QN: np.ndarray, times_QN: np.ndarray) -> np.ndarray:
    """KL f64[Q] of what is given from the initial policy, nats: the mean of q log q, q being the mean weight of a draw
    over the sets that it may be in. A draw's own sets are few, but q rises with its score: monotone regression."""
    out = []
    for proxy_N, total_N, times_N in zip(proxy_QN, total_QN, times_QN, strict=True):
        order = np.argsort(proxy_N)
        order = order[times_N[order] > 0]
        times = times_N[order]
        q = optimize.isotonic_regression(total_N[order] / times, weights=times).x
        out.append(np.sum(times * xlogy(q, q)) / times.sum())
    return np.maximum(np.array(out), 0.0)


jobs = partial(on_pools, kind=Pessimism)
jobs_over_n = partial(on_pools, kind=PessimismOverN)


def check(e: Experiment, need: Need) -> None:
    """The curve has a length."""
    one_entry(e, Pessimism, need, "their curves would be the same, give one")
    for s in e.methods:
        if isinstance(s, Pessimism):
            need(s.points >= 4, f"Pessimism.points is {s.points}: a curve needs at least 4")
            few = f"Pessimism.least_draws is {s.least_draws:g}: 1 to less than the {e.bon.draws} draws (bon.draws)"
            need(1 <= s.least_draws < e.bon.draws, few)


def check_over_n(e: Experiment, need: Need) -> None:
    """The penalties are penalties, the curve has a length, and the pool is large enough for it."""
    one_entry(e, PessimismOverN, need, "give one with all betas")
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
    found = tilt.of_pool(pool, names, settings.points, settings.least_draws, rng, chi_squared_weights)
    return replace(found, diagnostics=beside(pool, found.arms, found.proxy, found.gold))


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
        shuffle, places_QN = rng(f"pessimism's sets {name}"), np.indices(proxy_QN.shape)[1]
        orders = [shuffle.permuted(places_QN, axis=1) for _ in range(settings.passes)]  # the same for every beta and n
        for beta in settings.betas:
            sets = [dealt(proxy_QN, orders, int(n), 1 / beta) for n in ns]
            kls.append([kl_of_dealt(proxy_QN, *weights).mean() for weights in sets])
            found.append([[(total * table).sum(1) / times.sum(1) for total, times in sets] for table in tables])
            arms.append(Arm(m, Settings(beta=beta)))
    proxy, gold, *annotator = np.array(found).swapaxes(0, 1)
    step = np.tile(ns, (len(arms), 1))
    return Record(
        arms,
        step,
        np.array(kls),
        proxy=proxy,
        gold=gold,
        annotator=annotator[0] if annotator else None,
        diagnostics=beside(pool, arms, proxy, gold),
    )


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
        diagnostics=DIAGNOSTICS,
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
        kl="exact",
        kl_axis="KL distance between pessimistic choice of n draws and initial policy, nats (square-root scale)",
        form="d(a - b d)",
        jobs=jobs_over_n,
        run=run_over_n,
        check=check_over_n,
        diagnostics=DIAGNOSTICS,
        less_memory="on the host lower bon.draws or bon.prompts",
        rank=23,
    )
)
