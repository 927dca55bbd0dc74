"""The paper's own sizes: 1.2B and 6B policies, 6B gold, nine proxies of 3M to 3B, 90,000 training comparisons.

    launch/local.sh rmo run configs/paper.py

Planned, not run. `rmo plan configs/paper.py` compiles its programs for a v5e:8x8 slice and finds that they fit without
--model-parallel (drawing from the 6.4B policy takes most, 15.3 of 15.7 GiB per chip); README shows the table.

This is what the paper did, written down as far as it says. Shapes are GPT-3's (12 L D^2 parameters without
embeddings, which reproduces the paper's 85M, 300M, 680M, 1.2B and 6B; 3M to 42M are the nearest such shapes). From its
Table 1: RM batch 64, RL batch 256, clip 0.2, lambda 0.95; multipliers 1.67e-2 and 4e-3 apply to GPT-3's learning rates,
which are nearly 0.41 / width (RM: 1.67e-2 * 0.41 / 16 at width 16; policy: 4e-3 * 0.41 / 2048). "256 timesteps per
rollout, 128 minibatches" is read as WebGPT's 256 x 256 completions per iteration in 128 minibatches of 512, one epoch.
Where the paper is silent: KL penalties, data sizes, seeds (3), lengths, draws per prompt (61,440; its largest n is
60,000; here the curve goes to 12,500), the critic (from the initial policy). The world is the synthetic one with a
large vocabulary; real text and human comparisons are a matter of data, not of this file (see configs/pythia.py).
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
    GoldAsProxy,
    Model,
    Optimizer,
    OtherPolicy,
    Proxies,
    Recipe,
    Sweep,
    checks,
)


def model(width: int, layers: int, heads: int) -> Model:
    shape = Model(width=width, layers=layers, heads=heads, positions="learned", dtype="bfloat16")
    return replace(shape, remat="full")


SIZES = (
    model(256, 4, 4),  # 3M
    model(512, 4, 8),  # 12M
    model(512, 8, 8),  # 25M
    model(768, 6, 12),  # 42M
    model(768, 12, 12),  # 85M
    model(1024, 24, 16),  # 300M
    model(1536, 24, 16),  # 680M
    model(2048, 24, 16),  # 1.2B
    model(2560, 32, 32),  # 3B (2.5B)
    model(128, 4, 2),  # 0.8M, too small
    model(128, 2, 2),  # 0.4M, too small
)
LARGE = model(4096, 32, 32)  # 6B
ADAM = Optimizer(lr=1e-5, b1=0.9, b2=0.95)


def experiment() -> Experiment:
    base = checks.load(Path(__file__).with_name("small.py"))
    swept = tuple(range(9))
    return replace(
        base,
        name="paper",
        world=replace(base.world, vocab=50_257, prompt=512, response=512, shortest=64, states=64, pairs=64),
        policy=SIZES[7],
        other_policies=(OtherPolicy(LARGE, sizes=(1, 8)),),
        sft=SFT(texts=13_000, epochs=2, batch=32, optimizer=replace(ADAM, lr=5e-6)),
        gold=Gold(model=LARGE, texts=60_000, epochs=1, batch=64, optimizer=replace(ADAM, lr=9e-6)),
        comparisons=Comparisons(prompts=50_000, pairs=2),
        proxies=Proxies(
            sizes=SIZES,
            sweeps=(
                Sweep("main", (Recipe(90_000),), sizes=swept),
                Sweep("small", (Recipe(90_000),), sizes=(9, 10), best_of_n=False),
                Sweep("data", (Recipe(1000), Recipe(2000)), sizes=swept),
                Sweep("epochs", (Recipe(8000), Recipe(2000, epochs=4)), sizes=swept),
                Sweep("more", (Recipe(25_000),), sizes=swept),
            ),
            seeds=3,
            batch=64,
            optimizer=replace(ADAM, lr=4.3e-4),
        ),
        bon=BestOfN(prompts=256, draws=61_440, max_n=12_500, points=48, chunk=512),
        gold_as_proxy=GoldAsProxy(ppo_seeds=0),  # as a reward gold would be held twice
        ppo=PPO(
            against=(
                Against("main"),
                Against("data", sweep="data", sizes=(1,)),
                Against("more", sweep="more", sizes=(1,)),
                Against("penalty", sizes=(7,), kl_coefs=(0.005, 0.02, 0.05)),
            ),
            kl_max=100.0,
            max_steps=400,
            prompts=31_000,
            batch=65_536,
            chunk=512,
            epochs=1,
            minibatches=128,
            clip=0.2,
            lam=0.95,
            policy_optimizer=replace(ADAM, lr=8e-7, schedule="constant", accumulate=4),
            critic_optimizer=replace(ADAM, lr=9e-6, schedule="constant", accumulate=4),
        ),
    )
