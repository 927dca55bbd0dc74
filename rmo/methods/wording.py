"""How long responses are and which words they use, whatever the order: what a policy's shift in KL is told apart by.

Words are the tokens before a response's EOS. Of every response the number of words and each token's share among them
are known; means of these over a policy's responses, or over weighted draws of the pool, are its `Wording`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

COLUMNS = 4096  # larger vocabularies are folded into so many, by id: a KL between rates can only become smaller


class Wording(NamedTuple):
    """Means over responses."""

    lengths: np.ndarray  # f64[..., R + 1], share of the responses that have 0 .. R words
    rates: np.ndarray  # f64[..., W], a token's mean share among the words of a response
    texts: np.ndarray  # f64[...], how many independent responses these are means of


def features(tokens_NR: np.ndarray, mask_NR: np.ndarray, eos: int, vocab: int) -> tuple[np.ndarray, sparse.csr_matrix]:
    """(words i64[N] of every response, each token's share among them [N, W])."""
    word_NR = mask_NR & (tokens_NR != eos)
    length_N, columns = word_NR.sum(axis=1), min(vocab, COLUMNS)
    row = np.nonzero(word_NR)[0]
    entries = 1 / length_N[row], (row, tokens_NR[word_NR].astype(np.int64) % columns)
    return length_N, sparse.csr_matrix(entries, shape=(len(tokens_NR), columns))


def one_hot(length_N: np.ndarray, longest: int) -> sparse.csr_matrix:
    """Lengths as indicators, [N, R + 1]."""
    entries = np.ones(len(length_N)), (np.arange(len(length_N)), length_N)
    return sparse.csr_matrix(entries, shape=(len(length_N), longest + 1))


def wording(tokens_NR: np.ndarray, mask_NR: np.ndarray, eos: int, vocab: int) -> Wording:
    """Of equally weighted responses."""
    length_N, rates_NW = features(tokens_NR, mask_NR, eos, vocab)
    lengths = np.bincount(length_N, minlength=tokens_NR.shape[1] + 1) / len(length_N)
    return Wording(lengths, np.asarray(rates_NW.mean(axis=0)).ravel(), np.array(float(len(length_N))))


@dataclass(frozen=True)
class PoolTexts:
    """The responses of a pool, prompt by prompt."""

    draws: Callable[[int], tuple[np.ndarray, np.ndarray]]  # prompt -> (tokens i[N, R], mask bool[N, R])
    prompts: int
    eos: int
    vocab: int

    def under(self, weights: Callable[[int], np.ndarray]) -> Wording:
        """The wording of weighted draws, means over prompts; `weights` gives f64[A, N] of a prompt, rows of sum 1. The
        independent responses are Kish's effective number of draws."""
        lengths, rates, spent = [], [], []
        for q in range(self.prompts):
            tokens_NR, mask_NR = self.draws(q)
            length_N, rates_NW = features(tokens_NR, mask_NR, self.eos, self.vocab)
            weights_AN = weights(q)
            lengths.append(weights_AN @ one_hot(length_N, tokens_NR.shape[1]))
            rates.append(weights_AN @ rates_NW)
            spent.append((weights_AN**2).sum(axis=1))
        texts_A = self.prompts**2 / np.sum(spent, axis=0)
        return Wording(np.mean(lengths, axis=0), np.mean(rates, axis=0), texts_A)
