"""Which comparisons an active choice labels, by hand."""

import numpy as np

from rmo.worlds import active_choice

GAPS = np.array([[0.1, -3.0, 0.5, 9.0, -0.2, 0.0], [0.1, 3.0, 0.4, 9.0, 0.3, 2.0]])


def test_uncertain_takes_the_smallest_gaps_of_its_own_seed():
    first = np.array([0, 3])
    np.testing.assert_array_equal(active_choice.spent("uncertain", first, GAPS, 0, 4), [0, 3, 4, 5])
    np.testing.assert_array_equal(active_choice.spent("uncertain", first, GAPS, 1, 4), [0, 2, 3, 4])


def test_disagreement_takes_those_that_seeds_judge_differently():
    first = np.array([2])
    for seed in (
        0,
        1,
    ):  # the pair that seeds judge to opposite sides, then the one that only one of them has seen through
        np.testing.assert_array_equal(active_choice.spent("disagreement", first, GAPS, seed, 3), [1, 2, 5])


def test_what_has_a_label_is_not_chosen_again_and_all_may_be_chosen():
    first = np.array([5, 4])
    for how in active_choice.CHOICES:
        np.testing.assert_array_equal(active_choice.spent(how, first, GAPS, 0, 2), [4, 5])
        np.testing.assert_array_equal(active_choice.spent(how, first, GAPS, 0, 6), np.arange(6))
