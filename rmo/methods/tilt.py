"""Exponential tilts of the pool: the most reward that any policy can have at a given KL.

Of all policies at one KL from the initial policy pi, that with the highest mean reward r is proportional to
pi(y|x) exp(lambda r(x, y)): it is the optimum of E[r] - KL/lambda (Korbak et al. 2022, section 4; Yang et al. 2024,
section 3, who compare best-of-n with it). One lambda serves all prompts, as one KL coefficient does. On N draws of pi
the optimum gives draw i the weight softmax(lambda r)_i, and its KL is that of the weights from equal ones.

No weights on N draws reach a KL above log N, and near it everything rests on a few draws, so that the curve ends where
the draws that count, exp(entropy of the weights), are few (`Tilt.least_draws`). Gold at a given KL is then low by
0.3% of Gaussian scores where 300 of 4,096 draws count and by 2.6% where 20 do (tests/methods/test_tilt.py).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rmo.config import Experiment
from rmo.config.names import GOLD_SCORES, of_rewards
from rmo.methods.bench import Arm, Bench, Pool, Record
from rmo.methods.method import Job, Method, Need, register
from rmo.methods.wording import Wording

STEEPEST = 1e4  # lambda times the standard deviation of the scores at which the search for the end gives up


def tilted(scores_QN: np.ndarray, coefficient: float) -> np.ndarray:
    """Weights f64[Q, N] of every prompt's draws under a tilt by `coefficient`; rows sum to 1."""
    exponent = coefficient * (scores_QN - scores_QN.max(axis=1, keepdims=True))
    weights = np.exp(exponent)
    return weights / weights.sum(axis=1, keepdims=True)


def kl_of(weights_QN: np.ndarray) -> np.ndarray:
    """KL of weighted draws from equal weights, f64[Q], nats: log N less the entropy of the weights."""
    positive = np.maximum(weights_QN, np.finfo(np.float64).tiny)
    return np.maximum(np.log(weights_QN.shape[1]) + np.sum(weights_QN * np.log(positive), axis=1), 0.0)


def coefficients(
    scores_QN: np.ndarray, points: int, least_draws: float, weigh: Callable[[np.ndarray, float], np.ndarray] = tilted
) -> np.ndarray:
    """Coefficients f64[K] from 0 on whose mean KL over prompts is about evenly spaced in its root, up to where
    `least_draws` count, or as far as the scores tell draws apart."""
    largest = np.log(scores_QN.shape[1] / least_draws)

    def mean_kl(coefficient: float) -> float:
        return float(kl_of(weigh(scores_QN, coefficient)).mean())

    unit = 1 / max(float(scores_QN.std()), np.finfo(np.float64).tiny)
    end = unit
    while mean_kl(end) < largest and end < STEEPEST * unit:
        end *= 1.25
    tried = np.concatenate([[0.0], np.geomspace(unit / 100, end, 64)])
    kl = np.array([mean_kl(coefficient) for coefficient in tried])
    roots = np.sqrt(np.maximum.accumulate(kl))
    return np.interp(np.linspace(0, min(np.sqrt(largest), roots[-1]), points), roots, tried)


def jobs(e: Experiment) -> Iterator[Job]:
    """One stage for gold as its own proxy and, where it is asked for, one for every other `scores` stage."""
    settings = e.tilt.points, e.tilt.least_draws
    for name, policy in of_rewards(e) if e.tilt.every_reward else ():
        yield Job(name, name, settings, policy)
    if e.gold_as_proxy.pool:
        yield Job(GOLD_SCORES, GOLD_SCORES, settings)


def check(e: Experiment, need: Need) -> None:
    """The curve has a length."""
    if e.tilt.every_reward or e.gold_as_proxy.pool:
        few = f"tilt.least_draws is {e.tilt.least_draws:g}: it must be less than the {e.bon.draws} draws (bon.draws)"
        need(e.tilt.least_draws < e.bon.draws, few)
        need(e.tilt.points >= 4, f"tilt.points is {e.tilt.points}: a curve needs at least 4")


def run(bench: Bench, job: Job) -> Record:
    """Tilts of the pool by every reward."""
    c, names = bench.experiment.tilt, [reward.name for reward in bench.rewards]
    return of_pool(bench.pool(), names, c.points, c.least_draws, bench.rng)


