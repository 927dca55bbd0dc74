"""A log without KL: why, by trainer, and what to set; gold is judged by step all the same."""

import json

import numpy as np
import pytest

from rmo.cli import main
from rmo.logs import reading
from rmo.logs.columns import Columns
from rmo.logs.no_kl import NoKl, Question
from rmo.logs.trainers import TRAINERS, known
from rmo.runtime.files import read_json

K = 40


def gold(seed=0, fall=1.0):
    """A curve that rises for half of the run, then falls by `fall`."""
    x = np.linspace(0, 1, K)
    return (
        np.minimum(x, 0.5) * 2 - fall * np.maximum(x - 0.5, 0) * 2 + 0.05 * np.random.default_rng(seed).normal(size=K)
    )


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def log_of(trainer, values):
    """A log of a trainer's with its marks, its proxy and gold, and no KL."""
    one = TRAINERS[trainer]
    mark = next(mark for mark in one.marks if known(mark, trainer) is None)
    names = [name.replace("*", "x") for name in (mark, *one.proxy[:1])]
    return [{"step": 5 * i, **dict.fromkeys(names, 0.1), "eval/gold": value} for i, value in enumerate(values)]


@pytest.mark.parametrize("trainer", [name for name, one in TRAINERS.items() if one.no_kl])
def test_why_there_is_none_and_what_to_set(tmp_path, trainer):
    path = jsonl(tmp_path / "a.jsonl", log_of(trainer, gold()))
    with pytest.raises(NoKl) as found:
        reading.read([path], Columns())
    message = str(found.value)
    assert message.startswith(f"a.jsonl: there is no KL from the initial policy in this log: {trainer} ")
    assert TRAINERS[trainer].no_kl in message
    assert "\n" not in message
    (reads,) = found.value.reads.values()
    np.testing.assert_allclose(reads.value, gold())
    assert list(reads.step) == [5 * i for i in range(K)]


def test_a_kl_that_is_another_is_named(tmp_path):
    rows = [{**row, "mismatch_kl/all/mean": 1e-3, "kl_ent_ratio/mean": 0.1} for row in log_of("prime-rl", gold())]
    with pytest.raises(NoKl, match=r"\(mismatch_kl/all/mean is between the sampler's and the trainer's copy"):
        reading.read([jsonl(tmp_path / "a.jsonl", rows)], Columns())


def test_a_kl_of_zero_is_none(tmp_path):
    rows = [{**row, "train/kl": 0.0, "train/total_length": 9} for row in log_of("OpenRLHF", gold())]
    with pytest.raises(
        NoKl, match=r"train/kl is 0 everywhere: OpenRLHF has no initial policy while --algo.kl.init_coef"
    ):
        reading.read([jsonl(tmp_path / "a.jsonl", rows)], Columns())


def fit(monkeypatch, *args):
    monkeypatch.setattr("sys.argv", ["rmo", "fit", *map(str, args)])
    main.main()


def test_gold_is_judged_by_step(tmp_path, monkeypatch, capsys):
    """Of several files each, with the step where it was highest; that is no error."""
    paths = [
        jsonl(tmp_path / f"{name}.jsonl", log_of("TRL's GRPO or RLOO", gold(0, fall)))
        for name, fall in (("turns", 1), ("rises", -1))
    ]
    fit(monkeypatch, *paths)
    said = capsys.readouterr().out
    assert (
        "turns, rises: there is no KL from the initial policy in this log: TRL's GRPO or RLOO computes no KL while beta"
        in said
    )
    assert "  turns: stop at step 9" in said or "  turns: stop at step 10" in said
    assert "  rises: go on: gold still rises at step 195" in said
    judged = {one["run"]: one for one in read_json(tmp_path / "turns_fit" / "gold_by_step.json")}
    assert judged["turns"]["verdict"] == "stop"
    assert judged["turns"]["fell_by"] == pytest.approx(1, abs=0.15)


def test_before_a_question_gold_is_judged_too(tmp_path, monkeypatch, capsys):
    rows = [{"step": i, "kl": 0.01 * i, "gold": value} for i, value in enumerate(gold())]
    path = jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(Question, match="is kl a mean per token or the sum"):
        reading.read([path], Columns())
    with pytest.raises(SystemExit) as stop:
        fit(monkeypatch, path)
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert "a.jsonl: stop at step" in shown.out
    assert shown.err.count("\n") == 1
