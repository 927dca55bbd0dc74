"""`rmo bon`: best-of-n, and its hedges, from a table of scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rmo.cli import fits
from rmo.cli.options import Positional, beside, parse

if TYPE_CHECKING:
    from rmo.logs.inference_methods import Asked
    from rmo.logs.score_tables import ScoreTable

Chooser = Literal["best_of_n", "soft_best_of_n", "best_of_poisson", "pessimism", "pessimism_n"]


MOST_DRAWN = 8  # reward models that have a row in goodhart.svg


@dataclass(frozen=True, kw_only=True)
class BonOptions(fits.BootstrapOptions):
    """Best-of-n, and ways to hedge it, from scores that exist already: curves.csv, fits, pictures and report.html,
    without any model. With --rules or other methods: rules.csv, how hard to optimise by several rules, each chosen on
    half of the prompts and judged on the rest; and goodhart.svg and its tables, why gold bends."""

    table: Positional[Path]
    """JSONL or Parquet with a row per draw (prompt, proxy, gold; rm, rm_params, seed, ... if there are several RMs) or
    per prompt (lists of scores), or npz with proxy [Q, N] or [M, Q, N] and gold [Q, N]."""
    out: Path | None = None
    """Where to write; default: a directory beside the file, named after it."""
    max_n: int = 0
    """Largest n of the curve; 0: a quarter of the draws, beyond which the estimator gets noisy, but 4 at least."""
    points: int = 32
    """Points of the curve, on a log grid."""
    methods: tuple[Chooser, ...] = ("best_of_n",)
    """best_of_n: the draw with the highest proxy score. soft_best_of_n: one of n draws, with a chance in proportion to
    exp(score / T). best_of_poisson: best-of-n of 1 + a Poisson number of draws, mu on average. pessimism: draws
    weighted by relu((score - lambda) / beta), which trusts high scores less than best-of-n does, over 1/beta;
    pessimism_n: the same from n draws, over n."""
    temperatures: tuple[float, ...] = (0.1, 0.3)
    """T of soft_best_of_n, a curve each. One unit is a difference of proxy scores that stands for one standard
    deviation of gold, so 0.1 is cold and 1 is warm."""
    betas: tuple[float, ...] = (0.01, 0.1)
    """beta of pessimism_n, a curve each, in the same unit: at 0.1 it stays near the initial policy, at 0.001 it is
    nearly best-of-n."""
    rules: bool = False
    """Write rules.csv and rules.json for best_of_n alone too: n by HedgeTune (where gold turns), by the fitted peak, by
    the lower end of its interval, and the largest; with gold there and what each leaves lying (regret)."""


def main(args: Sequence[str]) -> None:
    options = parse(BonOptions, args, "rmo bon")
    from rmo.analysis import scaling
    from rmo.artifacts.curves_csv import COLUMNS, to_rows
    from rmo.logs import score_tables
    from rmo.logs.inference_methods import Asked, curves
    from rmo.report import run_report
    from rmo.runtime.files import write_csv

    fits.check_bootstrap(options)
    asked = Asked(options.methods, options.max_n, options.points, options.temperatures, options.betas)
    found, tables = [], score_tables.read(options.table)
    for table in tables:
        prompts, draws = table.gold_QN.shape
        print(f"{options.table}: {prompts:,} prompts x {draws:,} draws {label(table)}".rstrip())
        found += curves(table, asked)
    out = options.out or beside(options.table, "_bon")
    lines = []
    if options.rules or set(asked.methods) != {"best_of_n"}:
        lines = [*write_rules(out, tables, asked, options), *write_anatomy(out, tables, asked)]
    fitted = scaling.summarise(found, options.bootstrap, options.level, 0.0)
    write_csv(out / "curves.csv", COLUMNS, [row for curve in found for row in to_rows(curve)])
    fits.show(found, fitted, out, run_report.UNIT, lines)


def label(table: "ScoreTable") -> str:
    """Which reward model a table is of; empty where there is one."""
    return " ".join(f"{name}={value}" for name, value in table.meta.items())


def write_anatomy(out: Path, tables: "list[ScoreTable]", asked: "Asked") -> list[str]:
    """goodhart.csv, quantiles.csv, hill.csv, goodhart.svg, and a line per reward model on the terminal, returned."""
    from rmo.logs.goodhart_tables import GOODHART, HILL, QUANTILES, anatomy, columns
    from rmo.report.figures.anatomy import Panels
    from rmo.report.figures.anatomy import anatomy as draw
    from rmo.report.figures.style import svg
    from rmo.runtime.files import write_csv, write_text

    found = [anatomy(table, asked) for table in tables]
    write_csv(out / "goodhart.csv", columns(found, GOODHART), [row for one in found for row in one.curve_rows()])
    write_csv(out / "quantiles.csv", columns(found, QUANTILES), [row for one in found for row in one.quantile_rows()])
    write_csv(out / "hill.csv", columns(found, HILL), [row for one in found for row in one.tail_rows()])
    names = [label(table) for table in tables]
    shown = [
        Panels(name, one.binned(), (one.ns, one.parts.gold_K, one.parts.regressional_K), one.tail)
        for name, one in zip(names, found, strict=True)
    ]
    write_text(out / "goodhart.svg", svg(draw(shown[:MOST_DRAWN])))
    lines = [f"best-of-n{f' of {name}' if name else ''}: {one.line()}" for name, one in zip(names, found, strict=True)]
    print("\n".join(lines))
    return lines


def write_rules(out: Path, tables: "list[ScoreTable]", asked: "Asked", options: BonOptions) -> list[str]:
    """rules.csv, rules.json and lines on the terminal; returns the lines. Nothing where no method has a rule."""
    from rmo.analysis.inference_rules import COLUMNS, halves
    from rmo.logs.inference_methods import line, rules
    from rmo.runtime.files import write_csv, write_json

    rows, lines = [], []
    for table in tables:
        mine = rules(table, asked, options.bootstrap, options.level)
        if not mine:
            continue
        train, judged = halves(len(table.gold_QN))
        of = f" of {label(table)}" if label(table) else ""
        lines.append(f"rules{of}: chosen on {len(train)} prompts, judged on {len(judged)} others, gold in its sd:")
        lines += [f"  {line(row)}" for row in mine]
        rows += mine
    if not rows:
        return []
    print("\n".join(lines))
    metas = list(dict.fromkeys(name for table in tables for name in table.meta))
    write_csv(out / "rules.csv", [*metas, *COLUMNS], rows)
    write_json(out / "rules.json", rows)
    return lines