def of_pool(
    pool: Pool,
    names: Sequence[str],
    points: int,
    least_draws: float,
    rng: Callable[[str], np.random.Generator],
    weigh: Callable[[np.ndarray, float], np.ndarray] = tilted,
) -> Record:
    """What a weighing of the pool's draws by a reward and a coefficient gives, for rewards of these names.

    `weigh` gives weights f64[Q, N] of scores and a coefficient: equal ones at 0, of a larger KL at a larger one."""
    steps_MK = np.stack([coefficients(proxy_QN, points, least_draws, weigh) for proxy_QN in pool.proxy_MQN])
    columns: dict[str, list[np.ndarray]] = {}
    for name, proxy_QN, steps_K in zip(names, pool.proxy_MQN, steps_MK, strict=True):
        chance_Q = rng(f"tilted draws {name}").random(len(proxy_QN))
        tables = {"proxy": proxy_QN, "gold": pool.gold_QN}
        tables |= {} if pool.annotator_QN is None else {"annotator": pool.annotator_QN}
        for column, value in tilts(proxy_QN, tables, steps_K, chance_Q, weigh).items():
            columns.setdefault(column, []).append(value)
    arms = [Arm(m) for m in range(len(steps_MK))]
    stacked = {name: np.stack(values) for name, values in columns.items()}
    return Record(
        arms,
        steps_MK,
        kl=stacked["kl"],
        proxy=stacked["proxy"],
        gold=stacked["gold"],
        annotator=stacked.get("annotator"),
        wording=of_tilts(pool, steps_MK, weigh),
        draw=stacked["draw"],
    )


def tilts(
    proxy_QN: np.ndarray,
    tables: dict[str, np.ndarray],
    coefficients_K: np.ndarray,
    chance_Q: np.ndarray,
    weigh: Callable[[np.ndarray, float], np.ndarray] = tilted,
) -> dict[str, np.ndarray]:
    """What every tilt gives: `kl` f64[K], the mean over prompts; means of every table, f64[K, Q]; and `draw` i[K, Q],
    one draw by its weights: that at which their sum passes `chance_Q` in the order of the proxy."""
    order_QN = np.argsort(proxy_QN, axis=1)
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("kl", *tables, "draw")}
    for coefficient in coefficients_K:
        weights_QN = weigh(proxy_QN, float(coefficient))
        found["kl"].append(kl_of(weights_QN).mean())
        for name, table_QN in tables.items():
            found[name].append(np.sum(weights_QN * table_QN, axis=1))
        passed_QN = np.cumsum(np.take_along_axis(weights_QN, order_QN, axis=1), axis=1) >= chance_Q[:, None]
        place_Q = np.where(passed_QN.any(axis=1), passed_QN.argmax(axis=1), proxy_QN.shape[1] - 1)
        found["draw"].append(np.take_along_axis(order_QN, place_Q[:, None], axis=1)[:, 0])
    return {name: np.array(values) for name, values in found.items()}


def of_tilts(pool: Pool, steps_MK: np.ndarray, weigh: Callable[[np.ndarray, float], np.ndarray]) -> Wording | None:
    """The wording under every tilt, [M, K, ...]; None where the draws are not at hand."""
    if pool.texts is None:
        return None

    def of_prompt(q: int) -> np.ndarray:
        every = zip(pool.proxy_MQN, steps_MK, strict=True)
        return np.concatenate([weigh(proxy_QN[q : q + 1], float(c)) for proxy_QN, steps_K in every for c in steps_K])

    return Wording(*(x.reshape(*steps_MK.shape, *x.shape[1:]) for x in pool.texts.under(of_prompt)))


METHOD = register(
    Method(
        name="tilt",
        title="exponential tilt of the pool",
        short="tilt",
        axis="lambda",
        kl="exact",
        kl_axis="KL distance between tilted and equally weighted draws, nats (square-root scale)",
        form="d(a - b d)",
        jobs=jobs,
        run=run,
        check=check,
        less_memory="on the host lower bon.draws or bon.prompts",
        rank=3,
    )
)
