"""Splits of KL and of gold against policies whose shift is known, and ratios at equal KL."""

import numpy as np
import pytest
from scipy import sparse

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.analysis.efficiency import beside, describe_texts, least_kl
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


def test_kl_of_a_policy_that_shifts_length_and_words_is_split_as_it_was_made():
    """Lengths of 4 or 8 and words independent of them: KL of the lengths, and of the words times their number."""
    rng, other = np.random.default_rng(3), Q.copy()
    other[[3, 4]] = [0.5, 0.1]

    def fixed(size, rates, long):
        length = np.where(rng.random(size) < long, 8, 4)
        mask = np.arange(R)[None] < length[:, None]
        return np.where(mask, rng.choice(V, size=(size, R), p=rates), 0), mask

    tables = [table(*fixed(4000, Q, 0.5), judge) for _ in range(32)]
    initial, seen = describe_texts(tables), wording(*fixed(20_000, other, 0.7), EOS, V)
    words = Q > 0
    per_word = float(np.sum(other[words] * np.log(other[words] / Q[words])))
    of_length = 0.7 * np.log(0.7 / 0.5) + 0.3 * np.log(0.3 / 0.5)
    total = of_length + 6.8 * per_word
    parts = initial.kl_parts(np.array([total]), seen.lengths[None], seen.rates[None], np.array([2e4]))
    assert parts.length[0] == pytest.approx(of_length, rel=0.1)
    assert (
        0.85 * 6.8 * per_word < parts.words[0] < 1.02 * 6.8 * per_word
    )  # means of shares say a little less than counts
    assert sum(parts)[0] == pytest.approx(total)


def test_words_that_lean_together_cost_no_more_than_the_whole():
    """Texts of one manner or another: a policy that writes only one of them spends log 2, though every one of its words
    has another rate. As if drawn one by one they would cost several times that."""
    rng, leaning = np.random.default_rng(4), np.stack([Q, Q[[0, 1, 2, 8, 7, 6, 5, 4, 3]]])

    def manners(size, share):
        which = (rng.random(size) < share).astype(int)
        tokens = np.stack([rng.choice(V, size=R, p=leaning[w]) for w in which])
        return tokens, np.ones_like(tokens, bool)

    initial = describe_texts([table(*manners(1000, 0.5), judge) for _ in range(8)])
    seen = wording(*manners(4000, 1.0), EOS, V)
    parts = initial.kl_parts(np.array([np.log(2)]), seen.lengths[None], seen.rates[None], np.array([4e3]))
    assert parts.length[0] == pytest.approx(0, abs=0.01)
    assert 0.5 * np.log(2) < parts.words[0] < 1.1 * np.log(2)
    marginal = seen.rates[3:] @ np.log(np.maximum(seen.rates, 1e-9)[3:] / np.maximum(initial.rates, 1e-9)[3:])
    assert R * marginal > 2 * np.log(2)


def test_the_initial_policy_itself_spends_nothing(initial):
    """Fresh texts of it: without the correction lengths and words would seem to have moved."""
    found, plain = [], []
    for seed in range(20):
        seen = wording(*texts(64, Q, 0.1, seed=100 + seed), EOS, V)
        point = np.zeros(1), seen.lengths[None], seen.rates[None]
        found.append([x[0] for x in initial.kl_parts(*point, np.array([64.0]))])
        plain.append([x[0] for x in initial.kl_parts(*point, np.array([np.inf]))])
    length, words, _ = np.mean(found, axis=0)
    assert length < 0.04
    assert words < 0.06
    assert sum(np.mean(plain, axis=0)[:2]) > 0.08  # 17 free means and 64 texts: about 0.13


def test_means_that_no_text_has_are_missed_and_not_chased():
    sample = sparse.csr_matrix(np.eye(4)[np.arange(40) % 4])
    kl, tilt = least_kl(sample, 2, np.array([0.0, 0.0, 0.0, 5.0]), np.zeros(4))
    assert np.isfinite(tilt).all()
    assert kl == pytest.approx(np.log(4), rel=0.05)


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
