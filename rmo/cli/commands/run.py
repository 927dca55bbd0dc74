"""`rmo run`: every stage of an experiment that is not done."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rmo import config
from rmo.cli import devices
from rmo.cli.options import ExperimentOptions, asks_for_help, experiment_options, need_positive
from rmo.config.replicates import replicates, single
from rmo.runtime import hosts

if TYPE_CHECKING:
    import jax

    from rmo.experiment.run import Run


@dataclass(frozen=True)
class RunOptions(ExperimentOptions):
    """Run every stage of an experiment that is not done. Killed at any moment, the same command continues."""

    only: tuple[str, ...] = ()
    """Run only these stages, e.g. sft, proxies, or one instance as `rmo list` names it (=sft is not sft/64x2)."""
    runs: str = "runs"
    """Where run directories live: a directory, or a URL such as gs://bucket/runs."""
    model_parallel: int = 1
    """Devices that every layer is split over; over the rest, batches are (and what is trained lies spread)."""
    jobs: int = 1
    """Processes that make stages side by side, each on its share of the CPU's cores. A grid of small models is made
    sooner by as many as there are cores. Fewer cores round otherwise: numbers differ as between seeds."""
    remake: bool = False
    """Make again those stages that other code made (`rmo list` marks them), and all that rests on them."""
    try_anyway: bool = False
    """Start even where a stage needs more memory, at the least, than the machine has."""
    wandb: str | None = None
    """Mirror every stage to this Weights & Biases project, as a run of its own; offline where there is no account."""


def main(args: Sequence[str]) -> None:
    if not asks_for_help(args):
        hosts.join()
        hosts.outlive_readers()
    options = experiment_options(RunOptions, "run", args)
    runs = runs_of(options)
    if where := job_of():
        take_stages(options, runs[where])
        return
    if not options.try_anyway:
        for run in runs.values():
            need_memory(options, run)
    for number, (where, run) in enumerate(runs.items(), start=1):
        if len(runs) > 1 and hosts.writer():
            print(f"{where}: world {number} of {len(runs)}", file=sys.stderr, flush=True)
        make(options, run, where, args)
    if options.experiment.worlds:
        summarise_worlds(next(iter(runs.values())).root.parent)


def make(options: RunOptions, run: Run, where: str, args: Sequence[str]) -> None:
    """Everything of one run that is asked for and not done, and what people open."""
    from rmo.experiment.stages.report import publish
    from rmo.runtime.files import naming

    with naming(run.root, service=False):
        make_stages(options, run, where, args)
        publish(run)
    hosts.barrier("published")  # JAX waits less long for the others at its end
    if run.done("report") and hosts.writer():
        print(run.root / "report.html")


def make_stages(options: RunOptions, run: Run, where: str, args: Sequence[str]) -> None:
    """Every stage that is asked for and not done."""
    from rmo.experiment import graph, runner, side_by_side

    wanted = graph.matching(run, options.only)
    if options.remake:
        runner.remake(run, wanted)
    if hosts.agree(bool([name for name in wanted if runner.unfinished(run, name)])):
        if options.jobs == 1:
            begin(options, run)
            runner.execute(run, options.only)
        else:
            need_cpu(options)
            side_by_side.execute(run, where, wanted, command(args), options.jobs)


def summarise_worlds(root: Path) -> None:
    """The summary over the finished worlds of one config, where there are two or more."""
    from rmo.report import worlds

    if not hosts.writer() or len(worlds.finished_worlds(root)) < 2:
        return
    if reason := worlds.unlike(root):
        print(f"rmo: no summary over worlds: {reason}", file=sys.stderr)
    else:
        print(worlds.write(root))


def open_run(command: str, args: Sequence[str]) -> tuple[RunOptions, Run]:
    """(options, run) of a command line that begins with a config file; no device is touched.

    Raises:
      ConfigError: an option is wrong, or the experiment is not sound.
    """
    options = experiment_options(RunOptions, command, args)
    return options, run_of(options)


def run_of(options: RunOptions) -> Run:
    """The run of an experiment in its directory; no device is touched.

    Raises:
      ConfigError: it runs in several worlds.
    """
    single(options.experiment)
    return next(iter(runs_of(options).values()))


def runs_of(options: RunOptions) -> dict[str, Run]:
    """The run of an experiment, or that of each of its worlds, by directory; no device is touched."""
    from rmo.experiment import graph
    from rmo.runtime.files import directory

    found = replicates(options.experiment)
    return {where: graph.open_run(e, directory(options.runs) / where) for where, e in found.items()}


def begin(options: RunOptions, run: Run) -> None:
    """Give a run its devices, its directory and its mirror.

    Raises:
      ConfigError: the devices cannot be split so.
    """
    from rmo.experiment import runner
    from rmo.experiment.mirror import tags
    from rmo.runtime import sharding
    from rmo.runtime.files import directory
    from rmo.tracking.wandb_mirror import Wandb

    sharding.compilation_cache(directory(options.runs) / ".jax_cache")
    run.mesh = mesh_of(options)
    runner.meet(run)
    if options.wandb:
        Wandb.start(options.wandb, run.root, run.experiment, tags(run.experiment))


def mesh_of(options: RunOptions) -> jax.sharding.Mesh:
    """Raises ConfigError where the devices cannot be split so."""
    from rmo.runtime import sharding

    found = devices.count()
    if options.model_parallel < 1 or found % options.model_parallel:
        raise config.ConfigError(f"--model-parallel is {options.model_parallel}: it must divide the {found} devices")
    return sharding.make_mesh(model=options.model_parallel)


def need_memory(options: RunOptions, run: Run) -> None:
    """Refuse what can never fit, before anything is made; only kinds of stages count of which all are still to be made.

    Raises:
      ConfigError: says what needs more than there is, and what takes less.
    """
    from rmo.experiment import graph
    from rmo.planning import memory

    pending = {name for name in graph.matching(run, options.only) if not run.done(name)}
    kinds = {name.split("/")[0] for name in pending} - {
        name.split("/")[0] for name in run.stages if name not in pending
    }
    if kinds:
        mesh = mesh_of(options)
        if line := memory.too_large(run.experiment, mesh, memory.machine(mesh), kinds):
            raise config.ConfigError(line)


def need_cpu(options: RunOptions) -> None:
    """Raises ConfigError where stages cannot be made side by side, or devices not be split as asked for."""
    import jax

    need_positive(jobs=options.jobs)
    one = f"--jobs is {options.jobs}"
    if not hosts.alone():
        raise config.ConfigError(f"{one}: this run's processes make every stage together; leave it out")
    mesh_of(options)
    if (kind := jax.default_backend()) != "cpu":
        raise config.ConfigError(f"{one}: it shares out a CPU's cores, and this run is on {kind}; leave it out")


def command(args: Sequence[str]) -> list[str]:
    """What starts a job."""
    trace = ["--traceback"] if "--traceback" in sys.argv else []
    return [sys.executable, "-c", "from rmo.cli.main import main; main()", "run", *args, *trace]


def job_of() -> str:
    """The run that this process is a job of; empty if it is none."""
    from rmo.experiment import side_by_side

    return os.environ.get(side_by_side.JOB, "")


def take_stages(options: RunOptions, run: Run) -> None:
    """Make the stages that the process which started this one names."""
    from rmo.experiment import runner, side_by_side

    begin(options, run)
    for name in side_by_side.Given():
        runner.execute(run, (f"={name}",), alone=False)
