"""Gold by step alone, where no KL is known: has it peaked, where, and how sure is that?

Gold is compared with the best curve that never falls and the best one that rises and then falls, both without a form
(isotonic and unimodal regression; Stout, "Unimodal regression via prefix isotonic regression", 2008). Whether the fall
is more than noise is judged on curves that never fall, with the noise's own size and autocorrelation.
"""

from typing import NamedTuple

import numpy as np

from rmo.runtime.types import Row

FEWEST = 5  # reads of gold
BLOCKS = 60  # to which longer logs are averaged
SURE = 0.005  # a fall as large comes by chance this rarely, where gold never falls: people look again and again
LATE = 0.8  # of the steps: where the peak lies later than this, gold still rises
WANDERING = (0.0, 0.2, 0.4, 0.6, 0.8)  # correlations of noise from read to read that are tried
PLAUSIBLE = 0.5  # a correlation counts if it leaves as much as was left in so many of its repetitions, or fewer
TRIES = 60  # repetitions of each
ERRORS = 2.0  # standard errors by which gold at a stop may lie below the highest


class Shape(NamedTuple):
    """A curve that rises up to its mode and falls from there."""

    fit: np.ndarray  # f64[K]
    mode: int
    error: float  # weighted sum of squares left


def rising(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the closest curve that never falls, f64[K]; the squares left by that of every prefix, f64[K]), by pooling
    neighbours that fall."""
    means: list[float] = []
    weights: list[float] = []
    counts: list[int] = []
    lost: list[float] = []  # squares left within each block
    left = np.zeros(len(values))
    for k in range(len(values)):
        mean, total, count, square = float(values[k]), float(weight[k]), 1, 0.0
        while means and means[-1] >= mean:
            before, of = means.pop(), weights.pop()
            square += lost.pop() + of * total / (of + total) * (before - mean) ** 2
            mean = (of * before + total * mean) / (of + total)
            total, count = total + of, count + counts.pop()
        means.append(mean)
        weights.append(total)
        counts.append(count)
        lost.append(square)
        left[k] = sum(lost) if len(lost) < 2 else left[k - count] + square
    return np.repeat(means, counts), left


def squares_by_mode(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """(squares left by the closest curve that rises up to each of K reads and falls from the next, f64[K]; those left
    by the closest one that never falls)."""
    _, up = rising(values, weight)
    _, down = rising(values[::-1], weight[::-1])
    return up + np.append(down[::-1][1:], 0.0), float(up[-1])


def unimodal(values: np.ndarray, weight: np.ndarray) -> Shape:
    """The closest curve that rises and then falls; it may do only one of them."""
    total, _ = squares_by_mode(values, weight)
    mode = int(total.argmin())
    first, _ = rising(values[: mode + 1], weight[: mode + 1])
    rest, _ = rising(values[mode + 1 :][::-1], weight[mode + 1 :][::-1])
    fit = np.concatenate([first, rest[::-1]])
    return Shape(fit, int(fit.argmax()), float(total[mode]))


def noise_of(values: np.ndarray, shape: Shape, se: np.ndarray | None) -> tuple[np.ndarray, float]:
    """(standard deviation of the noise at K reads, its correlation from read to read), from what the unimodal curve
    leaves; not less than the log's own standard errors.

    The curve follows noise that wanders, so that what is left looks smaller and less correlated than the noise was.
    Noise of several correlations is put on the curve and taken off again: the largest correlation counts that may well
    have left what was left, and its size as much as it lost.
    """
    size, together = left_over(values, shape)
    chosen, lost = 0.0, 1.0
    for true in WANDERING:
        noise = draws(np.full(len(values), size), true, TRIES, 1)
        ones = np.ones(len(values))
        found = np.array([left_over(values, unimodal(values, ones)) for values in shape.fit + noise])
        if true == 0 or together >= np.quantile(found[:, 1], PLAUSIBLE):
            chosen, lost = true, float(found[:, 0].mean()) / max(size, 1e-300)
    size = size / max(min(lost, 1.0), 0.1)
    apart = float((np.diff(values, 2) ** 2).mean() / 6) ** 0.5  # of white noise, whatever the trend
    spread = np.full(len(values), max(size, apart))
    if se is not None:
        spread = np.maximum(np.where(se > 0, se, 0.0), spread)  # checkpoints scatter by more than samples do
    return spread, chosen


def left_over(values: np.ndarray, shape: Shape) -> tuple[float, float]:
    """(size, correlation from read to read) of what a curve leaves."""
    left = values - shape.fit
    squares = float((left**2).sum())
    return (squares / len(values)) ** 0.5, float((left[1:] * left[:-1]).sum() / max(squares, 1e-300))


def draws(spread: np.ndarray, together: float, count: int, seed: int = 0) -> np.ndarray:
    """Noise f64[N, K], autoregressive of first order."""
    white = np.random.default_rng(seed).normal(size=(count, len(spread)))
    noise = white.copy()
    for k in range(1, len(spread)):
        noise[:, k] = together * noise[:, k - 1] + (1 - together**2) ** 0.5 * white[:, k]
    return noise * spread


def blocks(
    step: np.ndarray, gold: np.ndarray, se: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The same reads averaged to at most `BLOCKS`."""
    if len(gold) <= BLOCKS:
        return step, gold, se
    parts = np.array_split(np.arange(len(gold)), BLOCKS)
    means = [np.array([x[part].mean() for part in parts]) for x in (step, gold)]
    errors = None if se is None else np.array([(np.nanmean(se[part] ** 2) / len(part)) ** 0.5 for part in parts])
    return means[0], means[1], errors


