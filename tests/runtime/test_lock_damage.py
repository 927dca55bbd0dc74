"""A HOLDER that is damaged holds nothing: the stage is taken, and nothing is raised."""

import json

import pytest

from rmo.runtime.lock import FILE, Lock


def spoilt(me: dict) -> list[str]:
    whole = json.dumps(me)
    return ["", whole[: len(whole) // 2], whole.replace('"pid"', '"qid"'), "[]", "3", json.dumps(me | {"pid": "x"})]


@pytest.mark.parametrize("which", range(6))
def test_a_damaged_holder_is_nobody(tmp_path, which):
    (tmp_path / FILE).write_text(spoilt(Lock(tmp_path).me)[which])
    assert Lock(tmp_path).holder()[0] == {}
    with Lock(tmp_path) as lock:
        assert lock.mine()
    assert not (tmp_path / FILE).exists()


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00{")
    with Lock(tmp_path) as lock:
        assert lock.mine()
