"""Shapes of two answers and a verdict: each a row with a column for either answer, and one for which is better."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from rmo.runtime.types import Json, Row
from rmo.worlds.dialogue import Malformed, Prompt, dialogue_of, parted, shortened, text_of
from rmo.worlds.records import (
    PART_EARLY,
    TIE,
    UNSCORED,
    Record,
    Response,
    answer_of,
    listed,
    merged,
    missing,
    needed_prompt,
    number,
)


def two(row: Row, names: tuple[str, str], known: tuple[str, ...], verdict: Json) -> Record:
    """Two answers in columns of their own.

    Args:
      verdict: 0 or 1, which is better; TIE, UNSCORED.
    """
    prompt = needed_prompt(row, (*names, *known))
    return of_two([(name, *answer_of(row[name], name, prompt)) for name in names], verdict)


def of_two(answers: Sequence[tuple[str, Prompt, str]], verdict: Json) -> Record:
    """The record of two (name, prompt, text)."""
    (_, prompt, _), (_, other, _) = answers
    if prompt != other:
        raise Malformed("the dialogues do not part at their last answer")
    responses = tuple(Response(text, name) for name, _, text in answers)
    if responses[0].text.strip() == responses[1].text.strip():
        verdict = TIE
    if isinstance(verdict, str):
        return Record(prompt, responses, (), (verdict,))
    return Record(prompt, responses, ((verdict, 1 - verdict),))


def index_of(value: Json, name: str, values: tuple[float, float] = (0, 1)) -> int:
    """Which of two values a verdict is.

    Raises:
      Malformed: neither.
    """
    found = number(int(value) if isinstance(value, bool) else value)
    if found not in values:
        raise Malformed(f"{name} is {shortened(value)}: {values[0]:g} or {values[1]:g} is needed")
    return values.index(found)


def by_scores(first: Json, second: Json) -> Json:
    """The verdict of two scores, higher being better."""
    a, b = number(first), number(second)
    if a is None or b is None:
        return UNSCORED
    return TIE if a == b else int(b > a)


def pku(row: Row) -> Record:
    """{prompt, response_0, response_1, better_response_id} (PKU-SafeRLHF): what is more helpful; safety is not read."""
    verdict = row["better_response_id"]
    verdict = UNSCORED if missing(verdict) else index_of(verdict, "better_response_id")
    return two(row, ("response_0", "response_1"), (), verdict)


def shp(row: Row) -> Record:
    """{history, human_ref_A, human_ref_B, labels} (SHP): labels 1 prefers A, 0 prefers B."""
    verdict = UNSCORED if missing(row["labels"]) else 1 - index_of(row["labels"], "labels")
    return two(row, ("human_ref_A", "human_ref_B"), (), verdict)


def helpsteer(names: tuple[str, str], column: str) -> Callable[[Row], Record]:
    """{context | prompt, response1, response2, overall_preference}: below 0 the first is better, above 0 the second."""

    def reader(row: Row) -> Record:
        return two(row, names, (), by_scores(0, row[column]))

    return reader


def alpaca_farm(row: Row) -> Record:
    """{instruction, input, output_1, output_2, preference} (AlpacaFarm): 1 or 2, or between; 0 is a tie."""
    liked = number(row["preference"])
    if liked is not None and liked != 0 and not 1 <= liked <= 2:
        raise Malformed(f"preference is {liked:g}: it is 1, 2 or between them, or 0 for a tie")
    return two(row, ("output_1", "output_2"), (), by_scores(1.5, liked or (1.5 if liked == 0 else None)))


def webgpt(row: Row) -> Record:
    """{question: {full_text} | text, answer_0, answer_1, score_0, score_1} (WebGPT)."""
    question = row.get("question")
    if isinstance(question, dict) and "full_text" in question:
        row = {**row, "question": question["full_text"]}
    verdict = by_scores(row["score_0"], row["score_1"])
    return two(row, ("answer_0", "answer_1"), ("score_0", "score_1"), verdict)


def arena(row: Row) -> Record:
    """{conversation_a, conversation_b, winner}: two dialogues and model_a, model_b, tie or both bad (Chatbot Arena)."""
    winner = str(row["winner"]).strip().lower()
    verdicts = {"model_a": 0, "a": 0, "model_b": 1, "b": 1, "tie": TIE, "tie (bothbad)": TIE, "both_bad": TIE}
    if winner not in verdicts:
        raise Malformed(f"winner is {shortened(row['winner'])}: model_a, model_b or tie is needed")
    answers = []
    for name in ("conversation_a", "conversation_b"):
        before, text = parted(dialogue_of(row[name], name), name)
        answers.append((name, merged(None, before, name), text))
    return arena_record(answers, verdicts[winner])


def arena_record(answers: Sequence[tuple[str, Prompt, str]], verdict: Json) -> Record:
    """Models answer every turn of the arena: where there are several, dialogues part before their last answer."""
    if answers[0][1] != answers[1][1]:
        return Record(answers[0][1], (), (), (PART_EARLY,))
    return of_two(answers, verdict)


def arena_strings(row: Row) -> Record:
    """{prompt, response_a, response_b, winner_model_a, winner_model_b, winner_tie}: JSON lists of turns in strings."""
    names = ("prompt", "response_a", "response_b")
    columns = [listed(turns_in(row[name], name), name) for name in names]
    flags = {name: number(row[f"winner_{name}"]) for name in ("model_a", "model_b", "tie")}
    won = [name for name, flag in flags.items() if flag == 1]
    if len(won) != 1:
        raise Malformed(
            f"winner_model_a, winner_model_b and winner_tie are {list(flags.values())}: one of them must be 1"
        )
    if len({len(turns) for turns in columns}) > 1:
        raise Malformed(f"prompt, response_a and response_b have {', '.join(str(len(t)) for t in columns)} turns")
    asked_, a, b = ([text_of(turn, name) for turn in turns] for name, turns in zip(names, columns, strict=True))
    if len(asked_) > 1:
        return Record(asked_[0], (), (), (PART_EARLY,))
    verdict = TIE if won == ["tie"] else int(won == ["model_b"])
    return of_two([("response_a", asked_[0], a[0]), ("response_b", asked_[0], b[0])], verdict)


def turns_in(value: Json, name: str) -> Json:
    """The list that a string holds as JSON; a list as it is; any other text as the only turn."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value) if value.lstrip().startswith("[") else [value]
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{name} begins like JSON and is none: {error}") from error
    return found


def summaries(row: Row) -> Record:
    """{info: {post | article}, summaries: [{text}, {text}], choice}: TL;DR comparisons."""
    info, texts, choice = row["info"], row["summaries"], row["choice"]
    post = text_of(info.get("post") or info.get("article"), "info.post")
    if len(texts) != 2 or choice not in (0, 1):
        raise Malformed(f"{len(texts)} summaries, choice {choice!r}: two and 0 or 1 are needed")
    title = f"SUBREDDIT: r/{info['subreddit']}\nTITLE: {info.get('title') or ''}\n" if info.get("subreddit") else ""
    prompt = f"{title}POST: {post}\nTL;DR:"
    found = [
        (f"summaries {i}", prompt, text_of(one.get("text"), "summaries.text").strip()) for i, one in enumerate(texts)
    ]
    return of_two(found, int(choice))
