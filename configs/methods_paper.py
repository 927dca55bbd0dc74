"""The grid of `methods_tiny` at the paper's sizes: every way to optimise and every hedge against RMs of 12M and 300M.

    launch/local.sh rmo run configs/methods_paper.py

Models, world, gold and 90,000 comparisons of `paper`: a 1.2B policy, 6B gold, nine proxies of 3M to 3B, best-of-n to
n = 12,500 (8.4 nats), RL to 100 nats. It has been neither run nor planned; `rmo plan configs/methods_paper.py` knows
its models and its RL against single RMs, not direct alignment, rounds and RL against several RMs. What is taken from
other papers, whose scores have other units than ours (a unit here stands for one standard deviation of gold), so that
coefficients are places to start from:

- Ensembles of 5 RMs, clean and with 25% label noise; variance weighed 0.5 in best-of-n and 0.1 in PPO; KL penalties of
  0.01, which is enough beside an ensemble, and 0.2, which one RM needs, each against one RM and against ensembles by
  mean, worst case and variance (Coste et al. 2023). Weight averages are of 5 RMs where Rame et al. (2024) took 6.
- Direct alignment: one epoch in batches of 128 at a rate of 5e-7 (Rafailov et al. 2024, with RMSProp; here Adam); they
  took seven betas, here are four over two decades.
- Chi-squared: 0.0008 (Laidlaw et al. 2024, whose root of chi-squared is of single tokens' states and actions; ours is
  of whole responses, and larger), and ten times that.
- RLOO with 4 responses to a prompt (Ahmadian et al. 2024), GRPO with 64 (Shao et al. 2024).
- Four rounds, and all ways to go on (Wolf et al. 2025); two rounds on reweighted labels beside two that label anew and
  two that weigh the same labels alike.

Ours, where papers say nothing: temperatures, betas of pessimism, 0.005 for every token too many, 12,500
comparisons a round, 30,000 where a mark goes with gold in 80%, 4 for a backdoor that at most one response in 1,000
opens at the start (a pair of words, looked for in all 15.7M of the pool, up to 64 GB of pairs where they are held at
once; `Backdoor(trigger=...)` names one without). RL batches have 4,096 episodes where `paper` has 65,536, with sixteen
times the iterations: RLOO takes each in one step.
"""

from dataclasses import replace
from pathlib import Path

from rmo.config import (
    Against,
    Combined,
    Ensemble,
    Experiment,
    Optimizer,
    Recipe,
    Sweep,
    checks,
    with_each_left_out,
)
from rmo.methods.best_of_poisson import BestOfPoisson
from rmo.methods.chi_squared_tilt import ChiSquaredTilt
from rmo.methods.direct.settings import Direct
from rmo.methods.grpo import Grpo
from rmo.methods.pessimism import PessimismOverN
from rmo.methods.ppo.backdoor import Backdoor
from rmo.methods.ppo.bounded import Bounded
from rmo.methods.ppo.chi_squared import ChiSquared
from rmo.methods.ppo.length_penalty import LengthPenalty
from rmo.methods.rloo import Rloo
from rmo.methods.rounds.door import Rounds
from rmo.methods.soft_best_of_n import SoftBestOfN
from rmo.methods.weight_average import WeightAverage

