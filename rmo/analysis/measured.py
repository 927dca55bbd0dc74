"""Gold as it was measured, without any functional form: what a curve shows by itself, and how sure that is.

The highest of many noisy reads is too high, and the noise of neighbouring reads may be alike, so reads are smoothed
before they are compared: gold is a cubic smoothing spline over d = sqrt(KL), with or without one sudden kink at some
read, plus noise whose neighbours correlate by rho (an AR(1) process in the order of the reads). How rough the spline
is, where the kink is, how sharp, and rho are not chosen but averaged over a grid, each cell weighted by its restricted
likelihood (Wahba 1978; Patterson and Thompson 1971; Wood 2017, section 5.8). A mean so shrunk carries no bonus for
being the largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rmo.analysis.curve import Curve, common_d, regrid

ROUGHNESS = np.array([0.0, *10.0 ** np.arange(-1.5, 6.1, 1.5)])  # variance of the spline's bends over that of the noise
KINKS = np.array([10.0, 1e3, 1e5])  # variance of what a kink adds over that of the noise
RHO = np.array([0.0, 0.45, 0.85])
MOST = 60  # reads that are smoothed; of more, neighbours are averaged first
DRAWS = 400  # of the smoothed curve, for where it is highest


class Smooth(NamedTuple):
    """Gold at K reads: its posterior mean and covariance, and the noise of a single read."""

    mean: np.ndarray  # f64[K]
    covariance: np.ndarray  # f64[K, K]
    noise: np.ndarray  # f64[K], standard deviations


def line_through(t_K: np.ndarray) -> np.ndarray:
    """What a straight line's two coefficients multiply, f64[K, 2]; one where all x are equal."""
    ones = np.ones((len(t_K), 1))
    return np.hstack([ones, t_K[:, None] - t_K.mean()]) if np.ptp(t_K) > 0 else ones


