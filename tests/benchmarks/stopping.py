"""When to end a run: rmo's advice beside "stop after k evaluations without a new best", on made-up and measured curves.

    launch/local.sh python -m tests.benchmarks.stopping                  # 200 runs of every cell
    launch/local.sh python -m tests.benchmarks.stopping --runs 10 --only kinked --jobs 2

A run is READS reads of gold at rising KL: a true curve, of a form, plus noise. Both rules see the reads one after the
other, may end the run after any of them, and name the read whose checkpoint is kept. Regret is the true gold lost by
it: the highest of the whole run less that at the named read, where the highest above the initial policy is 1. A stop
is false where the best read before it is worse by more than 0.05 than the best after it. The other rule keeps its best
read, as callbacks do whose patience is k; Lightning's is 3 if nothing is said, and k = "all" never ends a run.

Thresholds, written down before the first run of 200:
- coverage: where the form is right, the interval of the peak's KL, from the whole log, holds the true one in at least
  90% of runs of every cell;
- against: no stop, on the whole log, where gold as read is below its highest by more than two of the standard errors
  in the file; where errors come from the scatter, in at most 2% of runs by the true noise;
- astray: where the form is wrong, "go on" after true gold has fallen by more than 0.1, or a stop that is "against", in
  at most 5% of runs of a cell;
- regret: in no cell higher on average than that of k = 3, and lower in more than half.
Seeds from 1,000,000 on are for trying things out; the table is of seeds from 0.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmo.analysis import bootstrap, fitting, forms, measured, stopping
from rmo.analysis.curve import Curve, CurveError
from rmo.analysis.curve_id import CurveId
from rmo.artifacts.curves_csv import from_rows
from rmo.methods.method import find
from rmo.runtime.files import read_csv

RIGHT, WRONG, REAL = ("bon", "ppo"), ("power law", "kinked", "plateau", "no effect"), ("measured bon", "measured ppo")
NOISE = (0.03, 0.1, 0.3)  # standard deviations of a read, where gold's highest is 1
KINDS = {"white": (0.0, False), "alike 0.8": (0.8, False), "errors known": (0.0, True)}  # (rho, a column of errors)
READS, FIRST_LOOK = 24, 6
PATIENCE: tuple[int | None, ...] = (1, 3, 5, 10, None)
MIN_D, DRAWS = 0.3, 400
TRYING = 1_000_000
RESULTS = Path(__file__).parents[2] / "configs" / "results" / "first_edition" / "curves.csv"


class Truth(NamedTuple):
    """One run before noise."""

    method: str
    kl: np.ndarray  # f64[K]
    gold: np.ndarray  # f64[K], the highest is 1 (no effect: 0)
    peak: float  # KL of the true peak; NaN where the form is none of the paper's


def true_form(form: str, d: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(gold at d f64[K], d of its peak) of a form with coefficients drawn at random."""
    end, turn = d[-1], rng.uniform(0.25, 1.2) * d[-1]
    if form == "bon":
        return d / turn * (2 - d / turn), turn
    if form == "ppo":
        return d / turn * (1 - np.log(np.maximum(d, 1e-9) / turn)), turn
    if form == "power law":
        return d ** rng.uniform(0.3, 1.0), np.nan
    if form == "kinked":
        turn = rng.uniform(0.2, 0.9) * end
        return np.interp(d, [0, turn, end], [0, 1, rng.uniform(-1, 0.6)]), np.nan
    if form == "plateau":
        return 1 - np.exp(-d / (rng.uniform(0.1, 0.4) * end)), np.nan
    return np.zeros_like(d), np.nan


@cache
def kept_curves(method: str) -> list[Curve]:
    """The measured curves of this repository's own runs: their means are taken as true."""
    return [c for c in from_rows(read_csv(RESULTS), str(RESULTS)) if c.method == method and c.gold.max() > 0.1]


def true_run(form: str, rng: np.random.Generator) -> Truth:
    """A run of one form, of random length and coefficients."""
    if form in REAL:
        curves = kept_curves(form.split()[1])
        c = curves[rng.integers(len(curves))]
        places = np.unique(np.linspace(0, len(c.kl) - 1, READS).round().astype(int))
        return Truth(c.method, c.kl[places], (c.gold[places] - c.gold[0]) / np.ptp(c.gold[places].clip(0)), np.nan)
    t = np.linspace(0, 1, READS)
    n = 2 ** (t * rng.uniform(6, 14))
    kl = np.log(n) - (n - 1) / n if form == "bon" else rng.uniform(5, 60) * t ** rng.uniform(1.2, 2.0)
    gold, peak = true_form(form, np.sqrt(kl), rng)
    return Truth("bon" if form == "bon" else "ppo", kl, gold / (gold.max() or 1.0), peak**2)


def log_of(truth: Truth, noise: float, rho: float, known: bool, rng: np.random.Generator) -> Curve:
    """What is logged of a run: gold less its first read, as `rmo fit` counts it."""
    white = rng.normal(size=len(truth.kl))
    e = white.copy()
    for k in range(1, len(e)):
        e[k] = rho * e[k - 1] + (1 - rho**2) ** 0.5 * white[k]
    gold = truth.gold + noise * e
    errors = np.full(len(e), noise) if known else None
    return Curve(
        CurveId(truth.method), np.arange(len(e)) * 10.0, truth.kl, gold * np.nan, gold - gold[0], gold_se=errors
    )


