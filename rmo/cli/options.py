"""Options of every command, one class each: tyro makes `--help` of their docstrings."""

import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from rmo import config
from rmo.logs.columns import Columns
from rmo.runtime import errors

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
    """Mirror every stage to this Weights & Biases project, as a run of its own; offline where there is no account."""


@dataclass(frozen=True)
class ListOptions(RunOptions):
    """Every stage instance: done, running (how far, and by whom), stopped, stale (made for another config) or missing;
    what it cost, when it was written, and its directory."""

    jobs: bool = False
    """For schedulers: a line for all that can run side by side, with tabs between its name, the names of what it waits
    for (or -), and the instances (for --only) that are not done."""


@dataclass(frozen=True, kw_only=True)
class FitOptions(Columns):
    """Fit R = d(a - b d) to best-of-n curves and R = d(a - b log d) to RL curves, d = sqrt(KL), and say where to stop.

    A curves.csv of ours needs nothing more. Of other logs, say which columns they are (what is known is found):

    TRL's PPO:     rmo fit trainer_state.json --kl objective/kl --proxy objective/scores --gold eval_gold

    TRL's GRPO:    rmo fit trainer_state.json --gold rewards/gold/mean --per-token completions/mean_length

    OpenRLHF:      rmo fit history.jsonl --gold eval/gold --per-token train/response_length

    verl:          rmo fit metrics.jsonl --kl actor/reward_kl_penalty --per-token response_length/mean
                   --gold val-core/judge/reward/mean@1

    wandb, panels: rmo fit kl.csv gold.csv --kl train/objective/kl --gold eval/gold

    any table:     rmo fit sweep.csv --kl kl_nats --gold human --group lr --seeds seed

    Several files are several runs, each with a fit; files that lack KL or gold are parts of one table."""

    curves: tyro.conf.Positional[tuple[Path, ...]]
    """CSV, JSONL or JSON."""
    out: Path | None = None
    """Where to write coefficients.json, curves.csv, pictures and report.html; default: beside the first file, named
    after it."""
    bootstrap: int = 1000
    level: float = 0.95
    min_d: float = 0.3
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
    length: int = 0
    """Longest response in tokens; 0: 64, or half of what the model takes if that is less."""
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
    """Draw the figures and report.html of a run directory again, from its files alone; of several, a page that compares
    them."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run directories, such as runs/tiny, or URLs of them."""
    out: Path | None = None
    """File of the page that compares several runs; default: compare-RUN1-RUN2.html beside the first."""


@dataclass(frozen=True)
class DashboardOptions:
    """Make a dashboard for the runs that `rmo run --wandb` mirrored to a project: a new view of it."""

    project: tyro.conf.Positional[str]
    entity: str = ""
    """User or team that owns the project; default: your own."""
    out: Path | None = None
    """Write its definition here, as JSON, and send nothing."""


@dataclass(frozen=True)
class WatchOptions:
    """Draw a run's curves in the terminal while it runs, from its files alone, until its report is done or Ctrl-C."""

    run: tyro.conf.Positional[str]
    """A run directory, such as runs/tiny, or a URL of one."""
    only: tuple[str, ...] = ()
    """Only curves of stages with one of these in their names, e.g. ppo or w8x1; default: those of the first sweep."""
    once: bool = False
    """Print once and end, as where there is no terminal."""


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
        unknown = re.search(r"nrecognized.*?(--[\w.-]+)", message)
        hint = errors.option(unknown[1], default or kind) if unknown else ""
        raise config.ConfigError(f"{message}{hint} (see {prog} --help)") from None
