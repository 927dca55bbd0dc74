"""Dialogues as people write them down, read into one form: messages with a role and a text.

Nothing of a dialogue is cut or made up. Messages come with `role` and `content` or with `from` and `value`, their
content as a text or as parts of text, a whole list also as JSON in a string; transcripts are `\\n\\nHuman: …
\\n\\nAssistant: …` (HH-RLHF). Whatever else is met is refused by name.
"""

import json
import re
from typing import NamedTuple, TypeGuard

from rmo.runtime.types import Json, Row

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "ai"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
}
SPELLINGS = (("role", "content"), ("from", "value"), ("role", "text"))
# What a message says besides its text; without it the dialogue would be another.
BESIDE = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
MARK = "\n\nAssistant:"
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")

PYTHON = re.compile(r"""\s*\[?\s*\{'(role|content|from|value)'\s*:""")


class Malformed(ValueError):
    """Why one row cannot be used, in one line whatever its columns are called."""

    def __init__(self, why: str) -> None:
        super().__init__(" ".join(why.splitlines()))


class Message(NamedTuple):
    """One turn."""

    role: str  # system, user, assistant or tool
    content: str


Dialogue = tuple[Message, ...]
Prompt = str | Dialogue
"""What an answer is given to: a text as it stands, or a dialogue that awaits the assistant."""


def shortened(value: Json) -> str:
    """A value for a message to people."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def text_of(value: Json, name: str) -> str:
    """A text, also from parts of text.

    Raises:
      Malformed: it is none, it is blank, it holds half of a character, or messages as Python writes them.
    """
    if isinstance(value, list):
        value = "".join(part_of(part, name) for part in value)
    if not isinstance(value, str) or not value.strip():
        raise Malformed(f"{name} is {shortened(value)}, no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Malformed(f"{name} is no text: {error.reason}") from error
    if PYTHON.match(value):
        raise Malformed(f"{name} holds messages as Python writes them: write them as JSON")
    return value


def part_of(part: Json, name: str) -> str:
    """The text of one part of a message's content."""
    if isinstance(part, dict) and part.get("type") in ("text", "input_text", "output_text"):
        text = part.get("text")
        if isinstance(text, str):
            return text
    kind = part.get("type") if isinstance(part, dict) else None
    raise Malformed(f"{name} has a part {kind or shortened(part)}: only text is read")


# Messages.


def spelling(value: Json) -> tuple[str, str] | None:
    """The names under which a message has its role and its text; None if it is no message."""
    if not isinstance(value, dict):
        return None
    return next(((role, text) for role, text in SPELLINGS if role in value and text in value), None)


def is_messages(value: Json) -> TypeGuard[list[Row]]:
    """Whether a value is a list of messages, whatever they say."""
    return isinstance(value, list) and bool(value) and all(spelling(one) for one in value)


