"""The command line: finds the command, and turns errors into one line and an exit code."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from rmo import config
from rmo.analysis.curve import CurveError
from rmo.cli import plugins
from rmo.cli.commands import (
    bon,
    convert,
    dashboard,
    fit,
    forecast,
    hedges,
    list_stages,
    plan,
    report,
    run,
    sample,
    score,
    watch,
)
from rmo.cli.commands.run import open_run as open_run  # for notebooks
from rmo.runtime import errors, hosts
from rmo.runtime.files import RunError
from rmo.runtime.lock import Held

HELP = """rmo: how hard may I optimise against this reward model before what I really want gets worse?

  rmo run CONFIG [--only STAGE ...] [--ppo.kl-max 20]   run every stage that is not done; the same command continues
  rmo run CONFIG --jobs 2                               the same, two stages at a time, each on half of the CPU's cores
  rmo list CONFIG                                       every stage instance: done, running, stopped, stale or missing
  rmo watch RUN                                         its curves so far in the terminal, and what is being made
  rmo fit LOG ... --kl COLUMN --gold COLUMN             fit anybody's logs (TRL, OpenRLHF, verl, wandb): where to stop
  rmo forecast RUN --rm-params N --comparisons C        what to expect of an RM that was not trained, where to stop
  rmo bon TABLE                                         best-of-n from your own scores (prompt, proxy, gold): no models
  rmo score MODEL TEXTS.jsonl                           score texts with any reward model, of a run or of the hub
  rmo sample MODEL PROMPTS.jsonl --draws 4              draw responses from any policy
  rmo convert FILE.gguf DIR                             a GGUF file of llama.cpp as a Hugging Face directory
  rmo plan CONFIG --topology v5e:8x8                    what it takes on a TPU slice, compiled without one
  rmo report RUN [RUN2 ...]                             draw figures and report.html again; of several, compare them
  rmo hedges RUN [RUN2 ...]                             what each way to optimise buys: gold, KL, labels, seconds; ranks
  rmo dashboard PROJECT                                 a dashboard in wandb for what `rmo run --wandb` mirrored

CONFIG is a file of configs/; `rmo run CONFIG --help` lists every field with its meaning. Start with configs/tiny.py.
Errors are one line; `--traceback` (or RMO_TRACEBACK=1) shows where they come from.
"""

MODULES = (run, list_stages, watch, fit, forecast, bon, score, sample, convert, plan, report, hedges, dashboard)
# A command is called as its file (`list`, which is a name of Python's, as list_stages).
COMMANDS = {module.__name__.rpartition(".")[2].removesuffix("_stages"): module.main for module in MODULES}

# Errors of the user's: one line each. Anything else is a bug and keeps its traceback.
EXPECTED = (config.ConfigError, CurveError, RunError, hosts.HostsError)


def main() -> None:
    args = [arg for arg in sys.argv[1:] if arg != "--traceback"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would warn that PyTorch is missing; we do not use it
    errors.without_echoes()
    if not args:
        args = ["--help"]
    try:
        call(args[0], args[1:])
    except hosts.Preempted:
        hosts.leave(hosts.PREEMPTED, "asked to stop, and saved; the same command continues")
    except Held as error:
        hosts.leave(hosts.HELD, str(error))
    except (*EXPECTED, OSError) as error:
        leave_expected(error)
    except KeyboardInterrupt:
        hosts.leave(130, "stopped; the same command continues")
    except Exception as error:
        leave_unexpected(args[0], error)


def call(name: str, args: Sequence[str]) -> None:
    """Run one command.

    Raises:
      ConfigError: there is no such command; and whatever the command raises.
    """
    if name in ("-h", "--help"):
        print(HELP, flush=True)
        return
    if name not in COMMANDS:
        near = errors.nearest(name, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        raise config.ConfigError(f"no command {name!r}{near} (see rmo --help)")
    plugins.load()
    with traced("--traceback" in sys.argv or os.environ.get("RMO_TRACEBACK") == "1"):
        COMMANDS[name](args)


@contextlib.contextmanager
def traced(wanted: bool) -> Iterator[None]:
    """Print the traceback of an error that will be reported as one line, if it is wanted."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        if wanted:
            traceback.print_exc()
        raise


def leave_expected(error: Exception) -> None:
    """End on an error of the user's or of the system, with one line."""
    if isinstance(error, BrokenPipeError) and reader_gone():
        sys.exit(0)
    if hosts.passing(error):
        hosts.leave(hosts.LOST, f"{error}: if that passes, the same command continues")
    if isinstance(error, FileNotFoundError) and error.filename:
        hosts.leave(2, f"{error.strerror}: {error.filename}{errors.instead(Path(error.filename))}")
    hosts.leave(2, errors.of_system(error) if isinstance(error, OSError) else str(error))


def reader_gone() -> bool:
    """Whether nobody reads our output any more, as below `| head`; any other broken pipe is a lost connection."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return True
    return False


def leave_unexpected(command: str, error: Exception) -> None:
    """End on another process's loss or on lack of memory, with one line; a bug is raised again, with its traceback."""
    if hosts.lost(error):
        hosts.leave(hosts.LOST, f"another process of this run is gone ({error}); start all again, they continue")
    if errors.out_of_memory(error):
        from rmo.experiment.memory_advice import memory_advice

        hosts.leave(2, errors.memory(f"rmo {command}", error, memory_advice(f"rmo {command}")))
    if hosts.alone():
        raise error
    traceback.print_exception(error)
    hosts.leave(1, "this process failed, see above; the others will report that they lost it")
