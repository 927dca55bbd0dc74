"""The smoke experiment cut down until a stage takes about a second: every kind of stage of a synthetic world is in it."""

import dataclasses

from rmo.config import SFT, Experiment, Optimizer, Recipe, Sweep
from tests.helpers.smoke import SMOKE


def experiment() -> Experiment:
    narrow = dataclasses.replace(SMOKE.policy, width=8)
    return dataclasses.replace(
        SMOKE,
        name="smallest",
        world=dataclasses.replace(SMOKE.world, response=6),
        policy=narrow,
        sft=dataclasses.replace(SMOKE.sft, texts=256, epochs=1),
        gold=dataclasses.replace(SMOKE.gold, model=dataclasses.replace(narrow, width=16), texts=256),
        comparisons=dataclasses.replace(SMOKE.comparisons, prompts=80, pairs=2),
        proxies=dataclasses.replace(
            SMOKE.proxies,
            sizes=(narrow,),
            sweeps=(Sweep(recipes=(Recipe(128),)),),
            start="language_model",
            trunk=SFT(texts=256, epochs=1, batch=64, optimizer=Optimizer(lr=1e-2)),
        ),
        bon=dataclasses.replace(SMOKE.bon, prompts=3, draws=32, max_n=8, points=5, chunk=32),
        ppo=dataclasses.replace(SMOKE.ppo, max_steps=5, prompts=64, batch=32, minibatches=1, read_draws=2),
        fits=dataclasses.replace(SMOKE.fits, bootstrap=20),
    )
