"""What of a row is scored, under which column, and what of it is a prompt to be answered."""

from __future__ import annotations

import re
from typing import NamedTuple

from rmo.runtime.types import Json, Row
from rmo.worlds.dialogue import Malformed, Prompt, is_messages, text_of
from rmo.worlds.records import RESPONSES, Record, asked, needed_prompt, said
from rmo.worlds.scored_answers import TEXTS_OF_ANSWERS
from rmo.worlds.shapes import record_of
from rmo.worlds.tokenization import TextError

LISTS = ("answers", "responses", "completions", "outputs", "generations", "candidates", "samples", "draws")
LISTED = re.compile(r"(\w+) (\d+)")  # `answers 3`, a response in a list
DRAWN = ("response", "tokens", "vocabulary", "logp", "ended", "draw")  # columns that `rmo sample` writes


class Text(NamedTuple):
    """One text of a row that gets a score."""

    of: str  # the response's column, or `answers` where it is one of a list; empty: a whole text
    listed: bool
    row: Row  # as `tokenization.encode` takes it: text, or prompt and response


def texts_of(where: str, row: Row) -> list[Text]:
    """What of a row is scored: every response that it has to its prompt, or a text that is all it has.

    Raises:
      TextError: it has nothing to score, or its columns are not understood.
    """
    if drawn(row):
        return [Text("response", False, {**row_of_response(where, row), "prompt": asked_of(where, row, DRAWN)})]
    if several := listed(where, row):
        return several
    record = understood(where, row)
    if not record.responses:
        if record.shape == "text" and isinstance(record.prompt, str):
            return [Text("", False, {"text": record.prompt})]
        has = ", ".join(map(str, row))
        raise TextError(
            f"{where} has {has} and nothing to score: a response beside the prompt is needed, a dialogue that ends with"
            " the assistant, or a whole text"
        )
    out = []
    for response in record.responses:
        in_list = LISTED.fullmatch(response.name)
        own = row_of_response(where, {**row, "response": response.text}) if response.name in RESPONSES else {}
        text = {"response": response.text, **own, "prompt": record.prompt}
        out.append(Text(in_list[1] if in_list else response.name, bool(in_list), text))
    return out


def listed(where: str, row: Row) -> list[Text]:
    """The answers of a row that has them in one list, with or without scores; none where it has them otherwise.

    Raises:
      TextError: one of them is no text, or there is no prompt.
    """
    name = next((name for name in (*RESPONSES, *LISTS) if isinstance(row.get(name), list) and row[name]), None)
    if name is None or is_messages(row[name]) or said(row, ("chosen", "rejected")):
        return []
    if all(isinstance(one, dict) and "type" in one for one in row[name]):
        return []  # one message in parts
    try:
        prompt = needed_prompt(row, (name,))
        texts = [one[of] if isinstance(one, dict) and (of := said(one, TEXTS_OF_ANSWERS)) else one for one in row[name]]
        return [
            Text(name, True, {"prompt": prompt, "response": text_of(text, f"{name} {i}")})
            for i, text in enumerate(texts, start=1)
        ]
    except Malformed as why:
        raise TextError(f"{where}: {why}") from why


def drawn(row: Row) -> bool:
    """Whether `rmo sample` wrote a row's response, which may then be blank or look like anything."""
    return isinstance(row.get("response"), str) and "tokens" in row and "vocabulary" in row


def row_of_response(where: str, row: Row) -> Row:
    """What a row says of its response: the text, its ids where they are known, and whether it has ended.

    Raises:
      TextError: one of these is not what it should be.
    """
    ended = row.get("ended")
    if ended is not None and not isinstance(ended, bool):
        raise TextError(f"{where}: ended is {ended!r}, neither true nor false")
    out = {"response": row["response"], "ended": ended is not False}
    if not drawn(row):
        return out
    tokens = row["tokens"]
    if not isinstance(tokens, list) or not all(type(i) is int and i >= 0 for i in tokens):
        raise TextError(f"{where}: tokens are no ids: take the column out to have the response tokenised")
    return {**out, "tokens": tokens, "vocabulary": row["vocabulary"]}


def understood(where: str, row: Row) -> Record:
    """A row's record. Raises TextError where there is none."""
    try:
        return record_of(row)
    except Malformed as why:
        raise TextError(f"{where}: {why}") from why


def asked_of(where: str, row: Row, beside: tuple[str, ...] = ()) -> Prompt:
    """The prompt of a row, whatever answers it has.

    Args:
      beside: columns that are no part of a prompt.

    Raises:
      TextError: it has none, or it is not understood.
    """
    rest = {name: value for name, value in row.items() if name not in beside}
    try:
        return record_of(rest).prompt
    except Malformed as why:
        try:
            found = asked(rest, tuple(name for name in RESPONSES if name in rest)).prompt
        except Malformed:
            found = None
        if found is None:
            raise TextError(f"{where}: {why}") from why
        return found


def column(name: str, text: Text, texts: list[Text]) -> str:
    """Where a score goes: `score`, of one response of several `score_chosen`, of a list `scores`."""
    if text.listed:
        return f"{name}s" if len({t.of for t in texts}) == 1 else f"{name}s_{text.of}"
    return name if len(texts) == 1 or text.of in RESPONSES else f"{name}_{text.of}"


def columns(name: str, texts: list[Text], scores: list[Json]) -> Row:
    """The scores of a row's texts as its new columns."""
    out: Row = {}
    for text, score in zip(texts, scores, strict=True):
        place = column(name, text, texts)
        if text.listed:
            out.setdefault(place, []).append(score)
        else:
            out[place] = score
    return out
