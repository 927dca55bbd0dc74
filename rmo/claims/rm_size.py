"""The paper's claims C1 to C5: gold and proxy against KL, and RM size."""

from collections.abc import Sequence

import numpy as np

from rmo.analysis.curve import regrid
from rmo.analysis.fitting import Group
from rmo.analysis.forms import FORMS, lower_end, peak
from rmo.analysis.scaling import against_log_size
from rmo.analysis.sweeps import Missing
from rmo.claims.claim import INF, SMALL, claim
from rmo.claims.evidence import Line, View
from rmo.claims.kinds import LEAST, LOG_RATIO, ROOT, SIZE
from rmo.methods.method import find
from rmo.methods.paper import BEST_OF_N, PPO


def per_decade(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of y against log10 x."""
    return float(against_log_size(np.asarray(x), np.asarray(y))[0])


def mean_slope(line: Line, low: float, high: float, score: str) -> float:
    """Slope of a score between two shares of the range of d."""
    rise = line.at(high * line.end, score) - line.at(low * line.end, score)
    return float(rise) / ((high - low) * line.end)


def forecast(
    view: View, groups: Sequence[Group], score: str, share: float
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """(predicted, measured, measured at the cut) beyond `share` of the KL range, from a fit to what lies below it."""
    features, out = FORMS[find(groups[0].method).form].features, []
    coefficients = view.fits(groups, score, max_kl_share=share)
    for g, c in zip(groups, coefficients, strict=True):
        line = view.line(g)
        cut = line.end * share**0.5
        d = np.linspace(cut, line.end, 17)[1:]
        out.append((features(d, 0.0) @ c, line.at(d, score), float(line.at(cut, score))))
    return out


def lack_of_fit(view: View, method: str, shared: bool) -> float:
    """Mean square of (mean curve - the paper's form fitted to it) over the range that it is fitted to, mean over RM
    sizes, gold sd squared. The form is read between the same points as gold, so that interpolation is no misfit."""
    groups = view.sizes(method)
    return float(np.mean(squared_misfits(view, groups, shared)))


def squared_misfits(view: View, groups: Sequence[Group], shared: bool = False) -> list[float]:
    """Of every group of one method: mean square of (mean curve - form), as `lack_of_fit` has it."""
    fits = view.fits(groups, shared=shared)
    return [squared_misfit(view, g, c) for g, c in zip(groups, fits, strict=True)]


def squared_misfit(view: View, g: Group, coefficients: np.ndarray, end: float = INF) -> float:
    """Mean square of (mean curve - form with these coefficients) up to d = `end`."""
    form, line = find(g.method).form, view.line(g)
    low = max(lower_end(form, view.evidence.min_d), 1e-9)
    at_points = [regrid(line.d, curve, FORMS[form].features(curve.d, 0.0) @ coefficients) for curve in g.curves]
    error = line.gold - view.weights(g) @ np.stack(at_points)
    return float(np.mean(error[(line.d >= low) & (line.d <= end + 1e-9)] ** 2))


# RM size.


@claim("C1a", (0, INF), "fig1a", LEAST)
def c1a(view: View) -> list[float]:
    """Best-of-n against a small RM: gold rises, peaks and falls.

    Smallest RM: the smaller of gold's rise to its peak and its fall from there to the end."""
    line = view.line(view.sizes(BEST_OF_N, 1)[0])
    return [line.peak()[1], line.fall()]


@claim("C1b", (0, INF), "fig1b", LEAST)
def c1b(view: View) -> list[float]:
    """RL against a small RM: gold rises, peaks and falls.

    Smallest RM: the smaller of gold's rise to its peak and its fall from there to the end."""
    line = view.line(view.sizes(PPO, 1)[0])
    return [line.peak()[1], line.fall()]


@claim("C1c", (0, INF), "fig1b", LEAST)
def c1c(view: View) -> list[float]:
    """Meanwhile the proxy keeps rising.

    Smallest RM, the lower of both methods: proxy gained over the last quarter of d."""
    lines = [view.line(view.sizes(method, 1)[0]) for method in (BEST_OF_N, PPO)]
    return [line.proxy[-1] - float(line.at(0.75 * line.end, "proxy")) for line in lines]


# A form fits where it misses the mean curve by less than half of what counts as a small effect. R² said how much gold
# varies along the range, and its worst of six sizes was mostly noise.


@claim("C2a", (-INF, SMALL / 2), "fig1a", ROOT)
def c2a(view: View) -> float:
    """d(a - b d) fits best-of-n for every RM size.

    Root mean square of gold's mean curve less the form, over KL and RM sizes, in gold sd, noise of seeds and prompts
    removed."""
    return lack_of_fit(view, BEST_OF_N, False)


@claim("C2b", (-INF, SMALL / 2), "fig1b", ROOT)
def c2b(view: View) -> float:
    """d(a - b log d) with one a fits RL for every RM size.

    Root mean square of gold's mean curve less the form, over KL and RM sizes, in gold sd, noise of seeds and prompts
    removed."""
    return lack_of_fit(view, PPO, True)


def squared_errors(view: View, method: str) -> list[float]:
    """Mean squares over RM sizes and points beyond 60% of the KL range: of the forecast's error, and of how far gold
    moves from where it is at the cut."""
    rows = forecast(view, view.sizes(method), "gold", 0.6)
    error = np.mean([np.mean((predicted - measured) ** 2) for predicted, measured, _ in rows])
    stay = np.mean([np.mean((measured - at_cut) ** 2) for _, measured, at_cut in rows])
    return [float(error), float(stay)]


# A forecast is worth something where it misses by less than "gold stays as it is" does: log ratio below 0.


@claim("C2c", (-INF, 0), "fig26a", LOG_RATIO)
def c2c(view: View) -> list[float]:
    """The best-of-n form, fitted to low KL, predicts high KL.

    Log of the forecast's error / that of gold staying as it is, beyond 60% of the KL range, root mean squares over RM
    sizes, noise removed, errors below 0.05 sd counted as none."""
    return squared_errors(view, BEST_OF_N)


@claim("C2d", (-INF, 0), "fig26b", LOG_RATIO)
def c2d(view: View) -> list[float]:
    """The RL form, fitted to low KL, predicts high KL.

    Log of the forecast's error / that of gold staying as it is, beyond 60% of the KL range, root mean squares over RM
    sizes, noise removed, errors below 0.05 sd counted as none."""
    return squared_errors(view, PPO)


def slope_of(view: View, method: str, which: int, shared: bool) -> float:
    """Slope of alpha (which 0) or beta (1) per decade of RM size."""
    groups = view.sizes(method)
    return per_decade([g.params for g in groups], view.fits(groups, shared=shared)[:, which].tolist())


@claim("C3a", (0, INF), "fig3a")
def c3a(view: View) -> float:
    """alpha of best-of-n rises with RM size.

    Slope per decade."""
    return slope_of(view, BEST_OF_N, 0, False)


@claim("C3b", (-INF, 0), "fig3b")
def c3b(view: View) -> float:
    """beta of best-of-n falls with RM size.

    Slope per decade."""
    return slope_of(view, BEST_OF_N, 1, False)


@claim("C3c", (-INF, 0), "fig3c")
def c3c(view: View) -> float:
    """beta of RL falls with RM size.

    Slope per decade."""
    return slope_of(view, PPO, 1, True)


# Expected to be zero: within a small effect either way. alpha is what the form says of gold at 1 nat.


@claim("C3d", (-SMALL, SMALL), "fig3c")
def c3d(view: View) -> float:
    """alpha of RL does not depend on RM size.

    Change over the swept sizes, each fitted alone, in gold sd (alpha is the form's gold at 1 nat)."""
    groups = view.sizes(PPO)
    params = [g.params for g in groups]
    return per_decade(params, view.fits(groups)[:, 0].tolist()) * float(np.log10(params[-1] / params[0]))


def left_out_errors(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What least squares on columns x f64[G, P] misses each y f64[G] by, when that one is left out (Allen's PRESS)."""
    hat = x @ np.linalg.pinv(x)
    return (y - hat @ y) / (1 - np.diag(hat))


# About linearly: a line through the other sizes predicts a left-out one better than their mean does.


@claim("C3e", (-INF, 0), "fig3a", LOG_RATIO)
def c3e(view: View) -> list[float]:
    """The coefficients change about linearly in log(RM size).

    Log of the error of a line / of a constant, sizes left out one at a time, root mean squares over alpha, beta
    (best-of-n) and beta (RL) in gold sd at 1 nat, noise removed, errors below 0.05 sd counted as none."""
    out = []
    for method, which, shared in ((BEST_OF_N, 0, False), (BEST_OF_N, 1, False), (PPO, 1, True)):
        groups = view.sizes(method)
        line = np.stack([np.ones(len(groups)), np.log10([g.params for g in groups])], axis=1)
        values = view.fits(groups, shared=shared)[:, which]
        out.append([np.mean(left_out_errors(law, values) ** 2) for law in (line, line[:, :1])])
    return np.mean(out, axis=0).tolist()


@claim("C4a", (0, INF), "fig12")
def c4a(view: View) -> float:
    """The peak gold score grows with RM size.

    Best-of-n: slope of the measured peak per decade."""
    groups = view.sizes(BEST_OF_N)
    return per_decade([g.params for g in groups], [view.line(g).peak()[1] for g in groups])


# A prediction is right where it misses by less than half of a small effect, as in C2.


@claim("C4b", (-INF, SMALL / 2), "fig12", ROOT)
def c4b(view: View) -> float:
    """The peak is predicted by a²/4b.

    Best-of-n: root mean square of the error in gold sd, over RM sizes where both the measured and the fitted peak lie
    within the data, noise removed."""
    groups, form = view.sizes(BEST_OF_N), find(BEST_OF_N).form
    d_star = peak(form, *view.evidence.whole.fits(groups).T)[0]
    inside = [i for i, g in enumerate(groups) if d_star[i] < g.curves[0].d.max() and view.turned(g)]
    if not inside:
        raise Missing("no peak within the measured range")
    predicted = np.minimum(peak(form, *view.fits(groups).T)[1], 1e3)
    return float(np.mean([(predicted[i] - view.line(groups[i]).peak()[1]) ** 2 for i in inside]))


@claim("C5a", (0, INF), "fig20")
def c5a(view: View) -> float:
    """Proxy scores bend much less than gold.

    Best-of-n, mean over RM sizes: beta of gold - 2 beta of proxy."""
    groups = view.sizes(BEST_OF_N)
    return float(np.mean(view.fits(groups)[:, 1] - 2 * view.fits(groups, "proxy")[:, 1]))


def proxy_forecast(view: View, method: str) -> float:
    """Proxy predicted from 60% of the KL range - measured, at the end, mean over RM sizes."""
    return float(np.mean([p[-1] - m[-1] for p, m, _ in forecast(view, view.sizes(method), "proxy", 0.6)]))


@claim("C5b", (-INF, 0), "fig20")
def c5b(view: View) -> float:
    """Extrapolated, the form underestimates the best-of-n proxy.

    Predicted - measured at the end, from 60% of the KL range."""
    return proxy_forecast(view, BEST_OF_N)


@claim("C5c", (-INF, 0), "fig26b")
def c5c(view: View) -> float:
    """Extrapolated, the form underestimates the RL proxy.

    Predicted - measured at the end, from 60% of the KL range."""
    return proxy_forecast(view, PPO)


@claim("C5d", (-INF, 0.25), "fig20", SIZE)
def c5d(view: View) -> list[float]:
    """Proxy scores end up about linear in d.

    Change of slope from the third to the last quarter of d as a share of their mean, over RM sizes; the method with
    the larger one."""
    out = []
    for method in (BEST_OF_N, PPO):
        lines = [view.line(g) for g in view.sizes(method)]
        third, last = (
            float(np.mean([mean_slope(line, low, low + 0.25, "proxy") for line in lines])) for low in (0.5, 0.75)
        )
        out.append((last - third) / max(abs(third + last) / 2, 1e-6))
    return out
