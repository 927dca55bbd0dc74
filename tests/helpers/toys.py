"""A method, a way to combine RMs, a claim and a figure that rmo does not have: one file, named in RMO_PLUGINS."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from rmo.claims.claim import INF, claim
from rmo.config import Experiment, MethodSettings
from rmo.config.names import scored, scores_name
from rmo.methods.bench import Arm, Record
from rmo.methods.best_of_n import best_of_n, grid
from rmo.methods.method import Job, Method, register
from rmo.models.metrics import kl_bon
from rmo.report.figures.drawing import Files, drawing
from rmo.report.figures.style import panels
from rmo.rewards import combination


@dataclass(frozen=True)
class RandomTie(MethodSettings):
    """Best-of-n on scores rounded to `digits`, ties broken by chance."""

    digits: int = 1
    max_n: int = 16


def jobs(e: Experiment):
    for settings in (s for s in e.methods if isinstance(s, RandomTie)):
        for size, sweep, policy in scored(e):
            name = scores_name(e, size, sweep, policy)
            yield Job(name, name, settings, policy, details=settings)


def run(bench, job: Job) -> Record:
    pool, ns, rng = bench.pool(), grid(job.details.max_n, 8), bench.rng("ties")
    found = []
    for proxy_QN in pool.proxy_MQN:
        tied = np.round(proxy_QN, job.details.digits)
        broken = tied + 1e-6 * rng.random(tied.shape)
        proxy_KQ, gold_KQ = best_of_n(broken, pool.gold_QN, ns)
        found.append((proxy_KQ, gold_KQ))
    members = len(found)
    return Record(
        arms=[Arm(m) for m in range(members)],
        step_or_n=np.tile(ns, (members, 1)),
        kl=np.tile(kl_bon(ns), (members, 1)),
        proxy=np.stack([proxy for proxy, _ in found]),
        gold=np.stack([gold for _, gold in found]),
    )


register(
    Method(
        name="random_tie",
        title="best-of-n, ties broken by chance",
        short="random tie",
        axis="n",
        kl="bound",
        kl_axis="KL of best-of-n with ties, nats (square-root scale)",
        form="d(a - b d)",
        jobs=jobs,
        run=run,
    )
)


def midrange(scores_K, coefficient):
    return (scores_K.max(axis=0) + scores_K.min(axis=0)) / 2


combination.register(combination.Combination("midrange", "this file", scores=midrange))


@claim("C901", (0, INF), "toy_figure")
def toy_claim(view):
    """Ties are broken by chance.

    Gold at the largest n, mean over RM sizes."""
    return float(np.mean([view.line(g).gold[-1] for g in view.sizes("random_tie", 1)]))


@drawing
def toy_figure(f: Files) -> Figure:
    """A toy figure.

    Gold at the largest n."""
    figure, (axis,) = panels()
    groups = f.sizes("random_tie")
    axis.plot([g.params for g in groups], [g.curves[0].gold[-1] for g in groups], "o")
    return figure
