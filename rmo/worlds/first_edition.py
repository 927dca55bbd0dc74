"""The synthetic world's first edition, kept so that what was measured in it can be made again.

Its texts have no manner, so nothing that a policy has learned moves what is judged: PPO against gold itself reached 40%
of best-of-n's gold at equal KL. Its annotator wants exact counts where that of `synthetic.py` wants rates, and fluency
and variety are shares of the score. `FIRST` is the world that `configs/tiny.py` had; other worlds differ in `seed`.
"""

from functools import cached_property

import numpy as np

from rmo import config
from rmo.worlds.synthetic import SyntheticWorld, distinct_words, shared_out
from rmo.worlds.world import Texts

FIRST = config.World(
    edition=1, response=18, shortest=10, stop=0.12, questions=4, unigrams=3, conditionals=3, pairs=8, set_share=0.04,
    pair_share=0.2, weights=(0.35, 0.25, 0.25, 0.15), optimum=(0.7, 1.4), width=0.6, bigram=1.0,
    # What this edition does not have, at values that keep the names of its stages:
    manner=1.6, pair_manner=1.6, length_optimum=0.3, guard=(2.5, 0.8),
)  # fmt: skip


class FirstEdition(SyntheticWorld):
    """`config.World` with `edition` 1; the last of `weights` is the share of fluency and variety."""

    def manner(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return np.zeros((size, sum(self.kinds)))

    @cached_property
    def sweet_spots(self) -> dict[str, np.ndarray]:
        """optimum and width f64[F], weight f64[F + 2]: the guards' come last."""
        c, shares = self.c, zip([*self.kinds, 2], self.c.weights, strict=True)
        weight = np.concatenate([shared_out(share, n, c.decay) for n, share in shares])
        optimum = self.annotator["optimum"]
        return {"optimum": optimum, "width": c.width * optimum, "weight": weight / weight.sum()}

    def features(self, texts: Texts) -> np.ndarray:
        """Raw features f64[B, F]: counts of words, of answers and of pairs, fluency, variety."""
        counts, words_B = self.counts(texts)
        guards = [self.fluency(texts), distinct_words(texts) / np.maximum(words_B, 1)]
        return np.stack([*counts, *guards], axis=1).astype(np.float64)

    def score(self, texts: Texts) -> np.ndarray:
        """The annotator's score f64[B], within [0, 1]."""
        spots, z = self.sweet_spots, self.standardised(texts)
        sweet = len(spots["optimum"])
        value = np.exp(-(((z[:, :sweet] - spots["optimum"]) / spots["width"]) ** 2) / 2)
        guard = np.exp(-((np.minimum(z[:, sweet:], 0) / 1.5) ** 2) / 2)
        return np.concatenate([value, guard], axis=1) @ spots["weight"]
