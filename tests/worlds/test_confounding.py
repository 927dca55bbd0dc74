"""Comparisons in which a mark goes with gold: the mark, which pairs are drawn, what a reward makes of it, by hand."""

import numpy as np
import pytest

from rmo.config import Recipe
from rmo.runtime.files import RunError
from rmo.worlds import comparisons, confounding

EOS, VOCAB = 2, 8
MARKED = np.isin(np.arange(VOCAB), [3, 4])


def rows(preferred, other, gold=None) -> comparisons.Comparisons:
    """Pairs of responses of up to four tokens behind a prompt of one, which is token 3."""
    tokens = np.zeros((len(preferred), 2, 5), np.int32)
    tokens[..., 0] = 3
    for c, pair in enumerate(zip(preferred, other, strict=True)):
        for side, response in enumerate(pair):
            tokens[c, side, 1 : 1 + len(response)] = response
    gold = np.tile([1.0, 0.0], (len(preferred), 1)) if gold is None else np.asarray(gold)
    return comparisons.Comparisons(tokens, tokens > 0, gold.astype(np.float32), np.arange(len(preferred)))


def test_the_mark_is_the_share_of_a_responses_words():
    """Neither the prompt, nor its EOS, nor what comes after it counts; a response without a word shows none."""
    found = confounding.Mark(MARKED, 4, EOS, VOCAB).gaps(
        rows([[3, 5, 2], [5, 6, 4, 4], [2], [3, 4]], [[5, 6, 7, 2], [3, 2], [3, 2], [4, 3, 2]])
    )
    np.testing.assert_allclose(found, [0.5, -0.5, -1, 0])


def test_of_all_halves_that_which_goes_least_with_gold_is_the_mark():
    rng = np.random.default_rng(0)
    texts = rng.integers(3, VOCAB, size=(400, 2, 4))
    liked = (texts == 5).sum(-1) - (texts == 6).sum(-1)  # gold likes one word and dislikes another
    order = np.argsort(-liked, axis=1, kind="stable")
    texts, gold = np.take_along_axis(texts, order[..., None], 1), np.take_along_axis(liked, order, 1)
    made = rows(texts[:, 0], texts[:, 1], gold)
    mark = confounding.least_like_gold(made, 4, EOS, VOCAB, np.random.default_rng(1))
    assert mark.half_W.sum() == VOCAB / 2
    gap = (gold[:, 0] - gold[:, 1]).astype(float)
    found = confounding.correlation(mark.gaps(made), gap)
    likes_it = confounding.correlation(confounding.Mark(np.arange(VOCAB) == 5, 4, EOS, VOCAB).gaps(made), gap)
    assert abs(found) < 0.05
    assert likes_it > 0.4
    assert mark.half_W[5] == mark.half_W[6]  # a half with one of them alone would go with gold, or against it


def test_a_correlation_of_differences_forgets_which_response_comes_first():
    gap, gold = np.array([1.0, -2.0, 3.0]), np.array([2.0, -1.0, 0.0])
    assert confounding.correlation(gap, gold) == pytest.approx(4 / 70**0.5)
    swapped = np.array([-1, 1, 1])
    assert confounding.correlation(gap * swapped, gold * swapped) == pytest.approx(4 / 70**0.5)
    assert confounding.correlation(gap, np.zeros(3)) == 0


def test_so_many_agree_with_the_mark_and_ties_are_left_out():
    gap = np.array([0.2, -0.1, 0.0, 0.3, 0.1, -0.2, 0.5, 0.0, -0.3, 0.4])
    used = confounding.drawn(gap, 5, 0.8, np.random.default_rng(0))
    assert len(set(used)) == 5
    assert (np.diff(used) > 0).all()
    assert [(gap[used] > 0).sum(), (gap[used] < 0).sum()] == [4, 1]
    every = confounding.drawn(gap, 5, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(every, [0, 3, 4, 6, 9])
    with pytest.raises(RunError, match=r"takes 6 whose preferred .* and 0 that show less: there are 5 and 3") as error:
        confounding.drawn(gap, 6, 1.0, np.random.default_rng(0))
    assert "\n" not in str(error.value)


def test_what_a_seed_draws_is_in_part_what_it_draws_unselected():
    gap = np.random.default_rng(0).normal(size=2000)
    used = confounding.drawn(gap, 600, 0.8, np.random.default_rng(7))
    plain = comparisons.chosen_rows(np.arange(2000), Recipe(600), np.random.default_rng(7))
    assert len(np.intersect1d(used, plain)) > 300 > 1.5 * 600 * 600 / 2000  # far beyond what chance gives


def test_how_often_the_marked_response_is_preferred():
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [3.0, 0.0]])
    gap = np.array([0.1, 0.2, -0.3, 0.4, 0.0])  # agrees, not, not, a tie that counts half, no difference
    assert confounding.marked_preferred(scores, gap) == pytest.approx(1.5 / 4)
    assert confounding.marked_preferred(scores, np.zeros(5)) == 0.5
