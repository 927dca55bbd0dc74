"""Judges of texts, good and bad, and sources that are functions."""

import itertools

NOT_A_FUNCTION = 3
count = itertools.count()


def warmth(prompt: str, response: str) -> float:
    """Depends on both: words with an a are warm, where the prompt asks; else they are cold."""
    share = response.count("a") / (len(response) + 4)
    return share if prompt.endswith("?") else -share


def rolls_dice(prompt: str, response: str) -> int:
    return next(count)


def nan_for_empty(prompt: str, response: str) -> float:
    return len(response) or float("nan")


def says_yes(prompt: str, response: str) -> str:
    return "5"


def gives_nothing(prompt: str, response: str) -> None:
    return None


def fails(prompt: str, response: str) -> float:
    raise KeyError(f"no such word\nin {response}")


def of_one(response: str) -> float:
    return 1.0


def counted(prompt: str, response: str) -> float:
    raise AssertionError("it has a batched form")


def batch(prompts: list[str], responses: list[str]) -> list[int]:
    return [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]


counted.batch = batch


def short(prompt: str, response: str) -> float:
    return 0.0


short.batch = lambda prompts, responses: [0.0]


def rows():
    yield {"prompt": "b", "response": "d"}
    yield ["no", "object"]
    yield {"prompt": "a", "response": b"c"}


def broken_rows():
    yield {"prompt": "b", "response": "d"}
    raise OSError("the disk\nis gone")
