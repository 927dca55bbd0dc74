"""The shapes of people's data: by which columns each is known, and what it means. A new shape is a reader and a line.

Readers get rows of plain JSON values and return a `Record`, or raise `Malformed`. The first shape whose columns a row
has reads it; `rmo/worlds/README.md` has a row of each, and what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rmo.runtime.types import Row
from rmo.worlds.chosen_rejected import pair, rejected_beside
from rmo.worlds.dialogue import Malformed, dialogue_of, is_transcript, shortened, text_of
from rmo.worlds.records import (
    RESPONSES,
    UNSCORED,
    Record,
    Response,
    answer_of,
    asked,
    given,
    missing,
    needed_prompt,
    number,
    said,
)
from rmo.worlds.scored_answers import answers, answers_with_scores
from rmo.worlds.verdicts import alpaca_farm, arena, arena_strings, helpsteer, pku, shp, summaries, webgpt

LABELS = ("label", "kto_tag", "desirable", "is_desirable", "is_safe")
SCORES = ("gold_score", "score", "reward", "rating", "overall_score", "helpfulness")


def label_of(row: Row) -> tuple[bool | None, str]:
    """(whether an answer is labelled as desirable, None without a label; what is wrong with the label)."""
    name = given(row, LABELS) or next((n for n in LABELS if n in row), None)
    if name is None:
        return None, ""
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "-1": False}
    found = known.get(str(row[name]).strip().lower())
    return found, f"{name} is {shortened(row[name])}: true or false is needed" if found is None else ""


def response(row: Row) -> Record:
    """{prompt, response}, also with a label (KTO) or a score; the prompt may be messages, and so may the answer."""
    name = said(row, RESPONSES) or given(row, RESPONSES)
    assert name is not None
    prompt, answer = asked(row, (name,))
    prompt, text = answer_of(row[name], name, prompt)
    if isinstance(prompt, str) and is_transcript(prompt) and text.startswith(prompt):
        text = text_of(text[len(prompt) :].strip(), name)
    scores = [n for n in SCORES if n in row]
    desirable, doubt = label_of(row)
    one = Response(text, name, number(row[scores[0]]) if scores else None, desirable)
    if len(scores) > 1:
        doubt = doubt or f"{' and '.join(scores)} are both there: keep the one that counts"
    rest = (Response(answer[1], answer[0]),) if answer is not None and answer[1] != text else ()
    return Record(prompt, (one, *rest), (), (UNSCORED,) if scores and one.score is None else (), doubt)


def messages(row: Row) -> Record:
    """{messages} or {conversations}: a dialogue; an answer at its end is the response."""
    prompt, answer = asked(row)
    if prompt is None:
        name = given(row, tuple(TALK.split("|"))) or "messages"
        dialogue_of(row[name], name)
        raise Malformed(f"{name} has no turn of the user")
    desirable, doubt = label_of(row)
    found = () if answer is None else (Response(answer[1], answer[0], None, desirable),)
    return Record(prompt, found, (), (), doubt)


def prompt(row: Row) -> Record:
    """{prompt}: nothing else."""
    return Record(needed_prompt(row))


def text(row: Row) -> Record:
    """{text}: a prompt, or a whole text."""
    if "parent_id" in row or "role" in row:
        raise Malformed("one message of a tree or dialogue: make rows of whole dialogues")
    return Record(needed_prompt(row))


class Shape(NamedTuple):
    """How a shape is known."""

    name: str
    fields: tuple[str, ...]
    """Columns that must hold something; `a|b`: one of them."""
    beside: tuple[str, ...]
    """Columns that must be there, empty or not: scores and verdicts."""
    read: Callable[[Row], Record]


def any_of(names: tuple[str, ...]) -> str:
    return "|".join(names)


PROMPT = any_of(("prompt", "instruction", "question", "query", "input"))
WINNERS = ("winner_model_a", "winner_model_b", "winner_tie")
HELPSTEER2, HELPSTEER3 = ("response_1", "response_2"), ("response1", "response2")
TALK = "messages|conversations|conversation"
SHAPES = [
    Shape("pair", ("chosen", "rejected"), (), pair),
    Shape("rejected beside messages", ("messages|conversations", "rejected_response"), (), rejected_beside),
    Shape("summaries", ("info", "summaries"), ("choice",), summaries),
    Shape("arena", ("conversation_a", "conversation_b"), ("winner",), arena),
    Shape("arena, in strings", ("prompt", "response_a", "response_b"), WINNERS, arena_strings),
    Shape("PKU-SafeRLHF", ("prompt", "response_0", "response_1"), ("better_response_id",), pku),
    Shape("SHP", ("history", "human_ref_A", "human_ref_B"), ("labels",), shp),
    Shape(
        "HelpSteer3",
        ("context|prompt", *HELPSTEER3),
        ("overall_preference",),
        helpsteer(HELPSTEER3, "overall_preference"),
    ),
    Shape(
        "HelpSteer2 preferences",
        ("prompt", *HELPSTEER2),
        ("preference_strength",),
        helpsteer(HELPSTEER2, "preference_strength"),
    ),
    Shape("WebGPT", ("question", "answer_0", "answer_1"), ("score_0", "score_1"), webgpt),
    Shape("AlpacaFarm", ("instruction", "output_1", "output_2"), ("preference",), alpaca_farm),
    Shape("completions", (PROMPT, "completions"), (), answers_with_scores("completions")),
    Shape("answers and scores", (PROMPT, "answers"), ("gold_scores|scores",), answers),
    Shape("scored answers", (PROMPT, "answers"), (), answers_with_scores("answers")),
    Shape("scored responses", (PROMPT, "responses"), (), answers_with_scores("responses")),
    Shape("response", (f"{PROMPT}|text|{TALK}", any_of(RESPONSES)), (), response),
    Shape("messages", (TALK,), (), messages),
    Shape("prompt", (PROMPT,), (), prompt),
    Shape("text", ("text",), (), text),
]


def fits(shape: Shape, row: Row) -> bool:
    """Whether a row has the columns of a shape."""
    full = all(any(not missing(row.get(n)) for n in names.split("|")) for names in shape.fields)
    return full and all(any(n in row for n in names.split("|")) for names in shape.beside)


def record_of(row: Row) -> Record:
    """What a row says.

    Raises:
      Malformed: no shape has such columns, or what they hold cannot be used.
    """
    for shape in SHAPES:
        if fits(shape, row):
            try:
                return shape.read(row)._replace(shape=shape.name)
            except (AttributeError, KeyError, TypeError, IndexError) as error:
                raise Malformed(f"{shape.name}: {type(error).__name__} {error}") from error
    empty = [n for n, v in row.items() if missing(v)]
    known = "; ".join(", ".join((*s.fields, *s.beside)) for s in SHAPES)
    beside = f" ({', '.join(empty)} empty)" if empty else ""
    raise Malformed(f"fields {', '.join(map(str, row)) or 'none'}{beside}: known are {known}")
