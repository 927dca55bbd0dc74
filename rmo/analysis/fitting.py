"""Fits of functional forms: (alpha, beta) of one curve, or of a family of curves at once on every resample.

Forms are zero at d = sqrt(KL) = 0 and linear in (alpha, beta), so fits are least squares without intercept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, signal

from rmo.analysis.bootstrap import Resamples
from rmo.analysis.curve import Curve, CurveError, at_origin
from rmo.analysis.curve_id import CurveId
from rmo.analysis.forms import FORMS

FEWEST = 3  # points away from d = 0 that a fit of two coefficients needs
RHO = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95])  # correlations of neighbouring residuals that are tried


@dataclass(frozen=True)
class Fit:
    """One form on one set of points."""

    form: str
    alpha: float
    beta: float
    r2: float = np.nan
    rmse: float = np.nan
    extra: float | None = None  # the form's shape parameter

    def __call__(self, d: np.ndarray) -> np.ndarray:
        """The form's gold at d, f64[K]."""
        features = FORMS[self.form].features(np.asarray(d, np.float64), self.extra or 0.0)
        return features @ np.array([self.alpha, self.beta])


def fit_curve(d: np.ndarray, gold: np.ndarray, form: str, weight: np.ndarray | None = None) -> Fit:
    """Weighted least squares of `form` on the points (d, gold); a shape parameter is searched over its range.

    Raises:
      CurveError: fewer than 3 points away from d = 0.
    """
    d, gold = np.asarray(d, np.float64), np.asarray(gold, np.float64)
    if np.sum(d > 0) < FEWEST:
        raise CurveError(f"{int(np.sum(d > 0))} points with KL > 0: a fit of two coefficients needs at least {FEWEST}")
    features, shapes = FORMS[form].features, FORMS[form].shapes
    root = np.ones_like(d) if weight is None else np.sqrt(weight)

    def solve(extra: float) -> tuple[np.ndarray, float]:
        x = features(d, extra) * root[:, None]
        coefficients = np.linalg.lstsq(x, root * gold, rcond=None)[0]
        return coefficients, float(np.sum((root * gold - x @ coefficients) ** 2))

    def error_of(log_extra: float) -> float:
        return solve(float(np.exp(log_extra)))[1]

    extra = None
    if shapes is not None:
        extra = float(np.exp(optimize.fminbound(error_of, *np.log(shapes))))
    (alpha, beta), _ = solve(extra or 0.0)
    out = Fit(form, float(alpha), float(beta), extra=extra)
    error, total = gold - out(d), np.sum((gold - gold.mean()) ** 2)
    r2 = float(1 - np.sum(error**2) / total) if total > 0 else np.nan
    return replace(out, r2=r2, rmse=float(np.mean(error**2) ** 0.5))


@dataclass(frozen=True)
class Group:
    """Curves that share coefficients: everything equal but the seed."""

    id: CurveId
    curves: tuple[Curve, ...]

    @property
    def method(self) -> str:
        return self.id.method

    @property
    def params(self) -> int:
        """Of the RM, without embeddings; 0 where not known."""
        return self.id.rm_params

    @property
    def comparisons(self) -> int | None:
        return self.id.rm_comparisons

    @property
    def policy(self) -> int | None:
        return self.id.policy_params

    def label(self, among: Sequence["Group"]) -> str:
        """What tells this group from the others."""
        return self.id.label([g.id for g in among])


def group(curves: Sequence[Curve], method: str) -> list[Group]:
    """Curves of one method by all but the seed, smallest RM first."""
    found: dict[CurveId, list[Curve]] = {}
    for c in curves:
        if c.method == method:
            found.setdefault(c.id.group, []).append(c)
    return [Group(id, tuple(found[id])) for id in sorted(found, key=lambda id: id.order)]


