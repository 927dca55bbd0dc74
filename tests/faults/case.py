"""One case of a campaign."""

from typing import NamedTuple


class Case(NamedTuple):
    what: str
    problem: str
