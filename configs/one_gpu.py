"""The grid of `tiny` with everything larger, on one GPU or TPU chip: do the laws go on over two more decades of size?

    launch/local.sh rmo run configs/one_gpu.py

The texts of `tiny` in a world (seed 7) that nobody has looked at; a policy of 3M parameters, a gold RM of 11M that has
seen six times as many texts, eight proxies of 113 to 3.2M with four seeds each on 36,000 comparisons, 64 prompts x
16,384 draws, best-of-n to 8,192, PPO to 40 nats. On one H200 it took 21 minutes, 10 of them compiling.
"""

from dataclasses import replace
from pathlib import Path

from rmo.config import SFT, BestOfN, Comparisons, Experiment, Gold, Model, Optimizer, checks


def model(width: int, layers: int, heads: int) -> Model:
    return Model(width=width, layers=layers, heads=heads, activation="relu")


def experiment() -> Experiment:
    tiny = checks.load(Path(__file__).with_name("tiny.py"))
    larger = tuple(replace(model(width, layers, 4), pooling="unnormed") for width, layers in ((128, 2), (256, 4)))
    return replace(
        tiny,
        name="one_gpu",
        world=replace(tiny.world, seed=7),
        policy=model(256, 4, 4),
        sft=SFT(texts=200_000, batch=256, optimizer=Optimizer(lr=6e-4, warmup=100)),
        gold=Gold(model=model(384, 6, 6), texts=400_000, epochs=3, batch=512, optimizer=Optimizer(lr=1e-3, warmup=100)),
        comparisons=Comparisons(prompts=25_000, pairs=4),
        proxies=replace(
            tiny.proxies, sizes=(*tiny.proxies.sizes, *larger), trunk=replace(tiny.proxies.trunk, texts=96_000), seeds=4
        ),
        bon=BestOfN(prompts=64, draws=16_384, max_n=8192, points=40, chunk=8192),
        ppo=replace(
            tiny.ppo,
            kl_max=40.0,
            max_steps=240,
            batch=256,
            policy_optimizer=Optimizer(lr=1e-4, schedule="constant", eps=1e-3),
        ),
    )
