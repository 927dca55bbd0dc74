"""Makes every stage that is not done, in order. `DONE` is written last: a stage without it is continued."""

import contextlib
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from rmo import __version__
from rmo.artifacts.run_files import GATHERERS, PLANNED
from rmo.artifacts.stages import Stage
from rmo.experiment.graph import matching
from rmo.experiment.memory_advice import memory_advice
from rmo.experiment.mirror import mirror
from rmo.experiment.run import Run
from rmo.runtime import code, errors, hosts
from rmo.runtime.compiling import Compiling, let_go
from rmo.runtime.files import (
    SCRATCH,
    Json,
    Row,
    RunError,
    naming,
    need_inside,
    read_json,
    remove,
    write_json,
    write_text,
)
from rmo.runtime.lock import Lock
from rmo.tracking import progress
from rmo.tracking.status import left, look
from rmo.tracking.wandb_mirror import Wandb


def meet(run: Run) -> None:
    """Make the run directory, and see that all processes have the same one.

    Raises:
      RunError: this one has another.
    """
    if hosts.writer():
        run.root.mkdir(parents=True, exist_ok=True)
    if hosts.alone():
        return
    token = run.root / f".meeting-{int(hosts.agree(np.int32(np.random.default_rng().integers(2**31 - 1))))}"
    write_text(token, "")
    hosts.barrier("meeting")
    there = token.exists()
    hosts.barrier("met")
    if hosts.writer():
        token.unlink(missing_ok=True)
    if not there:
        advice = "--runs must be a directory that all processes share, on a network disk or gs://"
        raise RunError(f"process {jax.process_index()} does not see what process 0 wrote to {run.root}: {advice}")


def planned(run: Run) -> Json:
    """What is kept of an earlier call; None where nothing is, or it cannot be read."""
    try:
        return read_json(run.root / PLANNED) if (run.root / PLANNED).exists() else None
    except RunError:
        return None


def write_plan(run: Run) -> dict[str, str]:
    """{stage: its path} of what was asked for, kept for those who look at the run directory."""
    every = {name: stage.path for name, stage in run.stages.items()}
    if planned(run) != every:
        with contextlib.suppress(FileNotFoundError):  # another run of this experiment begins too, and was faster
            write_json(run.root / PLANNED, every)
    return every


def execute(run: Run, only: tuple[str, ...] = (), alone: bool = True) -> list[str]:
    """Make every stage that is not done, in order; returns the names of those made. Where others work beside it, it is
    not `alone`, and they say how long all will take.

    Raises:
      RunError: `only` names a stage whose upstream is missing.
      Held: another run works on a stage instance.
      Preempted: the run was asked to stop; what is made is saved.
    """
    made, wanted, every = [], matching(run, only), write_plan(run)
    found = {row["stage"]: row for row in look(run.root, every)} if hosts.writer() else {}
    for number, name in enumerate(run.stages, start=1):
        if name not in wanted:
            continue
        if not done_everywhere(run, name):
            need_upstream(run, name)
            need_inside(run.root, run.path(name))
            with Lock(run.path(name)):
                if not done_everywhere(run, name):  # another run may just have made it
                    until = left(list(found.values()), wanted) if alone else ""
                    with progress.stage(name, number, len(run.stages), until):
                        seconds = make(run, name)
                    found.get(name, {}).update(state="done", seconds=seconds)
                    made.append(name)
                    let_go()
            if hosts.preempted():
                raise hosts.Preempted
        # Only after DONE, and again if a kill came in between: half a checkpoint must never be met again.
        tidy(run, name)
    return made


def tidy(run: Run, name: str) -> None:
    """Remove what a finished stage needs no more."""
    if (run.path(name) / SCRATCH).exists():
        need_inside(run.root, run.path(name))
        remove(run.path(name) / SCRATCH)


def unfinished(run: Run, name: str) -> bool:
    """Whether there is anything to do for a stage: to make it, or to remove what a kill right after DONE left."""
    return not run.done(name) or (run.path(name) / SCRATCH).exists()