def first(curve: Curve, count: int) -> Curve:
    """The curve when so many reads had been made."""
    errors = None if curve.gold_se is None else curve.gold_se[:count]
    parts = (x[:count] for x in (curve.step_or_n, curve.kl, curve.proxy, curve.gold))
    return Curve(curve.id, *parts, gold_se=errors)


class Judged(NamedTuple):
    """rmo's answer on one log."""

    verdict: str
    kl: float  # where to stop, or to go
    best: float  # KL of the checkpoint to keep whatever the verdict
    interval: list[float]  # of the fitted peak's KL
    sentence: str


def judge(curve: Curve, draws: int = DRAWS) -> Judged | None:
    """What `rmo fit` says of a log; None where it has too few points for a fit."""
    form = find(curve.method).form
    min_d = forms.lower_end(form, MIN_D)
    try:
        family = fitting.Family(fitting.group([curve], curve.method), form, False, min_d)
        r = bootstrap.resample([curve], draws)
        values = family.on(r)[:, 0]
        d = curve.d[curve.d >= max(min_d, 1e-9)]
        gold = curve.gold[curve.d >= max(min_d, 1e-9)]
        left = gold - fitting.Fit(form, *values[0])(d)
        r2 = float(1 - np.sum(left**2) / max(np.sum((gold - gold.mean()) ** 2), 1e-300))
        d_star = forms.peak(form, values[:, 0], values[:, 1])[0]
        kl_star = np.where(d_star**2 <= 1e3 * curve.kl.max(), d_star, np.inf) ** 2
        interval = bootstrap.interval(kl_star, r, 0.95, (0, np.inf))
        found = stopping.advise([curve], form, min_d, values, r, float(kl_star[0]), interval, r2)
    except CurveError:
        return None
    return Judged(found["verdict"], found["kl"], found["best_kl"], interval, found["sentence"])


def nearest(kl: np.ndarray, at: float) -> int:
    return int(np.abs(np.sqrt(kl) - max(at, 0.0) ** 0.5).argmin())


