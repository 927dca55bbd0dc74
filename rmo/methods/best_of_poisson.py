"""Best-of-Poisson (Khalaf et al. 2025): best-of-n whose number of draws is random, n = n' + 1 with n' ~ Poisson(mu).

On the proxy's quantile u within a prompt its density is q(u) = (mu u + 1) e^{mu (u - 1)}, the mixture of best-of-n's
n u^{n-1}, so that one real parameter replaces a whole number, and it stays near the exponential tilt of the quantile.
Its expectation from a pool is the same mixture of best-of-n's weights, unbiased as they are; its KL is the integral of
q log q, a bound where single responses are likely to be drawn more than once, as best-of-n's is.
"""

import functools
import itertools
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import integrate
from scipy.special import gammaln, pdtrc, xlogy

from rmo.config import Experiment, MethodSettings
from rmo.methods.bench import Arm, Bench, Pool, Record
from rmo.methods.best_of_n import grid, ranked
from rmo.methods.method import Job, Method, Need, on_pools, one_entry, register
from rmo.methods.pool_diagnostics import DIAGNOSTICS, beside

BEYOND = 1e-6  # the chance that more draws are wanted than the pool has, which then count as all of it
AT_ONCE = 128  # numbers of draws that are mixed at a time


@dataclass(frozen=True)
class BestOfPoisson(MethodSettings):
    """Best-of-n with n = 1 + a Poisson number."""

    max_n: int = 1024
    """Largest mean number of draws, mu + 1."""
    points: int = 32
    """Points of the curve, on a log grid of mu + 1."""


def beyond(mu: float, draws: int) -> float:
    """The chance that more than so many draws are wanted."""
    return float(pdtrc(draws - 1, mu))


def largest_n(draws: int) -> int:
    """The largest mean number of draws, mu + 1, that so many draws are enough for; 1 at least."""
    ns = np.arange(1, draws + 1)
    return int(ns[pdtrc(draws - 1, ns - 1) <= BEYOND].max(initial=1))


def density(u: np.ndarray, mu: float) -> np.ndarray:
    """On the proxy's quantile, of the shape of u."""
    return (mu * u + 1) * np.exp(mu * (u - 1))


def kl(mu: float) -> float:
    """Nats from the initial policy: the integral of q log q over the quantile, to 1e-10."""

    def integrand(v: float) -> float:
        """In v = mu (1 - u), on whose scale q falls off."""
        top = mu - v + 1
        return top * np.exp(-v) * (np.log(top) - v) / mu

    if mu == 0:
        return 0.0
    ends = [0.0, *(x for x in (1.0, 4.0, 16.0) if x < mu), min(mu, 60.0)]
    return sum(integrate.quad(integrand, a, b, epsabs=1e-12, epsrel=1e-12)[0] for a, b in itertools.pairwise(ends))


def weights(mu: float, draws: int) -> np.ndarray:
    """Chance f64[N] that the i-th smallest of N draws is the best of 1 + Poisson(mu) of them.

    Raises:
      ValueError: mu is below 0, or so large that more draws than there are may well be wanted.
    """
    return mixed(mu, draws)[0]


def slopes(mu: float, draws: int) -> np.ndarray:
    """Derivative f64[N] of `weights` with respect to mu: the next number of draws in place of each."""
    here, following = mixed(mu, draws)
    return following - here


@functools.lru_cache(maxsize=64)
def mixed(mu: float, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Best-of-n's weights f64[N], n = 1 + Poisson(mu), and the same of n = 2 + Poisson(mu)."""
    if not (mu >= 0 and beyond(mu, draws) <= BEYOND):
        raise ValueError(f"mu is {mu:g}: best-of-Poisson needs a mu of at least 0 that {draws} draws are enough for")
    log_factorial = gammaln(np.arange(draws + 1) + 1.0)
    i = np.arange(1, draws + 1)
    reach = 10 * mu**0.5 + 40  # beyond it no number of draws has a chance of 1e-17
    low, high = int(max(mu - reach, 0)), int(mu + reach) if mu else 0
    sums = np.zeros((2, draws))
    for start in range(low, high + 1, AT_ONCE):
        k = np.arange(start, min(start + AT_ONCE, high + 1))
        chance_K = np.exp(xlogy(k, mu) - gammaln(k + 1) - mu) if mu else np.ones(1)
        for shift in (0, 1):
            n_K1 = np.minimum(k + 1 + shift, draws)[:, None]
            choose = log_factorial[i - 1] - log_factorial[n_K1 - 1] - log_factorial[np.maximum(i - n_K1, 0)]
            total = log_factorial[draws] - log_factorial[n_K1] - log_factorial[draws - n_K1]
            sums[shift] += chance_K @ np.where(i >= n_K1, np.exp(choose - total), 0.0)
    sums.flags.writeable = False  # shared by every caller
    return sums[0], sums[1]


jobs = partial(on_pools, kind=BestOfPoisson)


def check(e: Experiment, need: Need) -> None:
    """The curve has a length, and the pool is large enough for it."""
    one_entry(e, BestOfPoisson, need, "their curves would be the same, give one")
    for s in e.methods:
        if isinstance(s, BestOfPoisson):
            need(s.points >= 4, f"BestOfPoisson.points is {s.points}: a curve needs at least 4")
            need(s.max_n >= 4, f"BestOfPoisson.max_n is {s.max_n}: a curve needs at least 4")
            many = f"BestOfPoisson.max_n is {s.max_n}: too near the {e.bon.draws} draws (bon.draws), a half is safe"
            need(beyond(s.max_n - 1, e.bon.draws) <= BEYOND, many)


def run(bench: Bench, job: Job) -> Record:
    """From the pool, for every reward."""
    assert isinstance(job.settings, BestOfPoisson)
    return of_pool(bench.pool(), job.settings)


def of_pool(pool: Pool, settings: BestOfPoisson) -> Record:
    """The curve of every reward over the mean number of draws, mu + 1."""
    ns, draws = grid(settings.max_n, settings.points), pool.gold_QN.shape[1]
    weights_KN = np.stack([weights(float(n - 1), draws) for n in ns])
    found = [ranked(proxy_QN, pool.gold_QN, weights_KN) for proxy_QN in pool.proxy_MQN]
    proxy_MKQ, gold_MKQ = (np.stack(x) for x in zip(*found, strict=True))
    annotator = None
    if pool.annotator_QN is not None:
        annotator = np.stack([ranked(proxy_QN, pool.annotator_QN, weights_KN)[1] for proxy_QN in pool.proxy_MQN])
    arms = [Arm(m) for m in range(len(found))]
    kl_K = np.array([kl(float(n - 1)) for n in ns])
    return Record(
        arms,
        np.tile(ns, (len(arms), 1)),
        np.tile(kl_K, (len(arms), 1)),
        proxy=proxy_MKQ,
        gold=gold_MKQ,
        annotator=annotator,
        diagnostics=beside(pool, arms, proxy_MKQ, gold_MKQ),
    )


METHOD = register(
    Method(
        name="best_of_poisson",
        title="best-of-Poisson",
        short="best-of-Poisson",
        axis="n",
        kl="bound",
        kl_axis="KL distance between best-of-Poisson policy and initial policy, nats (square-root scale)",
        form="d(a - b d)",
        jobs=jobs,
        run=run,
        check=check,
        diagnostics=DIAGNOSTICS,
        less_memory="on the host lower bon.draws or bon.prompts",
        rank=21,
    )
)
