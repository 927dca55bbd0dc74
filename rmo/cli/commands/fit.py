"""`rmo fit`: the paper's forms fitted to anybody's logs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo import config
from rmo.cli import fits
from rmo.cli.options import Positional, parse
from rmo.logs.columns import Columns


@dataclass(frozen=True, kw_only=True)
class FitOptions(fits.BootstrapOptions, Columns):
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

    curves: Positional[tuple[Path, ...]]
    """CSV, JSONL or JSON."""
    out: Path | None = None
    """Where to write coefficients.json, curves.csv, pictures and report.html; default: beside the first file, named
    after it."""
    min_d: float = 0.3
    """Points with sqrt(KL) below this are left out of fits of a form that is infinitely steep at 0, as RL's is."""


def main(args: Sequence[str]) -> None:
    options = parse(FitOptions, args, "rmo fit")
    if not options.curves:
        raise config.ConfigError("rmo fit needs a file first, e.g. rmo fit trainer_state.json --gold eval_gold")
    from rmo.analysis import scaling
    from rmo.artifacts.curves_csv import COLUMNS, from_rows, to_rows
    from rmo.logs import reading
    from rmo.runtime.files import write_csv

    fits.check_bootstrap(options)
    rows, notes = reading.read(options.curves, options)
    curves = from_rows(rows, ", ".join(map(str, options.curves)))
    for note in notes:
        print(note)
    out = options.out or fits.beside(options.curves[0], "_fit")
    fitted = scaling.summarise(curves, options.bootstrap, options.level, options.min_d)
    write_csv(out / "curves.csv", COLUMNS, [row for curve in curves for row in to_rows(curve)])
    fits.show(curves, fitted, out, notes=notes)
