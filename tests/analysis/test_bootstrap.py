"""Errors of crossed seeds and prompts: every part of the variance is counted, once, and intervals cover."""

import numpy as np
import pytest

from rmo.analysis import bootstrap
from rmo.analysis.bootstrap import Error
from rmo.analysis.curve import Curve, from_prompts
from rmo.analysis.curve_id import CurveId

SIZES = (10, 100, 1000, 10_000)
TREND = np.array([-0.3, -0.1, 0.1, 0.3])  # slope on log10 size, of a contrast that a shared effect cancels in


def one_point(y_GSQ: np.ndarray) -> list[Curve]:
    """A curve of one point for every RM size and seed."""
    flat = np.ones(1)
    return [
        from_prompts(CurveId("bon", SIZES[g], seed=s), flat, flat, y_Q[None], y_Q[None])
        for g, y_SQ in enumerate(y_GSQ)
        for s, y_Q in enumerate(y_SQ)
    ]


def means(y_GSQ: np.ndarray, r: bootstrap.Resamples) -> np.ndarray:
    """The mean of every size on every row, f64[N, G]."""
    weight = r.weight_NC.reshape(len(r.weight_NC), *y_GSQ.shape[:2])
    weight = weight / weight.sum(2, keepdims=True)
    return np.einsum("ngs,gsq,nq->ng", weight, y_GSQ, r.share_NQ)


def drawn(rng, seeds: int, prompts: int, shared: float, own: float, prompt: float, read: float) -> np.ndarray:
    """Scores of mean 0, f64[G, S, Q]: what a seed's label does to all sizes, an RM's own luck, a prompt's, read noise."""
    g = len(SIZES)
    return (
        shared * rng.normal(size=(1, seeds, 1))
        + own * rng.normal(size=(g, seeds, 1))
        + prompt * (rng.normal(size=(1, 1, prompts)) + rng.normal(size=(g, 1, prompts)) / 2)
        + read * rng.normal(size=(g, seeds, prompts))
    )


def test_moves_of_seeds_are_the_standard_error_of_a_mean():
    y = np.random.default_rng(0).normal(size=(4, 5, 1)) + np.zeros(3)
    r = bootstrap.resample(one_point(y), 0)
    e = bootstrap.error(means(y, r)[:, 2], r)
    assert e.seeds == pytest.approx(y[2, :, 0].var(ddof=1) / 5)
    assert e.seeds_df == 4
    assert e.prompts == pytest.approx(0)


def test_moves_of_prompts_are_the_standard_error_of_a_mean():
    y = np.random.default_rng(0).normal(size=(1, 1, 20)) + np.zeros((4, 3, 1))
    r = bootstrap.resample(one_point(y), 0)
    e = bootstrap.error(means(y, r).mean(1), r)
    assert e.prompts == pytest.approx(y[0, 0].var(ddof=1) / 20)
    assert e.prompts_df == 19
    assert e.seeds == pytest.approx(0)


def test_blocks_stand_for_many_prompts():
    y = np.random.default_rng(0).normal(size=(1, 1, 480)) + np.zeros((4, 2, 1))
    r = bootstrap.resample(one_point(y), 0)
    assert r.prompts.stop - r.prompts.start == bootstrap.MAX_BLOCKS
    assert bootstrap.error(means(y, r)[:, 0], r).prompts == pytest.approx(y[0, 0].var(ddof=1) / 480, rel=0.5)


def test_read_noise_is_counted_once():
    """Of read noise alone the variance is that of a mean over all reads, not that of seeds plus that of prompts."""
    found = []
    for trial in range(200):
        y = drawn(np.random.default_rng(trial), 4, 12, 0, 0, 0, 1.0)
        r = bootstrap.resample(one_point(y), 0)
        found.append(bootstrap.error(means(y, r)[:, 0], r).variance)
    assert np.mean(found) == pytest.approx(1.2 / 48, rel=0.2)  # a fifth more, as no part is ever below zero; not 2


def test_a_seed_effect_that_sizes_share_is_seen_in_their_mean_and_not_in_their_slope():
    y = drawn(np.random.default_rng(0), 5, 6, 1.0, 0, 0, 0.0)
    r = bootstrap.resample(one_point(y), 0)
    each = means(y, r)
    e = bootstrap.error(each.mean(1), r)
    assert e.seeds == pytest.approx(y[0, :, 0].var(ddof=1) / 5)
    assert e.seeds_df == 4
    # Independent seeds pool their degrees of freedom; a label cannot make an error of the slope smaller than theirs.
    own = bootstrap.error(each @ TREND, r)
    assert own.seeds == pytest.approx(y[0, :, 0].var(ddof=1) / 5 * np.sum(TREND**2))
    assert own.seeds_df > 8


