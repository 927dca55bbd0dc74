"""What is to be said of a checkpoint that can be read: in one line on stderr, once."""

import sys

from rmo.runtime import hosts

_said: set[str] = set()


def say(line: str) -> None:
    """A line about a checkpoint; the same line is not said twice."""
    if line not in _said and hosts.writer():
        _said.add(line)
        print(f"rmo: {line}", file=sys.stderr, flush=True)
