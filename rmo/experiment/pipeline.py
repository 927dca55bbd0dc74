"""Which stage instances an experiment has, in what order, which are done, and doing the rest.

(prompts ->) sft -> gold -> samples -> comparisons -> proxies -> bon -> ppo -> fits -> report. A stage's directory
carries a digest of the slice of the config it depends on and of its upstream digests, so a changed hyper-parameter
never meets stale results. `DONE` is written last: a directory without it is continued, one with it is skipped.
"""

import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rmo import __version__, config
from rmo.analysis.curve import COLUMNS, to_rows
from rmo.experiment import gold, results, stages
from rmo.experiment.run import Run, Stage, stage_name
from rmo.report import run_report
from rmo.report.figures import drawing
from rmo.runtime import errors, hosts
from rmo.runtime.compiling import Compiling
from rmo.runtime.files import SCRATCH, RunError, local, read_csv, read_json, remove, write_json, write_text
from rmo.runtime.lock import Lock
from rmo.tracking import progress
from rmo.tracking.status import left, look, rows
from rmo.tracking.wandb_mirror import Wandb, careful
from rmo.tracking.watch import PLANNED
from rmo.worlds.world import world_of

# What only gathers what others made is made again with any of it: digests know settings, not the code that was edited.
GATHERERS = ("fits", "report")


def open_run(experiment: config.Experiment, root: Path, mesh: jax.sharding.Mesh | None = None) -> Run:
    """The run of an experiment in directory `root`; nothing is touched. Without a mesh it can be looked at, not run."""
    return Run(experiment, root, plan(experiment), mesh)  # type: ignore[arg-type]


def size_names(sizes: tuple[config.Model, ...]) -> list[str]:
    """w16x2: width 16, 2 layers; a second shape of one width and depth is w16x2.2. The digest knows the rest."""
    names = [f"w{shape.width}x{shape.layers}" for shape in sizes]
    return [n + (f".{k}" if (k := names[: i + 1].count(n)) > 1 else "") for i, n in enumerate(names)]


def plan(e: config.Experiment) -> dict[str, Stage]:
    """Every stage instance of an experiment, in an order that respects what needs what."""
    out: dict[str, Stage] = {}

    def add(name: str, make: Callable[[Run, Path], None], depends: tuple, *upstream: str) -> None:
        if name in out:
            raise config.ConfigError(f"two stages would be called {name}: give policies of other widths or depths")
        out[name] = Stage(name, make, depends, tuple(out[u] for u in upstream))

    base = (e.seed, e.world)
    real = ("prompts",) if world_of(e.world).reads_sources else ()
    if real:
        add("prompts", stages.prompts, (e.seed, e.world, e.policy.checkpoint, e.policy.vocab, e.gold.comparisons))
    for policy, shape in enumerate(e.policies):
        name = stage_name("sft", policy, e)
        add(name, partial(stages.sft, policy=policy), (*base, shape, e.sft), *real)
    add("gold", gold.gold, (*base, e.gold), *real, "sft")
    for policy in range(len(e.policies)):
        name, before = (stage_name(kind, policy, e) for kind in ("samples", "sft"))
        add(name, partial(stages.samples, policy=policy), (*base, e.bon.prompts, e.bon.draws), before, "gold")
    add("comparisons", stages.comparisons, (*base, e.comparisons), "sft", "gold", "samples")

    names = size_names(e.proxies.sizes)
    everything = tuple(range(len(names)))
    for sweep in e.proxies.sweeps:
        for i in sweep.sizes or everything:
            name, shape = f"{names[i]}-{sweep.name}", e.proxies.sizes[i]
            alone = dataclasses.replace(
                e.proxies, sizes=(shape,), sweeps=(dataclasses.replace(sweep, sizes=(), best_of_n=True),)
            )
            make = partial(stages.proxy, shape=shape, sweep=sweep, name=name)
            add(f"proxies/{name}", make, (e.seed, alone), "comparisons")
    read = (e.bon.max_n, e.bon.points)
    for sweep in e.proxies.sweeps:
        for i in (sweep.sizes or everything) if sweep.best_of_n else ():
            name = f"{names[i]}-{sweep.name}"
            make = partial(stages.best_of_n, shape=e.proxies.sizes[i], name=name)
            add(f"bon/{name}", make, read, "samples", "comparisons", f"proxies/{name}")
    main = e.proxies.sweeps[0]
    for policy, other in enumerate(e.other_policies, start=1):
        for i in other.sizes or main.sizes or everything:
            name, before = f"{names[i]}-{main.name}", [stage_name(kind, policy, e) for kind in ("samples", "sft")]
            make = partial(stages.best_of_n, shape=e.proxies.sizes[i], name=name, policy=policy, recipes=(0,))
            add(
                f"bon/{name}-{policy_name(other.model)}",
                make,
                read,
                *before,
                "samples",
                f"proxies/{name}",
                f"bon/{name}",
            )

    settings = dataclasses.replace(e.ppo, against=())
    sweeps = {sweep.name: sweep for sweep in e.proxies.sweeps}
    common = ("sft", "gold", "samples")
    for against in e.ppo.against:
        for i in against.sizes or sweeps[against.sweep].sizes or everything:
            name, alone = f"{names[i]}-{against.sweep}", dataclasses.replace(against, sizes=())
            make = partial(stages.optimise, shape=e.proxies.sizes[i], name=name, against=against, base=f"bon/{name}")
            add(
                f"ppo/{names[i]}-{against.name}",
                make,
                (*base, settings, alone),
                *common,
                f"proxies/{name}",
                f"bon/{name}",
            )
    for policy, other in enumerate(e.other_policies, start=1):
        for i in other.sizes or main.sizes or everything:
            name, against = f"{names[i]}-{main.name}", config.Against(sweep=main.name, recipes=(0,))
            own, pool = f"{name}-{policy_name(other.model)}", stage_name("samples", policy, e)
            make = partial(
                stages.optimise, shape=e.proxies.sizes[i], name=name, against=against, policy=policy, base=f"bon/{own}"
            )
            before = (*common, stage_name("sft", policy, e), pool, f"proxies/{name}", f"bon/{name}", f"bon/{own}")
            add(f"ppo/{own}", make, (*base, settings, against), *before)
    add("fits", results.fits, (e.fits,), *[name for name in out if name.startswith(("proxies/", "bon/", "ppo/"))])
    add("report", make_report, (), *out)
    return out


