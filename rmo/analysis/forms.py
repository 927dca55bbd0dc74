"""The functional forms of gold against d = sqrt(KL), one entry each.

d is in nats^0.5, gold in its standard deviations above the initial policy (paper section 3.1). Every form is zero at
d = 0 and linear in alpha and beta, written a and b in its name.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Form(NamedTuple):
    """One form. Rival forms need features only; a form that a method is fitted with has a peak and a slope too."""

    features: Callable[[np.ndarray, float], np.ndarray]  # (d f64[K], g) -> f64[K, 2]: what alpha and beta multiply
    shapes: tuple[float, float] | None = None  # the range in which g, its shape parameter, is searched, if it has one
    steep: bool = False  # whether its slope is infinite at d = 0 (paper footnote 1): its fits begin at `min_d`
    peak: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None  # (d, gold) where beta > 0
    slope: Callable[[np.ndarray, np.ndarray, float], np.ndarray] | None = None  # dR/dd at d > 0


def _log(d: np.ndarray) -> np.ndarray:
    """log d, and 0 at d = 0."""
    return np.where(d > 0, np.log(np.where(d > 0, d, 1.0)), 0.0)


def _quadratic_peak(alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rise = np.maximum(alpha, 0)  # where alpha <= 0 gold falls from the start
    return rise / (2 * beta), rise**2 / (4 * beta)


def _log_peak(alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    d = np.exp(alpha / beta - 1)
    return d, beta * d


FORMS = {
    "d(a - b d)": Form(  # the paper's for best-of-n
        lambda d, _: np.stack([d, -(d**2)], 1), peak=_quadratic_peak, slope=lambda a, b, d: a - b * (2 * d)
    ),
    "d(a - b log d)": Form(  # the paper's for RL
        lambda d, _: np.stack([d, -d * _log(d)], 1), steep=True, peak=_log_peak,
        slope=lambda a, b, d: a - b * (np.log(d) + 1),
    ),
    "d(a - b log(1+d))": Form(lambda d, _: np.stack([d, -d * np.log1p(d)], 1)),
    "d(a - b log(e+d))": Form(lambda d, e: np.stack([d, -d * np.log(e + d)], 1), (1e-3, 10.0)),
    "d(a - b d^g)": Form(lambda d, g: np.stack([d, -d * d**g], 1), (0.02, 4.0)),
    "d^2(a - b d^2)": Form(lambda d, _: np.stack([d**2, -(d**4)], 1)),
    "a d^g": Form(lambda d, g: np.stack([d**g, np.zeros_like(d)], 1), (0.05, 4.0)),
}  # fmt: skip


def lower_end(form: str, min_d: float) -> float:
    """The d from which points count in fits of a form."""
    return min_d if FORMS[form].steep else 0.0


def peak(form: str, alpha: ArrayLike, beta: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(d, gold) of the peak; infinite where the form never turns (beta <= 0).

    Raises:
      ValueError: the form has no peak in closed form.
    """
    alpha, beta = np.asarray(alpha, np.float64), np.asarray(beta, np.float64)
    closed = FORMS[form].peak
    if closed is None:
        raise ValueError(f"no closed form for the peak of {form}: give it one in rmo/analysis/forms.py")
    with np.errstate(over="ignore"):
        d, gold = closed(alpha, np.where(beta > 0, beta, 1.0))
    return np.where(beta > 0, d, np.inf), np.where(beta > 0, gold, np.inf)


def slope(form: str, alpha: ArrayLike, beta: ArrayLike, d: float) -> np.ndarray:
    """dR/dd at d: below zero past the peak.

    Raises:
      ValueError: the form has no slope in closed form.
    """
    closed = FORMS[form].slope
    if closed is None:
        raise ValueError(f"no closed form for the slope of {form}: give it one in rmo/analysis/forms.py")
    return closed(np.asarray(alpha, np.float64), np.asarray(beta, np.float64), d)
