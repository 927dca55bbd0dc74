"""What an optimiser makes of its KL: its gold beside another's at equal KL, and what length and words have of both.

A policy's shift is split in three, one after the other: the length of responses, the rates of words, and the rest,
which is order, context and what the first two cannot tell.

- KL of the lengths is that of the two distributions of lengths. KL of the words is the expected length times the KL of
  the mean rates of words, as if words were drawn one by one, independently of length, place and prompt: an
  approximation, and not a bound. The rest is what is left of the policy's whole KL (it can be negative).
- Gold's gain is split by a linear model of gold on the initial policy's own texts, within prompts: first length alone
  (any function of it), then the rates of words given length. The rest is what that model does not expect, its own
  failure far from the initial policy included.

Both KLs are plug-in estimates from finitely many texts, less their first bias (Miller 1955): (cells - 1) / 2n.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

from rmo.analysis.bootstrap import interval, resample
from rmo.analysis.curve import Curve, regrid
from rmo.runtime.types import Row

RIDGE = 1e-4  # of the mean variance of the features


class Parts(NamedTuple):
    """A quantity by what makes it, f64[K] each."""

    length: np.ndarray
    words: np.ndarray
    rest: np.ndarray


@dataclass(frozen=True)
class InitialTexts:
    """Lengths and rates of words of the initial policy's texts, and what gold makes of them."""

    lengths: np.ndarray  # f64[L], share of the texts that have so many words
    rates: np.ndarray  # f64[W], mean share of each word
    texts: float
    by_length: np.ndarray  # f64[L], gold on length alone
    rates_by_length: np.ndarray  # f64[L, W], rates on length alone
    by_rate: np.ndarray  # f64[W], gold on rates given length
    explained: tuple[float, float]  # shares of gold's variance within prompts: by length, by both

    def kl_parts(self, kl: np.ndarray, lengths_KL: np.ndarray, rates_KW: np.ndarray, texts_K: np.ndarray) -> Parts:
        """Of a path's KL, f64[K], of which `texts_K` independent texts show lengths and rates."""
        length = corrected(lengths_KL, self.lengths, texts_K, self.texts)
        words_per_text = lengths_KL @ np.arange(lengths_KL.shape[1])
        spoken = np.maximum(rates_KW.sum(axis=1, keepdims=True), 1e-12)  # less than 1 where responses have no word
        count_K = texts_K * np.maximum(words_per_text, 1)
        words = words_per_text * corrected(rates_KW / spoken, self.rates / self.rates.sum(), count_K, self.texts)
        return Parts(length, words, kl - length - words)

    def gold_parts(self, gold: np.ndarray, lengths_KL: np.ndarray, rates_KW: np.ndarray) -> Parts:
        """Of a path's gain in gold, f64[K]."""
        longer, other = lengths_KL - self.lengths, rates_KW - self.rates
        length = longer @ self.by_length
        words = (other - longer @ self.rates_by_length) @ self.by_rate
        return Parts(length, words, gold - length - words)


def corrected(p_KC: np.ndarray, q_C: np.ndarray, n_K: np.ndarray, reference: float) -> np.ndarray:
    """KL(p || q) f64[K] of distributions over cells, p seen in n draws, less its bias and not below 0. q, seen in
    `reference` draws, has half a draw more in every cell that either fills."""
    seen_KC = (p_KC > 0) | (q_C > 0)
    smooth_KC = np.where(seen_KC, reference * q_C + 0.5, 0.0)
    smooth_KC /= smooth_KC.sum(axis=1, keepdims=True)
    ratio_KC = np.where(p_KC > 0, p_KC, 1.0) / np.where(p_KC > 0, smooth_KC, 1.0)
    plug_in = np.sum(p_KC * np.log(ratio_KC), axis=1)
    return np.maximum(plug_in - ((p_KC > 0).sum(axis=1) - 1) / (2 * n_K), 0.0)


def describe_texts(
    tables: Iterable[tuple[sparse.csr_matrix, sparse.csr_matrix, np.ndarray]],
) -> InitialTexts:
    """From (lengths as indicators [N, L], rates [N, W], gold f64[N]) of every prompt: least squares on deviations from
    the prompt's means, a ridge on the rates, which are collinear."""
    gram: np.ndarray = np.zeros(())
    means: np.ndarray = np.zeros(())
    count, prompts, size = 0, 0, (0, 0)
    for lengths_NL, rates_NW, gold_N in tables:
        size = lengths_NL.shape[1], rates_NW.shape[1]  # type: ignore[index]
        every = sparse.hstack([lengths_NL, rates_NW, sparse.csr_matrix(gold_N[:, None])]).tocsr()
        mean, texts = np.asarray(every.mean(axis=0)).ravel(), len(gold_N)
        gram = gram + np.asarray((every.T @ every).todense()) - texts * np.outer(mean, mean)
        means, count, prompts = means + mean, count + texts, prompts + 1
    l, w = slice(0, size[0]), slice(size[0], sum(size))
    means = means / prompts
    inverse = np.linalg.pinv(gram[l, l], rcond=1e-10, hermitian=True)
    by_length, rates_by_length = inverse @ gram[l, -1], inverse @ gram[l, w]
    given = gram[w, w] - gram[w, l] @ rates_by_length
    left = gram[w, -1] - gram[w, l] @ by_length
    ridge = RIDGE * np.trace(given) / max(size[1], 1) * np.eye(size[1])
    by_rate = np.linalg.solve(given + ridge + 1e-12 * np.eye(size[1]), left)
    total = max(float(gram[-1, -1]), 1e-300)
    first = float(by_length @ gram[l, -1]) / total
    second = float(2 * by_rate @ left - by_rate @ given @ by_rate) / total
    return InitialTexts(means[l], means[w], float(count), by_length, rates_by_length, by_rate, (first, first + second))


def beside(curves: Sequence[Curve], frontier: Curve, kls: Sequence[float], draws: int, level: float) -> list[Row]:
    """Gold of some curves' mean and of another curve at equal KL, and their ratio with its interval over prompts and
    seeds; a row for each of `kls` that all of them reach.

    Scores per prompt must be known; `frontier`'s seed is not resampled.
    """
    r = resample([*curves, frontier], draws)
    weight_NC = r.weight_NC[:, :-1]
    rows = []
    for kl in kls:
        if kl > min(c.kl.max() for c in (*curves, frontier)):
            continue

        def gold(c: Curve, kl: float = kl) -> np.ndarray:
            assert c.gold_KQ is not None
            return regrid(np.array([kl**0.5]), c, c.gold_KQ)[0] @ r.share_NQ.T

        mine_N = np.sum([w * gold(c) for w, c in zip(weight_NC.T, curves, strict=True)], axis=0) / weight_NC.sum(axis=1)
        most_N = gold(frontier)
        ratio_N = mine_N / most_N
        rows.append({
            "kl": float(kl), "gold": float(mine_N[0]), "frontier": float(most_N[0]), "ratio": float(ratio_N[0]),
            "interval": interval(ratio_N, r, level),
        })  # fmt: skip
    return rows
