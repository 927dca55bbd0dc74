"""tiny (draft)"""

from rmo.config import *


def experiment():
    m = lambda w, l, h: Model(width=w, layers=l, heads=h, activation="relu")
    sizes = tuple(m(w, l, h) for w, l, h in [(8, 1, 2), (16, 1, 2), (32, 1, 4), (32, 2, 4), (64, 2, 4)])
    return Experiment(
        name="tiny",
        world=World(set_share=0.04, optimum=(0.7, 1.4)),
        policy=m(64, 2, 4),
        sft=SFT(texts=48_000),
        gold=Gold(texts=72_000, model=m(128, 2, 4), batch=128),
        bon=BestOfN(prompts=48),
        proxies=Proxies(sizes=sizes, optimizer=Optimizer(lr=5e-3)),
    )
