"""Every stage of the pipeline in under a minute on 2 CPU cores: does it run, resume, and report?

    launch/local.sh rmo run configs/smoke.py

Its numbers mean nothing: the networks are tiny, hardly trained.
"""

from rmo.config import (
    PPO,
    SFT,
    Against,
    BestOfN,
    Comparisons,
    Experiment,
    Fits,
    Gold,
    Model,
    Optimizer,
    Proxies,
    Recipe,
    Sweep,
    World,
)


def model(width: int) -> Model:
    return Model(width=width, layers=1, heads=2, activation="relu")


def experiment() -> Experiment:
    return Experiment(
        name="smoke",
        note="This run only shows that every stage works. Its networks are hardly trained: its numbers mean nothing.",
        world=World(vocab=24, prompt=4, response=10, shortest=4, states=4, unigrams=2, conditionals=1, pairs=2),
        policy=model(16),
        sft=SFT(texts=2048, epochs=2, batch=64, optimizer=Optimizer(lr=1e-2)),
        gold=Gold(model=model(32), texts=2400, epochs=1, batch=64, optimizer=Optimizer(lr=5e-3)),
        comparisons=Comparisons(prompts=300, pairs=4),
        proxies=Proxies(
            sizes=(model(8), model(16), model(24)),
            sweeps=(Sweep(recipes=(Recipe(1024),)),),
            optimizer=Optimizer(lr=1e-2),
        ),
        bon=BestOfN(prompts=8, draws=128, max_n=32, points=12, chunk=128),
        ppo=PPO(
            against=(Against(sizes=(0,)),), kl_max=2.0, max_steps=40, d_step=0.2, prompts=128, batch=64, minibatches=2,
            read_draws=4,
            policy_optimizer=Optimizer(lr=2e-3, schedule="constant"),
        ),
        fits=Fits(bootstrap=100),
    )  # fmt: skip