def judge(step: np.ndarray, gold: np.ndarray, se: np.ndarray | None = None, count: int = 600) -> Row:
    """What `judged` says of all reads, with `count` draws of the noise; undecided if the last read alone shows a fall,
    as an evaluation that failed would."""
    found = judged(step, gold, se, count)
    if found["verdict"] != "stop" or len(gold) <= FEWEST:
        return found
    before = judged(step[:-1], gold[:-1], None if se is None else se[:-1], count)
    if before["verdict"] == "stop":
        return found
    text = (
        f"undecided: gold was highest at step {found['step']:,.6g}, and the last read alone, {gold[-1]:.3g} at step "
        f"{step[-1]:,.6g}, shows a fall: read gold there again, or further on"
    )
    return {**found, "verdict": "undecided", "sentence": text}


def judged(step: np.ndarray, gold: np.ndarray, se: np.ndarray | None, count: int) -> Row:
    """What gold f64[K] at steps f64[K] says of where to stop, with standard errors f64[K] where they are known.

    `verdict` is stop (gold fell by more than chance), go on (it still rises at the end) or undecided; `step` where gold
    was highest, `interval` in which 95% of repetitions have their peak, `fell_by` and `fell_se` of the fall from there
    to the end, `chance` of a fall as large where gold never falls.
    """
    size = len(gold)
    if size < FEWEST:
        text = f"undecided: gold was read {size} times, and {FEWEST} are needed to tell a fall from noise"
        return {"verdict": "undecided", "step": None, "sentence": text}
    step, gold, se = blocks(step, gold, se)
    weight = np.ones(len(gold))
    shape = unimodal(gold, weight)
    spread, together = noise_of(gold, shape, se)
    if not (spread > 0).all():
        spread = np.maximum(spread, 1e-12 * max(float(np.ptp(gold)), 1.0))
    never, left = rising(gold, weight)
    noise = draws(spread, together, count)
    chance = (1 + sum(gain(never + drawn, weight) >= left[-1] - shape.error for drawn in noise)) / (1 + count)
    modes = np.sort([squares_by_mode(shape.fit + drawn, weight)[0].argmin() for drawn in noise])
    low, high = (int(modes[round(q * (count - 1))]) for q in (0.025, 0.975))
    at = place(gold, shape, spread, low, high)
    rise, fall, error = differences(shape, spread, together)
    found: Row = {
        "step": float(step[at]), "interval": [float(step[min(low, at)]), float(step[max(high, at)])],
        "gold": float(gold[at]), "last_step": float(step[-1]), "fell_by": fall, "fell_se": error,
        "chance": float(chance), "autocorrelation": together,
    }  # fmt: skip
    late = low >= LATE * (len(gold) - 1)
    if chance <= SURE and fall > ERRORS * error:
        verdict = "stop"
    elif late and rise > ERRORS * error:
        verdict = "go on"
    else:
        verdict = "undecided"
    return {"verdict": verdict, **found, "sentence": sentence(verdict, found, rise, error)}


def gain(values: np.ndarray, weight: np.ndarray) -> float:
    """By how many squares the best unimodal curve is closer than the best that never falls."""
    total, never = squares_by_mode(values, weight)
    return never - float(total.min())


def place(gold: np.ndarray, shape: Shape, spread: np.ndarray, low: int, high: int) -> int:
    """The read to stop at: the curve's mode, unless gold was measured clearly higher elsewhere in its interval."""
    top = low + int(gold[low : high + 1].argmax())
    clearly = gold[top] - gold[shape.mode] > ERRORS * spread[shape.mode]
    return top if clearly else shape.mode


def differences(shape: Shape, spread: np.ndarray, together: float) -> tuple[float, float, float]:
    """(rise to the peak, fall to the end, standard error of the fall) of the fitted curve."""
    fit = shape.fit
    peak, end = fit == fit.max(), fit == fit[-1]
    inflation = (1 + together) / (1 - together)
    size = float(np.mean(spread**2))
    error = (inflation * size * (1 / peak.sum() + 1 / end.sum())) ** 0.5
    return float(fit.max() - fit[0]), float(fit.max() - fit[-1]), error


def sentence(verdict: str, found: Row, rise: float, error: float) -> str:
    """The judgement in words."""
    at, (low, high), last = found["step"], found["interval"], found["last_step"]
    where = f"step {at:,.0f}" + ("" if low == high else f" (between {low:,.0f} and {high:,.0f})")
    fell = f"by step {last:,.0f} it has fallen by {found['fell_by']:.2g} (standard error {error:.1g})"
    if verdict == "stop":
        often = f"a fall as large comes by chance in {max(found['chance'], 0.0):.1%} of runs that never fall"
        return f"stop at {where}, where gold was highest: {fell}; {often}"
    if verdict == "go on":
        return f"go on: gold still rises at step {last:,.0f}, by {rise:.2g} so far; read it again further on"
    seen = f"gold was highest at {where}; {fell}, which may be chance ({found['chance']:.0%})"
    return f"undecided: {seen}: read gold on more samples, or further on"
