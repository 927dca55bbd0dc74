"""Best-of-n from [Q, N] score tables: the unbiased estimator at every n (Nakano et al. 2021, appendix I)."""

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.special import gammaln

from rmo.config import Experiment
from rmo.config.names import GOLD_SCORES, of_rewards
from rmo.methods.bench import JUDGED, SPREAD, Arm, Bench, Pool, Record
from rmo.methods.method import Job, Method, Need, register
from rmo.methods.wording import Wording

AT_ONCE = 16  # prompts that a thread sorts before it weighs them


def grid(max_n: int, points: int) -> np.ndarray:
    """Distinct integers on a log grid from 1 to max_n."""
    return np.unique(np.round(np.geomspace(1, max_n, points)).astype(int))


@functools.cache
def weights(n: int, draws: int) -> np.ndarray:
    """Chance f64[N] that the i-th smallest of N draws is the best of n of them: C(i-1, n-1) / C(N, n).

    Raises:
      ValueError: n is not within 1..N.
    """
    if not 1 <= n <= draws:
        raise ValueError(f"n is {n}: best-of-n needs 1 <= n <= {draws} draws")
    i = np.arange(n, draws + 1, dtype=np.float64)
    choose = gammaln(i) - gammaln(n) - gammaln(i - n + 1)
    total = gammaln(draws + 1) - gammaln(n + 1) - gammaln(draws - n + 1)
    out = np.concatenate([np.zeros(n - 1), np.exp(choose - total)])
    out.flags.writeable = False  # shared by every caller
    return out


