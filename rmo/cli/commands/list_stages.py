"""`rmo list`: every stage instance of an experiment and how far it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from rmo.cli.commands.run import RunOptions, run_of, runs_of
from rmo.cli.options import experiment_options


@dataclass(frozen=True)
class ListOptions(RunOptions):
    """Every stage instance: done, running (how far, and by whom), stopped, stale (made for another config) or missing;
    what it cost, when it was written, and its directory."""

    jobs: bool = False
    """For schedulers: a line for all that can run side by side, with tabs between its name, the names of what it waits
    for (or -), and the instances (for --only) that are not done."""


def main(args: Sequence[str]) -> None:
    options = experiment_options(ListOptions, "list", args)
    from rmo.experiment import graph
    from rmo.tracking import status

    if options.jobs:
        for group, needs, names in graph.groups(run_of(options)):
            print(group, " ".join(needs) or "-", " ".join(names), sep="\t")
        return
    runs = runs_of(options)
    for where, run in runs.items():
        if len(runs) > 1:
            print(where)
        found = status.look(run.root, {name: run.stages[name].path for name in graph.matching(run, options.only)})
        print("\n".join([*status.lines(found), status.total(found, run.root)]))
