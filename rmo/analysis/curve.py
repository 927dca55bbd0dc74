"""A curve: gold and proxy score against KL, however the policy was optimised."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmo.analysis.curve_id import CurveId


class CurveError(ValueError):
    """What is wrong with a table of curves and where, in one line."""


@dataclass(frozen=True)
class Curve:
    """K points of one optimisation run; every method ends in this, and nothing below knows which method made it."""

    id: CurveId
    step_or_n: np.ndarray  # f64[K], n of best-of-n, or the update
    kl: np.ndarray  # f64[K], nats
    proxy: np.ndarray  # f64[K]
    gold: np.ndarray  # f64[K]
    proxy_se: np.ndarray | None = None  # f64[K], over prompts
    gold_se: np.ndarray | None = None
    gold_KQ: np.ndarray | None = None  # per prompt, where known: paired errors and the bootstrap come from here
    proxy_KQ: np.ndarray | None = None
    fall_se: np.ndarray | None = None  # f64[K], paired over prompts: s.e. of gold minus the curve's highest gold
    kl_given: np.ndarray | None = None  # f64[K], best-of-n's KL from its winners' probabilities (metrics.kl_bon_given)
    kl_given_KQ: np.ndarray | None = None
    spread: np.ndarray | None = None  # f64[K], how far several RMs are apart on what was selected or written

    @property
    def method(self) -> str:
        return self.id.method

    @property
    def d(self) -> np.ndarray:
        return np.sqrt(np.maximum(self.kl, 0))


def axis_number(x: float) -> int | float:
    """A step or an n as a whole number, a coefficient as it is."""
    return int(x) if x == int(x) else float(x)


def forward(kl_K: np.ndarray) -> np.ndarray:
    """Which points reach a KL that no earlier one had, bool[K]: what a curve is interpolated over. A policy whose KL
    hovers (under a penalty) is read many times at one KL; its first passage counts."""
    return kl_K > np.maximum.accumulate(np.concatenate([[-np.inf], kl_K[:-1]]))


def at_origin(kl_K: np.ndarray) -> np.ndarray:
    """The leading points that still are the initial policy, bool[K]: where gold's zero may be read."""
    near = max(kl_K[0], 1e-3) if kl_K[0] <= 0.01 else -np.inf  # no farther: forms are steep there
    return np.logical_and.accumulate(kl_K <= near)


def common_d(curves: Sequence[Curve], points: int = 64) -> np.ndarray:
    """The d at which several curves can be averaged: their own where they share it, else an even grid over what all
    of them reach."""
    d = curves[0].d
    if all(np.array_equal(c.d, d) for c in curves) and forward(d).all():
        return d
    return np.linspace(0, min(c.d.max() for c in curves), points)


def regrid(d_G: np.ndarray, curve: Curve, values: np.ndarray) -> np.ndarray:
    """A curve's values, f64[K] or per prompt f64[K, Q], at other d, f64[G] or [G, Q]: between its points of first
    passage."""
    keep = forward(curve.d)
    columns = values[keep].reshape(keep.sum(), -1).T
    return np.stack([np.interp(d_G, curve.d[keep], column) for column in columns], axis=1).reshape(
        len(d_G), *values.shape[1:]
    )


def standard_error(x_KQ: np.ndarray) -> np.ndarray:
    """Of means over Q prompts, f64[K]."""
    return x_KQ.std(axis=1, ddof=1) / x_KQ.shape[1] ** 0.5


def from_prompts(
    id: CurveId, step_or_n: np.ndarray, kl: np.ndarray, proxy_KQ: np.ndarray, gold_KQ: np.ndarray
) -> Curve:
    """A curve with standard errors over Q prompts."""
    gold = gold_KQ.mean(axis=1)
    return Curve(
        id,
        np.asarray(step_or_n, np.float64),
        np.asarray(kl, np.float64),
        proxy_KQ.mean(axis=1),
        gold,
        proxy_se=standard_error(proxy_KQ),
        gold_se=standard_error(gold_KQ),
        gold_KQ=gold_KQ,
        proxy_KQ=proxy_KQ,
        fall_se=standard_error(gold_KQ - gold_KQ[np.argmax(gold)]),
    )
