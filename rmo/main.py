"""The command line: `rmo run | list | fit | bon | score | sample | plan | report`."""

import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from rmo import checks, config, hosts
from rmo.curve import CurveError, from_rows
from rmo.files import RunError
from rmo.lock import Held

# One line each; anything else is a bug and keeps its traceback.
EXPECTED = (config.ConfigError, CurveError, RunError, hosts.HostsError)
HELP = """rmo: how hard may I optimise against this reward model before what I really want gets worse?

  rmo run CONFIG [--only STAGE ...] [--ppo.kl-max 20]   run every stage that is not done; the same command continues
  rmo list CONFIG                                       every stage instance: done, started, stale or missing; its cost
  rmo fit CURVES.csv                                    fit anybody's (kl, gold) points: coefficients, peak, picture
  rmo bon TABLE                                         best-of-n from your own scores (prompt, proxy, gold): no models
  rmo score MODEL TEXTS.jsonl                           score texts with any reward model, of a run or of the hub
  rmo sample MODEL PROMPTS.jsonl --draws 4              draw responses from any policy
  rmo plan CONFIG --topology v5e:8x8                    what it takes on a TPU slice, compiled without one
  rmo report RUN                                        draw figures and report.html again, from the files alone

CONFIG is a file of configs/; `rmo run CONFIG --help` lists every field with its meaning. Start with configs/tiny.py.
"""

T = TypeVar("T")


@dataclass(frozen=True)
class RunOptions:
    """Run every stage of an experiment that is not done. Killed at any moment, the same command continues."""

    experiment: Annotated[config.Experiment, tyro.conf.arg(name="")] = field(default_factory=config.Experiment)
    only: tuple[str, ...] = ()
    """Run only these stages, e.g. sft, proxies, or one instance as `rmo list` names it (=sft is not sft/64x2)."""
    runs: str = "runs"
    """Where run directories live: a directory, or a URL such as gs://bucket/runs."""
    model_parallel: int = 1
    """Devices that every layer is split over; over the rest, batches are (and what is trained lies spread)."""
    wandb: str | None = None
    """Mirror the logs to this Weights & Biases project."""


@dataclass(frozen=True)
class ListOptions(RunOptions):
    """Every stage instance: done, started, stale or missing; what it cost, and its directory."""

    jobs: bool = False
    """For schedulers: a line for all that can run side by side, with tabs between its name, the names of what it waits
    for (or -), and the instances (for --only) that are not done."""


@dataclass(frozen=True)
class FitOptions:
    """Fit R = d(a - b d) to best-of-n curves and R = d(a - b log d) to RL curves, d = sqrt(KL)."""

    curves: tyro.conf.Positional[Path]
    """CSV with columns kl, gold and, optionally, method (bon or ppo), gold_se, rm_params, seed, ..."""
    out: Path | None = None
    """Where to write coefficients.json, pictures and report.html; default: beside the file, named after it."""
    bootstrap: int = 1000
    level: float = 0.95
    min_d_ppo: float = 0.3
    """RL points with sqrt(KL) below this are left out."""


@dataclass(frozen=True)
class BonOptions:
    """Best-of-n from scores that exist already: curves.csv, fits, pictures and report.html, without any model."""

    table: tyro.conf.Positional[Path]
    """JSONL or Parquet with a row per draw (prompt, proxy, gold; rm_params, seed, ... if there are several RMs), or npz
    with proxy [Q, N] or [M, Q, N] and gold [Q, N]."""
    out: Path | None = None
    """Where to write; default: a directory beside the file, named after it."""
    max_n: int = 0
    """Largest n of the curve; 0: a quarter of the draws, beyond which the estimator gets noisy."""
    points: int = 32
    """Points of the curve, on a log grid."""
    bootstrap: int = 1000
    level: float = 0.95


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What `score` and `sample` share."""

    out: Path | None = None
    """Where to write what comes out, JSONL; default: beside the file."""
    batch: int = 8
    """Rows at once."""
    chat: bool = False
    """Put rows through the tokenizer's chat template."""
    member: int = 0
    """Which of the models of a stage, in the order of its info.json."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations."""


@dataclass(frozen=True)
class ScoreOptions(ModelOptions):
    """Score every row of a file with a reward model. Killed at any moment, the same command continues."""

    model: tyro.conf.Positional[str]
    """Directory of a stage (gold, proxies/...), of a Hugging Face checkpoint, or a name of the hub."""
    texts: tyro.conf.Positional[Path]
    """JSONL or Parquet; a row has text, prompt and response, or messages (role and content)."""


@dataclass(frozen=True)
class SampleOptions(ModelOptions):
    """Draw responses to every prompt of a file, a row each: the text, its token ids, its log-probability. Killed at any
    moment, the same command continues."""

    model: tyro.conf.Positional[str]
    """Directory of a stage (sft, ppo/...), of a Hugging Face checkpoint, or a name of the hub."""
    prompts: tyro.conf.Positional[Path]
    """JSONL or Parquet; a row has prompt, text, or messages (role and content)."""
    draws: int = 1
    """Responses to each prompt."""
    length: int = 64
    """Longest response in tokens."""
    temperature: float = 1.0
    """Of sampling; always from the whole distribution."""
    seed: int = 0


