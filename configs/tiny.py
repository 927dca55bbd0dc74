"""Reward-model overoptimization on a laptop: the paper's Figures 1, 3, 8 and 11 in miniature, best-of-n and PPO.

    launch/local.sh rmo run configs/tiny.py

Synthetic text (64 words, responses of up to 32 tokens, in a manner), a 98k-parameter policy, a 394k-parameter gold RM,
six proxies of 113 to 98,689 parameters with two seeds each, which start from language models of their shapes, 32
prompts x 4,096 draws, PPO to 24 nats against all of them and against gold.

The results beside it, configs/results/tiny/, are of `--world.seed 5`: the world was designed on seed 0.
"""

from dataclasses import replace

from rmo.config import PPO, SFT, Against, BestOfN, Comparisons, Experiment, Gold, Model, Optimizer, Proxies, World


def model(width: int, layers: int, heads: int) -> Model:
    return Model(width=width, layers=layers, heads=heads, activation="relu")


def reward_model(width: int, layers: int, heads: int, hidden: int = 0) -> Model:
    """Without a norm before its head: behind one, a narrow RM cannot say how good a text is."""
    return replace(model(width, layers, heads), pooling="unnormed", hidden=hidden)


def experiment() -> Experiment:
    return Experiment(
        name="tiny",
        world=World(),
        policy=model(64, 2, 4),
        sft=SFT(texts=48_000),
        gold=Gold(model=model(128, 2, 4), texts=64_000, epochs=4, batch=128, optimizer=Optimizer(lr=2e-3)),
        comparisons=Comparisons(prompts=10_000, pairs=4),
        proxies=Proxies(
            sizes=(
                reward_model(4, 1, 1, hidden=4), reward_model(4, 1, 1), reward_model(8, 1, 2), reward_model(16, 1, 2),
                reward_model(32, 1, 4), reward_model(64, 2, 4),
            ),
            start="language_model",
            trunk=SFT(texts=24_000, epochs=1, optimizer=Optimizer(lr=4e-3)),
            seeds=2,
            optimizer=Optimizer(lr=5e-3),
        ),
        bon=BestOfN(prompts=32, draws=4096, max_n=2048),
        ppo=PPO(
            against=(Against(),),
            kl_max=24.0,
            max_steps=120,
            d_step=0.3,
            batch=128,
            read_draws=32,
            policy_optimizer=Optimizer(lr=1.5e-4, schedule="constant", eps=1e-3),
        ),
    )  # fmt: skip
