"""A hierarchical fit over RM size: two coefficients per curve, a law in log size, and what the law leaves, by REML.

Curve i of size g has (alpha, beta) c_i, its own fit of the method's form, and

    c_i = A + B x_g + u_g + e_i,    x_g = log10 of the size, u_g ~ N(0, T), e_i ~ N(0, S),

T being what the law misses between sizes and S the scatter between seeds of one size, both 2 x 2. Whatever differs from
seed to seed is in S: the RM's luck, the optimiser's, noise of reads, and how a curve winds about its form, however
autocorrelated: no point along a curve is counted as if it were independent. Prompts are shared by all curves, so that
their luck is not in the scatter; it is added to the variance of what is estimated, from each prompt's own estimate.

T and S are found by restricted maximum likelihood, which splits exactly into the scatter within sizes and that of the
sizes' means about the law. A factor |T|^(1/2) keeps T off zero (Chung, Gelman, Rabe-Hesketh, Liu and Dorie 2015, J.
Educ. Behav. Stat. 40): with five sizes REML would say every other time that the law misses nothing, and be believed.
Intervals are Student's t with Satterthwaite's degrees of freedom, what is due to T being known from G - 2 of G sizes
and what is due to S from C - G of C curves; tests measure that they cover. A size's own coefficients are best linear
predictions, with the error of Prasad and Rao (1990) for what is not known of T and S.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import optimize, stats

from rmo.analysis.fitting import Family, Group
from rmo.analysis.forms import peak

LEAST_SIZES = 3  # two make the law, and one shows what it misses
DRAWS = 4000  # of coefficients, for intervals of what is not linear in them
ELEMENTS = np.array([[[1, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 1]]], np.float64)  # what a 2 x 2 covariance is of


@dataclass(frozen=True)
class SeedFits:
    """The two coefficients of every curve of a sweep over G sizes."""

    x_G: np.ndarray  # f64[G], log10 of the sizes
    of_C: np.ndarray  # i[C], which size each curve is of
    values_C2: np.ndarray  # f64[C, 2], (alpha, beta)
    prompts_QC2: np.ndarray | None = None  # f64[Q, C, 2], of each prompt's own curve, where known; means are values_C2

    @property
    def seeds_G(self) -> np.ndarray:
        return np.bincount(self.of_C, minlength=len(self.x_G))

    def mean_of_seeds(self, values: np.ndarray) -> np.ndarray:
        """f64[..., G, 2] of values f64[..., C, 2]."""
        return np.stack([values[..., self.of_C == g, :].mean(-2) for g in range(len(self.x_G))], axis=-2)

    def without(self, g: int) -> "SeedFits":
        """All sizes but one."""
        keep = self.of_C != g
        of = self.of_C[keep]
        prompts = None if self.prompts_QC2 is None else self.prompts_QC2[:, keep]
        return SeedFits(np.delete(self.x_G, g), of - (of > g), self.values_C2[keep], prompts)


def seed_fits(groups: Sequence[Group], form: str, min_d: float) -> SeedFits:
    """Every curve fitted alone, with the weights that its family's fit gives its points.

    Raises:
      ValueError: fewer than `LEAST_SIZES` sizes, one that is not known, or a curve with fewer than two points to fit.
    """
    family = Family(groups, form, False, min_d)
    params = np.array([g.params for g in groups], np.float64)
    if len(set(params.tolist())) < max(len(groups), LEAST_SIZES) or (params <= 0).any():
        raise ValueError(f"a law in log size needs {LEAST_SIZES} known sizes, one group each")
    if min(keep.sum() for keep in family.keep) < 2:
        raise ValueError("a curve has fewer than two points to fit")
    solve = []  # f64[2, K] per curve: a fit is linear in the scores
    for x, weight in zip(family.x, family.weights, strict=True):
        root = np.sqrt(weight)[:, None]
        solve.append(np.linalg.pinv(x * root) * root.T)
    values = np.array([m @ family.y(i)[:, 0] for i, m in enumerate(solve)])
    tables = [c.gold_KQ for c in family.curves]
    prompts = None
    if all(table is not None for table in tables):
        kept = [np.asarray(table)[keep] for table, keep in zip(tables, family.keep, strict=True)]
        prompts = np.stack([(m @ table_KQ).T for m, table_KQ in zip(solve, kept, strict=True)], axis=1)
    return SeedFits(np.log10(params), family.of, values, prompts if prompts is not None and len(prompts) > 1 else None)


@dataclass(frozen=True)
class Estimate:
    """Two numbers (alpha and beta, or their slopes) with the covariance of their error."""

    value_2: np.ndarray  # f64[2]
    cov_22: np.ndarray  # f64[2, 2]
    df: Callable[[np.ndarray], float]  # degrees of freedom of the variance of direction' value, direction f64[2]

    def interval(self, i: int, level: float) -> list[float]:
        """[low, high] of one of the two."""
        half = stats.t.ppf((1 + level) / 2, self.df(np.eye(2)[i])) * max(float(self.cov_22[i, i]), 0.0) ** 0.5
        return [float(self.value_2[i] - half), float(self.value_2[i] + half)]

    def draws(self, direction: np.ndarray, n: int = DRAWS, seed: int = 0) -> np.ndarray:
        """Draws f64[n, 2] of what the two may be: Student's t with the degrees of freedom that a statistic has whose
        gradient is `direction`, or fewer where one of the two has."""
        rng, df = np.random.default_rng(seed), min(self.df(x) for x in (direction, *np.eye(2)))
        root = root_of(self.cov_22 + 1e-12 * np.trace(self.cov_22) * np.eye(2))
        return self.value_2 + rng.standard_normal((n, 2)) @ root.T * (df / rng.chisquare(df, (n, 1))) ** 0.5


def root_of(cov_22: np.ndarray) -> np.ndarray:
    """R with R R' = cov. Where every size has one seed a covariance is zero but for rounding, which may leave it
    negative: what is below zero then counts as zero."""
    try:
        return np.linalg.cholesky(cov_22)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(cov_22)
        return vectors * np.sqrt(np.maximum(values, 0.0))


@dataclass(frozen=True)
class Hierarchy:
    """The law and the covariances of one sweep, fitted."""

    fits: SeedFits
    sizes_22: np.ndarray  # T, between sizes about the law
    seeds_22: np.ndarray  # S, between seeds; zero where no size has two

    @cached_property
    def means_G2(self) -> np.ndarray:
        return self.fits.mean_of_seeds(self.fits.values_C2)

    @cached_property
    def information(self) -> np.ndarray:
        """REML's expected information of the elements of T and S, f64[6, 6]; of T alone, f64[3, 3], without seeds."""
        v = blocks(*self.covariances, self.fits.seeds_G)
        x = np.concatenate([design(at) for at in self.fits.x_G])
        precision = np.linalg.inv(v)
        p = precision - precision @ x @ np.linalg.inv(x.T @ precision @ x) @ x.T @ precision
        zero, many = np.zeros((2, 2)), self.within_df > 0
        moves = [blocks(e, zero, self.fits.seeds_G) for e in ELEMENTS]
        moves += [blocks(zero, e, self.fits.seeds_G) for e in ELEMENTS] if many else []
        out = np.array([[np.trace(p @ a @ p @ b) / 2 for b in moves] for a in moves])
        if many:
            inverse = np.linalg.inv(self.seeds_22)
            own = [[np.trace(inverse @ a @ inverse @ b) / 2 for b in ELEMENTS] for a in ELEMENTS]
            out[3:, 3:] += self.within_df * np.array(own)
        return out

    @property
    def within_df(self) -> int:
        return len(self.fits.of_C) - len(self.fits.x_G)

    @property
    def covariances(self) -> tuple[np.ndarray, np.ndarray]:
        return self.sizes_22, self.seeds_22

    def law(self, t: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(covariance of the law's four coefficients f64[4, 4], what it makes of every size's mean f64[G, 4, 2])."""
        x_G42 = np.stack([design(at).T for at in self.fits.x_G])
        precision = np.linalg.inv(t + s / self.fits.seeds_G[:, None, None])
        cov = np.linalg.inv(np.einsum("gia,gab,gjb->ij", x_G42, precision, x_G42))
        return cov, cov @ (x_G42 @ precision)

    def slopes(self) -> Estimate:
        """Change of alpha and beta per decade of size."""
        return self.linear(np.hstack([np.zeros((2, 2)), np.eye(2)]))

    def at(self, size: float) -> Estimate:
        """What the law says of a size, whose own deviation from it is left out."""
        return self.linear(design(np.log10(size)))

    def new_size(self, size: float) -> Estimate:
        """The coefficients, over all seeds, of a size that was not measured."""
        return self.linear(design(np.log10(size)), new_sizes=1.0)

    def new_mean(self, size: float, seeds: int) -> Estimate:
        """What fits to `seeds` seeds of a size that was not measured will give on the same prompts."""
        return self.linear(design(np.log10(size)), new_sizes=1.0, new_seeds=1 / seeds, same_prompts=True)

    def linear(
        self, rows_24: np.ndarray, new_sizes: float = 0.0, new_seeds: float = 0.0, same_prompts: bool = False
    ) -> Estimate:
        """rows @ (A, B), and so much of T and S on top."""
        weights_G22 = rows_24 @ self.law(*self.covariances)[1]

        def cov(t: np.ndarray, s: np.ndarray) -> np.ndarray:
            return rows_24 @ self.law(t, s)[0] @ rows_24.T + new_sizes * t + new_seeds * s

        value = np.einsum("gab,gb->a", weights_G22, self.means_G2)
        return self.estimate(value, cov, None if same_prompts else weights_G22)

    def size(self, g: int) -> Estimate:
        """The coefficients of a measured size over all seeds: the law, and as much of the size's deviation from it as
        is more than its seeds' luck."""
        rows, n = design(self.fits.x_G[g]), self.fits.seeds_G[g]

        def share(t: np.ndarray, s: np.ndarray) -> np.ndarray:
            return t @ np.linalg.inv(t + s / n)

        def cov(t: np.ndarray, s: np.ndarray) -> np.ndarray:
            kept = np.eye(2) - share(t, s)
            return kept @ t + kept @ rows @ self.law(t, s)[0] @ rows.T @ kept.T

        own = share(*self.covariances)
        weights = (np.eye(2) - own) @ rows @ self.law(*self.covariances)[1]
        weights[g] += own
        value = np.einsum("gab,gb->a", weights, self.means_G2)
        moved = self.gradient(share)  # how the share errs with T and S, f64[6, 2, 2]
        total = self.sizes_22 + self.seeds_22 / n
        lost = np.einsum("iab,bc,jdc,ij->ad", moved, total, moved, np.linalg.inv(self.information))
        return self.estimate(value, cov, weights, 2 * lost)

    def estimate(
        self,
        value: np.ndarray,
        cov: Callable[[np.ndarray, np.ndarray], np.ndarray],
        weights_G22: np.ndarray | None,
        more_22: np.ndarray | None = None,
    ) -> Estimate:
        """With the covariance `cov(T, S)`, that of shared prompts through the weights of sizes' means, and more."""
        model = cov(*self.covariances)
        model = (model + model.T) / 2 + (0 if more_22 is None else more_22)
        prompts = np.zeros((2, 2)) if weights_G22 is None else self.shared_prompts(weights_G22)
        gradient = self.gradient(cov)
        elements = np.concatenate([each[np.triu_indices(2)] for each in self.covariances])[: len(gradient)]

        def df(direction: np.ndarray) -> float:
            v, p = direction @ model @ direction, direction @ prompts @ direction
            parts = elements * np.einsum("iab,a,b->i", gradient, direction, direction)  # cov is of degree 1 in T and S
            of_sizes, of_seeds = parts[:3].sum(), parts[3:].sum()
            known = of_sizes**2 / (len(self.fits.x_G) - 2) + of_seeds**2 / max(self.within_df, 1)
            own = (abs(of_sizes) + abs(of_seeds)) ** 2 / max(known, 1e-300)
            if p <= 0 or self.fits.prompts_QC2 is None:
                return float(own)
            return float((v + p) ** 2 / (v**2 / own + p**2 / (len(self.fits.prompts_QC2) - 1)))

        return Estimate(value, model + prompts, df)

    def gradient(self, of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Derivatives of a function of (T, S) by their elements, f64[6 or 3, ...]."""
        scale = np.trace(self.sizes_22 + self.seeds_22)
        out = []
        for which in range(2 if self.within_df else 1):
            for e in ELEMENTS:
                step = 1e-5 * np.sqrt(np.outer(*(np.diag(self.sizes_22 + self.seeds_22),) * 2)) * e
                size = step[e > 0].max() if step.any() else 1e-5 * scale
                up, down = list(self.covariances), list(self.covariances)
                up[which], down[which] = up[which] + size * e, down[which] - size * e
                out.append((of(*up) - of(*down)) / (2 * size))
        return np.array(out)

    def shared_prompts(self, weights_G22: np.ndarray) -> np.ndarray:
        """Covariance, from the luck of the prompts that all curves share, of a weighted sum of sizes' means; without
        what differs between seeds, which S holds already."""
        prompts = self.fits.prompts_QC2
        if prompts is None:
            return np.zeros((2, 2))
        q, means_QG2 = len(prompts), self.fits.mean_of_seeds(prompts)
        whole = np.cov(np.einsum("gab,qgb->qa", weights_G22, means_QG2).T) / q
        for g, (weight, n) in enumerate(zip(weights_G22, self.fits.seeds_G, strict=True)):
            if n > 1:
                apart = prompts[:, self.fits.of_C == g] - means_QG2[:, g : g + 1]
                own = np.mean([np.cov(apart[:, i].T) for i in range(n)], axis=0) * n / (n - 1) / q
                whole = whole - weight @ own @ weight.T / n
        return positive(whole)


def design(x: float) -> np.ndarray:
    """f64[2, 4]: alpha and beta at log size x from (A, B)."""
    return np.hstack([np.eye(2), x * np.eye(2)])


def blocks(t: np.ndarray, s: np.ndarray, seeds_G: np.ndarray) -> np.ndarray:
    """Covariance of all sizes' means about the law, f64[2G, 2G]."""
    out = np.zeros((2 * len(seeds_G), 2 * len(seeds_G)))
    for g, n in enumerate(seeds_G):
        out[2 * g : 2 * g + 2, 2 * g : 2 * g + 2] = t + s / n
    return out


def positive(cov_22: np.ndarray) -> np.ndarray:
    """The nearest covariance without negative variances."""
    values, vectors = np.linalg.eigh((cov_22 + cov_22.T) / 2)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def from_log_cholesky(three: np.ndarray) -> np.ndarray:
    """The covariance whose Cholesky factor has these logarithms on its diagonal, and this below it."""
    root = np.array([[np.exp(three[0]), 0.0], [three[1], np.exp(three[2])]])
    return root @ root.T


def fit_hierarchy(fits: SeedFits) -> Hierarchy:
    """T and S by REML.

    Raises:
      ValueError: fewer than `LEAST_SIZES` sizes.
    """
    seeds_G, means_G2 = fits.seeds_G, fits.mean_of_seeds(fits.values_C2)
    if len(seeds_G) < LEAST_SIZES:
        raise ValueError(f"{len(seeds_G)} sizes: a law in log size needs {LEAST_SIZES}")
    apart = fits.values_C2 - means_G2[fits.of_C]
    within, within_df = apart.T @ apart, len(fits.of_C) - len(seeds_G)
    x_G24 = np.stack([design(x) for x in fits.x_G - fits.x_G.mean()])
    law = np.linalg.lstsq(x_G24.reshape(-1, 4), means_G2.reshape(-1), rcond=None)[0]
    left = means_G2 - x_G24 @ law
    unit = np.sqrt((np.diag(within) + (left**2).sum(0)) / (within_df + len(seeds_G) - 2))
    unit = np.where(unit > 0, unit, 1e-9)  # coefficients are measured in it, so that one start suits all
    scale = np.outer(unit, unit)

    def loss(six: np.ndarray) -> float:
        t = from_log_cholesky(six[:3])
        s = from_log_cholesky(six[3:]) if within_df else np.zeros((2, 2))
        out = minus_log_likelihood(t, s, x_G24, means_G2 / unit, seeds_G, within / scale, within_df)
        return out - (six[0] + six[2]) / 2 + 1e-4 * float((six**2).sum())  # |T|^(1/2); and nothing runs away

    start = np.array([-1.0, 0.0, -1.0, -0.5, 0.0, -0.5])[: 6 if within_df else 3]
    six = optimize.minimize(loss, start, method="BFGS").x
    seeds = from_log_cholesky(six[3:]) * scale if within_df else np.zeros((2, 2))
    return Hierarchy(fits, from_log_cholesky(six[:3]) * scale, seeds)


def minus_log_likelihood(
    t: np.ndarray,
    s: np.ndarray,
    x_G24: np.ndarray,
    means_G2: np.ndarray,
    seeds_G: np.ndarray,
    within: np.ndarray,
    within_df: int,
) -> float:
    """Of REML, up to a constant: sizes' means about the law, and the scatter `within` sizes, f64[2, 2]."""
    v_G22 = t + s / seeds_G[:, None, None]
    precision = np.linalg.inv(v_G22)
    weighted = np.einsum("gai,gab->gib", x_G24, precision)
    information = np.einsum("gib,gbj->ij", weighted, x_G24)
    error = means_G2 - x_G24 @ np.linalg.solve(information, np.einsum("gib,gb->i", weighted, means_G2))
    out = np.linalg.slogdet(v_G22)[1].sum() + np.linalg.slogdet(information)[1]
    out += np.einsum("ga,gab,gb->", error, precision, error)
    if within_df:
        out += within_df * np.linalg.slogdet(s)[1] + np.trace(np.linalg.solve(s, within))
    return float(out) / 2


def peaks(estimate: Estimate, form: str, level: float) -> tuple[list[float], list[float]]:
    """Intervals of (KL, gold) at the peak of `form`; infinite ends where the coefficients allow that it never turns."""

    def interval_of(which: int) -> list[float]:
        def logarithm(value_2: np.ndarray) -> float:
            return float(np.log(np.maximum(peak(form, *value_2)[which], 1e-12)))

        draws = estimate.draws(gradient_of(logarithm, estimate))
        with np.errstate(over="ignore"):  # a form that hardly bends peaks out of all range
            values = peak(form, draws[:, 0], draws[:, 1])[which] ** (1 if which else 2)
        return quantiles(values, level)

    return interval_of(0), interval_of(1)


def gradient_of(statistic: Callable[[np.ndarray], float], estimate: Estimate) -> np.ndarray:
    """Direction in which a statistic of the two coefficients grows, f64[2]; of alpha where it does not."""
    steps = 1e-3 * np.sqrt(np.diag(estimate.cov_22))
    out = np.zeros(2)
    for i, step in enumerate(steps):
        up, down = estimate.value_2 + step * np.eye(2)[i], estimate.value_2 - step * np.eye(2)[i]
        out[i] = (statistic(up) - statistic(down)) / (2 * max(step, 1e-300))
    return out if np.isfinite(out).all() and out.any() else np.array([1.0, 0.0])


def quantiles(values_N: np.ndarray, level: float) -> list[float]:
    tail = (1 - level) / 2
    return [float(np.quantile(values_N, q, method="nearest")) for q in (tail, 1 - tail)]
