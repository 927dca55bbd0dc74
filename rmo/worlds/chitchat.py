"""Turns of people's chats: PyPI's `chitchat-dataset` (BYU PCC lab, MIT), 7,168 chats of two people, as rows.

A source of real text: `python:rmo.worlds.chitchat:short_replies`. The texts are real people's: quote few of their
words.
"""

import importlib.resources
import itertools
import json
from collections.abc import Iterator

from rmo.runtime.types import Row

PROMPT, REPLY = 16, 16  # most words of either
LEAST = 2  # words of a reply


def turns() -> Iterator[list[str]]:
    """The turns of every chat, in the order of the file: what a person wrote before the other answered, as one line.

    Raises:
      ModuleNotFoundError: the package is not installed.
    """
    try:
        file = importlib.resources.files("chitchat_dataset") / "dataset.json"
    except ModuleNotFoundError as error:
        advice = "EXTRAS=dev,chat launch/local.sh ..., or pip install chitchat-dataset"
        raise ModuleNotFoundError(f"the package chitchat-dataset is missing: {advice}") from error
    for chat in json.loads(file.read_text(encoding="utf-8")).values():
        yield [" ".join(" ".join(said["text"] for said in turn).split()) for turn in chat["messages"]]


def replies() -> Iterator[Row]:
    """Every turn, and what was replied: {"prompt", "response"}."""
    for chat in turns():
        for prompt, response in itertools.pairwise(chat):
            if prompt and response:
                yield {"prompt": prompt, "response": response}


def short_replies() -> Iterator[Row]:
    """Of these the short ones: prompts of at most 16 words, replies of 2 to 16."""
    for row in replies():
        if len(row["prompt"].split()) <= PROMPT and LEAST <= len(row["response"].split()) <= REPLY:
            yield row