@dataclass(frozen=True)
class PlanOptions:
    """Compile an experiment's programs for a TPU slice, here: memory per device, collectives, time at the roofline."""

    experiment: Annotated[config.Experiment, tyro.conf.arg(name="")] = field(default_factory=config.Experiment)
    topology: str = "v5e:8x8"
    """Chip and shape of the slice: v4:4x4x2, v5e:8x8, v5p:2x2x4, v6e:4x4, ..."""
    suggest: bool = False
    """Find the smallest slice of this kind of chip, and the least splitting of layers, that fit instead."""
    model_parallel: int = 1
    """Devices that every layer is split over."""
    only: tuple[str, ...] = ()
    """Only programs with one of these in their names, e.g. ppo or 1.2B."""
    out: Path | None = None
    """Where the plan goes as JSON, after every program; the same command continues it (a suggestion is written once, at
    the end). Default: nowhere."""


@dataclass(frozen=True)
class ReportOptions:
    """Draw the figures and report.html of a run directory again, from its files alone."""

    run: tyro.conf.Positional[Path]


def parse(kind: type[T], args: Sequence[str], prog: str, default: Any = None) -> T:
    """tyro, with its error box folded into one ConfigError line."""
    box = StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(kind, args=list(args), prog=prog, **({"default": default} if default is not None else {}))
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [re.sub(r"[╭╮╰╯│─]", "", line).strip() for line in box.getvalue().splitlines()]
        lines = [line for line in lines if line and not set(line) <= {"-", " "}]
        body = takewhile(
            lambda line: not line.startswith(("For full help", "Perhaps", "Argument help", "---")), lines[1:]
        )
        message = " ".join(body) or "cannot parse the arguments"
        close = [line.split()[0] for line in lines if line.startswith("--")][:3]
        hint = f"; perhaps {', '.join(close)}" if close and "nrecognized" in message else ""
        raise config.ConfigError(f"{message}{hint} (see {prog} --help)") from None


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
    from rmo import pipeline
    from rmo.files import directory

    return options, pipeline.open_run(options.experiment, directory(options.runs) / options.experiment.name)


def plan_experiment(args: Sequence[str]) -> None:
    options = experiment_options(PlanOptions, "plan", args)
    os.environ["JAX_PLATFORMS"] = "cpu"  # the slice is looked up, not used
    from rmo import plan
    from rmo.files import write_json

    if options.suggest:
        found = plan.suggest(options.experiment, plan.kind_of(options.topology))
        if options.out:
            write_json(options.out, found)
    else:
        found = plan.plan(options.experiment, options.topology, options.model_parallel, options.only, options.out)
    print(plan.table(found))


def run(args: Sequence[str]) -> None:
    if not any(arg in ("-h", "--help") for arg in args):
        hosts.join()
    options, here = open_run("run", args)
    from rmo import pipeline

    wanted = [name for name in pipeline.matching(here, options.only) if not here.done(name)]
    if hosts.agree(bool(wanted)):
        import jax

        from rmo import sharding
        from rmo.files import directory
        from rmo.log import Wandb

        sharding.compilation_cache(directory(options.runs) / ".jax_cache")
        if options.model_parallel < 1 or jax.device_count() % options.model_parallel:
            raise config.ConfigError(
                f"--model-parallel is {options.model_parallel}: it must divide the {jax.device_count()} devices"
            )
        here.mesh = sharding.make_mesh(model=options.model_parallel)
        pipeline.meet(here)
        if options.wandb:
            Wandb.start(options.wandb, here.experiment.name, here.root, config.to_json(here.experiment))
        pipeline.execute(here, options.only)
    pipeline.publish(here)
    hosts.barrier("published")  # JAX waits less long for the others at its end
    if here.done("report") and hosts.writer():
        print(f"{here.root / 'report.html'}")


def list_stages(args: Sequence[str]) -> None:
    options, here = open_run("list", args)
    from rmo import pipeline

    if options.jobs:
        for group, needs, names in pipeline.groups(here):
            print(f"{group}\t{' '.join(needs) or '-'}\t{' '.join(names)}")
        return
    table = pipeline.status(here)
    for row in table:
        seconds = f"{row['seconds']:8.1f} s" if row["seconds"] is not None else " " * 10
        print(f"{row['state']:8} {seconds}  {row['stage']:32} {row['path']}")
    done = [row["seconds"] for row in table if row["seconds"] is not None]
    print(f"{len(done)} of {len(table)} done, {sum(done):.0f} s so far, in {here.root}")


def fit_file(args: Sequence[str]) -> None:
    options = parse(FitOptions, args, "rmo fit")
    from rmo import summary
    from rmo.files import read_csv

    check_bootstrap(options.bootstrap, options.level)
    curves = from_rows(read_csv(options.curves), str(options.curves))
    out = options.out or options.curves.with_suffix("").with_name(options.curves.stem + "_fit")
    show_fits(curves, summary.summarise(curves, options.bootstrap, options.level, options.min_d_ppo), out)


