"""Splits of KL and of gold against policies whose shift is known, and ratios at equal KL."""

import numpy as np
import pytest
from scipy import sparse

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.analysis.efficiency import beside, corrected, describe_texts
from rmo.methods.wording import features, one_hot, wording

R, V, EOS = 12, 9, 2
Q = np.array([0, 0, 0, 0.4, 0.2, 0.2, 0.1, 0.1, 0.0])  # of words; ids 0 to 2 are no words


def texts(size, rates, stop, seed=0):
    """Words drawn one by one, after each of which a response ends by chance `stop`; (tokens, mask) [size, R]."""
    rng = np.random.default_rng(seed)
    tokens = rng.choice(V, size=(size, R), p=rates)
    tokens[rng.random((size, R)) < stop] = EOS
    ended = (tokens == EOS).cumsum(1)
    mask = ended - (tokens == EOS) == 0
    return np.where(mask, tokens, 0), mask


def table(tokens, mask, gold):
    length_N, rates_NW = features(tokens, mask, EOS, V)
    return one_hot(length_N, R), rates_NW, gold(length_N, rates_NW)


def judge(length_N, rates_NW):
    """Gold that is a function of length, crooked, and of the rates of two words."""
    return 0.3 * (length_N % 3) - 0.1 * length_N + 4.0 * rates_NW.toarray()[:, 3] - 2.0 * rates_NW.toarray()[:, 6]


@pytest.fixture(scope="module")
def initial():
    tables = []
    for q in range(4):
        tokens, mask = texts(4000, Q, 0.1, seed=q)
        tables.append(table(tokens, mask, lambda length, rates, q=q: judge(length, rates) + q))
    return describe_texts(tables)


def test_gold_of_length_and_words_leaves_no_rest(initial):
    assert initial.explained[1] == pytest.approx(1, abs=1e-3)
    other = Q.copy()
    other[[3, 6]] += [0.2, -0.05]
    other[4] -= 0.15
    tokens, mask = texts(20_000, other, 0.3, seed=9)
    seen, start = wording(tokens, mask, EOS, V), texts(20_000, Q, 0.1, seed=10)
    gain = table(tokens, mask, judge)[2].mean() - table(*start, judge)[2].mean()
    parts = initial.gold_parts(np.array([gain]), seen.lengths[None], seen.rates[None])
    assert abs(parts.rest[0]) < 0.03
    assert abs(parts.length[0]) > 0.1
    assert parts.words[0] > 0.3
    assert sum(parts)[0] == pytest.approx(gain)


def test_kl_of_a_policy_that_shifts_length_and_words_is_split_as_it_was_made(initial):
    """Words are independent here, so that the approximation is exact: KL of the stopping, and of the words times their
    number."""
    other = Q.copy()
    other[[3, 4]] = [0.5, 0.1]
    tokens, mask = texts(20_000, other, 0.2, seed=5)
    seen = wording(tokens, mask, EOS, V)
    words = Q > 0
    per_word = float(np.sum(other[words] * np.log(other[words] / Q[words])))

    def lengths(stop):
        p = (1 - stop) ** np.arange(R + 1) * stop
        p[R] = (1 - stop) ** R
        return p

    of_length = float(np.sum(lengths(0.2) * np.log(lengths(0.2) / lengths(0.1))))
    mean = float(lengths(0.2) @ np.arange(R + 1))
    total = of_length + mean * per_word
    parts = initial.kl_parts(np.array([total]), seen.lengths[None], seen.rates[None], np.array([2e4]))
    assert parts.length[0] == pytest.approx(of_length, rel=0.05)
    assert parts.words[0] == pytest.approx(mean * per_word, rel=0.05)
    assert sum(parts)[0] == pytest.approx(total)


def test_the_initial_policy_itself_spends_nothing(initial):
    """Fresh texts of it: without the correction lengths and words would seem to have moved."""
    found = []
    for seed in range(40):
        tokens, mask = texts(64, Q, 0.1, seed=100 + seed)
        seen = wording(tokens, mask, EOS, V)
        found.append(
            [x[0] for x in initial.kl_parts(np.zeros(1), seen.lengths[None], seen.rates[None], np.array([64.0]))]
        )
    length, words, _ = np.mean(found, axis=0)
    assert length < 0.04
    assert words < 0.06
    plain = corrected(seen.lengths[None], initial.lengths, np.array([np.inf]), initial.texts)[0]
    assert plain > 0.05  # 12 cells and 64 texts: about 0.09


def test_cells_that_the_reference_has_never_filled_have_a_finite_kl():
    found = corrected(np.array([[0.5, 0.5]]), np.array([1.0, 0.0]), np.array([100.0]), 1000.0)
    assert np.isfinite(found).all()
    assert found[0] > 2


def curve(method, slope, noise=0.0, seed=0):
    d, rng = np.linspace(0, 3, 20), np.random.default_rng(seed)
    gold_KQ = d[:, None] * (slope + noise * rng.normal(size=(1, 24)))
    return from_prompts(CurveId(method, 10, rm_combined="gold", seed=seed), np.arange(20), d**2, gold_KQ, gold_KQ)


def test_ratios_at_equal_kl_have_intervals_that_hold_them():
    mine = [curve("ppo", 0.6, 0.2, seed) for seed in range(2)]
    rows = beside(mine, curve("tilt", 1.0), (2.0, 4.0, 16.0), draws=300, level=0.95)
    assert [row["kl"] for row in rows] == [2.0, 4.0]  # neither reaches 16
    for row in rows:
        assert row["frontier"] == pytest.approx(row["kl"] ** 0.5, rel=0.01)
        low, high = row["interval"]
        assert low < 0.6 < high
        assert 0.02 < high - low < 0.6
        assert row["ratio"] == pytest.approx(row["gold"] / row["frontier"])


def test_lengths_and_rates_are_those_of_the_responses():
    tokens, mask = np.array([[3, 3, 4, EOS, 0], [5, 6, 7, 8, 3], [EOS, 0, 0, 0, 0]]), np.zeros((3, 5), bool)
    mask[0, :4] = mask[1] = mask[2, 0] = True
    seen = wording(tokens, mask, EOS, V)
    np.testing.assert_allclose(seen.lengths, np.array([1, 0, 0, 1, 0, 1]) / 3)
    np.testing.assert_allclose(seen.rates, np.array([0, 0, 0, 2 / 3 + 0.2, 1 / 3, 0.2, 0.2, 0.2, 0.2]) / 3)
    assert isinstance(features(tokens, mask, EOS, V)[1], sparse.csr_matrix)