def families(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups by family; the main one first: plain, of the policy that most groups have, with the most RM sizes, then
    the most comparisons."""
    out: dict[CurveId, list[Group]] = {}
    for g in groups:
        out.setdefault(g.id.family, []).append(g)
    policies = [g.policy or 0 for g in groups]

    def rank(family: list[Group]) -> tuple:
        first = family[0]
        odd = (bool(first.id.rm_combined), bool(first.id.rm_recipe), bool(first.id.settings))
        return *odd, -policies.count(first.policy or 0), -len(family), -(first.comparisons or 0)

    return sorted(out.values(), key=rank)


def over(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x / y, and 0 where y is."""
    return np.divide(x, y, out=np.zeros(np.broadcast_shapes(x.shape, y.shape)), where=y != 0)


class Family:
    """Fits one form to groups, by weighted least squares without intercept, on any resampling of prompts and seeds.

    Points weigh 1 / (se^2 + tau^2): their own standard error over prompts, and the scatter about the form that errors
    do not explain (misfit, seeds), tau, one for the family and found by iteration. Where no errors are known all
    points weigh the same. `max_kl` leaves out what lies beyond it, group by group. With `shared_alpha` all groups have
    one alpha (paper section 3.1 for RL).
    """

    def __init__(
        self,
        groups: Sequence[Group],
        form: str,
        shared_alpha: bool,
        min_d: float = 0.0,
        max_kl: Sequence[float] | None = None,
        score: str = "gold",
    ):
        self.groups, self.form, self.shared, self.score = groups, form, shared_alpha, score
        self.curves = [c for g in groups for c in g.curves]
        self.of = np.array([i for i, g in enumerate(groups) for _ in g.curves])  # which group each curve is of
        tops = [np.inf if max_kl is None else max_kl[i] * (1 + 1e-9) for i in self.of]
        self.keep = [(c.d >= max(min_d, 1e-9)) & (c.kl <= top) for c, top in zip(self.curves, tops, strict=True)]
        self.x = [FORMS[form].features(c.d[keep], 0.0) for c, keep in zip(self.curves, self.keep, strict=True)]
        self.tau2 = 0.0
        self.weights = [np.ones(keep.sum()) for keep in self.keep]
        errors = [getattr(c, f"{score}_se") for c in self.curves]
        if all(e is not None for e in errors):
            self.weigh([np.asarray(e)[keep] ** 2 for e, keep in zip(errors, self.keep, strict=True)])

    @property
    def too_short(self) -> list[Group]:
        """Groups that have too few points for a fit, whose coefficients say nothing."""
        points = np.bincount(self.of, [keep.sum() for keep in self.keep], len(self.groups))
        return [g for g, count in zip(self.groups, points, strict=True) if count < FEWEST]

    def weigh(self, variance: Sequence[np.ndarray], rounds: int = 8) -> None:
        """Find tau and the weights of all points, given their variances, f64[K] per curve."""
        for _ in range(rounds):
            solution = self.best()
            left = [self.y(i)[:, 0] - self.x[i] @ solution[g] for i, g in enumerate(self.of)]
            excess = np.concatenate([r**2 - v for r, v in zip(left, variance, strict=True)])
            self.tau2 = max(float(excess.sum()) / max(len(excess), 1), 1e-6)
            self.weights = [1 / (v + self.tau2) for v in variance]

    def y(self, i: int) -> np.ndarray:
        """Kept scores of curve i, f64[K, 1]."""
        return getattr(self.curves[i], self.score)[self.keep[i]][:, None]

    def moments(self, i: int, y_KN: np.ndarray) -> np.ndarray:
        """Weighted sums of a curve's scores with what alpha and beta multiply, f64[2, N]."""
        return (self.x[i].T * self.weights[i]) @ y_KN

    def solve(self, weight_NC: np.ndarray, moments_2N: Sequence[np.ndarray]) -> np.ndarray:
        """(alpha, beta) f64[N, G, 2] from the `moments` of every curve, f64[2, N] or, the same on every row, f64[2, 1].

        Where a group's points do not determine its coefficients (all its seeds were left out), the smallest are taken.
        """
        n, count = len(weight_NC), len(self.groups)
        aa, ab, bb, a, b = np.zeros((5, n, count))  # entries of the normal equations, group by group
        for i, g in enumerate(self.of):
            weight_N, products = weight_NC[:, i], self.moments(i, self.x[i])
            aa[:, g] += weight_N * products[0, 0]
            ab[:, g] += weight_N * products[0, 1]
            bb[:, g] += weight_N * products[1, 1]
            a[:, g] += weight_N * moments_2N[i][0]
            b[:, g] += weight_N * moments_2N[i][1]
        if self.shared:
            slope = over(ab, bb)  # beta follows alpha: what is left of the equations is one in alpha
            left = (aa - slope * ab).sum(1, keepdims=True)
            left[left <= 1e-12 * aa.sum(1, keepdims=True)] = 0.0
            alpha = np.broadcast_to(over((a - slope * b).sum(1, keepdims=True), left), a.shape)
            return np.stack([alpha, over(b - ab * alpha, bb)], axis=-1)
        det, trace2 = aa * bb - ab**2, (aa + bb) ** 2
        plain = det > 1e-12 * aa * bb
        alpha = np.where(plain, over(bb * a - ab * b, det), over(aa * a + ab * b, trace2))
        beta = np.where(plain, over(aa * b - ab * a, det), over(ab * a + bb * b, trace2))
        return np.stack([alpha, beta], axis=-1)

    def best(self) -> np.ndarray:
        """(alpha, beta) f64[G, 2] on the data as they are."""
        every = range(len(self.curves))
        return self.solve(np.ones((1, len(every))), [self.moments(i, self.y(i)) for i in every])[0]

    def on(self, r: Resamples, seed: int = 0) -> np.ndarray:
        """(alpha, beta) f64[N, G, 2] on every row of `resample(self.curves)`."""
        rng = np.random.default_rng(seed)
        return self.solve(r.weight_NC, [self.moments_on(i, r, rng) for i in range(len(self.curves))])

    def moments_on(self, i: int, r: Resamples, rng: np.random.Generator) -> np.ndarray:
        """`moments` of curve i on every row: of its resampled prompts, or with `noise` on the bootstrap's rows."""
        table_KQ = getattr(self.curves[i], f"{self.score}_KQ")
        if table_KQ is not None:
            return self.moments(i, table_KQ[self.keep[i]]) @ r.share_NQ.T
        noise = self.noise(i, r.draws, rng)
        if noise is None:
            return self.moments(i, self.y(i))
        scores = np.repeat(self.y(i), len(r.share_NQ), axis=1)
        scores[:, 1 : 1 + r.draws] += noise
        return self.moments(i, scores)

    def noise(self, i: int, draws: int, rng: np.random.Generator) -> np.ndarray | None:
        """What stands in for resampled prompts where a curve has none (a foreign log), f64[K, draws].

        Gaussian of its standard errors, correlated exp(-|d - d'|) along the curve; without any, and if it is the only
        curve of its group, as its points scatter about the form; else None, as its group's seeds are resampled.
        """
        error = getattr(self.curves[i], f"{self.score}_se")
        if error is not None:
            d, error = self.curves[i].d[self.keep[i]], error[self.keep[i]]
            kernel = np.exp(-np.abs(d[:, None] - d[None])) * np.outer(error, error)
            return np.linalg.cholesky(kernel + 1e-12 * np.eye(len(d))) @ rng.normal(size=(len(d), draws))
        return self.scatter(i, draws, rng) if (self.of == self.of[i]).sum() == 1 else None

    def scatter(self, i: int, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Noise f64[K, draws] as curve i scatters about the form: an AR(1) process, its correlation drawn by how likely
        the residuals make it, its size with Student's t for how few they are; and one shift of all points, since gold's
        zero was read from noisy points too."""
        x, y, size = self.x[i], self.y(i)[:, 0], len(self.x[i])
        free = size - 2
        if free < 1 or np.allclose(y, x @ self.best()[self.of[i]], rtol=0, atol=1e-12):
            return np.zeros((size, draws))
        tried = [whitened_fit(x, y, rho) for rho in RHO]
        likely = np.exp([likelihood - max(t[0] for t in tried) for likelihood, _ in tried])
        which = rng.choice(len(RHO), size=draws, p=likely / likely.sum())
        zero = at_origin(self.curves[i].kl).sum()
        shift = rng.normal(size=draws) / zero**0.5 if zero else np.zeros(draws)
        scale = np.sqrt(np.array([variance for _, variance in tried])[which] * free / rng.chisquare(free, size=draws))
        white, out = rng.normal(size=(size, draws)), np.empty((size, draws))
        for j in np.unique(which):
            mine, rho = which == j, RHO[j]
            start = white[:, mine] * np.append((1 - rho**2) ** -0.5, np.ones(size - 1))[:, None]
            out[:, mine] = signal.lfilter([1.0], [1.0, -rho], start * (1 - rho**2) ** 0.5, axis=0)
        return scale * (out - shift)


def whitened_fit(x_K2: np.ndarray, y_K: np.ndarray, rho: float) -> tuple[float, float]:
    """(restricted log likelihood, variance) of AR(1) noise with correlation rho about least squares of y on x."""

    def white(z: np.ndarray) -> np.ndarray:
        return np.concatenate([z[:1], (z[1:] - rho * z[:-1]) / (1 - rho**2) ** 0.5])

    x, y = white(x_K2), white(y_K)
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    free = len(y) - 2
    variance = float(left @ left) / free
    size = np.linalg.slogdet(x.T @ x)[1] + (len(y) - 1) * np.log(1 - rho**2)
    return -0.5 * (size + free * np.log(max(variance, 1e-300))), variance


def low_part(groups: Sequence[Group], share: float) -> list[float]:
    """`share` of the KL that every seed of a group reaches, per group: where forecasts are cut."""
    return [share * min(float(c.kl.max()) for c in g.curves) for g in groups]


def interval_source(members: Group) -> str:
    """What the bootstrap resamples for this group; a single seed says nothing of the variation between seeds."""
    out = ["prompts"] if any(c.gold_KQ is not None for c in members.curves) else []
    out += ["gold_se"] if any(c.gold_KQ is None and c.gold_se is not None for c in members.curves) else []
    out += [f"{len(members.curves)} seeds"] if len(members.curves) > 1 else []
    return " and ".join(out) or "the scatter of its points (no prompts, seeds or standard errors are known)"