def check_bootstrap(bootstrap: int, level: float) -> None:
    if bootstrap < 1 or not 0 < level < 1:
        raise config.ConfigError("--bootstrap must be at least 1 and --level between 0 and 1")


def show_fits(curves: list[Any], fitted: dict[str, Any], out: Path, unit: str = "") -> None:
    """Print every fit on a line and write pictures, coefficients.json and report.html into `out`."""
    from rmo import report

    def between(row: dict[str, Any], name: str) -> str:
        return "{:.3f} [{:.3f}, {:.3f}]".format(row[name], *row[name + "_interval"])

    for method, part in fitted.items():
        print(f"{method}: R = {part['form']}" + (", one a for all" if part["shared_alpha"] else ""))
        for g in part["groups"]:
            top = "never turns (b <= 0)"
            if g["turns"]:
                top = f"peak {between(g, 'peak_gold')} at KL {between(g, 'peak_kl')}"
            numbers = f"a {between(g, 'alpha')}, b {between(g, 'beta')}, R² {g['r2']:.3f}, {top}"
            print(f"  {g['group']}: {numbers}; intervals from {g['interval_from']}")
    print(report.write_curves(out, curves, fitted, out.name, unit))


def best_of_n(args: Sequence[str]) -> None:
    options = parse(BonOptions, args, "rmo bon")
    from rmo import report, scores, summary
    from rmo.curve import COLUMNS, to_rows
    from rmo.files import write_csv

    check_bootstrap(options.bootstrap, options.level)
    curves = []
    for meta, proxy_QN, gold_QN in scores.read(options.table):
        said = " ".join(f"{name}={value}" for name, value in meta.items())
        print(f"{options.table}: {proxy_QN.shape[0]:,} prompts x {proxy_QN.shape[1]:,} draws {said}".rstrip())
        curves.append(scores.curve(meta, proxy_QN, gold_QN, options.max_n or proxy_QN.shape[1] // 4, options.points))
    out = options.out or options.table.with_suffix("").with_name(options.table.stem + "_bon")
    fitted = summary.summarise(curves, options.bootstrap, options.level, 0.0)
    write_csv(out / "curves.csv", COLUMNS, [row for curve in curves for row in to_rows(curve)])
    show_fits(curves, fitted, out, report.UNIT)


def score(args: Sequence[str]) -> None:
    options = parse(ScoreOptions, args, "rmo score")
    from rmo import serve

    need_positive(batch=options.batch)
    out = options.out or options.texts.with_name(options.texts.stem + "_scores.jsonl")
    rows = serve.score(options.model, options.texts, out, options.batch, options.chat, options.member, options.dtype)
    print(f"{rows} rows scored: {out}")


def sample(args: Sequence[str]) -> None:
    o = parse(SampleOptions, args, "rmo sample")
    from rmo import serve

    need_positive(batch=o.batch, draws=o.draws, length=o.length, temperature=o.temperature)
    out = o.out or o.prompts.with_name(o.prompts.stem + "_samples.jsonl")
    rows = serve.draw(
        o.model, o.prompts, out, o.batch, o.chat, o.draws, o.length, o.temperature, o.seed, o.member, o.dtype
    )
    print(f"{rows} prompts x {o.draws} draws: {out}")


def need_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise config.ConfigError(f"--{name} is {value}: it must be positive")


def write_report(args: Sequence[str]) -> None:
    options = parse(ReportOptions, args, "rmo report")
    from rmo import report

    print(report.write(options.run))


COMMANDS = {"run": run, "list": list_stages, "fit": fit_file, "bon": best_of_n, "score": score, "sample": sample,
            "plan": plan_experiment, "report": write_report}  # fmt: skip


def main() -> None:
    args = sys.argv[1:]
    if not args or args[0] in ("-h", "--help"):
        print(HELP)
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would warn that PyTorch is missing; we do not use it
    try:
        if args[0] not in COMMANDS:
            raise config.ConfigError(f"no command {args[0]!r}: use {', '.join(COMMANDS)} (see rmo --help)")
        COMMANDS[args[0]](args[1:])
    except hosts.Preempted:
        hosts.leave(hosts.PREEMPTED, "told to stop, and saved; the same command continues")
    except Held as error:
        hosts.leave(hosts.HELD, str(error))
    except (*EXPECTED, OSError) as error:
        if hosts.passing(error):
            hosts.leave(hosts.LOST, f"{error}: if that passes, the same command continues")
        hosts.leave(2, str(error))
    except KeyboardInterrupt:
        hosts.leave(130, "stopped; the same command continues")
    except Exception as error:
        if hosts.lost(error):
            hosts.leave(hosts.LOST, f"another process of this run is gone ({error}); start all again, they continue")
        if hosts.alone():
            raise
        traceback.print_exc()
        hosts.leave(1, "this process failed, see above; the others will say that they lost it")
