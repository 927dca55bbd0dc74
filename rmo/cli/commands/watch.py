"""`rmo watch`: a run's curves in the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rmo.cli.options import Positional, parse


@dataclass(frozen=True)
class WatchOptions:
    """Draw a run's curves in the terminal while it runs, from its files alone, until its report is done or Ctrl-C."""

    run: Positional[str]
    """A run directory, such as runs/tiny, or a URL of one."""
    only: tuple[str, ...] = ()
    """Only curves of stages with one of these in their names, e.g. ppo or w8x1; default: those of the first sweep."""
    once: bool = False
    """Print once and end, as where there is no terminal."""


def main(args: Sequence[str]) -> None:
    options = parse(WatchOptions, args, "rmo watch")
    from rmo.runtime.files import directory
    from rmo.tracking import watch

    watch.watch(directory(options.run), options.once, options.only)
