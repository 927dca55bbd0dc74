"""Preferences are what people said: no NaN, tie or second judge's score makes one, and what is left out is counted."""

import json
import math

import pytest

from rmo.worlds import sources
from rmo.worlds.records import TIE, UNDESIRABLE, UNSCORED
from rmo.worlds.shapes import record_of
from rmo.worlds.sources import ALONE, SourceError

PAIR = {"prompt": "q", "chosen": "g", "rejected": "b"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


NOTHING = {
    "equal texts": ({**PAIR, "rejected": "g"}, TIE),
    "texts equal but for space": ({**PAIR, "rejected": " g\n"}, TIE),
    "equal scores beside": ({**PAIR, "chosen_score": 3, "rejected_score": 3.0}, TIE),
    "status": ({**PAIR, "status": "tie"}, TIE),
    "NaN beside": ({**PAIR, "score_chosen": math.nan, "score_rejected": 2.0}, UNSCORED),
    "N/A beside": ({**PAIR, "rating_chosen": 4, "rating_rejected": "N/A"}, UNSCORED),
    "null beside a number": ({**PAIR, "chosen-rating": 4, "rejected-rating": None}, UNSCORED),
    "infinite": ({"prompt": "q", "answer_0": "a", "answer_1": "b", "score_0": math.inf, "score_1": 0}, UNSCORED),
    "both zero": ({"prompt": "q", "question": "q", "answer_0": "a", "answer_1": "b", "score_0": 0.0, "score_1": 0}, TIE),
    "no strength": ({"prompt": "q", "response1": "a", "response2": "b", "overall_preference": 0}, TIE),
    "strength unknown": ({"prompt": "q", "response1": "a", "response2": "b", "overall_preference": None}, UNSCORED),
    "no label": ({"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": None}, UNSCORED),
    "equal ranks": ({"prompt": "q", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 1}]}, TIE),
    "one score only": ({"prompt": "q", "answers": ["a", "b"], "scores": [1.0, math.nan]}, UNSCORED),
    "a truth value": ({"prompt": "q", "answers": ["a", "b"], "scores": [True, 0.5]}, UNSCORED),
    "half way": ({"instruction": "q", "output_1": "a", "output_2": "b", "preference": 1.5}, TIE),
    "bothbad": (
        {"winner": "tie (bothbad)", **{f"conversation_{x}": [{"role": "user", "content": "q"}, {"role": "assistant", "content": x}] for x in "ab"}},
        TIE,
    ),
}  # fmt: skip
NOTHING["infinite"][0]["question"] = "q"


@pytest.mark.parametrize("name", NOTHING)
def test_no_preference_is_counted_and_a_source_of_nothing_else_refused(tmp_path, name):
    row, why = NOTHING[name]
    found = sources.load_comparisons(write(tmp_path / "a.jsonl", row, PAIR, row))
    assert found.rows == [("q", "g", "b")]
    assert found.left_out == {why: 2}
    assert found.summary() == f"1 rows; left out: 2 {why}"
    with pytest.raises(SourceError, match=f"nothing can be used of its 1 rows: 1 {why}"):
        sources.load_comparisons(write(tmp_path / "b.jsonl", row))


def test_null_scores_beside_a_label_say_nothing():
    assert sources.comparisons_of({**PAIR, "score_chosen": None, "score_rejected": None}) == [("q", "g", "b")]
    assert sources.comparisons_of({**PAIR, "score_chosen": "8.5", "score_rejected": 2}) == [("q", "g", "b")]


def test_nan_is_passed_over_and_the_others_are_compared(tmp_path):
    scores = [1.5, math.nan, None, -2.0, "N/A", 0.0, 3.0]
    listed = {"prompt": "q", "answers": list("abcdefg"), "gold_scores": scores}
    found = sources.load_comparisons(write(tmp_path / "a.jsonl", listed))
    assert found.rows == [("q", "a", "d"), ("q", "g", "f")]  # neighbours of those that have a score
    assert found.left_out == {UNSCORED: 3}
    some = {"instruction": "q", "completions": [{"response": r, "overall_score": s} for r, s in zip("abc", [1, math.nan, 2], strict=True)]}  # fmt: skip
    found = sources.load_comparisons(write(tmp_path / "b.jsonl", some))
    assert (found.rows, found.left_out) == ([("q", "c", "a")], {UNSCORED: 1})
    assert sources.demonstration_of(some) == ("q", "c")


def test_scales_are_not_mixed_within_a_row():
    mixed = [
        {"response": "a", "overall_score": 8.5, "fine-grained_score": 1.0},
        {"response": "b", "fine-grained_score": 5.0},
    ]
    record = record_of({"instruction": "q", "completions": mixed})
    assert (record.preferences, record.left_out) == ((), (UNSCORED,))