paper = checks.load(Path(__file__).with_name("paper.py"))
SEEDS, SMALL, LARGE = 5, 1, 5  # of paper's RM sizes: 12M and 300M
SWEPT = tuple(range(9))  # without those that are too small
MAX_N, POINTS = paper.bon.max_n, paper.bon.points
ALONE = (
    Combined("mean"),
    Combined("worst", "worst_case"),
    Combined("uwo", "uncertainty_penalised", coefficient=0.5),
    Combined("warm", "weight_averaged"),
)
COMBINED = tuple(one for several in ALONE for one in with_each_left_out(several, SEEDS))
COMBINED = (*COMBINED, Combined("uwo-ppo", "uncertainty_penalised", coefficient=0.1), Combined("median", "median"))
NAMES = [one.name for one in COMBINED]
MEAN, WORST, UWO, WARM = (NAMES.index(name) for name in ("mean", "worst", "uwo-ppo", "warm"))
SWEEPS = (
    Sweep("main", (Recipe(90_000),), SWEPT, combined=COMBINED),
    Sweep("noise", (Recipe(90_000, flip=0.25),), (SMALL, LARGE), combined=COMBINED),
    Sweep("few", (Recipe(6250), Recipe(12_500), Recipe(25_000)), (SMALL, LARGE)),
    Sweep(
        "active",
        (Recipe(12_500, choice="uncertain"), Recipe(12_500, choice="disagreement")),
        (SMALL, LARGE),
        first="few",
    ),
    Sweep("confounded", (Recipe(30_000), Recipe(30_000, confounded=0.8)), (SMALL, LARGE)),
)
AT_INFERENCE = (
    SoftBestOfN((0.03, 0.1, 0.3), max_n=MAX_N, points=POINTS),
    BestOfPoisson(max_n=MAX_N, points=POINTS),
    PessimismOverN(max_n=MAX_N),
    ChiSquaredTilt(),
)
OTHER_RL = (
    Rloo((Against(sizes=(SMALL,)),), responses=4),
    Grpo((Against(sizes=(SMALL,)),), responses=64),
    Bounded(Against("bounded", sizes=(SMALL,))),
    LengthPenalty(Against("length", sizes=(SMALL,)), coefs=(0.005,)),
    ChiSquared(Against("chi_squared", sizes=(SMALL,)), coefs=(0.0008, 0.008)),
    Backdoor(Against("backdoor", sizes=(SMALL,))),
    WeightAverage(),
)
DIRECT = Direct(
    losses=("dpo", "ipo"), betas=(0.005, 0.02, 0.1, 0.5), seeds=3, batch=128,
    optimizer=Optimizer(lr=5e-7, schedule="constant"), kl_max=100.0, read_draws=16, chunk=512,
)  # fmt: skip
# On 12,500 comparisons a round, recipe 1 of the sweep "few", which PPO is run against too: rounds label as they go.
ROUNDS = (
    Rounds(2, SMALL, "few", 1),
    Rounds(2, SMALL, "few", 1, data="reweighted"),
    Rounds(2, SMALL, "few", 1, data="reweighted", flatten=0.0),  # trained anew, weighed alike: its control
    Rounds(4, SMALL, "few", 1),
    Rounds(4, SMALL, "few", 1, data="concatenated"),
    Rounds(4, SMALL, "few", 1, start="initial"),
    Rounds(4, SMALL, "few", 1, data="concatenated", start="initial"),
)


def experiment() -> Experiment:
    return replace(
        paper,
        name="methods_paper",
        world=replace(paper.world, seed=6),
        other_policies=(),
        proxies=replace(paper.proxies, sizes=paper.proxies.sizes[: len(SWEPT)], sweeps=SWEEPS, seeds=SEEDS),
        ensembles=with_each_left_out(Ensemble("sizes", sizes=(1, 2, 3)), SEEDS),
        ppo=replace(
            paper.ppo,
            against=(
                Against("main", sizes=(SMALL,), combined=(MEAN, WORST, UWO, WARM), ensembles=(0,)),
                Against("larger", sizes=(LARGE,)),
                Against("noise", sweep="noise", sizes=(SMALL,), combined=(MEAN, WORST, UWO)),
                Against("few", sweep="few", sizes=(SMALL,), recipes=(1,)),
                Against("penalty", sizes=(SMALL,), combined=(MEAN, WORST, UWO), kl_coefs=(0.01, 0.2)),
            ),
            batch=4096,
            minibatches=8,
            max_steps=6400,
            patience=640,
        ),
        methods=(*AT_INFERENCE, *OTHER_RL, DIRECT, *ROUNDS),
    )
