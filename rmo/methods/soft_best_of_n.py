"""Soft best-of-n (Verdun et al. 2025; Khalaf et al. 2025): of n draws the i-th is given with a chance in proportion to
exp(r_i / T). T -> 0 is best-of-n; n = 1 and T -> infinity are the initial policy; n -> infinity is the exponential
tilt exp(r / T).

Scores, from a pool of N draws: the i-th of n draws wins with that chance exactly where r_i + T G_i is the largest, G
being standard Gumbel noise, independent for every draw. So soft best-of-n is best-of-n by noisy scores, and
best-of-n's weights over their order are unbiased at every n and T. They are averaged over several noises, which are
spread evenly (a Latin hypercube): to the pool's own variance they add less than one part in their number.

KL: with the density q(y) = n E[w / (w + w_2 + ... + w_n)], w = exp(r(y) / T), of a response against the initial
policy, E standing for n - 1 more draws, KL is the mean of q log q, exactly, whether or not responses repeat. As
1 / x is the integral of e^{-tx} over t, q is an integral over t of w e^{-tw} times the (n-1)-th power of the mean of
e^{-tw}, for which the mean over the pool's draws is put (draws with replacement). For T -> 0 and scores without ties it
is then low by (n/N)^2 / 24 nats, against log n - (n-1)/n, which is a bound at every T.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.config import Experiment, MethodSettings
from rmo.methods.bench import Arm, Bench, Pool, Record
from rmo.methods.best_of_n import grid, weights
from rmo.methods.method import Job, Method, Need, on_pools, one_entry, register
from rmo.methods.pool_diagnostics import DIAGNOSTICS, beside

STEP = 1 / 3  # of the trapezoidal rule in log t: its error on such integrands is e^{-pi^2 / STEP} of them
LEFT, RIGHT = 30.0, np.log(40.0)  # how far beyond 1/w log t reaches: e^-30 and e^-40 are left out
FAR = 50.0  # log of t w beyond which e^{-tw} is 0
COLDEST = 0.01  # in units of a calibrated score: below it soft best-of-n is best-of-n


@dataclass(frozen=True)
class SoftBestOfN(MethodSettings):
    """One of n draws, with a chance in proportion to exp(score / temperature)."""

    temperatures: tuple[float, ...] = (0.1, 0.3)
    """In units of the calibrated proxy's score; one curve for each."""
    max_n: int = 1024
    """Largest n."""
    points: int = 32
    """Points of the curve, on a log grid of n."""
    noises: int = 8
    """Noises that scores are averaged over."""


