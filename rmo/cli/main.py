"""The command line: `rmo run | list | watch | fit | bon | score | sample | plan | report | dashboard`."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rmo import config
from rmo.analysis.curve import CurveError
from rmo.cli.options import (
    BonOptions,
    DashboardOptions,
    FitOptions,
    ListOptions,
    PlanOptions,
    ReportOptions,
    RunOptions,
    SampleOptions,
    ScoreOptions,
    WatchOptions,
    parse,
)
from rmo.config import checks
from rmo.experiment.memory_advice import memory_advice
from rmo.runtime import errors, hosts
from rmo.runtime.files import RunError
from rmo.runtime.lock import Held

# One line each; anything else is a bug and keeps its traceback.
EXPECTED = (config.ConfigError, CurveError, RunError, hosts.HostsError)
HELP = """rmo: how hard may I optimise against this reward model before what I really want gets worse?

  rmo run CONFIG [--only STAGE ...] [--ppo.kl-max 20]   run every stage that is not done; the same command continues
  rmo list CONFIG                                       every stage instance: done, running, stopped, stale or missing
  rmo watch RUN                                         its curves so far in the terminal, and what is being made
  rmo fit LOG ... --kl COLUMN --gold COLUMN             fit anybody's logs (TRL, OpenRLHF, verl, wandb): where to stop
  rmo bon TABLE                                         best-of-n from your own scores (prompt, proxy, gold): no models
  rmo score MODEL TEXTS.jsonl                           score texts with any reward model, of a run or of the hub
  rmo sample MODEL PROMPTS.jsonl --draws 4              draw responses from any policy
  rmo plan CONFIG --topology v5e:8x8                    what it takes on a TPU slice, compiled without one
  rmo report RUN [RUN2 ...]                             draw figures and report.html again; of several, compare them
  rmo dashboard PROJECT                                 a dashboard in wandb for what `rmo run --wandb` mirrored

