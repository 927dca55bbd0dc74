"""`rmo report`: figures and pages again, from files alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo import config
from rmo.cli.options import Positional, parse


@dataclass(frozen=True)
class ReportOptions:
    """Draw the figures and report.html of a run directory again, from its files alone; of several, a page that compares
    them; of one that holds a run in each of several worlds, the summary over worlds."""

    runs: Positional[tuple[str, ...]]
    """Run directories, such as runs/tiny, or URLs of them."""
    out: Path | None = None
    """File of the page that compares several runs; default: compare-RUN1-RUN2.html beside the first."""


def main(args: Sequence[str]) -> None:
    options = parse(ReportOptions, args, "rmo report")
    from rmo.report import compare, run_report, worlds
    from rmo.runtime.files import directory

    roots = [directory(run) for run in options.runs]
    if not roots:
        raise config.ConfigError("rmo report needs a run directory, e.g. rmo report runs/tiny")
    if len(roots) > 1:
        print(compare.write(roots, options.out))
    elif worlds.finished_worlds(roots[0]):
        print(worlds.write(roots[0]))
    else:
        print(run_report.write(roots[0]))
