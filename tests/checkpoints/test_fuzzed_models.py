"""Mutated checkpoints, score tables and rows give a value or one line (helpers/fuzz_models)."""

import pytest

from tests.helpers import fuzz_models


def all_sound(cases, seed):
    counts, wrong = fuzz_models.run(cases, seed)
    assert not wrong, wrong[0]
    # Each kind is sometimes read and sometimes refused: mutations are neither void nor all fatal.
    assert {(kind, did) for kind in fuzz_models.KINDS for did in ("value", "refused")} == set(counts)


def test_some():
    all_sound(range(60), 1)


@pytest.mark.slow
def test_a_thousand():
    all_sound(range(1000), 0)
