"""`rmo fit`: the paper's forms fitted to anybody's logs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo import config
from rmo.analysis.curve import Curve
from rmo.cli import by_step, fits
from rmo.cli.options import Positional, beside, need_positive, parse
from rmo.logs.columns import Columns
from rmo.runtime.files import Json


@dataclass(frozen=True, kw_only=True)
class FitOptions(fits.BootstrapOptions, Columns):
    """Fit R = d(a - b d) to best-of-n curves and R = d(a - b log d) to RL curves, d = sqrt(KL), and say where to stop.

    A curves.csv of ours needs nothing more. Of other logs, say which columns they are (what is known is found):

    TRL's PPO:     rmo fit trainer_state.json --kl objective/kl --proxy objective/scores --gold eval_gold

    TRL's GRPO:    rmo fit trainer_state.json --gold eval_judge --per-token completions/mean_length

    OpenRLHF:      rmo fit history.jsonl --gold eval/gold --per-token train/response_length

    verl:          rmo fit metrics.jsonl --kl actor/reward_kl_penalty --per-token response_length/mean
                   --gold val-core/judge/reward/mean@1

    wandb, panels: rmo fit kl.csv gold.csv --kl train/objective/kl --gold eval/gold

    any table:     rmo fit sweep.csv --kl kl_nats --kl-sum --gold human --group lr --seeds seed

    Several files are several runs, each with a fit; files that lack KL or gold are parts of one table. Without a KL
    gold is judged by step.

    beside a training that runs: rmo fit metrics.jsonl --gold eval/gold --watch; [ $? = 78 ] && kill $TRAINING"""

    curves: Positional[tuple[Path, ...]]
    """CSV, JSON, JSONL, Parquet, TensorBoard's or wandb's files, what was printed, or a directory of them."""
    out: Path | None = None
    """Where to write coefficients.json, curves.csv, pictures and report.html; default: beside the first file, named
    after it."""
    min_d: float = 0.3
    """Points with sqrt(KL) below this are left out of fits of a form that is infinitely steep at 0, as RL's is."""
    watch: bool = False
    """Read the logs again as they grow, print the advice when it changes, and end with exit code 78 when it is to stop
    every curve."""
    every: float = 30.0
    """Seconds between looks at the logs with --watch."""


def main(args: Sequence[str]) -> None:
    options = parse(FitOptions, args, "rmo fit")
    if not options.curves:
        raise config.ConfigError("rmo fit needs a file first, e.g. rmo fit trainer_state.json --gold eval_gold")
    need_positive(every=options.every)
    fits.check_bootstrap(options)
    if not options.watch:
        with_or_without_kl(options)
        return
    from rmo.cli.fit_watch import TURNED, until_stop
    from rmo.logs.no_kl import NoFit

    found = until_stop(options.curves, lambda: fit(options), options.every)
    if isinstance(found, NoFit):
        by_step.show(found, where(options))
    else:
        write(options, *found)
    sys.exit(TURNED)


def where(options: FitOptions) -> Path:
    """The directory of what is written."""
    return options.out or beside(options.curves[0], "_fit")


def with_or_without_kl(options: FitOptions) -> None:
    """Fit, or judge gold by step where that is all that can be done, and write what was found."""
    from rmo.logs.no_kl import NoFit, NoKl
    from rmo.logs.rows import LogError

    try:
        found = fit(options)
    except NoFit as error:
        by_step.show(error, where(options))
        if isinstance(error, NoKl):  # nothing is wrong that an option could mend
            return
        raise
    except LogError as error:
        for note in error.notes:
            print(note)
        raise
    write(options, *found)


def fit(options: FitOptions) -> tuple[list[Curve], dict[str, Json], list[str]]:
    """(curves of the logs, their fits, notes on how they were read).

    Raises:
      NoFit: only gold by step can be judged.
      RunError, CurveError: a log cannot be read, or has too few points.
    """
    from rmo.analysis import scaling
    from rmo.artifacts.curves_csv import from_rows
    from rmo.logs import reading

    rows, notes = reading.read(options.curves, options)
    curves = from_rows(rows, ", ".join(map(str, options.curves)))
    return curves, scaling.summarise(curves, options.bootstrap, options.level, options.min_d), notes


def write(options: FitOptions, curves: list[Curve], fitted: dict[str, Json], notes: Sequence[str]) -> None:
    """Print all of it, and write the report."""
    from rmo.artifacts.curves_csv import COLUMNS, to_rows
    from rmo.runtime.files import write_csv

    for note in notes:
        print(note)
    out = where(options)
    write_csv(out / "curves.csv", COLUMNS, [row for curve in curves for row in to_rows(curve)])
    fits.show(curves, fitted, out, notes=notes)
