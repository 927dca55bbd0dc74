"""Which stage instances an experiment has, in what order, which are done, and doing the rest.

sft -> gold -> samples -> comparisons -> proxies -> bon -> ppo -> fits -> report. A stage's directory carries a digest
of the slice of the config it depends on and of its upstream digests, so a changed hyper-parameter never meets stale
results. `DONE` is written last: a directory without it is continued, one with it is skipped.
"""

import dataclasses
import platform
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from rmo import __version__, config, report, stages
from rmo.files import SCRATCH, RunError, read_json, write_json, write_text
from rmo.run import Run, Stage


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
        out[name] = Stage(name, make, depends, tuple(out[u] for u in upstream))

    base = (e.seed, e.world)
    add("sft", stages.sft, (*base, e.policy, e.sft))
    add("gold", stages.gold, (*base, e.gold), "sft")
    add("samples", stages.samples, (*base, e.bon.prompts, e.bon.draws), "sft", "gold")
    add("comparisons", stages.comparisons, (*base, e.comparisons), "sft", "gold", "samples")
    proxies = {
        f"{size}-c{count}": (i, shape, count)
        for i, (size, shape) in enumerate(zip(size_names(e.proxies.sizes), e.proxies.sizes, strict=True))
        for count in e.proxies.comparisons
    }
    for name, (_, shape, count) in proxies.items():
        make = partial(stages.proxy, shape=shape, count=count, name=name)
        alone = dataclasses.replace(e.proxies, sizes=(shape,), comparisons=(count,))
        add(f"proxies/{name}", make, (e.seed, alone), "comparisons")
    for name, (_, shape, _) in proxies.items():
        make = partial(stages.best_of_n, shape=shape, name=name)
        add(f"bon/{name}", make, (e.bon.max_n, e.bon.points), "samples", "comparisons", f"proxies/{name}")
    for name, (i, shape, count) in proxies.items():
        if count == max(e.proxies.comparisons) and (i in e.ppo.sizes or not e.ppo.sizes):
            make = partial(stages.optimise, shape=shape, name=name)
            settings = dataclasses.replace(e.ppo, sizes=())
            add(f"ppo/{name}", make, (*base, settings), "sft", "gold", "samples", f"proxies/{name}", f"bon/{name}")
    add("fits", stages.fits, (e.fits,), *[name for name in out if name.startswith(("bon/", "ppo/"))])
    add("report", make_report, (), *out)
    return out


def matching(run: Run, only: tuple[str, ...]) -> list[str]:
    """Names of the stages that `--only` picks; all without it.

    Raises:
      RunError: a name that picks nothing.
    """
    for want in only:
        if not any(name == want or name.startswith(want + "/") for name in run.stages):
            kinds = ", ".join(dict.fromkeys(name.split("/")[0] for name in run.stages))
            raise RunError(f"--only {want}: no such stage; there are {kinds}, and instances as `rmo list` names them")
    return [n for n in run.stages if not only or any(n == want or n.startswith(want + "/") for want in only)]


def execute(run: Run, only: tuple[str, ...] = ()) -> list[str]:
    """Make every stage that is not done, in order; returns the names of those made.

    Raises:
      RunError: `only` names a stage whose upstream is missing.
    """
    made = []
    for name in matching(run, only):
        directory = run.path(name)
        if not run.done(name):
            for before in run.stages[name].upstream:
                if not run.done(before.name):
                    advice = f"run without --only, or add {before.name}"
                    raise RunError(f"{name} needs {before.name}, which is not done: {advice}")
            directory.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            run.stages[name].make(run, directory)
            versions = {"rmo": __version__, "python": platform.python_version(), "jax": jax.__version__}
            seconds = round(time.monotonic() - started, 2)
            write_json(directory / "cost.json", {"seconds": seconds, **versions, "backend": jax.default_backend()})
            write_text(directory / "DONE", run.stages[name].path + "\n")
            made.append(name)
        # Only after DONE, and again if a kill came in between: half a checkpoint must never be met again.
        shutil.rmtree(directory / SCRATCH, ignore_errors=True)
    return made


def status(run: Run) -> list[dict[str, Any]]:
    """One row per stage instance: name, done / missing / stale (made for another config), seconds it cost."""
    out = []
    for name, stage in run.stages.items():
        directory = run.path(name)
        others = [p for p in directory.parent.glob(f"{directory.name.rsplit('-', 1)[0]}-*") if p != directory]
        others = [p for p in others if len(p.name) == len(directory.name) and (p / "DONE").exists()]
        state = "done" if run.done(name) else "started" if directory.exists() else "stale" if others else "missing"
        seconds = read_json(directory / "cost.json")["seconds"] if run.done(name) else None
        out.append({"stage": name, "state": state, "seconds": seconds, "path": stage.path})
    return out


def make_report(run: Run, out: Path) -> None:
    """report.html and figures, from the run directory's files alone."""
    publish(run)
    report.write(run.root, out)


def publish(run: Run) -> None:
    """What people open lies at the top of the run directory, all of it of one experiment: copies of the fits' files and
    the report, and which stage is where. Nothing is touched before this experiment's fits are done."""
    if not run.done("fits"):
        return
    write_json(run.root / "experiment.json", config.to_json(run.experiment))
    write_json(run.root / "stages.json", status(run))
    sources = [run.path("fits") / name for name in ("curves.csv", "coefficients.json", "gold.json")]
    if run.done("report"):
        sources += [run.path("report") / "report.html", *(run.path("report") / "figures").glob("*.svg")]
    for source in sources:
        target = run.root / ("figures" if source.suffix == ".svg" else "") / source.name
        text = source.read_text()
        if not target.exists() or target.read_text() != text:
            write_text(target, text)