def policy_name(shape: config.Model) -> str:
    """p32x2: a policy of width 32 with 2 layers."""
    return f"p{shape.width}x{shape.layers}"


def matching(run: Run, only: tuple[str, ...]) -> list[str]:
    """Names of the stages that `--only` picks; all without it. `sft` is sft and sft/..., `=sft` that one alone.

    Raises:
      RunError: a name that picks nothing.
    """
    picks = lambda want, name: name == want.removeprefix("=") or (name + "=").startswith(want + "/")  # noqa: E731
    for want in only:
        if not any(picks(want, name) for name in run.stages):
            kinds = list(dict.fromkeys(name.split("/")[0] for name in run.stages))
            said = f"no such stage{errors.nearest(want.removeprefix('='), [*kinds, *run.stages])}"
            raise RunError(
                f"--only {want}: {said}; there are {', '.join(kinds)}, and instances as `rmo list` names them"
            )
    return [name for name in run.stages if not only or any(picks(want, name) for want in only)]


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
        said = "--runs must be a directory that all processes share, on a network disk or gs://"
        raise RunError(f"process {jax.process_index()} does not see what process 0 wrote to {run.root}: {said}")


def execute(run: Run, only: tuple[str, ...] = ()) -> list[str]:
    """Make every stage that is not done, in order; returns the names of those made.

    Raises:
      RunError: `only` names a stage whose upstream is missing.
      Held: another run works on a stage instance.
      Preempted: the run was told to stop; what is made is saved.
    """
    made, wanted = [], matching(run, only)
    every = {name: stage.path for name, stage in run.stages.items()}
    if not (run.root / PLANNED).exists() or read_json(run.root / PLANNED) != every:
        with contextlib.suppress(FileNotFoundError):  # another run of this experiment begins too, and was faster
            write_json(run.root / PLANNED, every)
    found = {row["stage"]: row for row in look(run.root, every)} if hosts.writer() else {}
    for number, name in enumerate(run.stages, start=1):
        if name not in wanted:
            continue
        if not hosts.agree(np.bool_(run.done(name))):
            for before in run.stages[name].upstream:
                if not hosts.agree(np.bool_(run.done(before.name))):
                    advice = f"run without --only, or add {before.name}"
                    raise RunError(f"{name} needs {before.name}, which is not done: {advice}")
            with Lock(run.path(name)):
                if not hosts.agree(np.bool_(run.done(name))):  # another run may just have made it
                    with progress.stage(name, number, len(run.stages), left(list(found.values()), wanted)):
                        seconds = make(run, name)
                    found.get(name, {}).update(state="done", seconds=seconds)
                    made.append(name)
            if hosts.preempted():
                raise hosts.Preempted
        # Only after DONE, and again if a kill came in between: half a checkpoint must never be met again.
        remove(run.path(name) / SCRATCH)
    return made


def make(run: Run, name: str) -> float:
    """One stage instance, by all processes together; `DONE` when all are. Returns its seconds, without the mirror's.

    Raises:
      RunError: memory ran out; says which settings take less.
    """
    directory = run.path(name)
    if hosts.writer():
        directory.mkdir(parents=True, exist_ok=True)
        for other in GATHERERS:
            if name in (before.name for before in run.stages[other].upstream):
                (run.path(other) / "DONE").unlink(missing_ok=True)
    hosts.barrier(f"begin {name}")
    try:
        with Wandb.stage(name, run.stages[name].path):
            started, compiling = time.monotonic(), Compiling()
            with jax.set_mesh(run.mesh):
                run.stages[name].make(run, directory)
            seconds = round(time.monotonic() - started, 2)
            mirror(run, name)
    except Exception as error:
        if errors.out_of_memory(error):
            raise RunError(errors.memory(name, error)) from error
        raise
    versions = {"rmo": __version__, "python": platform.python_version(), "jax": jax.__version__}
    where = {"backend": jax.default_backend(), "devices": run.mesh.size, "processes": jax.process_count()}
    compiled = {"compile_seconds": round(compiling.seconds, 2), "programs": compiling.programs}
    write_json(directory / "cost.json", {"seconds": seconds, **compiled, **versions, **where})
    hosts.barrier(f"made {name}")
    write_text(directory / "DONE", run.stages[name].path + "\n")
    hosts.barrier(f"done {name}")
    return seconds


