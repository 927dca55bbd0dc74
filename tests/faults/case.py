"""One fault that was tried."""

from typing import NamedTuple


class Case(NamedTuple):
    """A fault, and what came of it."""

    what: str
    """Which fault, so that it can be repeated."""
    problem: str
    """Empty where all was well, else one line."""