def test_undesirable_answers_are_no_demonstrations(tmp_path):
    for name, good, bad in (("label", True, False), ("label", 1, 0), ("kto_tag", "true", "false"), ("is_safe", True, False), ("label", 1, -1)):  # fmt: skip
        rows = [{"prompt": f"q{i}", "completion": "yes" if i else "no", name: good if i else bad} for i in range(3)]
        found = sources.load(write(tmp_path / "a.jsonl", *rows), sources.demonstration_of)
        assert found.rows == [("q1", "yes"), ("q2", "yes")]
        assert found.summary() == f"2 rows; left out: 1 {UNDESIRABLE}"
    with pytest.raises(SourceError, match="nothing can be used of its 1 rows: 1 undesirable answers"):
        sources.load(write(tmp_path / "b.jsonl", rows[0]), sources.demonstration_of)
    with pytest.raises(SourceError, match="label is 'maybe': true or false is needed"):
        sources.load(write(tmp_path / "c.jsonl", {**rows[0], "label": "maybe"}), sources.demonstration_of)
    with pytest.raises(SourceError, match="label is None: true or false is needed"):
        sources.load(write(tmp_path / "e.jsonl", {**rows[0], "label": None}), sources.demonstration_of)
    talk = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "label": False}
    with pytest.raises(SourceError, match="1 undesirable answers"):
        sources.load(write(tmp_path / "d.jsonl", talk), sources.demonstration_of)
    with pytest.raises(SourceError, match="a label of one answer prefers it to no other"):
        sources.load_comparisons(tmp_path / "a.jsonl")


def test_of_a_tie_there_is_no_best(tmp_path):
    tie = {"prompt": "q", "response1": "a", "response2": "b", "overall_preference": 0}
    with pytest.raises(SourceError, match="1 ties"):
        sources.load(write(tmp_path / "a.jsonl", tie), sources.demonstration_of)
    assert sources.demonstration_of({**PAIR, "rejected": "g"}) == ("q", "g")  # equal texts: either is the demonstration


def test_answers_in_rows_of_their_own_are_compared_with_the_next(tmp_path):
    rows = [{"prompt": p, "response": r, "helpfulness": s, "verbosity": 1} for p, r, s in (
        ("q", "a", 4), ("q", "b", 0), ("r", "a", 1), ("s", "a", 2), ("s", "b", 3), ("t", "a", 3), ("t", "b", 3), ("u", "a", None),
    )]  # fmt: skip
    found = sources.load_comparisons(write(tmp_path / "a.jsonl", *rows))
    assert found.rows == [("q", "a", "b"), ("s", "b", "a")]
    assert found.left_out == {ALONE: 1, TIE: 1, UNSCORED: 1}
    with pytest.raises(SourceError, match="1 answers without another to the same prompt beside them"):
        sources.load_comparisons(write(tmp_path / "b.jsonl", rows[0]))


def test_two_judges_are_told_apart():
    with pytest.raises(sources.Malformed, match="score and reward are both there"):
        sources.comparisons_of({"prompt": "q", "response": "a", "score": 1.0, "reward": 2.0})
    record = record_of({"prompt": "q", "response": "a", "score": 1.0, "reward": 2.0})
    assert record.responses[0].text == "a"  # it can still be scored
    both = {"prompt": "q", "answers": ["a", "b"], "scores": [0.0, 1.0], "gold_scores": [1.0, 0.0]}
    assert sources.comparisons_of(both) == [("q", "a", "b")]
    record = record_of({**PAIR, "score_chosen": 1.0, "score_rejected": 2.0})
    assert [r.text for r in record.responses] == ["g", "b"]
    assert record.doubt


def test_an_answer_beside_a_pair_is_kept():
    record = record_of({**PAIR, "response": "sampled"})
    assert [(r.name, r.text) for r in record.responses] == [("chosen", "g"), ("rejected", "b"), ("response", "sampled")]
    assert record.preferences == ((0, 1),)


def test_empty_columns_of_a_table_do_not_count():
    row = {
        "prompt": "q",
        "response": "a",
        "chosen": None,
        "rejected": math.nan,
        "messages": None,
        "system": "",
        "history": [],
    }
    assert sources.demonstration_of(row) == ("q", "a")
    assert record_of(row).shape == "response"
    with pytest.raises(sources.Malformed, match=r"\(chosen, rejected empty\)"):
        record_of({"chosen": None, "rejected": None, "id": 3})


def test_prompts_do_not_depend_on_answers_that_nobody_asks_for():
    assert sources.prompt_of({"question": "What is 6 x 7?", "answer": 42}) == "What is 6 x 7?"
    assert sources.prompt_of({"prompt": "q", "answers": {"text": ["a"]}}) == "q"


def test_dialogues_of_the_arena_that_part_early_are_left_out(tmp_path):
    turn = lambda role, text: {"role": role, "content": text}
    long = {"winner": "model_a", **{f"conversation_{x}": [turn("user", "q"), turn("assistant", x), turn("user", "r"), turn("assistant", "z" + x)] for x in "ab"}}  # fmt: skip
    short = {"winner": "model_b", **{f"conversation_{x}": [turn("user", "q"), turn("assistant", x)] for x in "ab"}}
    strings = {n: json.dumps(v) if n != "winner" else v for n, v in short.items()}
    found = sources.load_comparisons(write(tmp_path / "a.jsonl", long, short, strings))
    assert found.rows == 2 * [("q", "b", "a")]
    assert found.summary() == "2 rows; left out: 1 pairs of dialogues that part before their last answer"
    flags = {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
    text = {"prompt": '["q"]', "response_a": '["a"]', "response_b": '["b"]', **flags}
    assert sources.comparisons_of(text) == [("q", "b", "a")]
    assert sources.comparisons_of({**text, "prompt": "q", "response_a": "a", "response_b": "b"}) == [("q", "b", "a")]
    for change, why in (
        ({"response_a": '["a", "b"]'}, "have 1, 2, 1 turns"),
        ({"response_a": "[null]"}, "response_a is None, no text"),
        ({"response_a": '["a"'}, "begins like JSON and is none"),
        ({"winner_tie": 1}, "one of them must be 1"),
    ):
        with pytest.raises(sources.Malformed, match=why):
            record_of({**text, **change})
