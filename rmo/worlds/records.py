"""What a row of people's data says, whatever its shape: one `Record`, or why there is none.

`record_of` finds the shape by the row's fields (`shapes.SHAPES`) and reads it. Columns that may belong to the prompt, a
system turn or a history for example, are read with it or refused: none is left aside in silence.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from rmo.runtime.types import Json, Row
from rmo.worlds.dialogue import (
    Dialogue,
    Malformed,
    Message,
    Prompt,
    awaits_answer,
    dialogue_of,
    ends_with_answer,
    is_dialogue,
    is_transcript,
    parted,
    shortened,
    text_of,
    turns_of,
)

TIE, UNSCORED, UNDESIRABLE = "ties", "answers without a score that is a number", "undesirable answers"
PART_EARLY = "pairs of dialogues that part before their last answer"
PROMPTS = ("prompt", "instruction", "question", "query", "input", "text")
DIALOGUES = ("messages", "conversations", "conversation", "context_messages", "context", "history")
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction")
# A JSON list of texts and nothing else.
TURNS_IN_STRING = re.compile(r'\s*\[\s*"(?:[^"\\]|\\.)*"\s*(?:,\s*(?:"(?:[^"\\]|\\.)*"|null)\s*)*\]\s*$')
RESPONSES = ("response", "completion", "output", "answer")
# Every column that may be part of the prompt: what a shape does not read of them is refused.
CONTEXT = (*SYSTEMS, "input", "context", "history", "context_messages", "tools", "documents", "document", "article",
           "passage", "image", "images")  # fmt: skip


class Response(NamedTuple):
    """An answer to a record's prompt."""

    text: str
    name: str = "response"
    """The column it is from: chosen, rejected, response, response_0, ... and `answers 3` in a list."""
    score: float | None = None
    """What it was given; None if nothing, or no number. Higher is better."""
    desirable: bool | None = None
    """Whether it was labelled as one to be imitated (KTO); None without a label."""


class Record(NamedTuple):
    """A row in the one form that everything else reads.

    Of a whole text (shape `text`) the prompt is the text, and there are no responses.
    """

    prompt: Prompt
    responses: tuple[Response, ...] = ()
    preferences: tuple[tuple[int, int], ...] = ()
    """(better, worse), indices of `responses`."""
    left_out: tuple[str, ...] = ()
    """Why there are no more preferences, a reason for each that is missing: TIE, UNSCORED, PART_EARLY, ..."""
    doubt: str = ""
    """What makes its preferences or labels unusable, its texts being well."""
    shape: str = ""
    """The name in `shapes.SHAPES`."""


# Values.


def number(value: Json) -> float | None:
    """A score as a finite number, also from text; None if it is none: null, NaN, N/A, a truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def missing(value: Json) -> bool:
    """Whether a cell is empty, as tables fill up a column that a row lacks."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def given(row: Row, names: tuple[str, ...]) -> str | None:
    """The first of some columns that a row has."""
    return next((name for name in names if not missing(row.get(name))), None)


def said(row: Row, names: tuple[str, ...]) -> str | None:
    """The first of some columns that is not empty."""
    return next((name for name in names if not missing(row.get(name)) and row[name] not in ("", [], {})), None)


# Prompts.


def merged(prompt: Prompt | None, before: Dialogue, name: str) -> Prompt:
    """The prompt of a dialogue in `name` that goes on from `before`, where a prompt may stand beside it.

    Raises:
      Malformed: they contradict each other, or there is neither.
    """
    if not before:
        if prompt is None:
            raise Malformed(f"{name} has no turn of the user before its answer, and there is no prompt beside it")
        return prompt
    if prompt is None:
        return awaits_answer(before, name)
    asked = [m.content.strip() for m in before if m.role == "user"]
    if isinstance(prompt, str):
        if is_transcript(prompt):
            prompt = turns_of(prompt, "prompt")
        elif prompt.strip() in asked:
            return awaits_answer(before, name)
        else:
            raise Malformed(f"prompt is no turn of the dialogue in {name}: which is the prompt?")
    if before[: len(prompt)] == prompt:
        return awaits_answer(before, name)
    if prompt[0].role == "system" and before == prompt[1:]:  # the dialogue is told without its system turn
        return awaits_answer(prompt, "prompt")
    if before[0].role == "system" and before[1 : len(prompt) + 1] == prompt:
        return awaits_answer(before, name)
    if prompt[-1].role == "user" and before[0].role == "assistant":  # several turns of answer
        return awaits_answer(prompt + before, name)
    raise Malformed(f"prompt and {name} hold different dialogues")


def prompt_text(value: Json, name: str) -> str:
    """A prompt that is a text.

    Raises:
      Malformed: it is none; a list of turns as JSON in a string; or a transcript with its answer.
    """
    text = text_of(value, name)
    if TURNS_IN_STRING.match(text):
        raise Malformed(f"{name} holds a list of turns as JSON in a string: write them as messages")
    if ends_with_answer(text) and name != "text":
        raise Malformed(f"{name} is a transcript that ends with an answer: the Human's turn is needed there")
    return text


class Asked(NamedTuple):
    """What the columns of a row that belong to the prompt say."""

    prompt: Prompt | None
    answer: tuple[str, str] | None = None
    """(column, text) of the answer with which a dialogue beside the row's answers ends."""