def done_everywhere(run: Run, name: str) -> bool:
    return bool(hosts.agree(np.bool_(run.done(name))))


def need_upstream(run: Run, name: str, to_come: Sequence[str] = ()) -> None:
    """Raises RunError where a stage that comes before is neither done nor still to come."""
    for before in run.stages[name].upstream:
        if before.name not in to_come and not done_everywhere(run, before.name):
            advice = f"run without --only, or add {before.name}"
            raise RunError(f"{name} needs {before.name}, which is not done: {advice}")


def make(run: Run, name: str) -> float:
    """One stage instance, by all processes together; `DONE` when all are. Returns its seconds, without the mirror's.

    Raises:
      RunError: memory ran out; says which settings take less.
    """
    stage = Stage(run.path(name))
    if hosts.writer():
        stage.directory.mkdir(parents=True, exist_ok=True)
        undo_gatherers(run, name)
        stage.mark_begun(code.code_hash())
    hosts.barrier(f"begin {name}")
    try:
        with Wandb.stage(name, run.stages[name].path):
            started, compiling = time.monotonic(), Compiling()
            with jax.set_mesh(run.mesh), naming(stage.directory, service=False):
                run.stages[name].make(run, stage.directory)
            seconds = round(time.monotonic() - started, 2)
            mirror(run, name)
    except Exception as error:
        if errors.out_of_memory(error):
            raise RunError(errors.memory(name, error, memory_advice(name))) from error
        raise
    stage.write_cost({"seconds": seconds, **circumstances(run, stage, compiling)})
    hosts.barrier(f"made {name}")
    stage.mark_done(run.stages[name].path)
    hosts.barrier(f"done {name}")
    return seconds


def undo_gatherers(run: Run, name: str) -> None:
    """Fits and report are made again when anything that they gather is."""
    for other in GATHERERS:
        if name in (before.name for before in run.stages[other].upstream):
            Stage(run.path(other)).mark_undone()


def circumstances(run: Run, stage: Stage, compiling: Compiling) -> Row:
    """By what code, on what, a stage was made, and what compiling took."""
    return {
        "compile_seconds": round(compiling.seconds, 2),
        "programs": compiling.programs,
        "rmo": __version__,
        "code": stage.begun_by() or code.code_hash(),
        "commit": code.commit(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "devices": run.mesh.size,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processes": jax.process_count(),
    }


def remake(run: Run, names: list[str]) -> list[str]:
    """Remove those of these stages that other code made, and all that rest on them; returns their names.

    Their whole directories go: a stage that makes its work part by part would keep the parts. What rests on a removed
    stage goes even where it is not among `names`: it would stand for results that are not there any more.

    Raises:
      Held: another run works on one of them.
    """
    again = resting_on_other_code(run, names)
    hosts.barrier("stages to make again are known")
    with contextlib.ExitStack() as locks:
        for name in again:
            need_inside(run.root, run.path(name))
            locks.enter_context(Lock(run.path(name)))
        for name in again:
            remove_stage(run.path(name))
    hosts.barrier("stages to make again are removed")
    return again


def resting_on_other_code(run: Run, names: list[str]) -> list[str]:
    """Stages that have a directory and were made by other code, of `names`, or rest on one that was, of all."""
    code_here = code.code_hash()
    found: list[str] = []
    for name, stage in run.stages.items():
        rests_on = any(before.name in found for before in stage.upstream)
        made_by = Stage(run.path(name)).made_by() if name in names else None
        if rests_on or made_by not in (None, code_here):
            found.append(name)
    return [name for name in found if run.path(name).exists()]


def remove_stage(directory: Path) -> None:
    """Its parts first and `cost.json` last, so that after a kill in between it is still known who made it."""
    if not hosts.writer():
        return
    Stage(directory).mark_undone()
    for item in directory.iterdir():
        if item.is_dir():
            remove(item)
    remove(directory)
