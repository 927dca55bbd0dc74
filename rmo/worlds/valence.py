"""A judge of real text: how positive a reply is by VADER, a lexicon with rules (Hutto and Gilbert 2014; MIT).

`Text(judge="rmo.worlds.valence:valence")`. It knows nothing of whether a reply makes sense or answers anything, and is
no human preference.
"""

import functools

try:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
except ModuleNotFoundError as error:
    advice = "EXTRAS=dev,chat launch/local.sh ..., or pip install vaderSentiment"
    raise ModuleNotFoundError(f"the package vaderSentiment is missing: {advice}") from error


@functools.cache
def analyzer() -> SentimentIntensityAnalyzer:
    """VADER with its lexicon, read once."""
    return SentimentIntensityAnalyzer()


def valence(prompt: str, response: str) -> float:
    """VADER's compound score of a response, -1 to 1; the prompt does not count."""
    return analyzer().polarity_scores(response)["compound"]