def prompt_of_columns(row: Row, read: set[str]) -> Asked:
    """The prompt that a row's columns give; those that were used are added to `read`.

    Raises:
      Malformed: a column is no text and no dialogue, or columns contradict each other.
    """
    talk = next((n for n in DIALOGUES if not missing(row.get(n)) and is_dialogue(row[n])), None)
    names = PROMPTS if talk is None else tuple(n for n in PROMPTS if n not in ("text", "input"))
    name = said(row, names) or given(row, names)
    prompt: Prompt | None = None
    answer: tuple[str, str] | None = None
    if name is not None:
        read.add(name)
        prompt = dialogue_of(row[name], name) if is_dialogue(row[name]) else prompt_text(row[name], name)
        more = said(row, ("input", "context")) if name == "instruction" and talk is None else None
        if more is not None and isinstance(prompt, str):
            prompt = f"{prompt}\n{text_of(row[more], more)}"
            read.add(more)
    if talk is not None:
        read.add(talk)
        before = dialogue_of(row[talk], talk)
        if before[-1].role == "assistant" and talk != "history":
            before, answer = before[:-1], (talk, before[-1].content)
        if talk == "history" and isinstance(prompt, str):
            before = (*before, Message("user", prompt))
        prompt = merged(prompt, before, talk)
    elif name is None and isinstance(row.get("history"), str):  # SHP
        prompt = text_of(row["history"], "history")
        read.add("history")
    prompt = with_history(row, prompt, read)
    return Asked(with_system(row, prompt, read), answer)


def with_history(row: Row, prompt: Prompt | None, read: set[str]) -> Prompt | None:
    """A prompt behind the pairs of question and answer in `history`."""
    pairs = row.get("history")
    if not isinstance(pairs, list) or not pairs or "history" in read or not isinstance(prompt, str):
        return prompt
    turns = []
    for i, pair in enumerate(pairs, start=1):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise Malformed(f"history {i} is {shortened(pair)}, no pair of question and answer")
        turns += [
            Message("user", text_of(pair[0], f"history {i}")),
            Message("assistant", text_of(pair[1], f"history {i}")),
        ]
    read.add("history")
    return (*turns, Message("user", prompt))


def with_system(row: Row, prompt: Prompt | None, read: set[str]) -> Prompt | None:
    """A prompt behind the system turn that a column of its own holds."""
    name = said(row, SYSTEMS)
    if name is None or prompt is None:
        return prompt
    read.add(name)
    turn = Message("system", text_of(row[name], name))
    dialogue = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    if isinstance(prompt, str) and is_transcript(prompt):
        dialogue = turns_of(prompt, "prompt")
    if dialogue[0].role == "system":
        if dialogue[0] != turn:
            raise Malformed(f"{name} is not the system turn of the dialogue beside it")
        return dialogue
    return (turn, *dialogue)


def asked(row: Row, known: tuple[str, ...] = ()) -> Asked:
    """The prompt of a row, if its columns give any; nothing that may belong to it is left aside.

    Args:
      known: columns that the shape reads itself.

    Raises:
      Malformed: see `prompt_of_columns`; or a column of context is not understood, or the prompt awaits no answer.
    """
    read = set(known)
    found = prompt_of_columns({n: v for n, v in row.items() if n not in known}, read)
    if left := [n for n in CONTEXT if n not in read and said(row, (n,))]:
        raise Malformed(f"{left[0]} is beside the prompt, and would be lost: make it part of the prompt")
    if isinstance(found.prompt, str):
        for name in PROMPTS:
            other = row.get(name)
            if name in read or name in known or not isinstance(other, str) or not other.strip():
                continue
            if other.strip() not in found.prompt and found.prompt.strip() not in other:
                raise Malformed(f"{name} is beside the prompt and says something else: make it part of the prompt")
    if found.prompt is not None and not isinstance(found.prompt, str):
        awaits_answer(found.prompt, "prompt")
    return found


def needed_prompt(row: Row, known: tuple[str, ...] = ()) -> Prompt:
    """The prompt of a row whose answers are in columns of their own; see `asked`.

    Raises:
      Malformed: there is none too, or it ends with an answer.
    """
    prompt, answer = asked(row, known)
    if prompt is None:
        raise Malformed(f"there is no prompt: it is looked for in {', '.join(PROMPTS)}")
    if answer is not None:
        raise Malformed(f"{answer[0]} ends with an answer, and there are other answers beside it")
    return prompt


# Answers.


def answer_of(value: Json, name: str, prompt: Prompt | None) -> tuple[Prompt, str]:
    """(prompt, text) of an answer: a text, the assistant's message, or a whole dialogue that ends with it.

    Raises:
      Malformed: it is none of these, or goes with another prompt than the one beside it.
    """
    if not is_dialogue(value):
        text = text_of(value, name)
        if prompt is None:
            raise Malformed(f"there is no prompt: it is looked for in {', '.join(PROMPTS)}")
        return prompt, text
    before, text = parted(dialogue_of(value, name), name)
    return merged(prompt, before, name), text


def listed(value: Json, name: str) -> list[Json]:
    """A list of some length.

    Raises:
      Malformed: it is none.
    """
    if not isinstance(value, list) or not value:
        raise Malformed(f"{name} is {shortened(value)}, no list")
    return value
