"""Mutated rows, files and configs of people's data end in a value or in one line (`tests/helpers/fuzz_people.py`)."""

import random

import pytest

from rmo.runtime.files import RunError
from tests.helpers import fuzz_people


def check(tmp_path, seed, cases):
    outcomes, wrong = fuzz_people.run(seed, range(cases), tmp_path)
    assert not wrong, "\n".join(wrong)
    assert outcomes["value"] > cases / 2  # not all is refused
    assert outcomes["one line"] > cases / 2


def test_some_mutated_cases(tmp_path):
    check(tmp_path, 1, 60)


@pytest.mark.slow
def test_a_thousand_mutated_cases(tmp_path):
    check(tmp_path, 0, 1000)


def test_the_fuzz_finds_what_it_looks_for(tmp_path):
    """A judge that passes everything would find nothing."""

    def raising(error):
        def attempt():
            raise error

        return attempt

    def hanging():
        while True:
            pass

    judged = {
        "traceback": raising(ValueError("x")),
        "no single line": raising(RunError("a\nb")),
        "cannot be printed": raising(RunError("\ud83d")),
        "one line": raising(RunError("a")),
        "hang": hanging,
        "value": lambda: 1,
    }
    for outcome, attempt in judged.items():
        assert fuzz_people.judge("it", attempt, seconds=0.3)[0] == outcome
    (tmp_path / "a.json").write_text("{")
    (tmp_path / ".b.part").write_text("")
    (tmp_path / "c.jsonl").write_text('{"a": 1}\n')
    assert [what.partition(":")[0].partition(" ")[0] for what in fuzz_people.half_written(tmp_path)] == [
        ".b.part",
        "a.json",
    ]


def test_a_case_depends_on_seed_and_number_alone():
    rows = [fuzz_people.mutate_row(random.Random("3/7"), fuzz_people.ROWS[4]) for _ in range(2)]
    assert repr(rows[0]) == repr(rows[1])
    assert rows[0] != fuzz_people.ROWS[4]