def by_advice(curve: Curve, whole: Judged | None) -> tuple[int, int]:
    """(reads made, the read that is kept) where rmo is asked after every read."""
    for count in range(FIRST_LOOK, len(curve.kl)):
        part = first(curve, count)
        fell, error = measured.measure([part]).fall
        if fell <= stopping.SOME * error:
            continue  # no stop is advised then, whatever the fit says: no need to fit
        found = judge(part, DRAWS // 2)
        if found is not None and found.verdict == "stop":
            return count, nearest(part.kl, found.kl)
    if whole is None:
        return len(curve.kl), int(curve.gold.argmax())
    return len(curve.kl), nearest(curve.kl, whole.kl if whole.verdict == "stop" else whole.best)


def by_patience(gold: np.ndarray, k: int | None) -> tuple[int, int]:
    """(reads made, the read that is kept) where a run ends after k reads without a new best."""
    best = 0
    for count in range(1, len(gold)):
        if gold[count] > gold[best]:
            best = count
        elif k is not None and count - best >= k:
            return count + 1, best
    return len(gold), best


class Played(NamedTuple):
    """One run, both rules."""

    covered: bool
    verdict: str
    against: bool
    astray: bool
    reads: list[int]  # rmo's, then those of each patience
    regret: list[float]
    false: list[bool]


def play(form: str, noise: float, kind: str, seed: int) -> Played:
    """One run of a cell."""
    rng = np.random.default_rng([seed, (*RIGHT, *WRONG, *REAL).index(form), NOISE.index(noise), [*KINDS].index(kind)])
    truth = true_run(form, rng)
    curve = log_of(truth, noise, *KINDS[kind], rng)
    whole = judge(curve)
    answers = [by_advice(curve, whole), *(by_patience(curve.gold, k) for k in PATIENCE)]
    against = astray = covered = False
    if whole is not None:
        covered = bool(whole.interval[0] <= truth.peak <= whole.interval[1])
        read = np.interp(whole.kl, *np.stack([curve.kl, curve.gold])[:, np.argsort(curve.kl, kind="stable")])
        against = whole.verdict == "stop" and bool(read < curve.gold.max() - 2 * noise * (1 + 1e-9))
        astray = against or (whole.verdict == "go on" and bool(truth.gold[-1] < truth.gold.max() - 0.1))
    regret = [float(truth.gold.max() - truth.gold[kept]) for _, kept in answers]
    false = [
        count < len(truth.gold) and bool(truth.gold[:count].max() < truth.gold[count:].max() - 0.05)
        for count, _ in answers
    ]
    verdict = whole.verdict if whole else "none"
    return Played(covered, verdict, against, astray, [count for count, _ in answers], regret, false)


def cells(only: str = "") -> list[tuple[str, float, str]]:
    """(form, noise, kind) of every cell."""
    every = [(form, noise, kind) for form in (*RIGHT, *WRONG) for noise in NOISE for kind in KINDS]
    every += [(form, noise, "errors known") for form in REAL for noise in NOISE]
    return [cell for cell in every if only in " ".join(map(str, cell))]


def summary(cell: tuple[str, float, str], runs: Sequence[Played]) -> dict[str, object]:
    """A cell's row of the table. Margins are of 95% intervals, from the spread over runs."""
    regret = np.array([run.regret for run in runs])

    def margin(x: np.ndarray) -> float:
        return float(1.96 * x.std(ddof=1) / len(x) ** 0.5) if len(x) > 1 else np.nan

    three = 1 + PATIENCE.index(3)
    verdicts = [run.verdict for run in runs]
    return {
        "form": cell[0], "noise": cell[1], "kind": cell[2], "runs": len(runs),
        "coverage": float(np.mean([run.covered for run in runs])) if cell[0] in RIGHT else None,
        "verdicts": {v: verdicts.count(v) / len(runs) for v in ("stop", "go on", "undecided")},
        "against": float(np.mean([run.against for run in runs])),
        "astray": float(np.mean([run.astray for run in runs])),
        "regret": regret.mean(axis=0).tolist(), "regret_margin": [margin(x) for x in regret.T],
        "saved": float((regret[:, three] - regret[:, 0]).mean()), "saved_margin": margin(regret[:, three] - regret[:, 0]),
        "false": np.mean([run.false for run in runs], axis=0).tolist(),
        "reads": np.mean([run.reads for run in runs], axis=0).tolist(),
    }  # fmt: skip


def failures(rows: Sequence[dict]) -> list[str]:
    """Which thresholds are missed, a line each."""
    out, lower = [], 0
    three = 1 + PATIENCE.index(3)
    for row in rows:
        name = f"{row['form']}, noise {row['noise']}, {row['kind']}"
        if row["coverage"] is not None and row["coverage"] < 0.9:
            out.append(f"coverage {row['coverage']:.3f}: {name}")
        if row["against"] > (0.0 if row["kind"] == "errors known" else 0.02):
            out.append(f"against what was read in {row['against']:.1%}: {name}")
        if row["form"] not in RIGHT and row["astray"] > 0.05:
            out.append(f"astray in {row['astray']:.1%}: {name}")
        if row["regret"][0] > row["regret"][three]:
            out.append(f"regret {row['regret'][0]:.4f}, of k = 3 {row['regret'][three]:.4f}: {name}")
        lower += row["regret"][0] < row["regret"][three]
    if lower * 2 <= len(rows):
        out.append(f"regret is lower in {lower} of {len(rows)} cells only")
    return out


def table(rows: Sequence[dict]) -> str:
    """Markdown."""
    three = 1 + PATIENCE.index(3)
    names = [f"k = {k}" if k else "all" for k in PATIENCE]
    head = ["form", "noise", "noise is", "interval holds the peak", "stop / go on / undecided", "against / astray",
            "regret: rmo", *names, "saved against k = 3", "false stops: rmo / k = 3", "reads: rmo / k = 3"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cover = "" if row["coverage"] is None else f"{row['coverage']:.0%}"
        verdicts = " / ".join(f"{row['verdicts'][v]:.0%}" for v in ("stop", "go on", "undecided"))
        regrets = [f"{x:.3f}" for x in row["regret"]]
        line = [row["form"], row["noise"], row["kind"], cover, verdicts, f"{row['against']:.1%} / {row['astray']:.1%}",
                *regrets, f"{row['saved']:.3f} ± {row['saved_margin']:.3f}",
                f"{row['false'][0]:.0%} / {row['false'][three]:.0%}",
                f"{row['reads'][0]:.1f} / {row['reads'][three]:.1f}"]  # fmt: skip
        lines.append("| " + " | ".join(map(str, line)) + " |")
    return "\n".join(lines)


def run_cell(job: tuple[tuple[str, float, str], int, int]) -> dict[str, object]:
    cell, start, runs = job
    return summary(cell, [play(*cell, seed) for seed in range(start, start + runs)])


def simulate(
    runs: int, start: int = 0, only: str = "", jobs: int = 1, done: Callable[[dict], None] = lambda row: None
) -> list[dict]:
    """A row per cell, over seeds from `start` on."""
    rows = []
    work = [(cell, start, runs) for cell in cells(only)]
    with ProcessPoolExecutor(jobs) as pool:
        for row in pool.map(run_cell, work) if jobs > 1 else map(run_cell, work):
            rows.append(row)
            done(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--start", type=int, default=0, help=f"first seed; from {TRYING} on to try things out")
    parser.add_argument("--only", default="", help="only cells with this in their name")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="where the rows go as JSON")
    options = parser.parse_args()

    def done(row: dict) -> None:
        print(table([row]).split("\n")[-1], flush=True)

    print(table([]))
    rows = simulate(options.runs, options.start, options.only, options.jobs, done)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    missed = failures(rows)
    print("\n" + ("\n".join(missed) or "every threshold is met"))


if __name__ == "__main__":
    main()
