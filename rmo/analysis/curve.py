"""A curve: gold and proxy score against KL, however the policy was optimised; and the public CSV format of curves."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class CurveError(ValueError):
    """What is wrong with a table of curves and where, in one line."""


METHODS = ("bon", "ppo")
COLUMNS = [
    "method", "step_or_n", "kl", "proxy", "gold", "proxy_se", "gold_se", "rm_params", "rm_comparisons",
    "policy_params", "kl_coef", "seed", "fall_se", "variant",
    "kl_given",
]  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """K points of one optimisation run; every method ends in this, and nothing below knows which method made it."""

    method: str
    step_or_n: np.ndarray  # f64[K], n of best-of-n, or the update
    kl: np.ndarray  # f64[K], nats
    proxy: np.ndarray  # f64[K]
    gold: np.ndarray  # f64[K]
    proxy_se: np.ndarray | None = None  # f64[K], over prompts
    gold_se: np.ndarray | None = None
    gold_KQ: np.ndarray | None = None  # per prompt, where known: paired errors and the bootstrap come from here
    proxy_KQ: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)  # the columns from rm_params to variant
    fall_se: np.ndarray | None = None  # f64[K], paired over prompts: s.e. of gold minus the curve's highest gold
    kl_given: np.ndarray | None = None  # f64[K], best-of-n's KL from its winners' probabilities (metrics.kl_bon_given)
    kl_given_KQ: np.ndarray | None = None

    @property
    def d(self) -> np.ndarray:
        return np.sqrt(np.maximum(self.kl, 0))


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


def from_prompts(method: str, step_or_n, kl, proxy_KQ: np.ndarray, gold_KQ: np.ndarray, **meta: Any) -> Curve:
    """A curve with standard errors over Q prompts."""
    se = lambda x_KQ: x_KQ.std(axis=1, ddof=1) / x_KQ.shape[1] ** 0.5  # noqa: E731
    gold = gold_KQ.mean(axis=1)
    return Curve(
        method, np.asarray(step_or_n, np.float64), np.asarray(kl, np.float64), proxy_KQ.mean(axis=1), gold,
        se(proxy_KQ), se(gold_KQ), gold_KQ, proxy_KQ, meta, se(gold_KQ - gold_KQ[np.argmax(gold)]),
    )  # fmt: skip


def to_rows(curve: Curve) -> list[dict[str, Any]]:
    """The curve in the public CSV format, one dict per point."""
    out = []
    errors = {n: getattr(curve, n) for n in ("proxy_se", "gold_se", "fall_se", "kl_given")}
    for k in range(len(curve.kl)):
        point = {"kl": curve.kl[k], "proxy": curve.proxy[k], "gold": curve.gold[k]}
        point |= {name: values[k] for name, values in errors.items() if values is not None}
        numbers = {name: float(value) for name, value in point.items()}
        out.append({"method": curve.method, "step_or_n": int(curve.step_or_n[k]), **curve.meta, **numbers})
    return out


def from_rows(table: Sequence[dict[str, str]], source: str = "the table") -> list[Curve]:
    """Curves from rows of the public format: `method`, `kl`, `gold` needed, every other column optional.

    Raises:
      CurveError: a column is missing or a cell is not a number; says which row.
    """
    if not table:
        raise CurveError(f"{source} has no rows: it needs a header and one line per point")
    table = [{(name or "").strip(): cell for name, cell in row.items()} if None not in row else row for row in table]
    missing = [name for name in ("kl", "gold") if name not in table[0]]
    if missing:
        raise CurveError(f"{source} has no column {', '.join(missing)}: the format is {','.join(COLUMNS)}")
    groups: dict[tuple, list[dict[str, float]]] = {}
    ids = ("method", "rm_params", "rm_comparisons", "policy_params", "kl_coef", "seed", "variant")
    for line, row in enumerate(table, start=2):
        if None in row or any(value is None for value in row.values()):
            raise CurveError(f"{source} line {line}: it has more or fewer cells than the header")
        point = {}
        for name in ("step_or_n", "kl", "proxy", "gold", "proxy_se", "gold_se", "fall_se", "kl_given"):
            cell = row.get(name, "")
            try:
                point[name] = float(cell) if cell != "" else np.nan
            except ValueError as error:
                raise CurveError(f"{source} line {line}: {name} is {cell!r}, not a number") from error
        if not np.isfinite(point["kl"]) or not np.isfinite(point["gold"]):
            raise CurveError(f"{source} line {line}: kl and gold must be finite numbers")
        method = row.get("method", "") or "bon"
        if method not in METHODS:
            raise CurveError(f"{source} line {line}: method is {method!r}; use one of {', '.join(METHODS)}")
        groups.setdefault((method, *(row.get(name, "") for name in ids[1:])), []).append(point)
    curves = []
    for key, points in groups.items():
        steps = [p["step_or_n"] for p in points]
        by = "step_or_n" if np.isfinite(steps).all() else "kl"
        points = sorted(points, key=lambda p: p[by])
        if twice := [p[by] for p, after in itertools.pairwise(points) if p[by] == after[by]]:
            raise CurveError(
                f"{source}: a curve has two points at {by} {twice[0]:g}: tell its runs apart by a column"
                f" ({', '.join(ids[1:])})"
            )
        column = {name: np.array([p[name] for p in points]) for name in points[0]}
        meta = {}
        for name, cell in zip(ids[1:], key[1:], strict=True):
            if name == "variant":
                meta[name] = cell
                continue
            try:
                meta[name] = (float(cell) if name == "kl_coef" else int(float(cell))) if cell != "" else None
            except ValueError as error:
                raise CurveError(f"{source}: {name} is {cell!r}, not a number") from error
        errors = {}
        for name in ("proxy_se", "gold_se", "fall_se", "kl_given"):
            known = np.isfinite(column[name])
            if known.any() and not known.all():
                raise CurveError(f"{source}: {name} is filled in for some points of a curve only: give all or none")
            errors[name] = column[name] if known.all() else None
        curves.append(
            Curve(
                key[0], column["step_or_n"], column["kl"], column["proxy"], column["gold"],
                errors["proxy_se"], errors["gold_se"], None, None, meta, errors["fall_se"],
                errors["kl_given"],
            )
        )  # fmt: skip
    return curves