@careful()
def mirror(run: Run, name: str) -> None:
    """What a stage ended with goes to wandb, beside the logs that went there as they were written."""
    if Wandb.run is None:
        return
    out, kind = run.path(name), name.split("/")[0]
    info = read_json(out / "info.json") if (out / "info.json").exists() else {}
    members, tables, pages = info.pop("members", []), {}, {}
    if kind == "proxies":
        info |= {column: [row[column] for row in members] for column in members[0]}
    elif kind in ("bon", "ppo"):
        curves = results.load_curves(run, [name])
        tables["curve"] = [{column: row.get(column) for column in COLUMNS} for c in curves for row in to_rows(c)]
        tables["members"] = [{"i": i, **row} for i, row in enumerate(members)]
        step = rows(out / "speed.jsonl")[-1]["step"]  # the last one that was sent as the stage was made
        for i, c in enumerate(curves):  # rows of their own, so that charts have a line per member
            for *x, gold, proxy in zip(c.step_or_n, c.kl, c.d, c.gold, c.proxy, strict=True):
                point = dict(zip(("step_or_n", "kl", "sqrt_kl"), map(float, x), strict=True))
                step += 1
                Wandb.log(step, {"curve": {**point, "gold": {i: float(gold)}, "proxy": {i: float(proxy)}}}, {})
    elif kind == "fits":
        tables = {file.stem: drawing.numbers(read_csv(file)) for file in out.glob("*.csv")}
    elif kind == "report":
        pages = {file.stem: file.read_text() for file in [*out.glob("*.html"), *(out / "figures").glob("*.svg")]}
        files = [(top, file) for top in map(local, (run.path("fits"), out)) for file in top.rglob("*.*")]
        Wandb.keep({str(file.relative_to(top)): file for top, file in files if file.name != "cost.json"})
    Wandb.show(info, tables, pages)


def labels(e: config.Experiment) -> list[str]:
    """Tags in wandb: the experiment's name and kind of world, shapes of policies and proxies, and its own."""
    return [e.name, world_of(e.world).name, *map(policy_name, e.policies), *size_names(e.proxies.sizes), *e.tags]


def status(run: Run) -> list[dict[str, Any]]:
    """Every stage instance: its name, state (rmo/tracking/status.py), the seconds that it cost, its directory."""
    found = look(run.root, {name: stage.path for name, stage in run.stages.items()})
    seconds = lambda row: row["seconds"] if row["state"] == "done" else None  # noqa: E731
    return [
        {"stage": row["stage"], "state": row["state"], "seconds": seconds(row), "path": row["path"]} for row in found
    ]


def groups(run: Run) -> list[tuple[str, list[str], list[str]]]:
    """(name, groups it waits for, instances) of the stage instances that are not done: those of one group are of one
    kind and need nothing of one another, so that they can run side by side, on machines of their own."""
    group_of: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    needs: dict[str, dict[str, None]] = {}
    for name, stage in run.stages.items():
        if run.done(name):
            continue
        before = [group_of[s.name] for s in stage.upstream if s.name in group_of]
        kind = name.split("/")[0]
        level = sum(1 for g in dict.fromkeys(before) if g.split(".")[0] == kind)  # e.g. a second policy's best-of-n
        group = group_of[name] = f"{kind}.{level + 1}" if level else kind
        members.setdefault(group, []).append(name)
        needs.setdefault(group, {}).update(dict.fromkeys(before))
    return [(group, list(needs[group]), names) for group, names in members.items()]


def make_report(run: Run, out: Path) -> None:
    """report.html and figures, from the run directory's files alone."""
    publish(run)
    if hosts.writer():
        run_report.write(run.root, out)


def publish(run: Run) -> None:
    """What people open lies at the top of the run directory, all of it of one experiment: copies of the fits' files and
    the report, and which stage is where. Nothing is touched before this experiment's fits are done."""
    if not (hosts.writer() and run.done("fits")):
        return
    write_json(run.root / "experiment.json", config.to_json(run.experiment))
    write_json(run.root / "stages.json", status(run))
    sources = [*run.path("fits").glob("*.csv"), *run.path("fits").glob("*.json")]
    sources = [source for source in sources if source.name != "cost.json"]
    if run.done("report"):
        made = run.path("report")
        sources += [made / "report.html", made / "results.md", *(made / "figures").glob("*.svg")]
    for source in sources:
        target = run.root / ("figures" if source.suffix == ".svg" else "") / source.name
        text = source.read_text()
        if not target.exists() or target.read_text() != text:
            write_text(target, text)
