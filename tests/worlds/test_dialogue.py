"""Dialogues of every spelling become the same messages, and none is cut or bent in silence."""

import json
from functools import partial

import pytest

from rmo.worlds import dialogue, sources
from rmo.worlds.dialogue import Malformed, Message
from rmo.worlds.shapes import record_of

SYSTEM, USER, ASSISTANT = (partial(lambda role, text: {"role": role, "content": text}, r) for r in ("system", "user", "assistant"))  # fmt: skip
TURNS = [SYSTEM("Be brief."), USER("Why?"), ASSISTANT("So."), USER("How so?")]
MESSAGES = tuple(Message(m["role"], m["content"]) for m in TURNS)
GOOD, BAD = ASSISTANT("Because."), ASSISTANT("No.")


def other_names(messages):
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[m["role"]], "value": m["content"]} for m in messages]


def in_parts(messages):
    return [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in messages]


SPELLINGS = {
    "role and content": TURNS,
    "from and value": other_names(TURNS),
    "parts": in_parts(TURNS),
    "two parts": [*TURNS[:3], {"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "so?"}]}],
    "JSON in a string": json.dumps(TURNS),
    "empty columns beside": [{**m, "tool_calls": None, "name": None} for m in TURNS],
    "other roles": [{**m, "role": {"system": "developer", "user": "Human", "assistant": "model"}[m["role"]]} for m in TURNS],
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_of_messages(name):
    assert dialogue.dialogue_of(SPELLINGS[name], "messages") == MESSAGES
    row = {"prompt": SPELLINGS[name], "chosen": [GOOD], "rejected": "No."}
    assert sources.comparisons_of(row) == [(MESSAGES, "Because.", "No.")]
    assert sources.prompt_of({"messages": SPELLINGS[name]}) == MESSAGES
    assert sources.prompt_of(row) == MESSAGES
    assert dialogue.read_prompt(json.loads(json.dumps(dialogue.spelled(MESSAGES)))) == MESSAGES


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [*TURNS, GOOD], "rejected": [*TURNS, BAD]},
        {"prompt": "Why?", "chosen": [*TURNS, GOOD], "rejected": [*TURNS, BAD]},
        {"prompt": "How so?", "chosen": [*TURNS, GOOD], "rejected": [*TURNS, BAD]},
        {"prompt": TURNS, "chosen": [*TURNS, GOOD], "rejected": [BAD]},
        {"prompt": TURNS, "chosen": [*TURNS[1:], GOOD], "rejected": BAD},
        {"prompt": TURNS[:2], "chosen": [*TURNS[2:], GOOD], "rejected": [*TURNS[2:], BAD]},
        {"prompt": TURNS[1:], "system": "Be brief.", "chosen": "Because.", "rejected": "No."},
        {"messages": [*TURNS, GOOD], "chosen": [*TURNS, GOOD], "rejected": [*TURNS, BAD]},
        {"conversations": TURNS, "chosen": GOOD, "rejected": BAD},
        {"prompt": "How so?", "history": [["Why?", "So."]], "system": "Be brief.", "chosen": "Because.", "rejected": "No."},
    ],
)  # fmt: skip
def test_no_turn_of_a_pair_is_lost(row):
    assert sources.comparisons_of(row) == [(MESSAGES, "Because.", "No.")]
    assert sources.demonstration_of(row) == (MESSAGES, "Because.")


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*TURNS, GOOD]},
        {"conversations": other_names([*TURNS, GOOD])},
        {"conversations": other_names([*TURNS[1:], GOOD]), "system": "Be brief."},
        {"prompt": TURNS, "completion": [GOOD]},
        {"messages": TURNS, "response": "Because."},
        {"prompt": "Why?", "messages": [*TURNS, GOOD]},
    ],
)
def test_no_turn_of_a_demonstration_is_lost(row):
    assert sources.demonstration_of(row) == (MESSAGES, "Because.")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": [*TURNS, GOOD, USER("Thanks")], "rejected": [*TURNS, BAD, USER("Oh")]}, "ends with a turn of the user"),
        ({"prompt": TURNS[:3], "chosen": "a", "rejected": "b"}, "ends with an answer|ends with a turn of the assistant"),
        ({"prompt": "Who?", "chosen": [*TURNS, GOOD], "rejected": [*TURNS, BAD]}, "prompt is no turn of the dialogue"),
        ({"prompt": [USER("Who?")], "chosen": [*TURNS, GOOD], "rejected": [BAD]}, "hold different dialogues"),
        ({"system": "Be kind.", "chosen": [*TURNS, GOOD], "rejected": [*TURNS, BAD]}, "system is beside the prompt"),
        ({"prompt": "Why?", "history": "So.", "chosen": "a", "rejected": "b"}, "history is beside the prompt"),
        ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, "a message is role and content"),
        ({"prompt": [{"role": "narrator", "content": "x"}], "chosen": "a", "rejected": "b"}, "'narrator': known are"),
        ({"messages": [USER("Why?"), {"role": "assistant", "content": "", "tool_calls": [1]}], "chosen": "a", "rejected": "b"}, "tool_calls beside its text"),
        ({"messages": [USER("Why?"), BAD], "chosen": "a", "rejected": "b"}, "neither chosen nor rejected"),
        ({"messages": []}, "messages has no messages"),
        ({"messages": [{"a\nb": 1}]}, "messages, turn 1, has a b: a message is"),
        ({"messages": "Why?"}, "no list of messages"),
        ({"prompt": "\ud83d", "response": "x"}, "prompt is no text"),
        ({"prompt": str(TURNS), "response": "x"}, "prompt holds messages as Python writes them"),
        ({"prompt": "q", "response": str([GOOD])}, "response holds messages as Python writes them"),
        ({"prompt": '["Why?", null]', "chosen": '["So."]', "rejected": '["No."]'}, "prompt holds a list of turns as JSON"),
        ({"prompt": "q", "chosen": ["So.", "Because."], "rejected": ["No."]}, "chosen has a part 'So.': only text is read"),
        ({"prompt": "q", "completion": [{"text": "So."}, {"text": "Because."}]}, "a message is role and content"),
    ],
)  # fmt: skip
def test_what_would_be_bent_is_refused(row, message):
    with pytest.raises(Malformed, match=message) as error:
        record_of(row)
    assert "\n" not in str(error.value)


