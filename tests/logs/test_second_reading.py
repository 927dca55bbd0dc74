"""Kinds of input that an independent reader found to give a wrong answer without a word."""

import json

import numpy as np
import pytest

from rmo.analysis.by_step import judge
from rmo.cli import fit_watch
from rmo.logs import reading, score_tables
from rmo.logs.choosing import pick
from rmo.logs.columns import Columns
from rmo.logs.no_kl import Question
from rmo.logs.row_texts import texts_of
from rmo.logs.rows import number
from rmo.worlds.dialogue import Malformed
from rmo.worlds.records import TIE
from rmo.worlds.shapes import record_of


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_directory_that_is_watched_changes_when_a_file_in_it_grows(tmp_path):
    log = write(tmp_path / "log.jsonl", [{"step": 1}])
    before = fit_watch.state(tmp_path)
    (tmp_path / "log_fit").mkdir()
    write(tmp_path / "log_fit" / "curves.jsonl", [{"step": 1}])
    assert fit_watch.state(tmp_path)[1] == before[1]  # our own results are no log
    write(log, [{"step": 1}, {"step": 2}])
    assert fit_watch.state(tmp_path)[1] > before[1]


def test_a_question_ends_the_watch():
    def fit():
        raise Question("a mean per token, or a sum?", {})

    with pytest.raises(Question):
        fit_watch.look(fit)


def test_one_bad_read_at_the_end_is_no_stop():
    step, gold = np.arange(20.0), np.append(np.linspace(0.2, 0.8, 19), 0.0)
    found = judge(step, gold)
    assert found["verdict"] == "undecided"
    assert "the last read alone" in found["sentence"]
    again = judge(np.arange(24.0), np.append(gold, [0.01, 0.0, 0.02, 0.0]))
    assert again["verdict"] == "stop"


def test_standard_errors_do_not_make_less_of_the_scatter():
    """Errors over samples miss what checkpoints scatter by: flat gold is no fall, whatever they are."""
    stops = {}
    for se in (None, 0.0, 0.005):
        rng = np.random.default_rng(0)
        runs = [1 + 0.02 * rng.normal(size=20) for _ in range(20)]
        errors = None if se is None else np.full(20, se)
        stops[se] = sum(judge(np.arange(20.0), gold, errors, count=200)["verdict"] == "stop" for gold in runs)
    assert stops[0.0] == stops[0.005] == stops[None] <= 1


def test_errors_of_zero_are_not_known(tmp_path):
    rows = [{"step": k, "kl": k / 2, "gold": (k / 2) ** 0.5, "gold_se": 0.0} for k in range(20)]
    want = Columns(kl="kl", gold="gold", kl_sum=True, se="gold_se")
    made, _ = reading.read([write(tmp_path / "log.jsonl", rows)], want)
    assert not any(row.get("gold_se") for row in made)


def test_a_spike_does_not_make_a_sum_of_a_mean_per_token(tmp_path):
    rows = [{"step": k, "kl": 40.0 if k == 7 else 0.001 * k, "gold": 0.1 * k, "len": 30} for k in range(20)]
    with pytest.raises(Question, match="per token"):
        reading.read([write(tmp_path / "log.jsonl", rows)], Columns(kl="kl", gold="gold"))


def test_what_a_directory_leaves_out_is_said(tmp_path):
    rows = [{"step": k, "objective/kl": 0.5 * k, "gold": 0.1 * k} for k in range(9)]
    for name in ("one", "two", "eval_results"):
        write(tmp_path / f"{name}.jsonl", rows)
    (tmp_path / "broken.jsonl").write_text('{"step": 1, "kl"')
    _, notes = reading.read([tmp_path], Columns(gold="gold"))
    assert any("left out" in note and "broken.jsonl" in note for note in notes)
    assert any("left out by its name" in note and "eval_results.jsonl" in note for note in notes)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"instruction": "Summarise.", "text": "An article.", "response": "Short."}, "text is beside the prompt"),
        ({"prompt": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"}, "question is beside the prompt"),
        ({"prompt": "Summarise.", "article": "Long.", "chosen": "a", "rejected": "b"}, "article is beside the prompt"),
    ],
)
def test_no_part_of_a_prompt_is_lost(row, why):
    with pytest.raises(Malformed, match=why):
        record_of(row)


def test_the_whole_text_beside_its_prompt_is_no_other_prompt():
    row = {"prompt": "Hi.", "chosen": "a", "rejected": "b", "text": "Human: Hi. Assistant: a"}
    assert record_of(row).prompt == "Hi."


def test_ties_of_alpaca_farm():
    row = {"instruction": "q", "input": "", "output_1": "a", "output_2": "b"}
    assert record_of({**row, "preference": 0}).left_out == (TIE,)
    assert record_of({**row, "preference": 2}).preferences == ((1, 0),)
    with pytest.raises(Malformed, match="1, 2 or between"):
        record_of({**row, "preference": -1})


def test_samples_are_scored_and_not_the_reference_beside_them():
    texts = texts_of("rows.jsonl line 1", {"prompt": "q", "samples": ["a", "b"], "answer": "gold"})
    assert [text.row["response"] for text in texts] == ["a", "b"]


@pytest.mark.parametrize(("values", "why"), [([0.5, 1.5], "whole numbers"), ([0, np.nan], "whole numbers")])
def test_rms_are_named_by_whole_numbers(tmp_path, values, why):
    np.savez(tmp_path / "t.npz", proxy=np.zeros((2, 3, 8)), gold=np.zeros((3, 8)), seed=np.array(values))
    with pytest.raises(score_tables.TableError, match=why):
        score_tables.read_npz(tmp_path / "t.npz")


def test_an_empty_npz_is_refused(tmp_path):
    (tmp_path / "t.npz").write_bytes(b"")
    with pytest.raises(score_tables.TableError, match="no npz"):
        score_tables.read_npz(tmp_path / "t.npz")


def test_thousands_are_read_where_they_can_be_nothing_else():
    cells = ["1,200.5", "12,345,678", "1,200", "0,123", "1,20.0"]
    assert [number(cell) for cell in cells] == [1200.5, 12345678, None, None, None]


@pytest.mark.parametrize("name", ["gold_loss", "eval_gold_kl"])
def test_no_loss_and_no_kl_is_gold(name):
    assert pick("gold", [{"step": 1, name: 0.1}], Columns()) is None
    assert pick("gold", [{"step": 1, name: 0.1, "gold_score": 0.1}], Columns()) == "gold_score"
