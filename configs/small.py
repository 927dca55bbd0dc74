"""The grid of `paper_tiny` on one accelerator: a harder world, a policy of 25M parameters, RMs over 3.5 decades.

    launch/local.sh rmo run configs/small.py

Longer texts over 512 words, twice the features and more of them pairs, gold of 85M parameters, nine proxies of 3k to
25M, 90,000 training comparisons as in the paper. Not run yet, so nothing is claimed of its numbers. Of its 161 stages
each compiles for 10 to 40 s on one H200, by those of `one_gpu`: it takes hours, not minutes.
"""

from dataclasses import replace
from pathlib import Path

from rmo.config import (
    PPO,
    SFT,
    Against,
    BestOfN,
    Comparisons,
    Experiment,
    Gold,
    Model,
    Optimizer,
    OtherPolicy,
    Proxies,
    Recipe,
    Sweep,
    World,
    checks,
)


def model(width: int, layers: int, heads: int) -> Model:
    return Model(width=width, layers=layers, heads=heads, dtype="bfloat16")


ADAM = Optimizer(lr=6e-4, warmup=100)
EPOCHS = Recipe(2000, epochs=4)


def experiment() -> Experiment:
    tiny = checks.load(Path(__file__).with_name("paper_tiny.py"))
    sizes = (
        model(16, 1, 1), model(32, 1, 2), model(48, 2, 3), model(64, 4, 4), model(128, 3, 4), model(256, 2, 4),
        model(256, 6, 4), model(512, 4, 8), model(512, 8, 8), model(8, 1, 1),
    )  # fmt: skip
    swept = tuple(range(9))
    return replace(
        tiny,
        name="small",
        worlds=(),
        world=World(vocab=512, prompt=12, response=64, states=16, shortest=32, unigrams=4, conditionals=4, pairs=12),
        policy=model(512, 8, 8),
        other_policies=(OtherPolicy(model(256, 4, 4), sizes=(2, 8)),),
        sft=SFT(texts=400_000, epochs=2, batch=512, optimizer=ADAM),
        gold=Gold(model=model(768, 12, 12), texts=600_000, epochs=2, batch=512, optimizer=replace(ADAM, lr=3e-4)),
        comparisons=Comparisons(prompts=25_000, pairs=4),
        proxies=Proxies(
            sizes=sizes,
            sweeps=(
                Sweep("main", (Recipe(90_000),), sizes=swept),
                Sweep("small", (Recipe(90_000),), sizes=(9,), best_of_n=False),
                Sweep("data", (Recipe(500), Recipe(1000), Recipe(2000)), sizes=swept),
                Sweep("epochs", (Recipe(8000), EPOCHS), sizes=swept),
                Sweep("more", (Recipe(30_000),), sizes=swept),
                Sweep("noise", (Recipe(90_000, flip=0.25),), sizes=(2, 5, 8)),
                Sweep("prompts", (Recipe(8000, prompts=2000), Recipe(8000, prompts=8000)), sizes=(2, 8)),
                Sweep(
                    "regular",
                    (
                        replace(EPOCHS, weight_decay=1.0),
                        replace(EPOCHS, dropout=0.1),
                        replace(EPOCHS, smoothing=0.1),
                        replace(EPOCHS, stop_early=True),
                    ),
                    sizes=(5, 8),
                ),
            ),
            seeds=3,
            optimizer=Optimizer(lr=5e-3),
        ),
        bon=BestOfN(prompts=128, draws=8192, max_n=4096, points=40, chunk=4096),
        ppo=PPO(
            against=(
                Against("main"),
                Against("data", sweep="data", recipes=(0, 1), sizes=(2,)),
                Against("data-8k", sweep="epochs", recipes=(0,), sizes=(2,)),
                Against("penalty", sizes=(7,), kl_coefs=(0.02, 0.05, 0.15)),
                Against("fast", sizes=(7,), kl_coefs=(0.0, 0.05), lr_scale=2.0),
            ),
            kl_max=60.0,
            max_steps=400,
            batch=512,
            policy_optimizer=Optimizer(lr=2e-5, schedule="constant"),
            critic_optimizer=Optimizer(lr=1e-4, schedule="constant"),
        ),
    )