# Transcripts.

HH = "\n\nHuman: Why?\n\nAssistant: So.\n\nHuman: How so?\n\nAssistant:"


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": HH + " Because.", "rejected": HH + " No."},
        {"prompt": HH, "chosen": HH + " Because.", "rejected": HH + " No."},
        {"prompt": HH, "chosen": "Because.", "rejected": "No."},
        {"prompt": "Why?", "chosen": HH + " Because.", "rejected": HH + " No."},
        {"prompt": HH, "response": "Because.", "chosen": "Because.", "rejected": "No."},
    ],
)
def test_transcripts_are_read_once(row):
    assert sources.comparisons_of(row) == [(HH, "Because.", "No.")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": HH + " So.\n\nHuman: Thanks", "rejected": HH + " No."}, "ends in a Human turn"),
        ({"prompt": HH, "chosen": "So.\n\nHuman: Thanks", "rejected": "No."}, "goes on with a Human turn"),
        ({"prompt": HH, "chosen": HH + " So.", "rejected": "No."}, "chosen repeats the prompt, the other one does not"),
        ({"chosen": HH + " So.", "rejected": HH.replace("Why", "Who") + " No."}, "do not part at their last answer"),
        ({"chosen": HH + " So.", "rejected": HH}, "rejected is '', no text"),
        ({"prompt": HH + " So.", "chosen": "a", "rejected": "b"}, "prompt is a transcript that ends with an answer"),
        ({"prompt": "Hi", "chosen": HH + " So.", "rejected": HH + " No."}, "prompt is no turn of the dialogue"),
    ],
)
def test_transcripts_that_cannot_be_read(row, message):
    with pytest.raises(Malformed, match=message):
        record_of(row)


def test_a_transcript_becomes_turns_for_a_template():
    user, assistant = Message("user", "Why?"), Message("assistant", "So.")
    assert dialogue.as_messages(HH) == (user, assistant, Message("user", "How so?"))
    assert dialogue.as_messages("\n\nHuman: Why?\n\nAssistant: ") == (user,)
    assert dialogue.as_messages("Human: Why?") == (Message("user", "Human: Why?"),)
    assert dialogue.as_messages("Why?") == (user,)


def test_a_whole_transcript_is_no_prompt():
    assert sources.prompt_of({"text": HH}) == HH
    with pytest.raises(Malformed, match="text is a whole transcript"):
        sources.prompt_of({"text": HH + " So."})
    assert record_of({"text": HH + " So."}).prompt == HH + " So."  # as a text it can be scored
    assert sources.prompt_of({"prompt": '["a", 1]'}) == '["a", 1]'  # not a list of texts: a prompt like any other
