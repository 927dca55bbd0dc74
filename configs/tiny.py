"""Reward-model overoptimization on a laptop: the paper's Figures 1, 3, 8 and 11 in miniature, best-of-n and PPO.

    launch/local.sh rmo run configs/tiny.py

Synthetic text (64 words, responses of up to 18 tokens), a 98k-parameter policy, a 394k-parameter gold RM, six proxies
of 457 to 98,689 parameters with two seeds each, 48 prompts x 4,096 draws, PPO to 32 nats against five of them.

12 min 49 s on 2 CPU cores, 2.4 GB. Gold peaks (means over seeds, gold standard deviations above the initial policy):
best-of-n 0.86, 1.38, 1.60, 1.89, 2.12, 2.20 from the smallest proxy to the largest, the smallest falling to 0.50 at
n = 2048; PPO 0.59, 0.63, 0.62, 0.64, 1.02 (without the 801-parameter proxy), falling to between -3.10 and -0.20 at 32
nats. Curves, coefficients and figures: configs/results/tiny/.
"""

from rmo.config import PPO, SFT, Against, BestOfN, Comparisons, Experiment, Gold, Model, Optimizer, Proxies, World


def model(width: int, layers: int, heads: int) -> Model:
    return Model(width=width, layers=layers, heads=heads, activation="relu")


def experiment() -> Experiment:
    return Experiment(
        name="tiny",
        world=World(),
        policy=model(64, 2, 4),
        sft=SFT(texts=48_000),
        gold=Gold(model=model(128, 2, 4), texts=64_000, batch=128),
        comparisons=Comparisons(prompts=10_000, pairs=4),
        proxies=Proxies(
            sizes=(model(6, 1, 1), model(8, 1, 2), model(16, 1, 2), model(32, 1, 4), model(32, 2, 4), model(64, 2, 4)),
            seeds=2,
            optimizer=Optimizer(lr=5e-3),
        ),
        bon=BestOfN(prompts=48, draws=4096, max_n=2048),
        ppo=PPO(
            against=(Against(sizes=(0, 2, 3, 4, 5)),),
            kl_max=32.0,
            max_steps=300,
            policy_optimizer=Optimizer(lr=5e-5, schedule="constant"),
        ),
    )
