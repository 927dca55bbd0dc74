"""`rmo dashboard`: a view of a wandb project."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo.cli.options import Positional, parse


@dataclass(frozen=True)
class DashboardOptions:
    """Make a dashboard for the runs that `rmo run --wandb` mirrored to a project: a new view of it."""

    project: Positional[str]
    entity: str = ""
    """User or team that owns the project; default: your own."""
    out: Path | None = None
    """Write its definition here, as JSON, and send nothing."""


def main(args: Sequence[str]) -> None:
    options = parse(DashboardOptions, args, "rmo dashboard")
    from rmo.runtime.files import write_json
    from rmo.tracking import dashboard

    if options.out is None:
        print(dashboard.save(options.project, options.entity))
        return
    workspace = dashboard.workspace(options.project, options.entity)
    write_json(options.out, dashboard.definition(workspace))
    print(options.out)
