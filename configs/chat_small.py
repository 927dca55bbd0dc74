"""`chat` in seven minutes on two CPU cores: less of everything, two seeds, PPO to 40 nats. Gold is VADER valence too.

    EXTRAS=dev,chat launch/local.sh rmo run configs/chat_small.py --jobs 2

A policy of 0.23M parameters; proxies of 801, 12,417 and 98,689 on 2,000 comparisons and on 200. Its networks are
trained for less, so its numbers are not those of `chat`, and two seeds decide nothing. At most 2.6 GB in a process.
"""

from dataclasses import replace
from pathlib import Path

from rmo.config import Against, BestOfN, Comparisons, Experiment, Recipe, Sweep, checks

chat = checks.load(Path(__file__).with_name("chat.py"))


def experiment() -> Experiment:
    return replace(
        chat,
        name="chat_small",
        policy=replace(chat.policy, width=64, layers=2),
        sft=replace(chat.sft, texts=24_000, optimizer=replace(chat.sft.optimizer, lr=2e-3)),
        gold=replace(chat.gold, texts=24_000, epochs=2),
        comparisons=Comparisons(prompts=900, pairs=4),
        proxies=replace(
            chat.proxies,
            sizes=(chat.proxies.sizes[0], *chat.proxies.sizes[2:]),
            sweeps=(Sweep("main", (Recipe(2000),)), Sweep("data", (Recipe(200),))),
            trunk=replace(chat.proxies.trunk, texts=8000),
            steps=2000 // chat.proxies.batch,
            seeds=2,
        ),
        bon=BestOfN(prompts=24, draws=512, max_n=256),
        ppo=replace(
            chat.ppo, against=(Against("main", sizes=(0, 2)),), kl_max=40.0, max_steps=100, prompts=1024,
        ),
    )  # fmt: skip