CONFIG is a file of configs/; `rmo run CONFIG --help` lists every field with its meaning. Start with configs/tiny.py.
Errors are one line; `--traceback` (or RMO_TRACEBACK=1) shows where they come from.
"""

T = TypeVar("T")


def experiment_options(kind: type[T], command: str, args: Sequence[str]) -> T:
    """Options of a command whose first argument is a config file; the experiment is sound."""
    prog = f"rmo {command} CONFIG"
    if args and not args[0].startswith("-"):
        experiment = checks.load(args[0])
        prog, args = f"rmo {command} {args[0]}", args[1:]
    elif any(arg in ("-h", "--help") for arg in args):
        experiment = config.Experiment()
    else:
        raise config.ConfigError(f"rmo {command} needs a config file first, e.g. rmo {command} configs/tiny.py")
    options: Any = parse(kind, args, prog, kind(experiment))  # type: ignore[call-arg]
    checks.check(options.experiment)
    return options


def open_run(command: str, args: Sequence[str]):
    """(options, Run) for `run` and `list`; no device is touched before the experiment is known to be sound."""
    options: Any = experiment_options(RunOptions if command == "run" else ListOptions, command, args)
    from rmo.experiment import graph
    from rmo.runtime.files import directory

    return options, graph.open_run(options.experiment, directory(options.runs) / options.experiment.name)


def plan_experiment(args: Sequence[str]) -> None:
    options = experiment_options(PlanOptions, "plan", args)
    os.environ["JAX_PLATFORMS"] = "cpu"  # the slice is looked up, not used
    from rmo.planning import tpu_plan
    from rmo.runtime.files import write_json

    if options.suggest:
        found = tpu_plan.suggest(options.experiment, tpu_plan.kind_of(options.topology))
        if options.out:
            write_json(options.out, found)
    else:
        found = tpu_plan.plan(options.experiment, options.topology, options.model_parallel, options.only, options.out)
    print(tpu_plan.table(found))


def run(args: Sequence[str]) -> None:
    if not any(arg in ("-h", "--help") for arg in args):
        hosts.join()
    options, here = open_run("run", args)
    from rmo.experiment import graph, runner
    from rmo.experiment.mirror import tags
    from rmo.experiment.stages.report import publish

    wanted = [name for name in graph.matching(here, options.only) if not here.done(name)]
    if hosts.agree(bool(wanted)):
        from rmo.runtime import sharding
        from rmo.runtime.files import directory
        from rmo.tracking.wandb_mirror import Wandb

        count = devices()
        sharding.compilation_cache(directory(options.runs) / ".jax_cache")
        if options.model_parallel < 1 or count % options.model_parallel:
            raise config.ConfigError(
                f"--model-parallel is {options.model_parallel}: it must divide the {count} devices"
            )
        here.mesh = sharding.make_mesh(model=options.model_parallel)
        runner.meet(here)
        if options.wandb:
            Wandb.start(options.wandb, here.root, here.experiment, tags(here.experiment))
        runner.execute(here, options.only)
    publish(here)
    hosts.barrier("published")  # JAX waits less long for the others at its end
    if here.done("report") and hosts.writer():
        print(f"{here.root / 'report.html'}")


def devices() -> int:
    """How many devices JAX has; warns where it overlooks an accelerator.

    Raises:
      ConfigError: it has none of the kind that JAX_PLATFORMS asks for.
    """
    import jax

    try:
        count = jax.device_count()
    except Exception as error:  # of a platform that is not installed some are assertions without a word
        asked, line = os.environ.get("JAX_PLATFORMS", ""), " ".join(str(error).split())[:200] or type(error).__name__
        advised = "unset it, or install what it needs (EXTRAS=dev,cuda or dev,tpu)"
        raise config.ConfigError(
            f"JAX cannot use the devices that JAX_PLATFORMS={asked} asks for: {advised}: {line}"
        ) from error
    if jax.default_backend() == "cpu" and hosts.writer() and (line := errors.overlooked()):
        print(f"rmo: {line}", file=sys.stderr)
    return count


def list_stages(args: Sequence[str]) -> None:
    options, here = open_run("list", args)
    from rmo.experiment import graph

    if options.jobs:
        for group, needs, names in graph.groups(here):
            print(f"{group}\t{' '.join(needs) or '-'}\t{' '.join(names)}")
        return
    from rmo.tracking import status

    found = status.look(here.root, {name: here.stages[name].path for name in graph.matching(here, options.only)})
    print("\n".join([*status.lines(found), status.total(found, here.root)]))


def watch_run(args: Sequence[str]) -> None:
    options = parse(WatchOptions, args, "rmo watch")
    from rmo.runtime.files import directory
    from rmo.tracking import watch

    watch.watch(directory(options.run), options.once, options.only)


def fit_file(args: Sequence[str]) -> None:
    options = parse(FitOptions, args, "rmo fit")
    if not options.curves:
        raise config.ConfigError("rmo fit needs a file first, e.g. rmo fit trainer_state.json --gold eval_gold")
    from rmo.analysis import scaling
    from rmo.artifacts.curves_csv import COLUMNS, from_rows
    from rmo.logs import reading
    from rmo.runtime.files import write_csv

    check_bootstrap(options.bootstrap, options.level)
    rows, notes = reading.read(options.curves, options)
    curves = from_rows(rows, ", ".join(map(str, options.curves)))
    print("\n".join(notes), end="\n" if notes else "")
    first = options.curves[0]
    out = options.out or first.with_suffix("").with_name(first.stem + "_fit")
    fitted = scaling.summarise(curves, options.bootstrap, options.level, options.min_d)
    write_csv(out / "curves.csv", COLUMNS, rows)
    show_fits(curves, fitted, out, notes=notes)


def check_bootstrap(bootstrap: int, level: float) -> None:
    if bootstrap < 1 or not 0 < level < 1:
        raise config.ConfigError("--bootstrap must be at least 1 and --level between 0 and 1")


def show_fits(curves: list[Any], fitted: dict[str, Any], out: Path, unit: str = "", notes: Sequence[str] = ()) -> None:
    """Print every fit on a line and write pictures, coefficients.json and report.html into `out`."""
    from rmo.report import run_report
    from rmo.report.page.tables import peak_text

    def between(row: dict[str, Any], name: str) -> str:
        return "{:.3f} [{:.3f}, {:.3f}]".format(row[name], *row[name + "_interval"])

    for method, part in fitted.items():
        one = part["shared_alpha"] and part["main"] > 1
        print(f"{method}: R = {part['form']}" + (", one a for all RM sizes of a sweep" if one else ""))
        for g in part["groups"]:
            top = "never turns (b <= 0)"
            if g["turns"]:
                height, kl = (f"{peak_text(g[n])} {peak_text(g[f'{n}_interval'])}" for n in ("peak_gold", "peak_kl"))
                top = f"peak {height} at KL {kl}"
            numbers = f"a {between(g, 'alpha')}, b {between(g, 'beta')}, R² {g['r2']:.3f}, {top}"
            print(f"  {g['group']}: {numbers}; intervals from {g['interval_from']}")
            print(f"    {g['advice']['sentence']}")
        for label in part["too_short"]:
            print(f"  {label}: not fitted, too few points")
    print(run_report.write_curves(out, curves, fitted, out.name, unit, notes))


def best_of_n(args: Sequence[str]) -> None:
    options = parse(BonOptions, args, "rmo bon")
    from rmo.analysis import scaling
    from rmo.artifacts.curves_csv import COLUMNS, to_rows
    from rmo.logs import score_tables
    from rmo.report import run_report
    from rmo.runtime.files import write_csv

    check_bootstrap(options.bootstrap, options.level)
    curves = []
    for meta, proxy_QN, gold_QN in score_tables.read(options.table):
        said = " ".join(f"{name}={value}" for name, value in meta.items())
        print(f"{options.table}: {proxy_QN.shape[0]:,} prompts x {proxy_QN.shape[1]:,} draws {said}".rstrip())
        curves.append(
            score_tables.curve(meta, proxy_QN, gold_QN, options.max_n or proxy_QN.shape[1] // 4, options.points)
        )
    out = options.out or options.table.with_suffix("").with_name(options.table.stem + "_bon")
    fitted = scaling.summarise(curves, options.bootstrap, options.level, 0.0)
    write_csv(out / "curves.csv", COLUMNS, [row for curve in curves for row in to_rows(curve)])
    show_fits(curves, fitted, out, run_report.UNIT)


def score(args: Sequence[str]) -> None:
    options = parse(ScoreOptions, args, "rmo score")
    from rmo.logs import batch

    need_positive(batch=options.batch)
    out = options.out or options.texts.with_name(options.texts.stem + "_scores.jsonl")
    devices()
    rows = batch.score(options.model, options.texts, out, options.batch, options.chat, options.member, options.dtype)
    print(f"{rows} rows scored: {out}")


def sample(args: Sequence[str]) -> None:
    o = parse(SampleOptions, args, "rmo sample")
    from rmo.logs import batch

    need_positive(batch=o.batch, draws=o.draws, temperature=o.temperature, length=o.length or 1)
    out = o.out or o.prompts.with_name(o.prompts.stem + "_samples.jsonl")
    devices()
    rows = batch.draw(
        o.model, o.prompts, out, o.batch, o.chat, o.draws, o.length, o.temperature, o.seed, o.member, o.dtype
    )
    print(f"{rows} prompts x {o.draws} draws: {out}")


def need_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise config.ConfigError(f"--{name} is {value}: it must be positive")


def write_report(args: Sequence[str]) -> None:
    options = parse(ReportOptions, args, "rmo report")
    from rmo.report import compare, run_report
    from rmo.runtime.files import directory

    roots = [directory(run) for run in options.runs]
    if len(roots) > 1:
        print(compare.write(roots, options.out))
    elif roots:
        print(run_report.write(roots[0]))
    else:
        raise config.ConfigError("rmo report needs a run directory, e.g. rmo report runs/tiny")


def make_dashboard(args: Sequence[str]) -> None:
    options = parse(DashboardOptions, args, "rmo dashboard")
    from rmo.runtime.files import write_json
    from rmo.tracking import dashboard

    if options.out is None:
        print(dashboard.save(options.project, options.entity))
        return
    made = dashboard.workspace(options.project, options.entity)
    write_json(options.out, dashboard.definition(made))
    print(options.out)


COMMANDS = {"run": run, "list": list_stages, "watch": watch_run, "fit": fit_file, "bon": best_of_n, "score": score,
            "sample": sample, "plan": plan_experiment, "report": write_report, "dashboard": make_dashboard}  # fmt: skip


@contextlib.contextmanager
def traced(wanted: bool) -> Iterator[None]:
    """Show the traceback of what is to become one line, where it is wanted."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        if wanted:
            traceback.print_exc()
        raise


