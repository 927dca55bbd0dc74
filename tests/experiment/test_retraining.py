"""What RMs that are trained anew are watched and calibrated on."""

import numpy as np
import pytest

from rmo.experiment.retraining import each_alike, new_to
from rmo.runtime.files import RunError
from rmo.worlds.comparisons import Comparisons


def rows(prompts):
    """Comparisons whose prompts, of two tokens, are these numbers."""
    size = len(prompts)
    tokens = np.zeros((size, 2, 5), np.int32)
    tokens[:, :, :2] = np.array(prompts)[:, None, None]
    tokens[:, :, 2:] = np.arange(size * 6).reshape(size, 2, 3)
    return Comparisons(tokens, tokens >= 0, np.zeros((size, 2), np.float32), np.arange(size, dtype=np.int32))


def test_held_out_prompts_that_are_trained_on_are_dropped():
    new = new_to(rows([1, 2, 3, 3]), rows([3, 4, 1, 5, 4]), 2)
    assert new.tolist() == [False, True, False, True, True]
    with pytest.raises(RunError, match=r"raise comparisons\.prompts"):
        new_to(rows([1, 2]), rows([2, 1, 1]), 2)


def test_every_member_is_watched_on_as_many_of_its_own():
    few, many = each_alike([rows([1, 2, 3]), rows(list(range(10, 20)))], 1000)
    assert few.tolist() == [0, 1, 2]
    assert many.tolist() == [0, 4, 9]
    assert [x.tolist() for x in each_alike([rows([1, 2, 3])] * 2, 2)] == [[0, 2], [0, 2]]
