"""Every figure, table and claim of the paper in miniature: RM size x comparisons, policy sizes, KL penalties, epochs.

    launch/local.sh rmo run configs/paper_tiny.py

The models of `tiny`, three RM seeds, in three worlds (seeds 2, 3, 4) that nobody looked at while the world was designed
(that was on seed 0; 1 was seen with proxies that took means), one after another: runs/paper_tiny/world-2 and so on, and
worlds.html over all of them. `--worlds 3` is the second alone. The grid, with the figures it makes:

- RM size: six proxies of 113 to 98,689 parameters on 36,000 comparisons, best-of-n and PPO (Figs. 1, 3, 8, 11, 12, 16),
  and two smaller ones, trained to see whether they are at chance (Fig. 11, fn. 3).
- Comparisons: 500 to 36,000 for every size, best-of-n (Figs. 5, 6, 10, 17 to 19, 21); PPO for the second smallest
  (Fig. 4). All are trained for as many steps, or to their validation minimum.
- Epochs against unique data: 4 epochs on 2,000 against 1 on 2,000 and 1 on 8,000, every size but the
  largest (Fig. 13).
- Policy size: a second initial policy of a quarter of the parameters, a small and the largest RM (Figs. 7, 15, 22-24).
- KL penalty: 0, 0.05, 0.15 against the second largest RM (Figs. 9, 14, 25), 0, 0.05 at twice the rate, and PPO anchored
  to a path of KL.
- Beyond the paper: gold as its own proxy, 25% label noise, few against many prompts, weight decay, dropout, label
  smoothing, early stopping.

All three were run (configs/results/paper_tiny); configs/results/first_edition is of the first edition of
the world, with random weights to start from.
"""

from dataclasses import replace
from pathlib import Path

from rmo.config import Against, Comparisons, Experiment, OtherPolicy, Recipe, Sweep, checks

tiny = checks.load(Path(__file__).with_name("tiny.py"))
smallest = tiny.proxies.sizes[0]
EPOCHS = Recipe(2000, epochs=4)
SWEEPS = (
    Sweep("main", (Recipe(36_000),), sizes=(0, 1, 2, 3, 4, 5)),
    Sweep("small", (Recipe(36_000),), sizes=(6, 7), best_of_n=False),
    Sweep("data", (Recipe(500), Recipe(2000), Recipe(8000)), sizes=(0, 1, 2, 3, 4, 5)),
    Sweep("epochs", (Recipe(2000, epochs=1), EPOCHS, Recipe(8000, epochs=1)), sizes=(0, 1, 2, 3, 4)),
    Sweep("noise", (Recipe(36_000, flip=0.25),), sizes=(1, 3, 4)),
    Sweep("prompts", (Recipe(4000, prompts=500), Recipe(4000, prompts=4000)), sizes=(1, 3, 4)),
    Sweep(
        "regular",
        (
            replace(EPOCHS, weight_decay=1.0),
            replace(EPOCHS, dropout=0.1),
            replace(EPOCHS, smoothing=0.1),
            replace(EPOCHS, stop_early=True),
        ),
        sizes=(3, 4),
    ),
)


def experiment() -> Experiment:
    return replace(
        tiny,
        name="paper_tiny",
        worlds=(2, 3, 4),
        comparisons=Comparisons(prompts=5200, pairs=8),
        proxies=replace(
            tiny.proxies,
            sizes=(*tiny.proxies.sizes, replace(smallest, width=2, hidden=2), replace(smallest, width=2, hidden=1)),
            sweeps=SWEEPS,
            steps=36_000 // tiny.proxies.batch,
            stop_early=True,
            seeds=3,
        ),
        other_policies=(OtherPolicy(replace(tiny.policy, width=32), sizes=(1, 5)),),
        ppo=replace(
            tiny.ppo,
            against=(
                Against("main"),
                Against("data", sweep="data", sizes=(1,)),
                Against("penalty", sizes=(4,), kl_coefs=(0.05, 0.15)),
                Against("faster", sizes=(4,), kl_coefs=(0.0, 0.05), lr_scale=2.0),
                Against("anchored", sizes=(4,), d_per_step=0.05),
            ),
        ),
    )
