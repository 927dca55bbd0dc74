"""A sample of the campaign of `lost`: one of two processes killed in a stage that trains, either of them."""

from tests.faults import lost, one_stage


def test_one_of_two_is_lost_and_both_again_end_in_the_same_bytes(tmp_path):
    one_stage.prepare(tmp_path)
    pair, finished = lost.Pair(tmp_path), one_stage.Finished(tmp_path / "whole")
    try:
        made = pair.run(finished.runs, "sft")
        assert [one.code for one in made] == [0, 0], made
        assert lost.play(finished, pair, tmp_path, "sft", 1, 2.5) == ""
    finally:
        pair.close()


def test_what_counts_as_a_refusal():
    assert lost.Outcome(0, 0, "").refusal() == ""
    assert lost.Outcome(0, 76, "rmo: another process of this run is gone: start all again").refusal() == ""
    assert lost.Outcome(6, 0, "E0000 another task died").refusal() == ""
    for wrong in ((0, 76, ""), (6, 0, "Check failed"), (11, 0, ""), (14, 0, ""), (0, 1, "Traceback"), (0, 2, "rmo: x")):
        assert lost.Outcome(*wrong).refusal()