def unpacked(value: Json) -> Json:
    """The messages that a string holds as JSON; any other value, and any other text, as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") and value.lstrip()[1:].lstrip()[:1] in ("{", '"'):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
        if is_messages(found) or spelling(found):
            return found
    return value


def is_dialogue(value: Json) -> bool:
    """Whether a value holds messages: a list of objects, one message, or either as JSON in a string."""
    value = unpacked(value)
    if isinstance(value, list):
        return any(isinstance(x, dict) for x in value) and not is_parts(value)
    return spelling(value) is not None


def is_parts(value: list[Json]) -> bool:
    """Whether a list is the content of one message, in parts."""
    return all(isinstance(x, dict) and "type" in x and not spelling(x) for x in value)


def message_of(value: Json, name: str) -> Message:
    """One message.

    Raises:
      Malformed: it has no role and text under known names, an unknown role, or more to it than its text.
    """
    names = spelling(value)
    if names is None:
        has = ", ".join(map(str, value)) if isinstance(value, dict) else shortened(value)
        raise Malformed(f"{name} has {has or 'nothing'}: a message is role and content, or from and value")
    role = ROLES.get(str(value[names[0]]).strip().lower())
    if role is None:
        raise Malformed(f"{name} is of {shortened(value[names[0]])}: known are {', '.join(ROLES)}")
    for beside in BESIDE:
        if value.get(beside):
            raise Malformed(f"{name} has {beside} beside its text, which would be lost")
    content = value[names[1]]
    return Message(role, "" if role == "system" and content in (None, "", []) else text_of(content, name))


def dialogue_of(value: Json, name: str) -> Dialogue:
    """A dialogue: a list of messages, one message alone, or JSON of either in a string. Empty system turns say nothing
    and are left out.

    Raises:
      Malformed: it is none; says where.
    """
    value = unpacked(value)
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list):
        raise Malformed(f"{name} is {shortened(value)}, no list of messages")
    found = tuple(message_of(one, f"{name}, turn {i},") for i, one in enumerate(value, start=1))
    found = tuple(m for m in found if m.content)
    if not found:
        raise Malformed(f"{name} has no messages")
    return found


def parted(dialogue: Dialogue, name: str) -> tuple[Dialogue, str]:
    """(what comes before, the text) of the assistant's last turn, which must be the last of all.

    Raises:
      Malformed: the last turn is somebody else's.
    """
    *before, last = dialogue
    if last.role != "assistant":
        raise Malformed(f"{name} ends with a turn of the {last.role}: an answer is needed there")
    return tuple(before), last.content


def awaits_answer(dialogue: Dialogue, name: str) -> Dialogue:
    """The same dialogue, in which the assistant is next.

    Raises:
      Malformed: the assistant spoke last, or nobody but the system did.
    """
    if dialogue[-1].role not in ("user", "tool"):
        raise Malformed(f"{name} ends with a turn of the {dialogue[-1].role}: the user's is needed there")
    return dialogue


# Transcripts.


def is_transcript(text: str) -> bool:
    """Whether a text is a transcript as HH-RLHF writes them."""
    return text.lstrip("\n ").startswith("Human:") and MARK in text


def ends_with_answer(text: str) -> bool:
    """Whether a transcript's last turn is an answer that says something."""
    _, found, answer = text.rpartition(MARK)
    return is_transcript(text) and bool(found) and "\n\nHuman:" not in answer and bool(answer.strip())


def turns_of(text: str, name: str) -> Dialogue:
    """The turns of a transcript; an open last turn of the assistant is not among them.

    Raises:
      Malformed: a turn before it is empty.
    """
    _, *found = TURN.split(text.strip("\n "))
    pairs = [(ROLES[role.lower()], said.strip()) for role, said in zip(found[::2], found[1::2], strict=True)]
    if pairs[-1] == ("assistant", ""):
        pairs = pairs[:-1]
    return tuple(Message(role, text_of(said, f"{name}, turn {i},")) for i, (role, said) in enumerate(pairs, start=1))


def split_transcript(text: str, name: str) -> tuple[str, str]:
    """(the transcript up to the last `Assistant:`, the answer after it).

    Raises:
      Malformed: it is no transcript, its last turn is Human's, or the answer is blank.
    """
    if not is_transcript(text):
        raise Malformed(f"{name} is no transcript of Human and Assistant turns, and there is no prompt beside it")
    before, _, answer = text.rpartition(MARK)
    if "\n\nHuman:" in answer:
        raise Malformed(f"{name} ends in a Human turn: an answer is needed there")
    return before + MARK, text_of(answer.strip(), name)


# Prompts.


def as_messages(prompt: Prompt, name: str = "prompt") -> Dialogue:
    """What a chat template is given: the dialogue, a transcript's turns, or a text as the user's only turn."""
    if not isinstance(prompt, str):
        return prompt
    return turns_of(prompt, name) if is_transcript(prompt) else (Message("user", prompt),)


def plain(prompt: Prompt) -> Prompt:
    """A dialogue of one turn of the user as that turn's text; any other prompt as it is."""
    if not isinstance(prompt, str) and len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return prompt


def spelled(prompt: Prompt) -> Json:
    """A prompt as JSON; `read_prompt` reads it."""
    return prompt if isinstance(prompt, str) else [m._asdict() for m in prompt]


def read_prompt(value: Json) -> Prompt:
    """What `spelled` wrote."""
    return value if isinstance(value, str) else tuple(Message(m["role"], m["content"]) for m in value)


def words(prompt: Prompt) -> str:
    """All that is said in a prompt, for hashes and messages."""
    return prompt if isinstance(prompt, str) else "\n".join(m.content for m in prompt)