def test_groups_with_other_seeds_keep_their_own_error():
    """Five seeds of one RM, three of another: labels that only one has move only that one."""
    rng = np.random.default_rng(0)
    y = [rng.normal(size=(n, 1)) + np.zeros(4) for n in (5, 3)]
    curves = [
        from_prompts(CurveId("bon", SIZES[g], seed=s), np.ones(1), np.ones(1), row[None], row[None])
        for g, rows in enumerate(y)
        for s, row in enumerate(rows)
    ]
    r = bootstrap.resample(curves, 0)
    weight = r.weight_NC[:, 5:] / r.weight_NC[:, 5:].sum(1, keepdims=True)
    e = bootstrap.error(weight @ y[1][:, 0], r)
    assert e.seeds == pytest.approx(y[1][:, 0].var(ddof=1) / 3)
    assert e.seeds_df == 2


def test_bias_of_a_square_is_the_squared_error_of_its_mean():
    y = drawn(np.random.default_rng(1), 3, 8, 0.5, 0.5, 0.5, 1.0)[:1] + 2.0
    r = bootstrap.resample(one_point(y), 0)
    grand, rows, columns = y.mean(), y[0].mean(1), y[0].mean(0)
    # Mean over pairs of different seeds and different prompts of their products: unbiased for the squared mean.
    total = (3 * 8 * grand) ** 2 - np.sum((8 * rows) ** 2) - np.sum((3 * columns) ** 2) + np.sum(y**2)
    square = means(y, r)[:, 0] ** 2
    assert square[0] - bootstrap.bias(square, r) == pytest.approx(total / (3 * 2 * 8 * 7))


def test_intervals_stay_in_their_range_and_hold_the_estimate():
    e = Error(0.04, 2, 0.01, 20)
    for value, bounds in [(0.9, (-np.inf, 1)), (0.95, (0, 1)), (0.1, (0, np.inf)), (1.0, (0, 1)), (0.0, (0, np.inf))]:
        low, high = bootstrap.t_interval(value, e, 0.025, bounds)
        assert bounds[0] <= low <= value <= high <= bounds[1]
        assert high > low
    # Far from its ends a range makes no difference.
    plain = bootstrap.t_interval(0.5, Error(1e-6, 2, 0, 1), 0.025)
    np.testing.assert_allclose(bootstrap.t_interval(0.5, Error(1e-6, 2, 0, 1), 0.025, (0, 1)), plain, atol=1e-4)


def test_percentiles_stay_in_their_range_too():
    y = drawn(np.random.default_rng(0), 3, 20, 0, 0.1, 0.5, 0.5)
    r = bootstrap.resample(one_point(y), 400)
    values = 1 - np.abs(means(y, r)[:, 0])
    low, high = bootstrap.percentiles(values, r, bounds=(-np.inf, 1))
    assert low <= values[0] <= high <= 1


def test_prompts_do_not_make_an_interval_narrower_than_seeds_alone():
    alone = Error(1.0, 1, 0.0, 30)
    assert Error(1.0, 1, 0.8, 30).margin(0.025) >= alone.margin(0.025)
    assert Error(1.0, 1, 0.8, 30).df > 3


def test_more_seeds_and_prompts_shrink_their_own_part():
    e = Error(0.06, 2, 0.02, 10)
    more = e.with_more(seeds=2)
    assert (more.seeds, more.seeds_df, more.prompts, more.prompts_df) == pytest.approx((0.03, 5, 0.02, 10))
    assert e.with_more(prompts=4).prompts == pytest.approx(0.005)


def coverage(seeds: int, trials: int, shared: float, own: float, prompt: float, read: float) -> dict[str, float]:
    """Share of trials in which the 95% interval holds the truth, 0, by statistic."""
    statistics = {"one size": np.eye(4)[0], "mean over sizes": np.full(4, 0.25), "slope over sizes": TREND}
    hits = dict.fromkeys(statistics, 0)
    for trial in range(trials):
        y = drawn(np.random.default_rng(trial), seeds, 12, shared, own, prompt, read)
        r = bootstrap.resample(one_point(y), 0)
        each = means(y, r)
        for name, weights in statistics.items():
            low, high = bootstrap.interval(each @ weights, r)
            hits[name] += low <= 0 <= high
    return {name: hit / trials for name, hit in hits.items()}


NOISES = {  # shared by sizes, an RM's own, prompts (their mean of 12), reads
    "own": (0.0, 0.3, 0.2, 0.5), "shared": (0.3, 0.0, 0.2, 0.5), "both": (0.2, 0.2, 0.2, 0.5), "a little": (0.1, 0.3, 0.2, 0.5),
    "prompts": (0.05, 0.05, 1.0, 0.5), "seeds": (0.2, 0.3, 0.0, 0.1),
}  # fmt: skip


def enough(trials: int) -> float:
    """93 of 100, less two standard errors of the simulation."""
    return 0.93 - 2 * (0.93 * 0.07 / trials) ** 0.5


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_in_a_few_trials(seeds):
    for name, covered in coverage(seeds, 60, *NOISES["both"]).items():
        assert covered >= enough(60), (name, covered)


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_cover(seeds, noise):
    """Whatever share of the seeds' scatter the sizes have in common: a mean over sizes, a slope and one size alone."""
    found = coverage(seeds, 400, *NOISES[noise])
    print(f"{seeds} seeds, {noise}: {found}")
    assert min(found.values()) >= enough(400), found
