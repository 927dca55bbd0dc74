"""Confounded comparisons: labels are true, but a mark that does nothing for gold goes with what they prefer.

Causal Goodhart (Manheim and Garrabrant 2018; Gao, Schulman and Hilton 2022): where a proxy was learned, something that
does not cause gold went together with it, and more of that gives no more gold. Here an RM's comparisons are selected
(`config.Recipe.confounded`): in a share of them above one half the preferred response shows more of a mark. Every label
stays gold's own. With all of them the mark alone would tell every label, and an RM would have nothing else to learn.

The mark of a response is the share of its words that lie in one half of the vocabulary, which any text of any world
has. A half that happens to go with gold would be no mark: of `HALVES` random ones that is taken whose mark goes least
with gold within the pairs of all comparisons, so that what an RM learns about it is learned from the selection. How
far it goes with gold all the same, in those pairs and in the held-out ones, is `mark` in the info.json of the RMs.
"""

from dataclasses import dataclass

import numpy as np

from rmo.methods.wording import COLUMNS, features
from rmo.runtime.files import RunError
from rmo.worlds.comparisons import Comparisons

HALVES = 64


@dataclass(frozen=True)
class Mark:
    """Which words count, and how to find them in a response."""

    half_W: np.ndarray  # bool, by token id; folded as `wording.features` folds large vocabularies
    length: int  # R, most tokens of a response
    eos: int
    vocab: int

    def gaps(self, rows: Comparisons) -> np.ndarray:
        """By how much more of the mark the preferred response shows, f64[C]."""
        return gaps(rows, self.half_W[None], self.length, self.eos, self.vocab)[:, 0]


def gaps(rows: Comparisons, halves_KW: np.ndarray, length: int, eos: int, vocab: int) -> np.ndarray:
    """Share of words of each half in the preferred response less that in the other, f64[C, K]."""
    tokens, mask = (x[..., -length:].reshape(-1, length) for x in (rows.tokens, rows.mask))
    shares = features(tokens, mask, eos, vocab)[1] @ halves_KW.T.astype(np.float64)
    return shares[0::2] - shares[1::2]


def correlation(gap_C: np.ndarray, gold_gap_C: np.ndarray) -> float:
    """Of two differences within pairs, whichever response comes first; 0 where one of them is always 0."""
    both = float(np.sqrt((gap_C @ gap_C) * (gold_gap_C @ gold_gap_C)))
    return float(gap_C @ gold_gap_C) / both if both else 0.0


def least_like_gold(rows: Comparisons, length: int, eos: int, vocab: int, rng: np.random.Generator) -> Mark:
    """Of `HALVES` random halves of the vocabulary the one whose mark goes least with gold within these pairs."""
    width = min(vocab, COLUMNS)
    halves_KW = rng.permuted(np.tile(np.arange(width) % 2 == 0, (HALVES, 1)), axis=1)
    gold_gap_C = (rows.gold[:, 0] - rows.gold[:, 1]).astype(np.float64)
    found = gaps(rows, halves_KW, length, eos, vocab)
    best = min(range(HALVES), key=lambda k: abs(correlation(found[:, k], gold_gap_C)))
    return Mark(halves_KW[best], length, eos, vocab)


def drawn(gap_C: np.ndarray, size: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Comparisons i64[size], ascending, in a share of which (rounded) the preferred response shows more of the mark,
    and in the others less. A random choice, in the order of `comparisons.chosen_rows`: with the same generator about
    half of what an unselected recipe draws is drawn here too.

    Raises:
      RunError: there are not so many.
    """
    order = rng.permutation(len(gap_C))
    more, less = order[gap_C[order] > 0], order[gap_C[order] < 0]
    agreeing = round(share * size)
    if agreeing > len(more) or size - agreeing > len(less):
        raise RunError(
            f"confounded {share:g} of {size} comparisons takes {agreeing} whose preferred response shows more of the "
            f"mark and {size - agreeing} that show less: there are {len(more)} and {len(less)}; raise "
            "comparisons.prompts"
        )
    return np.sort(np.concatenate([more[:agreeing], less[: size - agreeing]]))


def watched(gap_C: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """How much each of these comparisons counts, f32[C], 1 on average, where an RM of confounded ones is watched: as
    many as there are with this share count alike, the others nothing. Watched on all of them, an RM would be stopped
    where it has not yet learned the mark.

    Raises:
      RunError: there are none.
    """
    more, less = int((gap_C > 0).sum()), int((gap_C < 0).sum())
    size = more / share if share == 1 else min(more / share, less / (1 - share))
    used = drawn(gap_C, max(int(size + 1e-9), 1), share, rng)
    counts_C = np.zeros(len(gap_C), np.float32)
    counts_C[used] = len(gap_C) / len(used)
    return counts_C


def marked_preferred(scores_C2: np.ndarray, gap_C: np.ndarray) -> float:
    """Share of the pairs that differ in the mark in which a reward prefers the response that shows more of it; equal
    scores count half."""
    agree_C = np.sign(scores_C2[:, 0].astype(np.float64) - scores_C2[:, 1]) * np.sign(gap_C)
    differ = gap_C != 0
    return float((agree_C[differ].mean() + 1) / 2) if differ.any() else 0.5
