"""A seeded sample of the part `inputs`, and the smallest case of every fault that it found."""

import dataclasses
import warnings

import pytest

from rmo import config
from rmo.config import checks
from tests.faults import inputs
from tests.faults.command import EXIT_CODES, call, problem
from tests.helpers.smoke import SMOKE


def test_a_sample(tmp_path):
    """At most 25 s: the whole is `python -m tests.faults --part inputs`."""
    wrong = [case for case in inputs.campaign(60, 11, tmp_path) if case.problem]
    assert not wrong, "\n".join(f"{case.what}\n    {case.problem}" for case in wrong)


def test_exit_codes_are_those_of_the_readme():
    text = (inputs.ROOT / "rmo" / "cli" / "README.md").read_text()
    listed = [int(line.split("|")[1]) for line in text.splitlines() if line[:3].strip("| ").isdigit()]
    assert sorted({*listed} - {1}) == sorted(EXIT_CODES)


def refusal(path, text, *args):
    """What `rmo list` says of a config file; it must be one line and exit code 2."""
    (path / "config.py").write_text(text)
    (path / "fresh").mkdir()
    ended = call(["list", "../config.py", *args], path / "fresh")
    assert not problem(ended, path / "fresh")
    assert ended.code == 2
    return ended.err


@pytest.mark.parametrize(
    "name",
    ["exits", "exits well", "stops", "base", "cannot say why", "cycle", "cycle of itself", "no field", "subclass"],
)
def test_config_modules_that_misbehave(name, tmp_path):
    assert "config.py" in refusal(tmp_path, inputs.MODULES[name]) or name in ("cycle", "cycle of itself", "no field")


def test_a_config_that_exits_says_where(tmp_path):
    assert "config.py:1: it ends the process (exit code 3)" in refusal(tmp_path, inputs.MODULES["exits"])


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("proxies", "sizes", 0, "norm"), "__import__('numpy').zeros(2)", "proxies.sizes.0.norm"),
        (("proxies", "optimizer", "lr"), "10**400", "must be below 2^63"),
        (("ppo", "batch"), "2**63", "must be below 2^63"),
        (("other_policies",), "(Against(),)", "other_policies.0"),
        (("world",), "Model()", "world"),
        (("gold", "epochs"), "__import__('numpy').int64(3)", "int(...)"),
        (("policy", "query_scale"), "__import__('numpy').float32(3)", "float(...)"),
        (("note",), "'\\ud800'", "UTF-8"),
        (("name",), "'..'", "a name of its own"),
        (("name",), "'.'", "a name of its own"),
        (("name",), "'x' * 5000", "at most 100 bytes"),
        (("name",), "'a\\u2028b'", "cannot be printed"),
        (("proxies", "sweeps", 0, "name"), "'..'", "a name of its own"),
        (("ppo", "against", 0, "name"), "'\\x00'", "cannot be printed"),
    ],
)  # fmt: skip
def test_values_that_no_field_can_hold(place, value, said, tmp_path):
    assert said in refusal(tmp_path, inputs.config_with([(place, value)]))


def test_names_of_people_are_taken():
    for name in ("مث", "réseau 2", "a.b-c", "x" * 100):
        checks.check(dataclasses.replace(SMOKE, name=name))


def test_a_float64_is_a_float():
    import numpy as np

    checks.check(dataclasses.replace(SMOKE, fits=config.Fits(level=np.float64(0.9))))


@pytest.mark.parametrize("args", [["score", "m", "."], ["sample", "m", ".."], ["score", "m", "/"], ["score", "2**3", "x"], ["sample", "[", "x"],
                                  ["fit", "."], ["bon", ".."], ["fit", "/"]])  # fmt: skip
def test_paths_without_a_name(args, tmp_path):
    (tmp_path / "fresh").mkdir()
    ended = call(args, tmp_path / "fresh")
    assert not problem(ended, tmp_path / "fresh")
    assert ended.code == 2


def test_what_is_looked_for_is_found(tmp_path):
    """A judge that passes everything would find nothing."""
    from tests.faults.command import Ended

    sound = Ended(2, "", "rmo: no such file\n")
    assert not problem(sound, tmp_path)
    assert problem(sound._replace(err="rmo: a\nrmo: b\n"))
    assert problem(sound._replace(err=""))
    assert problem(sound._replace(code=1))
    assert problem(sound._replace(failure="hang"))
    assert problem(sound._replace(asked=("huggingface.co",)))
    (tmp_path / "curves.csv").write_text("")
    assert "left behind" in problem(sound, tmp_path)
    assert not problem(sound._replace(code=0, err=""), tmp_path)
    (tmp_path / ".x.part").write_text("")
    assert "left behind" in problem(sound._replace(code=0, err=""), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (tmp_path / "c.py").write_text("while True: pass")
        assert "more than" in problem(call(["list", "c.py"], tmp_path, seconds=2))
