"""A law of whole curves over RM size and comparisons: what it says of a place where no RM was trained.

A curve is J numbers (scores on its sweep's main shapes, `unmeasured.Fitted`), each with a law of its own. At place x =
(log10 size, log10 comparisons), seed s, one of them is

    z = b (1, x) + g(x) + u_x + e_s,

a plane, a smooth deviation g from it (a Gaussian process that forgets over some decades along each axis, `LENGTHS`),
what a place misses both by (u), and the luck of a seed (e): kriging with a linear drift (Matheron 1969; Rasmussen and
Williams 2006, section 2.7). The seeds of a place enter as their mean and their scatter about it, which is all they say.

The plane and the variance are integrated out: what is known of a new place is Student's t. Scales and lengths are not
chosen but averaged over a grid, each cell weighted by its restricted likelihood, so that few places, which cannot tell
them, make wide intervals. Far from all places g is unknown and the plane's slope counts with all its error: intervals
widen. The shapes are such that what a plane leaves of their numbers is uncorrelated: they are taken as independent.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

LENGTHS = (0.7, 1.5, 3.0)  # decades
SMOOTH = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # variance of g over that of seeds
MISSED = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of u over that of seeds
LEAST_DF = 3  # degrees of freedom, below which Student's t has no variance


@dataclass(frozen=True)
class Places:
    """G places on D axes: means over the seeds of each, and the scatter of seeds about them."""

    x_GD: np.ndarray  # f64[G, D], log10
    seeds_G: np.ndarray  # i[G]
    means_GJ: np.ndarray  # f64[G, J]
    scatter_J: np.ndarray  # f64[J], sums of squares

    @property
    def df(self) -> int:
        """Degrees of freedom of a number's variance: one per curve, less the plane's coefficients."""
        return int(self.seeds_G.sum()) - 1 - self.x_GD.shape[1]


def places(x_GD: np.ndarray, of_C: np.ndarray, z_CJ: np.ndarray) -> Places:
    """From C curves, `of_C` being the place of each."""
    seeds = np.bincount(of_C, minlength=len(x_GD))
    means = np.stack([z_CJ[of_C == g].mean(0) for g in range(len(x_GD))])
    apart = z_CJ - means[of_C]
    return Places(x_GD, seeds, means, (apart**2).sum(0))


@dataclass(frozen=True)
class Law:
    """The law with H sets of scales and lengths, each with its weight."""

    of: Places
    lengths_HD: np.ndarray  # decades
    smooth_H: np.ndarray
    missed_H: np.ndarray

    def design(self, x_ND: np.ndarray) -> np.ndarray:
        """f64[N, 1 + D]: what the plane's coefficients multiply."""
        return np.hstack([np.ones((len(x_ND), 1)), x_ND - self.of.x_GD.mean(0)])

    def likeness(self, x_ND: np.ndarray) -> np.ndarray:
        """Correlation of g between N points and the G places, f64[H, N, G]."""
        apart = x_ND[:, None] - self.of.x_GD[None]
        return np.exp(-0.5 * np.einsum("ngd,hd->hng", apart**2, self.lengths_HD**-2.0))

    @cached_property
    def precision_HGG(self) -> np.ndarray:
        own = self.missed_H[:, None] + 1 / self.of.seeds_G
        k = self.smooth_H[:, None, None] * self.likeness(self.of.x_GD) + own[:, None] * np.eye(len(self.of.x_GD))
        return np.linalg.inv(k)

    @cached_property
    def information_HPP(self) -> np.ndarray:
        f = self.design(self.of.x_GD)
        return f.T @ self.precision_HGG @ f

    @cached_property
    def plane_HPJ(self) -> np.ndarray:
        f = self.design(self.of.x_GD)
        return np.linalg.solve(self.information_HPP, f.T @ self.precision_HGG @ self.of.means_GJ)

    @cached_property
    def left_HGJ(self) -> np.ndarray:
        return self.of.means_GJ - self.design(self.of.x_GD) @ self.plane_HPJ

    @cached_property
    def square_HJ(self) -> np.ndarray:
        """Sums of squares of everything that is not the plane."""
        between = np.sum(self.left_HGJ * (self.precision_HGG @ self.left_HGJ), axis=1)
        return self.of.scatter_J + between + 1e-18 * np.sum(self.of.means_GJ**2) + 1e-300

    @cached_property
    def weight_HJ(self) -> np.ndarray:
        """Restricted likelihood, with a flat prior for the standard deviation of u (Gelman 2006, Bayesian Anal. 1),
        which few places would else have at zero; sums to 1 over H."""
        lost = np.linalg.slogdet(self.information_HPP)[1] - np.linalg.slogdet(self.precision_HGG)[1]
        log_weight = 0.5 * ((np.log(self.missed_H) - lost)[:, None] - self.of.df * np.log(self.square_HJ))
        weight = np.exp(log_weight - log_weight.max(0))
        return weight / weight.sum(0)

    def at(self, x_D: np.ndarray, seeds: int) -> tuple[np.ndarray, np.ndarray]:
        """(mean f64[H, J], variance f64[H] as a multiple of that of a seed) of the mean of new seeds at x."""
        k_HG = self.smooth_H[:, None] * self.likeness(x_D[None])[:, 0]
        f_P, pulled_HG = self.design(x_D[None])[0], np.einsum("hg,hgk->hk", k_HG, self.precision_HGG)
        mean = f_P @ self.plane_HPJ + np.einsum("hg,hgj->hj", pulled_HG, self.left_HGJ)
        rest_HP = f_P - pulled_HG @ self.design(self.of.x_GD)
        plane = np.einsum("hp,hp->h", rest_HP, np.linalg.solve(self.information_HPP, rest_HP[..., None])[..., 0])
        own = self.smooth_H + self.missed_H + 1 / seeds
        return mean, own - np.einsum("hg,hg->h", pulled_HG, k_HG) + plane

    def draws(self, x_D: np.ndarray, seeds: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws f64[n, J] of what the mean of `seeds` new seeds at x may be; x are log10, one for each axis."""
        mean_HJ, variance_H = self.at(x_D, seeds)
        sd_HJ, out = np.sqrt(self.square_HJ * variance_H[:, None] / self.of.df), np.empty((n, mean_HJ.shape[1]))
        for j, weight_H in enumerate(self.weight_HJ.T):
            which = rng.choice(len(weight_H), size=n, p=weight_H)
            out[:, j] = mean_HJ[which, j] + sd_HJ[which, j] * rng.standard_t(self.of.df, n)
        return out


def fit_law(of: Places) -> Law:
    """The law of these places, over the whole grid of scales and lengths.

    Raises:
      ValueError: too few curves.
    """
    if of.df < LEAST_DF:
        raise ValueError(
            f"{of.seeds_G.sum()} curves: a law along {of.x_GD.shape[1]} axes needs {LEAST_DF - of.df} more"
        )
    lengths = list(itertools.product(LENGTHS, repeat=of.x_GD.shape[1]))
    cells = [(*length, s, u) for length in lengths for s in SMOOTH if s for u in MISSED]
    cells += [(*lengths[0], 0.0, u) for u in MISSED]  # without g its lengths are nothing
    grid = np.array(cells)
    return Law(of, grid[:, :-2], grid[:, -2], grid[:, -1])
