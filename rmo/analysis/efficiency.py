"""What an optimiser makes of its KL: its gold beside another's at equal KL, and what length and words have of both.

A policy's shift is split in three, one after the other: the length of responses, the rates of words, and the rest,
which is order, context and what the first two cannot tell.

- KL of the lengths is the least KL from the initial policy at which lengths are distributed as the policy's are; KL of
  the words is what it takes beyond that for the mean rates of words to be the policy's too. The nearest distribution of
  that kind is an exponential tilt by lengths and rates, and what is beyond it adds up (Csiszar 1975): the rest is KL
  that the policy spends on order, context and prompts, and on moving rates otherwise than at least cost. Rates that
  lean together, as a text's manner has them, cost less than if words were drawn one by one.
- Gold's gain is split by a linear model of gold on the initial policy's own texts, within prompts: first length alone
  (any function of it), then the rates of words given length. The rest is what that model does not expect, its own
  failure far from the initial policy included.

Both KLs are estimates from finitely many texts, less their first bias (Miller 1955): free means / 2n.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import optimize, sparse
from scipy.special import logsumexp, xlogy

from rmo.analysis.bootstrap import interval, resample
from rmo.analysis.curve import Curve, regrid
from rmo.runtime.types import Row

RIDGE = 1e-4  # of the mean variance of the features
SLACK = 1e-3  # by which tilts may miss means that no text of the sample has, in standard deviations
KEPT = 256  # texts of each prompt that tilts weigh: no part of a KL can be larger than log of it


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
    sample: sparse.csr_matrix  # [prompts * N, L + W], lengths and rates of some texts of every prompt, in its order
    prompts: int

    def kl_parts(self, kl: np.ndarray, lengths_KL: np.ndarray, rates_KW: np.ndarray, texts_K: np.ndarray) -> Parts:
        """Of a path's KL, f64[K], of which `texts_K` independent texts show lengths and rates."""
        counted, start, rows = len(self.lengths), np.zeros(len(self.lengths) + len(self.rates)), []
        for lengths_L, rates_W, texts in zip(lengths_KL, rates_KW, texts_K, strict=True):
            wanted, seen = np.concatenate([lengths_L, rates_W]), np.concatenate([self.lengths, self.rates]) > 0
            free = (int(seen[:counted].sum()) - 1, int(seen.sum()) - 2)
            length, _ = least_kl(self.sample[:, :counted], self.prompts, lengths_L, start[:counted])
            both, start = least_kl(self.sample, self.prompts, wanted, start)
            length = max(length - free[0] / (2 * texts), 0.0)
            rows.append((length, max(both - free[1] / (2 * texts) - length, 0.0)))
        length_K, words_K = np.array(rows).reshape(-1, 2).T
        return Parts(length_K, words_K, kl - length_K - words_K)

    def gold_parts(self, gold: np.ndarray, lengths_KL: np.ndarray, rates_KW: np.ndarray) -> Parts:
        """Of a path's gain in gold, f64[K]."""
        longer, other = lengths_KL - self.lengths, rates_KW - self.rates
        length = longer @ self.by_length
        words = (other - longer @ self.rates_by_length) @ self.by_rate
        return Parts(length, words, gold - length - words)


def least_kl(
    sample_SF: sparse.csr_matrix, prompts: int, wanted_F: np.ndarray, start_F: np.ndarray
) -> tuple[float, np.ndarray]:
    """(KL in nats, mean over prompts, of the nearest weighting of each prompt's texts under which the features' means
    are as wanted; its tilt). Found by maximising the dual, from `start_F` on; unreachable means are missed."""
    mean_F = np.asarray(sample_SF.mean(axis=0)).ravel()
    spread_F = np.sqrt(np.maximum(np.asarray(sample_SF.multiply(sample_SF).mean(axis=0)).ravel() - mean_F**2, 0.0))
    scale_F = np.where(spread_F > 0, 1 / np.maximum(spread_F, 1e-12), 0.0)
    scaled_SF = sparse.csr_matrix(sample_SF.multiply(scale_F[None]))
    aim_F = wanted_F * scale_F

    def weights(tilt_F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(weights f64[Q, N], log of the mean weight before they were normalised f64[Q])."""
        score_QN = (scaled_SF @ tilt_F).reshape(prompts, -1)
        log_mean_Q = logsumexp(score_QN, axis=1) - np.log(score_QN.shape[1])
        return np.exp(score_QN - log_mean_Q[:, None]) / score_QN.shape[1], log_mean_Q

    def dual(tilt_F: np.ndarray) -> tuple[float, np.ndarray]:
        weight_QN, log_mean_Q = weights(tilt_F)
        value = log_mean_Q.mean() - tilt_F @ aim_F + SLACK / 2 * tilt_F @ tilt_F
        return float(value), scaled_SF.T @ (weight_QN.ravel() / prompts) - aim_F + SLACK * tilt_F

    tilt_F = optimize.minimize(dual, start_F, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    weight_QN, _ = weights(tilt_F)
    return float(np.mean(np.sum(xlogy(weight_QN, weight_QN * weight_QN.shape[1]), axis=1))), tilt_F


def describe_texts(
    tables: Iterable[tuple[sparse.csr_matrix, sparse.csr_matrix, np.ndarray]],
) -> InitialTexts:
    """From (lengths as indicators [N, L], rates [N, W], gold f64[N]) of every prompt: least squares on deviations from
    the prompt's means, a ridge on the rates, which are collinear."""
    gram: np.ndarray = np.zeros(())
    means: np.ndarray = np.zeros(())
    count, prompts, size, kept = 0, 0, (0, 0), []
    for lengths_NL, rates_NW, gold_N in tables:
        size = lengths_NL.shape[1], rates_NW.shape[1]  # type: ignore[index]
        every = sparse.hstack([lengths_NL, rates_NW, sparse.csr_matrix(gold_N[:, None])]).tocsr()
        kept.append(every[:KEPT, :-1])
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
    return InitialTexts(
        means[l], means[w], float(count), by_length, rates_by_length, by_rate, (first, first + second),
        sparse.csr_matrix(sparse.vstack(kept)), prompts,
    )  # fmt: skip


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
