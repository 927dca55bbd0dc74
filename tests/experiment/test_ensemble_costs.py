"""Labels that several reward models are trained on, each counted once."""

from dataclasses import replace

import numpy as np

from rmo import config
from rmo.config import Comparisons, Recipe
from rmo.experiment.ensembles import labels
from rmo.worlds.comparisons import chosen_rows

E = config.Experiment(comparisons=Comparisons(prompts=50, pairs=1, held_out=0.2))  # a stock of 40


def test_seeds_that_use_all_comparisons_share_them():
    assert labels(E, Recipe(40), seeds=1) == 40
    assert labels(E, Recipe(40), seeds=5) == 40


def test_noisy_labels_are_each_seeds_own():
    assert labels(E, Recipe(40, flip=0.25), seeds=5) == 200


def test_seeds_that_draw_share_as_many_as_is_expected():
    assert labels(E, Recipe(20), seeds=2) == 30  # half of the second's 20 are the first's
    drawn = [set(chosen_rows(np.arange(40), Recipe(20), np.random.default_rng(seed)).tolist()) for seed in range(400)]
    unions = [len(a | b) for a, b in zip(drawn[::2], drawn[1::2], strict=True)]
    assert abs(np.mean(unions) - 30) < 0.5


def test_comparisons_that_are_watched_are_labelled_too():
    large = replace(
        E, comparisons=Comparisons(prompts=2500, pairs=1, held_out=0.2)
    )  # 2,000, of which 1,000 are watched
    assert labels(large, Recipe(1000, stop_early=True), seeds=3) == 2000
    assert labels(large, Recipe(500, stop_early=True), seeds=1) == 1500
