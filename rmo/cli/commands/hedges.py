"""`rmo hedges`: what each way of optimising buys."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo import config
from rmo.cli.options import Positional, parse


@dataclass(frozen=True, kw_only=True)
class HedgesOptions:
    """One table of every way to optimise in these runs, RM by RM: gold at its peak, KL there, gold at twice that KL,
    what its stop loses, labels and seconds spent, with intervals and ranks; hedges.html, hedges.md and hedges.json."""

    runs: Positional[tuple[str, ...]]
    """Run directories, or directories of kept results (which know no costs)."""
    level: float = 0.95
    """Of the intervals."""
    out: Path | None = None
    """Directory to write into; default: the first run's own."""


def main(args: Sequence[str]) -> None:
    options = parse(HedgesOptions, args, "rmo hedges")
    if not options.runs:
        raise config.ConfigError("rmo hedges needs a run directory, e.g. rmo hedges runs/tiny")
    if not 0 < options.level < 1:
        raise config.ConfigError(f"--level is {options.level}: it must lie between 0 and 1")
    from rmo.report import hedges
    from rmo.runtime.files import directory

    roots = [directory(run) for run in options.runs]
    found = hedges.measure(roots, options.level)
    print("\n".join(hedges.lines(found)))
    print(hedges.write(found, options.out or roots[0]))
