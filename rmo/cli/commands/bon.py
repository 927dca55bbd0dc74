"""`rmo bon`: best-of-n from a table of scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo.cli import fits
from rmo.cli.options import Positional, parse


@dataclass(frozen=True, kw_only=True)
class BonOptions(fits.BootstrapOptions):
    """Best-of-n from scores that exist already: curves.csv, fits, pictures and report.html, without any model."""

    table: Positional[Path]
    """JSONL or Parquet with a row per draw (prompt, proxy, gold; rm, rm_params, seed, ... if there are several RMs) or
    per prompt (lists of scores), or npz with proxy [Q, N] or [M, Q, N] and gold [Q, N]."""
    out: Path | None = None
    """Where to write; default: a directory beside the file, named after it."""
    max_n: int = 0
    """Largest n of the curve; 0: a quarter of the draws, beyond which the estimator gets noisy, but 4 at least."""
    points: int = 32
    """Points of the curve, on a log grid."""


def main(args: Sequence[str]) -> None:
    options = parse(BonOptions, args, "rmo bon")
    from rmo.analysis import scaling
    from rmo.artifacts.curves_csv import COLUMNS, to_rows
    from rmo.logs import score_tables
    from rmo.report import run_report
    from rmo.runtime.files import write_csv

    fits.check_bootstrap(options)
    curves = []
    for table in score_tables.read(options.table):
        prompts, draws = table.gold_QN.shape
        label = " ".join(f"{name}={value}" for name, value in table.meta.items())
        print(f"{options.table}: {prompts:,} prompts x {draws:,} draws {label}".rstrip())
        curves.append(
            score_tables.curve(*table, max_n=options.max_n or score_tables.default_max_n(draws), points=options.points)
        )
    out = options.out or fits.beside(options.table, "_bon")
    fitted = scaling.summarise(curves, options.bootstrap, options.level, 0.0)
    write_csv(out / "curves.csv", COLUMNS, [row for curve in curves for row in to_rows(curve)])
    fits.show(curves, fitted, out, run_report.UNIT)
