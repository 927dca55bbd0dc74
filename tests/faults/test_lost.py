"""A sample of the campaign of `lost`: one of two processes killed in a stage that trains."""

import pytest

from tests.faults import lost, one_stage


def test_one_of_two_is_lost_and_both_again_end_in_the_same_bytes(tmp_path):
    one_stage.prepare(tmp_path)
    pair, finished = lost.Pair(tmp_path), one_stage.Finished(tmp_path / "whole")
    try:
        assert lost.ended_badly(pair.run(finished.runs, "sft")) == ""
        seconds, problem = lost.undisturbed(finished, pair, tmp_path, "sft")
        assert problem == ""
        assert lost.play(finished, pair, tmp_path, "sft", 1, 0.5 * seconds) == ""  # None: it was not killed
    finally:
        pair.close()


GONE = "rmo: another process of this run is gone: start all again"


@pytest.mark.parametrize(
    ("ended", "fine"),
    [
        ((0, 0, ""), True),
        ((0, 76, GONE), True),
        ((6, 0, "E0000 another task died"), True),
        ((0, 2, "rmo: cannot join the other processes: timeout"), True),
        ((6, 0, "Check failed"), False),
        ((0, 76, ""), False),
        ((0, 76, f"Traceback\n{GONE}"), False),
        ((0, 75, "rmo: asked to stop"), False),
        ((14, 0, ""), False),
        ((0, 1, "rmo: x"), False),
        ((0, 2, "rmo: x"), False),
    ],
)
def test_how_the_other_may_end(ended, fine):
    assert (lost.Outcome(*ended).refusal() == "") == fine
