"""A log that grows and was damaged: what is readable is kept when its stage goes on, and nothing is raised."""

import pytest

from rmo.artifacts.stages import jsonl
from rmo.tracking.jsonl import Lines

WHOLE = [b'{"step": 0, "loss": 2.0}', b'{"step": 1, "loss": 1.0}']


@pytest.mark.parametrize("third", [b'{"step": 2, "lo', b"\xff\xfe", b"[]", b"7", b'{"stfp": 2}', b'{"step": "2"}', b""])
def test_lines_up_to_the_damaged_one_are_kept(tmp_path, third):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([*WHOLE, third, b'{"step": 3, "loss": 0.5}']) + b"\n")
    assert Lines(path).resume(9) == {0: {"loss": 2.0}, 1: {"loss": 1.0}}
    assert path.read_bytes() == b"\n".join(WHOLE) + b"\n"


def test_those_who_look_see_no_error(tmp_path):
    path = tmp_path / "speed.jsonl"
    path.write_bytes(WHOLE[0] + b"\n\xff\xfe\n")
    assert jsonl(path) == [{"step": 0, "loss": 2.0}]