def bends(t_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(covariance f64[K, K] of a cubic spline's bends, an integrated Wiener process; a kink at each read f64[K, J]) at
    t, both of mean variance 1 once a straight line is taken out."""
    line = line_through(t_K)
    left = np.eye(len(t_K)) - line @ np.linalg.pinv(line)
    low, high = np.minimum.outer(t_K, t_K), np.maximum.outer(t_K, t_K)
    spline = low**2 * (3 * high - low) / 6
    spline = spline / max(float(np.trace(left @ spline @ left)) / len(t_K), 1e-300)
    kinks = left @ np.abs(np.subtract.outer(t_K, t_K))
    size = np.sqrt(np.mean(kinks**2, axis=0))
    inside = size > 1e-6 * size.max()  # at the ends a kink is a straight line
    return spline, kinks[:, inside] / size[inside]


def smooth(x_K: np.ndarray, y_K: np.ndarray, error: np.ndarray | None = None) -> Smooth:
    """The smoothed curve through K reads y at x, in the order in which they were made; of one or two, which show
    nothing of a shape, the reads themselves.

    `error` is the noise as far as it is known: standard errors f64[K], a covariance f64[K, K] (reads that share their
    prompts), or None. Known noise is never taken as smaller than given, but as larger where reads scatter more.
    """
    count = len(x_K)
    if count < 3:
        known = np.zeros(count) if error is None else error
        covariance = known if known.ndim == 2 else np.diag(known**2)
        return Smooth(y_K, covariance, np.sqrt(np.diagonal(covariance)))
    t = (x_K - x_K.min()) / max(float(np.ptp(x_K)), 1e-300)
    spline, kinks = bends(t)
    shapes = noise_shapes(count, error)
    size = np.mean(np.diagonal(shapes[0]))
    total = (ROUGHNESS[:, None, None, None] * size * spline + shapes).reshape(-1, count, count)  # G cells
    noise = np.broadcast_to(shapes, (len(ROUGHNESS), *shapes.shape)).reshape(total.shape)
    cells = Cells.of(total, line_through(t), np.tile(kinks, len(KINKS)), np.repeat(KINKS * size, kinks.shape[1]), y_K)
    weight, scale = cells.weigh(known=error is not None)
    free = cells.free
    spread = scale if error is not None else scale * free / max(free - 2, 1)  # Student's t: few reads give the scale
    moved = noise @ cells.along  # what a kink of size 1 takes from the noise, f64[G, K, J]
    plain = y_K[:, None] - noise @ cells.seen[:, :, None]  # f64[G, K, 1]
    means = np.concatenate([plain, plain + moved * (cells.kinked / cells.room)[:, None]], axis=2)  # f64[G, K, 1 + J]
    mean = np.tensordot(means, weight, ([0, 2], [0, 1]))
    apart = (means - mean[:, None]) * np.sqrt(weight)[:, None]
    covariance = np.tensordot(apart, apart, ([0, 2], [0, 2]))
    covariance += np.tensordot((weight * spread).sum(axis=1), noise - noise @ cells.left @ noise, 1)
    share = (weight * spread)[:, 1:] / cells.room
    covariance += np.tensordot(moved * share[:, None], moved, ([0, 2], [0, 2]))
    if error is not None:
        return Smooth(mean, covariance, np.sqrt(np.diagonal(shapes[0])))
    centred = covariance - covariance.mean(axis=0) - covariance.mean(axis=1, keepdims=True) + covariance.mean()
    left_over = (np.var(y_K - mean) * count + np.trace(centred)) / (
        count - 1
    )  # expected square, but for a common shift
    return Smooth(mean, covariance, np.full(count, left_over**0.5))


class Cells(NamedTuple):
    """G smooth curves, each without a kink and with each of J: all that their likelihoods rest on."""

    left: np.ndarray  # f64[G, K, K], the inverse covariance less what a straight line takes
    seen: np.ndarray  # f64[G, K], that times the reads
    along: np.ndarray  # f64[G, K, J], that times the kinks
    kinked: np.ndarray  # f64[G, J], kinks times `seen`
    room: np.ndarray  # f64[G, J], a kink's variance given the rest, inverted: what an update of rank one divides by
    sizes: np.ndarray  # f64[J], the variance of each kink
    lost: np.ndarray  # f64[G], log determinants
    square: np.ndarray  # f64[G], reads times `seen`
    free: int  # degrees of freedom

    @classmethod
    def of(
        cls, total: np.ndarray, line: np.ndarray, kinks_KJ: np.ndarray, sizes_J: np.ndarray, y_K: np.ndarray
    ) -> "Cells":
        """From the covariances of G curves, f64[G, K, K]."""
        inverse = np.linalg.inv(total)
        inner = line.T @ inverse @ line
        left = inverse - inverse @ line @ np.linalg.solve(inner, line.T @ inverse)
        seen, along = left @ y_K, left @ kinks_KJ
        room = (kinks_KJ * along).sum(axis=1) + 1 / sizes_J
        lost = np.linalg.slogdet(total)[1] + np.linalg.slogdet(inner)[1]
        return cls(left, seen, along, seen @ kinks_KJ, room, sizes_J, lost, seen @ y_K, len(y_K) - line.shape[1])

    def weigh(self, known: bool) -> tuple[np.ndarray, np.ndarray]:
        """(weight, scale of the noise's variance), f64[G, 1 + J] both; a scale of known noise is at least 1.

        Curves with a kink weigh together, before the reads are seen, as much as those without.
        """
        square = np.hstack([self.square[:, None], self.square[:, None] - self.kinked**2 / self.room])
        lost = np.hstack([self.lost[:, None], self.lost[:, None] + np.log(self.room * self.sizes)])
        scale = np.maximum(square / self.free, 1.0 if known else 1e-300)
        count = self.room.shape[1]
        prior = np.append(0.0, np.full(count, -np.log(max(count, 1))))
        log_weight = prior - 0.5 * (lost + self.free * np.log(scale) + square / scale)
        weight = np.exp(log_weight - log_weight.max())
        return weight / weight.sum(), scale


def noise_shapes(count: int, error: np.ndarray | None) -> np.ndarray:
    """The noise's covariance but for its scale, f64[R, K, K], for every rho of the grid (one where it is known)."""
    if error is not None and error.ndim == 2:
        return (error + 1e-3 * np.mean(np.diagonal(error)) * np.eye(count))[None]
    lags = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    shapes = RHO[:, None, None] ** lags
    return shapes if error is None else shapes * np.outer(error, error)


@dataclass(frozen=True)
class Measured:
    """What the curves of one group show on average, read by read."""

    kl: np.ndarray  # f64[K], in the order of the reads
    raw: np.ndarray  # f64[K], gold as read
    raw_se: np.ndarray  # f64[K], the noise of a read: the file's own standard errors, else from the scatter
    fall_se: np.ndarray  # f64[K], of a read less the highest
    smooth: Smooth
    own_errors: bool  # whether standard errors came with the data

    @cached_property
    def top(self) -> int:
        """Where smoothed gold is highest, among reads that are not below the highest as read."""
        return int(np.where(self.allowed_raw, self.smooth.mean, -np.inf).argmax())

    @cached_property
    def sharp_top(self) -> int:
        """The same among reads within one standard error of the highest: where to stop, gold having fallen for sure."""
        best = int(self.raw.argmax())
        return int(np.where(self.raw >= self.raw[best] - self.raw_se[best], self.smooth.mean, -np.inf).argmax())

    @property
    def allowed_raw(self) -> np.ndarray:
        """Reads not below the highest by more than two of its standard errors, bool[K]."""
        return self.raw >= self.lowest_raw

    @property
    def lowest_raw(self) -> float:
        """Two standard errors below the highest read; less of errors that are known from the scatter only."""
        best = int(self.raw.argmax())
        return float(self.raw[best] - (2.0 if self.own_errors else 1.5) * self.raw_se[best])

    @cached_property
    def allowed(self) -> np.ndarray:
        """Those whose smoothed gold is not below its top by more than a standard error either, bool[K]."""
        return self.allowed_raw & np.array([not self.below(k) for k in range(len(self.kl))])

    def below(self, k: int) -> bool:
        by, error = self.difference(self.top, k)
        return by > error

    def difference(self, i: int, j: int) -> tuple[float, float]:
        """(smoothed gold at read i less that at j, its standard error)."""
        mean, c = self.smooth.mean, self.smooth.covariance
        return float(mean[i] - mean[j]), float(max(c[i, i] + c[j, j] - 2 * c[i, j], 0.0) ** 0.5)

    @property
    def fall(self) -> tuple[float, float]:
        """(by how much smoothed gold fell from its top to the last read, standard error)."""
        by, error = self.difference(self.top, len(self.kl) - 1)
        far = float(self.smooth.mean[self.top] - self.raw[-1])
        return (far, error) if self.raw[-1] < floor_of(self.raw) else (by, error)

    @property
    def rise(self) -> tuple[float, float]:
        """(by how much it rose from the first read to its top, standard error)."""
        return self.difference(self.top, 0)

    @property
    def raw_fall(self) -> tuple[float, float]:
        """(from the highest read to the last, as read, standard error): chance picks the highest, so this is biased."""
        return float(self.raw.max() - self.raw[-1]), float(self.fall_se[-1])

    def nearest(self, kl: float) -> int:
        """The read nearest to a KL, in d."""
        return int(np.abs(np.sqrt(self.kl) - kl**0.5).argmin())

    def nearest_allowed(self, kl: float) -> int:
        return int(np.where(self.allowed, np.abs(np.sqrt(self.kl) - kl**0.5), np.inf).argmin())

    def allows(self, kl: float) -> bool:
        """Whether gold at a KL, read between its neighbours, is not below the highest by more than two of its standard
        errors, nor smoothed gold by more than one."""
        order = np.argsort(self.kl, kind="stable")
        at = int(np.searchsorted(self.kl[order], kl))
        around = order[max(at - 1, 0) : at + 1]
        between = np.interp(kl, self.kl[order], self.raw[order])
        return bool(between >= self.lowest_raw and not all(self.below(k) for k in around))

    def top_interval(self, level: float = 0.95) -> tuple[float, float]:
        """KL between which smoothed gold is highest, with this probability."""
        k = len(self.kl)
        root = np.linalg.cholesky(self.smooth.covariance + 1e-9 * np.trace(self.smooth.covariance) / k * np.eye(k))
        draws = self.smooth.mean + np.random.default_rng(0).normal(size=(DRAWS, k)) @ root.T
        ends = np.quantile(self.kl[draws.argmax(axis=1)], [(1 - level) / 2, (1 + level) / 2], method="nearest")
        return float(min(ends[0], self.kl[self.top])), float(max(ends[1], self.kl[self.top]))


def thinned(curve: Curve) -> Curve:
    """A curve of at most MOST reads: of more, neighbours are averaged, as independent ones."""
    count = len(curve.kl)
    if count <= MOST:
        return curve
    edges = np.linspace(0, count, MOST + 1).astype(int)
    sizes = np.diff(edges)

    def mean(x: np.ndarray) -> np.ndarray:
        return np.add.reduceat(x, edges[:-1]) / (sizes if x.ndim == 1 else sizes[:, None])

    se = None if curve.gold_se is None else np.sqrt(mean(curve.gold_se**2) / sizes)
    table = None if curve.gold_KQ is None else mean(curve.gold_KQ)
    return replace(
        curve, step_or_n=mean(curve.step_or_n), kl=mean(curve.kl), proxy=mean(curve.proxy), gold=mean(curve.gold),
        gold_se=se, gold_KQ=table, fall_se=None,
        proxy_se=None, proxy_KQ=None, kl_given=None, kl_given_KQ=None,
    )  # fmt: skip


def measure(curves: Sequence[Curve]) -> Measured:
    """What the curves of one group show, on average where they are several."""
    curves = [thinned(c) for c in curves]
    parts = [alone(c) for c in curves]
    if len(parts) == 1:
        return parts[0]
    d = common_d(curves)
    onto = [regrid(d, c, np.eye(len(c.kl))) for c in curves]  # f64[D, K] each: what a curve is interpolated by
    count = len(parts)
    raw = np.mean([w @ p.raw for w, p in zip(onto, parts, strict=True)], axis=0)
    means = np.array([w @ p.smooth.mean for w, p in zip(onto, parts, strict=True)])
    own = sum(w @ p.smooth.covariance @ w.T for w, p in zip(onto, parts, strict=True)) / count**2
    apart = means - means.mean(axis=0)
    between = apart.T @ apart / (count * (count - 1))  # what seeds differ by, noise included
    noise = np.sqrt(sum((w**2) @ p.raw_se**2 for w, p in zip(onto, parts, strict=True))) / count
    larger = own + np.diag(np.maximum(np.diagonal(between) - np.diagonal(own), 0.0))
    smoothed = Smooth(means.mean(axis=0), larger, noise)
    fall_se = np.hypot(noise, noise[int(raw.argmax())])
    return Measured(d**2, raw, noise, fall_se, smoothed, all(p.own_errors for p in parts))


def floor_of(gold_K: np.ndarray) -> float:
    """Below this a read only says that gold is far below its highest, and is smoothed as if it were here: how a policy
    that has collapsed wobbles is no noise of the reads at the top."""
    if len(gold_K) < 3:
        return -np.inf
    noise = float(np.median(np.abs(np.diff(gold_K, 2)))) / 1.652  # of a read, if reads scatter about a line
    return float(gold_K.max() - max(3 * (gold_K.max() - gold_K[0]), 10 * noise))


def alone(curve: Curve) -> Measured:
    """What one curve shows."""
    error = curve.gold_se
    if curve.gold_KQ is not None and curve.gold_KQ.shape[1] > 1:
        error = np.atleast_2d(np.cov(curve.gold_KQ)) / curve.gold_KQ.shape[1]
    usable = (
        error is not None
        and bool(np.isfinite(error).all())
        and bool((np.diagonal(error) if error.ndim == 2 else error).max() > 0)
    )
    if error is not None and error.ndim == 1 and usable:
        error = np.maximum(error, 1e-3 * error.max())  # the initial policy's own is 0
    smoothed = smooth(curve.d, np.maximum(curve.gold, floor_of(curve.gold)), error if usable else None)
    own = curve.gold_se if usable and curve.gold_se is not None else smoothed.noise
    fall_se = curve.fall_se if curve.fall_se is not None else np.hypot(own, own[int(curve.gold.argmax())])
    return Measured(np.maximum(curve.kl, 0.0), curve.gold, own, fall_se, smoothed, usable)