def sort_by_proxy(proxy_QN: np.ndarray, *tables: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each prompt's draws in order of its proxy score: (proxy, *tables), all re-sorted together.

    Within a block of equal proxy scores every table holds the block's mean: the average over tie-breakings.
    """
    order = np.argsort(proxy_QN, axis=1)
    proxy = np.take_along_axis(proxy_QN, order, axis=1)
    out = [np.take_along_axis(table, order, axis=1).astype(np.float64) for table in tables]
    tied_rows = np.flatnonzero((proxy[:, 1:] == proxy[:, :-1]).any(axis=1))
    for row in tied_rows:
        starts = np.flatnonzero(np.concatenate([[True], proxy[row, 1:] != proxy[row, :-1]]))
        sizes = np.diff(np.append(starts, proxy.shape[1]))
        for table in out:
            table[row] = np.repeat(np.add.reduceat(table[row], starts) / sizes, sizes)
    return proxy, *out


def best_of_n(proxy_QN: np.ndarray, gold_QN: np.ndarray, ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected proxy and gold score of the response with the highest proxy among n, per prompt: f64[K, Q] each."""
    check_tables(proxy_QN, gold_QN)
    return ranked(proxy_QN, gold_QN, np.stack([weights(int(n), proxy_QN.shape[1]) for n in ns]))


def check_tables(proxy_QN: np.ndarray, gold_QN: np.ndarray) -> None:
    """Raises ValueError unless both are of one shape, [prompts, draws]."""
    if proxy_QN.shape != gold_QN.shape or proxy_QN.ndim != 2:
        raise ValueError(f"tables are {proxy_QN.shape} and {gold_QN.shape}: both must be [prompts, draws]")


def ranked(proxy_QN: np.ndarray, gold_QN: np.ndarray, weights_KN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected proxy and gold score where the i-th smallest draw of every prompt is given with the chance
    `weights_KN[k, i]`, f64[K, Q] each.

    Both use the same weights over the same order, at every k. Sorting takes the time, so every core sorts some
    prompts; what is held besides the tables and the weights is 16 prompts' draws per core.
    """
    check_tables(proxy_QN, gold_QN)

    def some(start: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(start, start + AT_ONCE)
        proxy, gold = sort_by_proxy(proxy_QN[rows], gold_QN[rows])
        return weights_KN @ proxy.astype(np.float64).T, weights_KN @ gold.T

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(some, range(0, max(len(proxy_QN), 1), AT_ONCE)))
    proxy_KQ, gold_KQ = (np.concatenate(found, axis=1) for found in zip(*parts, strict=True))
    return proxy_KQ, gold_KQ


def expectation(proxy_QN: np.ndarray, tables_KQN: list[np.ndarray], ns: np.ndarray) -> np.ndarray:
    """E[table_k of the best of n_k], f64[K, Q]: a different table of the draws for every n."""
    order = np.argsort(proxy_QN, axis=1, kind="stable")
    rows = [
        np.take_along_axis(table, order, axis=1) @ weights(int(n), proxy_QN.shape[1])
        for n, table in zip(ns, tables_KQN, strict=True)
    ]
    return np.stack(rows)


def nested_ns(draws: int) -> np.ndarray:
    """1, 3, 10, 30, ... up to the draws there are (paper Table 2)."""
    grid = [int(base * 10**k) for k in range(9) for base in (1, 3)]
    return np.array([n for n in grid if n <= draws])


def nested(proxy_N: np.ndarray, ns: np.ndarray) -> np.ndarray:
    """Index of the best of the first n draws, for every n: one growing set of samples (paper Table 2)."""
    return np.array([int(np.argmax(proxy_N[:n])) for n in ns])


def winners(order_N: np.ndarray, n: int, rng: np.random.Generator, size: int) -> np.ndarray:
    """Indices of draws distributed as the best of n of one prompt's N draws, whose `order_N` is ascending in proxy."""
    chance = weights(n, len(order_N))
    return order_N[rng.choice(len(order_N), size=size, p=chance / chance.sum())]


# The method.

PAIRS = 8  # pairs of winners per prompt and n on which a reward is judged along the path


def jobs(e: Experiment) -> Iterator[Job]:
    """One stage for every `scores` stage."""
    settings = e.bon.max_n, e.bon.points
    for name, policy in of_rewards(e):
        yield Job(name, name, settings, policy)
    if e.gold_as_proxy.pool:
        yield Job(GOLD_SCORES, GOLD_SCORES, settings)


def check(e: Experiment, need: Need) -> None:
    """The pool and the curve's grid."""
    need(
        e.bon.max_n <= e.bon.draws, f"bon.max_n is {e.bon.max_n}: it is larger than the {e.bon.draws} draws (bon.draws)"
    )
    chunk = min(e.bon.chunk, e.bon.draws)
    need(e.bon.draws % chunk == 0, f"bon.chunk is {chunk}: it must divide bon.draws {e.bon.draws}")
    need(e.bon.prompts >= 2, f"bon.prompts is {e.bon.prompts}: standard errors over prompts need at least 2")
    need(e.bon.points >= 4, f"bon.points is {e.bon.points}: a curve needs at least 4")
    need(e.bon.max_n >= 8, f"bon.max_n is {e.bon.max_n}: a curve needs at least 8")


def pairs_of_winners(proxy_QN: np.ndarray, ns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws i[K, Q, 2 * PAIRS] that won at every n. Those of the first half are to be compared with those of the
    second: they come from disjoint halves of the pool, so that no draw is compared with itself."""
    half = proxy_QN.shape[1] // 2
    orders = [np.argsort(proxy_QN[:, side::2][:, :half], axis=1) for side in (0, 1)]

    def drawn(side: int, n: int) -> list[np.ndarray]:
        return [2 * winners(order, min(n, half), rng, PAIRS) + side for order in orders[side]]

    return np.stack([np.concatenate([drawn(0, int(n)), drawn(1, int(n))], axis=1) for n in ns])


def judged(proxy_QN: np.ndarray, gold_QN: np.ndarray, pairs_KQD: np.ndarray, logits: float) -> dict[str, np.ndarray]:
    """How the reward judges pairs of its winners, f[K, Q] each (metrics.agreement)."""
    import jax.numpy as jnp

    from rmo.models import metrics

    def gap(table_QN: np.ndarray) -> np.ndarray:
        x_KQD = np.stack([np.take_along_axis(table_QN, rows, axis=1) for rows in pairs_KQD])
        return (x_KQD[..., :PAIRS] - x_KQD[..., PAIRS:]) * logits

    found = metrics.agreement(jnp.asarray(gap(proxy_QN)), jnp.asarray(gap(gold_QN)))
    return {name: np.asarray(x).mean(-1) for name, x in found.items()}


def run(bench: Bench, job: Job) -> Record:
    """Best-of-n from the pool, for every reward."""
    from rmo.models import metrics

    c, pool = bench.experiment.bon, bench.pool()
    ns = grid(c.max_n, c.points)
    tight_KQN = [metrics.kl_bon_given(pool.logps_QN, int(n)) for n in ns]
    columns: dict[str, list[np.ndarray]] = {}
    for m, proxy_QN in enumerate(pool.proxy_MQN):
        proxy_KQ, gold_KQ = best_of_n(proxy_QN, pool.gold_QN, ns)
        pairs_KQD = pairs_of_winners(proxy_QN, ns, bench.rng(f"winners {bench.rewards[m].name}"))
        found = {"proxy": proxy_KQ, "gold": gold_KQ, "kl_given": expectation(proxy_QN, tight_KQN, ns)}
        found |= {"draw": pairs_KQD[..., 0], **judged(proxy_QN, pool.gold_QN, pairs_KQD, pool.logits)}
        if pool.annotator_QN is not None:
            found["annotator"] = best_of_n(proxy_QN, pool.annotator_QN, ns)[1]
        if pool.spread_MQN is not None:
            apart_QN = pool.spread_MQN[m]
            unknown_KQ = np.full(gold_KQ.shape, np.nan)
            found[SPREAD] = unknown_KQ if apart_QN is None else best_of_n(proxy_QN, apart_QN, ns)[1]
        for name, value in found.items():
            columns.setdefault(name, []).append(value)
    stacked = {name: np.stack(values) for name, values in columns.items()}
    members = len(pool.proxy_MQN)
    return Record(
        arms=[Arm(m) for m in range(members)],
        step_or_n=np.tile(ns, (members, 1)),
        kl=np.tile(metrics.kl_bon(ns), (members, 1)),
        proxy=stacked["proxy"],
        gold=stacked["gold"],
        kl_given=stacked["kl_given"],
        judged={name: stacked[name] for name in (*JUDGED, SPREAD) if name in stacked},
        annotator=stacked.get("annotator"),
        wording=of_winners(pool, ns),
        draw=stacked["draw"],
    )


def of_winners(pool: Pool, ns: np.ndarray) -> Wording | None:
    """The wording of the best of every n by every reward, [M, K, ...]; None where the draws are not at hand."""
    if pool.texts is None:
        return None
    draws, members = pool.gold_QN.shape[1], len(pool.proxy_MQN)
    weights_KN = np.stack([weights(int(n), draws) for n in ns])

    def of_prompt(q: int) -> np.ndarray:
        out = np.empty((members, len(ns), draws))
        for m, proxy_QN in enumerate(pool.proxy_MQN):
            out[m][:, np.argsort(proxy_QN[q], kind="stable")] = weights_KN
        return out.reshape(-1, draws)

    return Wording(*(x.reshape(members, len(ns), *x.shape[1:]) for x in pool.texts.under(of_prompt)))


METHOD = register(
    Method(
        name="bon",
        title="best-of-n",
        short="best-of-n",
        axis="n",
        kl="bound",
        kl_axis="KL distance between best-of-n policy and initial policy, nats (square-root scale)",
        form="d(a - b d)",
        jobs=jobs,
        run=run,
        check=check,
        less_memory="lower bon.chunk, on the host bon.draws or bon.prompts",
        rank=1,
    )
)
