"""Shapes of several answers with scores or ranks, in lists."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

from rmo.runtime.types import Row
from rmo.worlds.dialogue import Malformed, Prompt, text_of
from rmo.worlds.records import TIE, UNSCORED, Record, Response, listed, needed_prompt, number, said

TEXTS_OF_ANSWERS = ("response", "answer", "text", "content", "completion", "output")
# Higher is better but for ranks, of which 1 is the best.
SCORES_OF_ANSWERS = ("overall_score", "score", "rating", "pm_score", "reward", "fine-grained_score", "rank")


def answers_with_scores(column: str) -> Callable[[Row], Record]:
    """{prompt, answers: [{answer, rank}]}, {instruction, completions: [{response, overall_score}]}: every two whose
    scores differ are compared (UltraFeedback, Nectar, Stack Exchange)."""

    def reader(row: Row) -> Record:
        prompt, given_ = needed_prompt(row, (column,)), listed(row[column], column)
        if not all(isinstance(x, dict) for x in given_):
            raise Malformed(f"{column} need a text and a score each: {' or '.join(TEXTS_OF_ANSWERS)}, and a score")
        name = next((n for n in SCORES_OF_ANSWERS if any(n in x for x in given_)), None)
        if name is None:
            raise Malformed(f"{column} have no score: it is looked for in {', '.join(SCORES_OF_ANSWERS)}")
        sign = -1 if name == "rank" else 1
        responses = []
        for i, one in enumerate(given_, start=1):
            text = said(one, TEXTS_OF_ANSWERS)
            if text is None:
                raise Malformed(f"{column} {i} has no text: it is looked for in {', '.join(TEXTS_OF_ANSWERS)}")
            score = number(one.get(name))
            found = text_of(one[text], f"{column} {i}")
            responses.append(Response(found, f"{column} {i}", None if score is None else sign * score))
        pairs = combinations(range(len(responses)), 2)
        return scored_record(prompt, tuple(responses), list(pairs))

    return reader


def scored_record(prompt: Prompt, responses: tuple[Response, ...], pairs: list[tuple[int, int]]) -> Record:
    """The record of answers with scores; what has no number is in no pair, and counted once."""
    preferences, left = [], [UNSCORED for r in responses if r.score is None]
    for i, j in pairs:
        a, b = responses[i], responses[j]
        if a.score is None or b.score is None:
            continue
        if a.score == b.score or a.text.strip() == b.text.strip():
            left.append(TIE)
        else:
            preferences.append((i, j) if a.score > b.score else (j, i))
    return Record(prompt, responses, tuple(preferences), tuple(left))


def answers(row: Row) -> Record:
    """{prompt | instruction, answers, gold_scores | scores}: generations labelled by a gold RM. Neighbours are paired:
    with thousands of answers all pairs would be far too many."""
    column = "gold_scores" if "gold_scores" in row else "scores"
    texts, scores = row["answers"], row[column]
    if not isinstance(texts, list) or not isinstance(scores, list) or len(texts) != len(scores):
        raise Malformed(f"answers and {column} must be lists of one length")
    prompt = needed_prompt(row, ("answers",))
    found = [
        Response(text_of(text, f"answers {i}"), f"answers {i}", number(score))
        for i, (text, score) in enumerate(zip(texts, scores, strict=True), start=1)
    ]
    known = [i for i, one in enumerate(found) if one.score is not None]
    pairs = list(zip(known[::2], known[1::2], strict=False))
    return scored_record(prompt, tuple(found), pairs)
