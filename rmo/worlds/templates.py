"""Dialogues through a tokenizer's chat template, with nothing left out: what a template drops or lacks is refused."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import re
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2.utils import missing

from rmo.runtime.files import RunError
from rmo.runtime.types import Json, Row
from rmo.worlds.dialogue import Dialogue, Message, shortened

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS = 20.0  # that one dialogue's rendering may take; thousands are rendered in one
GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # a mark of transformers' own, which writes nothing


class TemplateError(RunError):
    """Why a dialogue cannot be put through a template, without the place where the dialogue is."""


class Unknown(Exception):
    """A template prints a field that messages do not have."""


class Printed(jinja2.Undefined):
    """What a template finds where there is nothing: it may be asked for, but neither printed nor gone through. Names of
    the template itself (bos_token of a tokenizer that has none) print as nothing, as in transformers."""

    def refuse(self) -> None:
        if self._undefined_obj is not missing:
            raise Unknown(str(self._undefined_name))

    def __str__(self) -> str:
        self.refuse()
        return ""

    def __iter__(self) -> Iterator[Json]:
        self.refuse()
        return iter(())

    def __len__(self) -> int:
        self.refuse()
        return 0

    def __bool__(self) -> bool:
        return False


def render(tokenizer: PreTrainedTokenizerBase, messages: Dialogue, answer: bool) -> str:
    """A dialogue as the tokenizer's template writes it, a turn of the assistant left open where no `answer` is there.

    Templates that take a message's content in parts get it so.

    Raises:
      TemplateError: there is no template, it refuses the messages, leaves out what one of them says, or prints a field
        that they do not have.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise TemplateError("a dialogue, but the tokenizer has no chat template: give prompt and response")
    whole: list[Row] = [m._asdict() for m in messages]
    parts: list[Row] = [{"role": m.role, "content": [{"type": "text", "text": m.content}]} for m in messages]
    text, shown, failure = "", whole, None
    try:
        text = applied(tokenizer, whole, answer)
    except TemplateError as error:
        failure = error
    ended = not (failure and isinstance(failure.__cause__, TimeoutError))
    if ended and (failure or left_out(messages, text)):
        try:
            other = applied(tokenizer, parts, answer)
            if not left_out(messages, other) and not looks_like_code(messages, other):
                text, shown, failure = other, parts, None
        except TemplateError:
            pass
    if failure:
        raise failure
    if lost := left_out(messages, text):
        raise TemplateError(
            f"the chat template leaves out the {lost.role}'s turn {shortened(lost.content)}: take it out of the rows, "
            "or use another template"
        )
    if name := unknown(tokenizer, shown, answer):
        raise TemplateError(f"the chat template prints {name}, which messages of role and content do not have")
    return text


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raises TimeoutError where a template does not end: a sandbox bounds what it may touch and not how long it loops.
    The process's own seconds count, and not those in which it was stopped. Only in a process's main thread, which is
    where signals can be met."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"it does not end within {SECONDS:g} s")

    handler = signal.signal(signal.SIGVTALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, left)
        signal.signal(signal.SIGVTALRM, handler)


def applied(tokenizer: PreTrainedTokenizerBase, messages: list[Row], answer: bool) -> str:
    try:
        with bounded():
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answer))
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise TemplateError(f"the chat template refuses the messages: {why}") from error


def left_out(messages: Dialogue, text: str) -> Message | None:
    """The first message whose words are not in a rendered text. Templates drop thoughts before `</think>`."""
    for m in messages:
        words = m.content.rpartition("</think>")[2] if m.role == "assistant" else m.content
        if words.strip() not in text:
            return m
    return None


def looks_like_code(messages: Dialogue, text: str) -> bool:
    """Whether a text holds a message's parts as Python writes them."""
    return "'type': 'text'" in text and not any("'type': 'text'" in m.content for m in messages)


# What a template prints that is not there.


def unknown(tokenizer: PreTrainedTokenizerBase, messages: list[Row], answer: bool) -> str:
    """The field of messages that a template prints though they have none of that name; empty if there is none."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    compiled = strict(template) if isinstance(template, str) else None
    if compiled is None:
        return ""
    values = {**tokenizer.special_tokens_map, "tools": None, "documents": None, "add_generation_prompt": not answer}
    try:
        with bounded():
            compiled.render(messages=messages, **values)
    except Unknown as error:
        return str(error)
    except Exception:  # transformers has rendered it: it is only our way of looking that fails
        return ""
    return ""


@functools.lru_cache(maxsize=32)
def strict(template: str) -> jinja2.Template | None:
    """A template in which nothing undefined may be printed; None if only transformers can compile it."""
    place = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=Printed, extensions=[jinja2.ext.loopcontrols]
    )
    place.filters["tojson"] = lambda x, **kw: json.dumps(x, ensure_ascii=False, **kw)
    place.globals["raise_exception"] = refused
    place.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    try:
        return place.from_string(GENERATION.sub("", template))
    except jinja2.TemplateError:
        return None


def refused(message: Json) -> None:
    raise jinja2.TemplateError(str(message))
