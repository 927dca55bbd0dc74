"""Functions that a config names: judges of texts and sources of rows; what is wrong with one is said in one line."""

import re
import sys

import numpy as np
import pytest

from rmo import config
from rmo.runtime.files import RunError, read_json, write_json
from rmo.worlds import containers, functions, judge
from rmo.worlds.containers import SourceError
from rmo.worlds.dialogue import Malformed

HERE = "tests.helpers.judges"


def judged(name: str) -> judge.Judge:
    return judge.judge_of(f"{HERE}:{name}")


def test_a_judge_scores_prompts_and_responses():
    pairs = [("Why?", "aa"), ("So.", "aa"), ("Why?", "aa"), ("Why?", "")]
    got = judged("warmth")(pairs)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [2 / 6, -2 / 6, 2 / 6, 0])
    assert judged("warmth")([]).shape == (0,)


def test_a_batched_form_is_asked_once_about_distinct_pairs(monkeypatch):
    module, asked = sys.modules[HERE], []
    monkeypatch.setattr(module.counted, "batch", lambda *both: asked.append(both) or module.batch(*both))
    np.testing.assert_array_equal(judged("counted")([("a", "bc"), ("a", "bc"), ("", "d")]), [3, 3, 1])
    assert asked == [(["a", ""], ["bc", "d"])]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("json", "it must be module:function"),
        (":dumps", "it must be module:function"),
        ("json:", "it must be module:function"),
        ("no_such_package.judges:good", "Python finds no module no_such_package among the installed packages or in"),
        (f"{HERE}.more:good", f"Python finds no module {HERE}.more"),
        (f"{HERE}:warmht", f"{HERE} has no warmht; perhaps warmth"),
        (f"{HERE}:NOT_A_FUNCTION", f"NOT_A_FUNCTION of {HERE} is a int, and no function"),
        (f"{HERE}:of_one", "of_one(response: str) -> float must take two arguments, the prompt and the response"),
    ],
)
def test_what_is_no_judge_is_refused_in_one_line(name, why):
    with pytest.raises(config.ConfigError, match=re.escape(why)) as error:
        judge.judge_of(name)
    assert str(error.value).startswith(f"world.judge is {name!r}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nan_for_empty", "gives nan for prompt 'a' and response '': it must give a finite number for every text"),
        ("says_yes", "gives a str for prompt 'a' and response '': it must give a number"),
        ("gives_nothing", "gives a NoneType for"),
        ("fails", "fails on prompt 'a' and response '': KeyError: 'no such word\\nin '"),
        ("short", "batch gives 1 numbers for 2 responses: one for each"),
    ],
)
def test_what_gives_no_number_says_of_which_text(name, why):
    with pytest.raises(RunError, match=re.escape(why)) as error:
        judged(name)([("a", ""), ("b", "")])
    assert str(error.value).startswith(f"{HERE}:{name}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), True, 1])
def test_numbers_of_libraries_are_numbers(value):
    found = judge.Judge("j", lambda prompt, response: value)([("a", "b")])
    assert found == [float(np.asarray(value).reshape(()))]


def test_a_judge_is_known_again(tmp_path):
    pairs = [("Why?", "a"), ("So.", "aaa"), ("Why?", "a")]
    judge.remember(judged("warmth"), pairs, tmp_path)
    kept = read_json(tmp_path / judge.FILE)
    assert kept["judge"] == f"{HERE}:warmth"
    assert len(kept["probes"]) == 2
    assert judge.recognise(judged("warmth"), tmp_path) == judged("warmth")
    kept["scores"][1] += 0.01
    write_json(tmp_path / judge.FILE, kept)
    with pytest.raises(RunError, match=r"for prompt 'So.' and response 'aaa', and gave .* since this run began"):
        judge.recognise(judged("warmth"), tmp_path)


def test_a_judge_that_rolls_dice_is_refused(tmp_path):
    with pytest.raises(RunError, match="another number when it is asked again: a judge must not roll dice"):
        judge.remember(judged("rolls_dice"), [("a", "b")], tmp_path)


def test_modules_of_the_working_directory_are_found_and_their_errors_named(tmp_path, monkeypatch):
    (tmp_path / "judge_of_mine.py").write_text("def good(prompt, response):\n    return len(response)\n")
    (tmp_path / "judge_that_breaks.py").write_text("1 / 0\n")
    (tmp_path / "judge_that_lacks.py").write_text("raise ModuleNotFoundError('the package x is missing: install it')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    before = list(sys.path)
    assert judge.judge_of("judge_of_mine:good")([("a", "bc")]) == [2]
    for name, why in (
        ("judge_that_breaks", "importing judge_that_breaks fails: ZeroDivisionError: division by zero"),
        ("judge_that_lacks", "the package x is missing: install it"),
    ):
        with pytest.raises(functions.FunctionError, match=why):
            functions.function_of(f"{name}:good")
    assert sys.path == before
    for name in ("judge_of_mine", "judge_that_breaks", "judge_that_lacks"):
        sys.modules.pop(name, None)


def test_rows_of_a_function():
    found = list(containers.read(f"python:{HERE}:rows"))
    assert found[0] == (f"python:{HERE}:rows row 1", {"prompt": "b", "response": "d"})
    assert isinstance(found[1][1], Malformed)
    assert found[2][1] == {"prompt": "a", "response": "c"}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (f"{HERE}:broken_rows", "fails: OSError: the disk is gone"),
        (f"{HERE}:warmth", "fails: TypeError: warmth() missing 2 required positional arguments"),
        (f"{HERE}:rowz", "has no rowz; perhaps rows"),
        ("rows", "it must be module:function"),
    ],
)
def test_functions_that_give_no_rows_are_refused_in_one_line(name, why):
    with pytest.raises(SourceError, match=re.escape(why)) as error:
        list(containers.read(f"python:{name}"))
    assert str(error.value).startswith(f"python:{name}")
    assert "\n" not in str(error.value)
