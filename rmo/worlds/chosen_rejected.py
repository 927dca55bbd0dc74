"""Shapes that say outright which answer is preferred: {prompt, chosen, rejected} and its kin."""

from __future__ import annotations

from rmo.runtime.types import Json, Row
from rmo.worlds.dialogue import (
    Malformed,
    Prompt,
    as_messages,
    is_dialogue,
    is_transcript,
    spelled,
    split_transcript,
    text_of,
)
from rmo.worlds.records import TIE, UNSCORED, Record, Response, answer_of, asked, merged, number, said

# Two scores of a pair, from which its labels were made.
SCORES_OF_PAIRS = [
    ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("rating_chosen", "rating_rejected"),
    ("chosen_rating", "rejected_rating"), ("chosen-rating", "rejected-rating"),
]  # fmt: skip
MADE = ("response", "completion")  # an answer beside a pair: `rmo sample` writes one to rows of any shape


def pair(row: Row) -> Record:
    """{prompt, chosen, rejected}: each a text, the assistant's message or a whole dialogue, or all transcripts."""
    beside = said(row, MADE)
    known = ("chosen", "rejected") if beside is None else ("chosen", "rejected", beside)
    prompt, answer = asked(row, known)
    texts: list[tuple[str, str]]
    if all(isinstance(row[name], str) and not is_dialogue(row[name]) for name in ("chosen", "rejected")):
        prompt, good, bad = pair_of_texts(row["chosen"], row["rejected"], prompt)
    else:
        (prompt, good), (other, bad) = (answer_of(row[name], name, prompt) for name in ("chosen", "rejected"))
        if prompt != other:
            raise Malformed("the dialogues do not part at their last answer")
    texts = [("chosen", good), ("rejected", bad)]
    if answer is not None and answer[1] not in (good, bad):
        raise Malformed(f"{answer[0]} ends with an answer that is neither chosen nor rejected")
    if beside is not None:
        text = text_of_answer(row[beside], beside)
        if text.strip() not in (good.strip(), bad.strip()):
            texts.append((beside, text))
    tie, doubt = judged(row, good, bad)
    responses = tuple(Response(text, name) for name, text in texts)
    preferences = () if tie else ((0, 1),)
    return Record(prompt, responses, preferences, (tie,) if tie else (), doubt)


def text_of_answer(value: Json, name: str) -> str:
    """A text, or the text of the assistant's message."""
    return answer_of(value, name, "any")[1]


def pair_of_texts(chosen: str, rejected: str, prompt: Prompt | None) -> tuple[Prompt, str, str]:
    """(prompt, chosen, rejected) without the prompt in them, of two texts: answers, or transcripts with the prompt.

    Raises:
      Malformed: the transcripts part early or end in a Human turn, or whether a prompt is repeated cannot be told.
    """
    good, bad = text_of(chosen, "chosen"), text_of(rejected, "rejected")
    if prompt is None or (is_transcript(good) and is_transcript(bad)):
        (before, good), (other, bad) = split_transcript(good, "chosen"), split_transcript(bad, "rejected")
        if before != other:
            raise Malformed("the dialogues do not part at their last answer")
        return whole_prompt(prompt, before), good, bad
    if isinstance(prompt, str) and is_transcript(prompt):
        repeated = [text.startswith(prompt) for text in (good, bad)]
        if repeated[0] != repeated[1]:
            raise Malformed(f"{'chosen' if repeated[0] else 'rejected'} repeats the prompt, the other one does not")
        for name, text in (("chosen", good), ("rejected", bad)):
            if "\n\nHuman:" in text:
                raise Malformed(f"{name} goes on with a Human turn: one answer is needed")
    elif isinstance(prompt, str) and good.startswith(prompt) and bad.startswith(prompt):
        raise Malformed(
            "chosen and rejected both begin with the prompt; whether they repeat it cannot be told: take it off"
        )
    return prompt, good, bad


def whole_prompt(prompt: Prompt | None, transcript: str) -> Prompt:
    """The prompt of two whole transcripts, beside which another spelling of it may stand.

    Raises:
      Malformed: the prompt is no part of the transcript.
    """
    if prompt is None:
        return transcript
    if isinstance(prompt, str):
        asked_ = [m.content for m in as_messages(transcript, "chosen") if m.role == "user"]
        if prompt.strip() in (transcript.strip(), *asked_) or transcript.startswith(prompt):
            return transcript
    return merged(prompt, as_messages(transcript, "chosen"), "chosen")


def judged(row: Row, good: str, bad: str) -> tuple[str, str]:
    """(why a pair is no preference, why its preference cannot be used), from what stands beside it."""
    if good.strip() == bad.strip() or str(row.get("status")).lower() == "tie":
        return TIE, ""
    for names in SCORES_OF_PAIRS:
        if not all(name in row for name in names) or all(row[name] is None for name in names):
            continue
        high, low = (number(row[name]) for name in names)
        if high is None or low is None:
            return UNSCORED, ""
        if high == low:
            return TIE, ""
        if high < low:
            return "", (
                f"{names[0]} {high:g} is below {names[1]} {low:g}: which is preferred? "
                "Leave the two columns out if they are another judge's"
            )
    return "", ""


def rejected_beside(row: Row) -> Record:
    """{messages, rejected_response}: a dialogue, and another answer than its last."""
    prompt, answer = asked(row, ("rejected_response",))
    if prompt is None or answer is None:
        raise Malformed("messages have no answer at their end to prefer to rejected_response")
    return pair({"prompt": spelled(prompt), "chosen": answer[1], "rejected": row["rejected_response"]})
