"""What the commands share about their options: parsing, and options that several of them have.

An options class is a frozen dataclass beside its command in `rmo/cli/commands`; tyro makes `--help` of its docstrings.
"""

import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from rmo import config
from rmo.config import checks
from rmo.runtime import errors

Positional = tyro.conf.Positional  # an argument without a name


@dataclass(frozen=True)
class ExperimentOptions:
    """Options of a command whose first argument is a config file."""

    experiment: Annotated[config.Experiment, tyro.conf.arg(name="")] = field(default_factory=config.Experiment)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What `score` and `sample` share."""

    out: Path | None = None
    """File of the results, JSONL; default: beside the input."""
    batch: int = 8
    """Rows at once."""
    chat: bool = False
    """Put rows through the tokenizer's chat template."""
    member: int = 0
    """Which of the models of a stage, in the order of its info.json."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations."""
    skip_long: bool = False
    """Leave out rows that are longer than the model takes, counted, where they would be refused."""


T = TypeVar("T")
E = TypeVar("E", bound=ExperimentOptions)


def experiment_options(kind: type[E], command: str, args: Sequence[str]) -> E:
    """Options of a command whose first argument is a config file.

    Raises:
      ConfigError: there is no config file, an option is wrong, or the experiment is not sound.
    """
    prog = f"rmo {command} CONFIG"
    if args and not args[0].startswith("-"):
        experiment = checks.load(args[0])
        prog, args = f"rmo {command} {args[0]}", args[1:]
    elif asks_for_help(args):
        experiment = config.Experiment()
    else:
        raise config.ConfigError(f"rmo {command} needs a config file first, e.g. rmo {command} configs/tiny.py")
    options = parse(kind, args, prog, kind(experiment))
    checks.check(options.experiment)
    return options


def asks_for_help(args: Sequence[str]) -> bool:
    return "-h" in args or "--help" in args


def parse(kind: type[T], args: Sequence[str], prog: str, default: T | None = None) -> T:
    """Options of a command.

    Raises:
      ConfigError: an option is wrong; one line with the nearest option that exists, in place of tyro's box.
    """
    box = StringIO()
    try:
        with redirect_stderr(box):
            if default is None:
                return tyro.cli(kind, args=list(args), prog=prog)
            return tyro.cli(kind, args=list(args), prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:  # --help was printed
            raise
        message = message_in(box.getvalue())
        unknown = re.search(r"nrecognized.*?(--[\w.-]+)", message)
        hint = errors.option(unknown[1], default or kind) if unknown else ""
        raise config.ConfigError(f"{message}{hint} (see {prog} --help)") from None


def message_in(box: str) -> str:
    """The message of tyro's error box, as one line: without the frame, its title and the advice at its end."""
    unframed = [re.sub(r"[╭╮╰╯│─]", "", line).strip() for line in box.splitlines()]
    lines = [line for line in unframed if line and not set(line) <= {"-", " "}]
    body = []
    for line in lines[1:]:
        if line.startswith(("For full help", "Perhaps", "Argument help", "---")):
            break
        body.append(line)
    return " ".join(body) or "cannot parse the arguments"


def need_positive(**values: float) -> None:
    """Raises ConfigError where an option (by its name) is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise config.ConfigError(f"--{name} is {value}: it must be positive")


def beside(path: Path, ending: str) -> Path:
    """The default place of results: beside a file or directory, named after it.

    Raises:
      ConfigError: it has no name, as / has none.
    """
    named = path if path.name not in ("", "..") else path.resolve()
    if not named.name:
        raise config.ConfigError(f"{path} has no name that results could be called after: give --out")
    return named.with_name(named.stem + ending)
