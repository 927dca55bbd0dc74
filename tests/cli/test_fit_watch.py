"""`rmo fit --watch` beside a log that grows: the advice when it changes, and an exit code when it is to stop."""

import itertools
import json

import numpy as np
import pytest

from rmo.cli import fit_watch, main

ROWS = [
    {"step": 10 * k, "objective/kl": float(kl), "eval/gold": float(gold)}
    for k, (kl, gold) in enumerate(
        zip(
            np.linspace(0, 5, 40) ** 2,
            np.interp(np.linspace(0, 5, 40), [0, 2.5, 5], [1, 2, 0.5])
            + 0.02 * np.random.default_rng(0).normal(size=40),
            strict=True,
        )
    )
]


class Grows:
    """In place of `time.sleep`: two more rows of the log at every call, the last of them cut off in its middle."""

    def __init__(self, path):
        self.path, self.calls = path, 0

    def __call__(self, seconds):
        assert seconds == 5
        self.calls += 1
        lines = [json.dumps(row) + "\n" for row in ROWS[: 2 * self.calls]]
        if self.calls > len(ROWS):
            raise AssertionError("it never stopped")
        self.path.write_text("".join(lines)[:-20])


def watch(monkeypatch, capsys, path, *args):
    """(exit code, lines printed, sleeps) of `rmo fit --watch` on a log that is not there yet."""
    grows = Grows(path)
    monkeypatch.setattr(fit_watch.time, "sleep", grows)
    monkeypatch.setattr("sys.argv", ["rmo", "fit", str(path), "--watch", "--every", "5", "--bootstrap", "200", *args])
    with pytest.raises(SystemExit) as end:
        main.main()
    return end.value.code, capsys.readouterr().out.splitlines(), grows.calls


def test_it_waits_says_what_changes_and_ends_with_a_code(tmp_path, monkeypatch, capsys):
    code, lines, calls = watch(monkeypatch, capsys, tmp_path / "log.jsonl", "--gold", "eval/gold")
    assert code == fit_watch.TURNED == 78
    assert lines[0].startswith("waiting: ")
    assert "log.jsonl" in lines[0]
    said = [line for line in lines if line.startswith("all: ")]
    assert any(line.startswith("all: undecided") for line in said)
    assert said[-1].startswith("all: stop at KL ")
    assert [line for line, after in itertools.pairwise(said) if line == after] == []
    assert 10 < calls < 20  # gold turns at row 20 of 40, after ten
    assert lines[-1].endswith("report.html")
    (group,) = json.loads((tmp_path / "log_fit" / "coefficients.json").read_text())["ppo"]["groups"]
    assert group["advice"]["verdict"] == "stop"
    assert group["advice"]["kl"] == pytest.approx(6.25, rel=0.35)


def test_looks_at_a_log_that_did_not_grow_cost_nothing(tmp_path, monkeypatch):
    path, sleeps, fitted = tmp_path / "log.jsonl", [], []
    path.write_text("{}")

    def sleep(seconds):
        sleeps.append(seconds)
        if len(sleeps) == 3:
            path.write_text("{} {}")

    def fit():
        fitted.append(1)
        verdict = "stop" if len(fitted) == 2 else "undecided"
        group = {"group": "all", "advice": {"verdict": verdict, "sentence": verdict}}
        return [], {"ppo": {"groups": [group], "too_short": []}}, []

    monkeypatch.setattr(fit_watch.time, "sleep", sleep)
    fit_watch.until_stop([path], fit, 1.0)
    assert (len(fitted), len(sleeps)) == (2, 3)


def test_the_pause_must_be_positive(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rmo", "fit", str(tmp_path / "log.jsonl"), "--watch", "--every", "0"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 2
    assert "--every is 0.0: it must be positive" in capsys.readouterr().err


def test_a_log_without_kl_is_watched_by_step(tmp_path, monkeypatch, capsys):
    """TRL's GRPO keeps no KL by default: gold by step says when to stop all the same."""
    rows = [{"step": row["step"], "reward": 0.1 * k, "eval/gold": row["eval/gold"]} for k, row in enumerate(ROWS)]
    monkeypatch.setitem(globals(), "ROWS", rows)
    code, lines, calls = watch(monkeypatch, capsys, tmp_path / "log.jsonl", "--gold", "eval/gold")
    assert code == fit_watch.TURNED
    said = [line for line in lines if ": by step, " in line]
    assert ": by step, stop" in said[-1]
    assert 10 < calls <= 20
    (judged,) = json.loads((tmp_path / "log_fit" / "gold_by_step.json").read_text())
    assert judged["verdict"] == "stop"
