"""Statistics over worlds: what is pooled, and how often pooled intervals cover what worlds have in common."""

import numpy as np
import pytest

from rmo.analysis import pooling
from rmo.analysis.pooling import Common, Pooled, common, pool, ratio

ALONE = Common(1.0, 0.0)


def test_alone_it_is_students_t_over_the_worlds():
    p = pool(np.array([1.0, 2.0, 4.0]), np.full(3, 0.5), ALONE, 0.95)
    half = 4.302653 * np.std([1, 2, 4], ddof=1) / 3**0.5
    assert (p.low, p.mean, p.high) == pytest.approx((7 / 3 - half, 7 / 3, 7 / 3 + half), abs=1e-5)
    assert p.df == 2
    assert p.between == pytest.approx((7 / 3 - 0.25) ** 0.5)


def test_no_interval_is_narrower_than_errors_make_it():
    p = pool(np.array([1.0, 1.001, 0.999]), np.full(3, 0.5), ALONE, 0.95)
    assert p.high - p.mean == pytest.approx(1.959964 * 0.5 / 3**0.5, rel=1e-5)


def test_worlds_that_agree_more_than_their_errors_allow_are_not_believed_where_much_is_known():
    values, errors = np.array([1.0, 1.001, 0.999]), np.full(3, 0.5)
    together = pool(values, errors, Common(1.0, 4.0), 0.95)
    assert together.error == pytest.approx(0.5 / 3**0.5)
    assert together.df == 6
    assert together.between == 0


def test_a_statement_that_worlds_differ_on_unusually_borrows_nothing():
    values, errors = np.array([0.0, 5.0, 10.0]), np.full(3, 0.1)
    assert pool(values, errors, Common(1.0, 4.0), 0.95) == pool(values, errors, ALONE, 0.95)


def test_few_statements_lend_nothing():
    assert common(np.ones(pooling.LEAST_TO_BORROW - 1), 3) == ALONE


def test_the_common_ratio_is_found():
    rng = np.random.default_rng(0)
    alike = common(5 * rng.chisquare(2, 4000) / 2, 3)
    assert alike == (pytest.approx(5, rel=0.1), pooling.BORROWED)
    apart = common(rng.chisquare(2, 4000) / 2 * rng.choice([1, 200], 4000), 3)
    assert apart.df < 2


def test_the_error_of_a_verdict_comes_from_its_interval():
    assert pooling.standard_error([1 - 1.959964, 1 + 1.959964], np.inf, 0.95) == pytest.approx(1, abs=1e-5)
    assert pooling.standard_error([-2.570582, 2.570582], 5, 0.95) == pytest.approx(1, abs=1e-5)


def pooled(error: float, within: float, df: float = 6) -> Pooled:
    return Pooled(0.0, -1.0, 1.0, error, df, within, 0.0)


def test_worlds_that_would_decide_are_as_many_as_the_interval_needs():
    p = pooled(error=0.3, within=0.5)
    needed = pooling.worlds_to_decide(p, 0.4, 3, 0.95)
    assert needed is not None
    for count, clear in ((needed - 1, False), (needed, True)):
        half = pooling.stats.t.ppf(0.975, 6 + count - 3) * 0.3 * (3 / count) ** 0.5
        assert bool(half < 0.4) is clear
    assert pooling.worlds_to_decide(p, 1e-6, 3, 0.95) is None


def test_no_number_of_seeds_decides_where_worlds_differ_too_much():
    assert pooling.seeds_to_decide(pooled(error=0.5, within=0.1), 0.4, 3, 3, 0.95) is None
    many = pooling.seeds_to_decide(pooled(error=0.3, within=0.3 * 3**0.5), 0.4, 3, 3, 0.95)
    assert many == int(np.ceil(3 * (0.3 / (0.4 / pooling.stats.t.ppf(0.975, 6))) ** 2))


def shares(worlds: int, extra: np.ndarray, runs: int) -> tuple[float, float]:
    """Shares of (each statement's own, drawn together) intervals that cover; `extra` is how much more than their errors
    worlds scatter on each statement, in their variance; errors are known to 5 degrees of freedom."""
    rng, found = np.random.default_rng(3), []
    for _ in range(runs):
        size = np.exp(rng.standard_normal(len(extra)))[:, None]
        values = size * (1 + extra[:, None]) ** 0.5 * rng.standard_normal((len(extra), worlds))
        errors = size * (rng.chisquare(5, values.shape) / 5) ** 0.5
        both = list(zip(values, errors, strict=True))
        shared = common(np.array([ratio(v, e) for v, e in both]), worlds)
        for v, e in both:
            found.append([p.low <= 0 <= p.high for p in (pool(v, e, ALONE, 0.95), pool(v, e, shared, 0.95))])
    alone, together = np.mean(found, axis=0)
    return float(alone), float(together)


NONE, LARGE, HALF = np.zeros(45), np.full(45, 20.0), np.where(np.arange(45) % 2, 0.0, 10.0)


@pytest.mark.parametrize("extra", [NONE, LARGE, HALF], ids=["none", "large", "half"])
def test_pooled_intervals_cover_in_a_few_runs(extra):
    assert min(shares(3, extra, 10)) >= 0.91


@pytest.mark.slow
@pytest.mark.parametrize("extra", [NONE, NONE + 1, LARGE, HALF], ids=["none", "some", "large", "half"])
@pytest.mark.parametrize("worlds", [2, 3, 5])
def test_at_least_93_of_100_pooled_intervals_cover(worlds, extra):
    found = shares(worlds, extra, 150)
    print(worlds, extra[:2], found)
    assert min(found) >= 0.93, found