def unread() -> bool:
    """Whether nobody reads what is printed any more, as below `| head`; other pipes that break are lost connections."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the interpreter flushes at its end
        return True
    return False


def main() -> None:
    args = [arg for arg in sys.argv[1:] if arg != "--traceback"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would warn that PyTorch is missing; we do not use it
    try:
        if not args or args[0] in ("-h", "--help"):
            print(HELP, flush=True)
            return
        if args[0] not in COMMANDS:
            near = errors.nearest(args[0], COMMANDS) or f"; there are {', '.join(COMMANDS)}"
            raise config.ConfigError(f"no command {args[0]!r}{near} (see rmo --help)")
        with traced("--traceback" in sys.argv or os.environ.get("RMO_TRACEBACK") == "1"):
            COMMANDS[args[0]](args[1:])
    except hosts.Preempted:
        hosts.leave(hosts.PREEMPTED, "told to stop, and saved; the same command continues")
    except Held as error:
        hosts.leave(hosts.HELD, str(error))
    except (*EXPECTED, OSError) as error:
        if isinstance(error, BrokenPipeError) and unread():
            sys.exit(0)
        if hosts.passing(error):
            hosts.leave(hosts.LOST, f"{error}: if that passes, the same command continues")
        if isinstance(error, FileNotFoundError) and error.filename:
            hosts.leave(2, f"{error.strerror}: {error.filename}{errors.instead(Path(error.filename))}")
        hosts.leave(2, str(error))
    except KeyboardInterrupt:
        hosts.leave(130, "stopped; the same command continues")
    except Exception as error:
        if hosts.lost(error):
            hosts.leave(hosts.LOST, f"another process of this run is gone ({error}); start all again, they continue")
        if errors.out_of_memory(error):
            command = f"rmo {args[0]}"
            hosts.leave(2, errors.memory(command, error, memory_advice(command)))
        if hosts.alone():
            raise
        traceback.print_exc()
        hosts.leave(1, "this process failed, see above; the others will say that they lost it")