def gumbel(rng: np.random.Generator, noises: int, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Standard Gumbel noise f64[Q, N], `noises` times: independent for every draw, and evenly spread over the times."""
    stratum = rng.permuted(np.broadcast_to(np.arange(noises)[:, None, None], (noises, *shape)), axis=0)
    for which_QN in stratum:
        u_QN = (which_QN + rng.random(shape)) / noises
        yield -np.log(-np.log(np.clip(u_QN, 1e-300, 1 - 1e-16)))


def means(
    proxy_QN: np.ndarray,
    tables: Sequence[np.ndarray],
    ns: np.ndarray,
    temperature: float,
    noises: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Expected value of every table at the draw that soft best-of-n gives, f64[K, Q] each; unbiased."""
    weights_KN = np.stack([weights(int(n), proxy_QN.shape[1]) for n in ns])
    sums = [np.zeros((len(ns), len(proxy_QN))) for _ in tables]
    for noise_QN in gumbel(rng, noises, proxy_QN.shape):
        order_QN = np.argsort(proxy_QN + temperature * noise_QN, axis=1)
        for total_KQ, table_QN in zip(sums, tables, strict=True):
            total_KQ += weights_KN @ np.take_along_axis(table_QN, order_QN, axis=1).T
    return [total_KQ / noises for total_KQ in sums]


def log_times(log_w_N: np.ndarray, least_n: int, most_n: int) -> np.ndarray:
    """The places in log t that the integral needs, f64[S]: beyond them less than 1e-12 of it lies for every n between
    the two. `log_w_N` is at most 0."""
    share = np.exp(-42 / max(least_n - 1, 1e-9))  # of draws: its (n-1)-th power is 1e-18
    place = min(max(int(share * len(log_w_N)) - 1, 0), len(log_w_N) - 1)
    end = RIGHT - float(np.partition(log_w_N, place)[place])
    return np.arange(-LEFT - np.log(most_n), end + STEP, STEP)


def densities(score_N: np.ndarray, ns: Sequence[int], temperature: float) -> np.ndarray:
    """Chance of every draw under soft best-of-n over its chance in the pool, f64[K, N]: n draws with replacement."""
    log_w_N = (score_N - score_N.max()) / temperature
    out = np.ones((len(ns), len(score_N)))
    more = np.array([k for k, n in enumerate(ns) if n > 1], int)
    if not len(more):
        return out
    n_K = np.asarray(ns, np.float64)[more]
    places, total = log_times(log_w_N, int(n_K.min()), int(n_K.max())), np.zeros((len(more), len(score_N)))
    for start in range(0, len(places), 256):
        x_SN = np.exp(np.minimum(places[start : start + 256, None] + log_w_N, FAR))
        gone_SN = np.exp(-x_SN)
        total += (n_K[:, None] * gone_SN.mean(axis=1) ** (n_K[:, None] - 1)) @ (x_SN * gone_SN)
    out[more] = STEP * total
    return out


def kl(score_QN: np.ndarray, ns: Sequence[int], temperature: float) -> np.ndarray:
    """Of soft best-of-n from the pool's draws, f64[K, Q], nats."""
    out = []
    for score_N in score_QN:
        q_KN = np.maximum(densities(score_N, ns, temperature), np.finfo(np.float64).tiny)
        out.append(np.mean(q_KN * np.log(q_KN), axis=1))
    return np.maximum(np.stack(out, axis=1), 0.0)


def gold_and_slope(score_N: np.ndarray, gold_N: np.ndarray, n: int, coldness: float) -> tuple[float, float]:
    """(expected gold of soft best-of-n, its derivative with respect to 1/T) at 1/T = `coldness`, for n >= 2 draws of
    one prompt's pool with replacement: what HedgeTune finds the root of."""
    rho_N = score_N - score_N.max()
    places = log_times(coldness * rho_N, n, n)
    near = coldness * rho_N + places[-1] > -36  # the others never count
    rho, gold, draws = rho_N[near], gold_N[near], len(score_N)
    x_SN = np.exp(np.minimum(places[:, None] + coldness * rho, FAR))
    gone_SN = np.exp(-x_SN)
    each_SN = x_SN * gone_SN
    power_S = (gone_SN.sum(axis=1) + draws - len(rho)) / draws
    of_gold_S, lost_S = each_SN @ gold / draws, each_SN @ rho / draws  # the power falls by the second, per unit of 1/T
    turned_S = (each_SN * (1 - x_SN)) @ (rho * gold) / draws
    value = np.sum(power_S ** (n - 1) * of_gold_S)
    slope = np.sum(power_S ** (n - 1) * turned_S - (n - 1) * power_S ** (n - 2) * lost_S * of_gold_S)
    return float(n * STEP * value), float(n * STEP * slope)


jobs = partial(on_pools, kind=SoftBestOfN)


def check(e: Experiment, need: Need) -> None:
    """The temperatures can be told from 0, the curve has a length, and the pool is large enough for it."""
    one_entry(e, SoftBestOfN, need, "give one with all temperatures")
    for s in e.methods:
        if isinstance(s, SoftBestOfN):
            need(bool(s.temperatures), "SoftBestOfN.temperatures is empty: give at least one, such as (0.1,)")
            twice = f"SoftBestOfN.temperatures is {s.temperatures}: one is there twice"
            need(len(set(s.temperatures)) == len(s.temperatures), twice)
            for t in s.temperatures:
                cold = f"SoftBestOfN.temperatures has {t:g}: at least {COLDEST:g}, below which it is best-of-n"
                need(bool(COLDEST <= t < np.inf), cold)
            need(s.points >= 4, f"SoftBestOfN.points is {s.points}: a curve needs at least 4")
            need(s.noises >= 1, f"SoftBestOfN.noises is {s.noises}: at least 1")
            many = f"SoftBestOfN.max_n is {s.max_n}: 4 to the {e.bon.draws} draws (bon.draws)"
            need(4 <= s.max_n <= e.bon.draws, many)


def run(bench: Bench, job: Job) -> Record:
    """From the pool, for every reward at every temperature."""
    assert isinstance(job.settings, SoftBestOfN)
    return of_pool(bench.pool(), [reward.name for reward in bench.rewards], job.settings, bench.rng)


def of_pool(
    pool: Pool, names: Sequence[str], settings: SoftBestOfN, rng: Callable[[str], np.random.Generator]
) -> Record:
    """The curves over n, of rewards of these names."""
    ns, arms, tables = grid(settings.max_n, settings.points), [], []
    kls: list[np.ndarray] = []
    for m, (name, proxy_QN) in enumerate(zip(names, pool.proxy_MQN, strict=True)):
        for t in settings.temperatures:
            read = [proxy_QN, pool.gold_QN, *([] if pool.annotator_QN is None else [pool.annotator_QN])]
            tables.append(means(proxy_QN, read, ns, t, settings.noises, rng(f"soft best-of-n {name}")))
            kls.append(kl(proxy_QN, ns.tolist(), t).mean(axis=1))
            arms.append(Arm(m, Settings(temperature=t)))
    proxy, gold, *annotator = (np.stack(x) for x in zip(*tables, strict=True))
    return Record(
        arms,
        np.tile(ns, (len(arms), 1)),
        np.stack(kls),
        proxy=proxy,
        gold=gold,
        annotator=annotator[0] if annotator else None,
        diagnostics=beside(pool, arms, proxy, gold),
    )


METHOD = register(
    Method(
        name="soft_best_of_n",
        title="soft best-of-n",
        short="soft best-of-n",
        axis="n",
        kl="exact",
        kl_axis="KL distance between soft best-of-n policy and initial policy, nats (square-root scale)",
        form="d(a - b d)",
        jobs=jobs,
        run=run,
        check=check,
        diagnostics=DIAGNOSTICS,
        less_memory="on the host lower bon.draws or bon.prompts",
        rank=20,
    )
)
