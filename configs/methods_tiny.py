"""Every way to optimise and every hedge, on the same axes: one world, one gold, the same RMs, the same KL.

    launch/local.sh rmo run configs/methods_tiny.py
    launch/local.sh rmo hedges runs/methods_tiny

The models of `tiny` with three seeds, in a world (seed 6) that nobody has looked at. What is compared, with its claims:

- At inference, from the pool: soft best-of-n, best-of-Poisson, pessimism over n, tilts by chi-squared (which are
  pessimism's with all draws; H1 to H5).
- Other RL: RLOO and GRPO; a penalty on KL, on chi-squared, on length; a bounded reward; policies averaged with their
  start; stops without gold (H10 to H19).
- Direct alignment on the labels themselves: DPO and IPO over beta (H20 to H29).
- Several RMs as one, on clean and on noisy labels, by seeds and by sizes (H30 to H39, but for those about PPO, H36 and
  H39: PPO runs against whole ensembles only, and one ensemble has no interval over seeds).
- Rounds of labelling, training and optimising (C22, H40 to H45), or of training on the first labels, reweighted or all
  alike (H46, H47).
- What labels buy: active choice, noise (H50 to H53).
- Kinds of Goodhart that are made on purpose: comparisons in which a mark goes with gold, beside as many in which it
  does not (C25, H54, H55), and a backdoor for PPO, a pair of words that at most 3 in 1,000 responses hold at the start
  (H56 to H58): PPO meets it about 46 times on its way if that stays so, and one of 300 draws holds it in 6 of 10 cases.

PPO and its kin run against one RM of 209 parameters, which PPO overoptimises, and PPO against one of 3,137 beside it.
`--only soft_best_of_n` makes one method alone. With `--jobs 2` it took 1 h 52 min on two cores that had other work
too: 194 minutes of stages, of which direct alignment 38, rounds 41, other RL 42, RMs and their scores 34, gold 8.
"""

from dataclasses import replace
from pathlib import Path

from rmo.config import (
    Against,
    Combined,
    Comparisons,
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

tiny = checks.load(Path(__file__).with_name("tiny.py"))
SEEDS, SMALL, LARGE = 3, 1, 3  # of tiny's RM sizes
ALONE = (Combined("mean"), Combined("worst", "worst_case"), Combined("uwo", "uncertainty_penalised"))
COMBINED = tuple(one for several in ALONE for one in with_each_left_out(several, SEEDS))
COMBINED = (*COMBINED, *with_each_left_out(Combined("warm", "weight_averaged"), SEEDS), Combined("median", "median"))
NAMES = [one.name for one in COMBINED]
MEAN, WORST, WARM = (NAMES.index(name) for name in ("mean", "worst", "warm"))  # in PPO: without leave-one-out
SWEEPS = (
    Sweep("main", (Recipe(36_000),), combined=COMBINED),
    Sweep("noise", (Recipe(36_000, flip=0.25),), (SMALL, LARGE), combined=COMBINED),
    Sweep("few", (Recipe(2000), Recipe(4000), Recipe(8000)), (SMALL, LARGE)),
    Sweep(
        "active", (Recipe(4000, choice="uncertain"), Recipe(4000, choice="disagreement")), (SMALL, LARGE), first="few"
    ),
    Sweep("confounded", (Recipe(12_000), Recipe(12_000, confounded=0.8)), (SMALL, LARGE)),
)
AT_INFERENCE = (
    SoftBestOfN((0.03, 0.1, 0.3), max_n=2048, points=24),
    BestOfPoisson(max_n=2048, points=24),
    PessimismOverN(max_n=2048),
    ChiSquaredTilt(),
)
OTHER_RL = (
    Rloo((Against(sizes=(SMALL,)),)),
    Grpo((Against(sizes=(SMALL,)),)),
    Bounded(Against("bounded", sizes=(SMALL,))),
    LengthPenalty(Against("length", sizes=(SMALL,))),
    ChiSquared(Against("chi_squared", sizes=(SMALL,)), coefs=(0.01,)),
    Backdoor(Against("backdoor", sizes=(SMALL,)), rarity=0.003),
    WeightAverage(),
)
DIRECT = Direct(
    losses=("dpo", "ipo"), betas=(0.005, 0.02, 0.1), epochs=2, optimizer=Optimizer(lr=1e-4, schedule="constant"),
    look=8, look_draws=2, read_draws=16,
)  # fmt: skip
# On 4,000 comparisons a round, recipe 1 of the sweep "few", which PPO is run against too: rounds label as they go.
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
        tiny,
        name="methods_tiny",
        world=replace(tiny.world, seed=6),
        comparisons=Comparisons(prompts=5200, pairs=8),
        proxies=replace(tiny.proxies, sweeps=SWEEPS, seeds=SEEDS, steps=36_000 // tiny.proxies.batch, stop_early=True),
        ensembles=with_each_left_out(Ensemble("sizes", sizes=(1, 2, 3)), SEEDS),
        ppo=replace(
            tiny.ppo,
            against=(
                Against("main", sizes=(SMALL,), combined=(MEAN, WORST, WARM), ensembles=(0,)),
                Against("larger", sizes=(LARGE,)),
                Against("noise", sweep="noise", sizes=(SMALL,), combined=(MEAN, WORST)),
                Against("few", sweep="few", sizes=(SMALL,), recipes=(1,)),
                Against("penalty", sizes=(SMALL,), kl_coefs=(0.05,)),
            ),
        ),
        methods=(*AT_INFERENCE, *OTHER_RL, DIRECT, *ROUNDS),
    )
