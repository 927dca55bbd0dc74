"""The summary of one config in several worlds: every statement's statistic per world and pooled, and its verdict.

`worlds.json` has it all, `worlds.md` and `worlds.html` show it; `compare.html` lays the worlds' curves side by side.
The verdict is where the pooled interval lies (rmo/analysis/pooling.py), whose variance over worlds is drawn together
over statements; beside it, as `verdict_alone`, stands that of the interval which each statement's worlds give alone.
"""

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rmo.analysis.pooling import (
    Common,
    Pooled,
    common,
    pool,
    ratio,
    seeds_to_decide,
    standard_error,
    worlds_to_decide,
)
from rmo.artifacts.run_files import RunFiles
from rmo.claims.claim import MIN_SEEDS, of_the_paper
from rmo.methods.method import find
from rmo.report import compare
from rmo.report.figures.drawing import Files
from rmo.report.figures.style import mean_curve
from rmo.report.page.document import page
from rmo.report.page.markdown import line, number, table
from rmo.report.page.tables import table as html_table
from rmo.report.page.verdicts import region
from rmo.runtime.files import RunError, write_json, write_text
from rmo.runtime.types import Json, Row

OWN = ("name", "note", "tags", "seed", "worlds")  # fields in which worlds of one config may differ
ALONE = Common(1.0, 0.0)
NORMAL = np.inf  # degrees of freedom of an interval that does not say them


def finished_worlds(root: Path) -> dict[str, Path]:
    """{world-<seed>: its run directory} of every world whose fits are done, by seed."""
    found = [path for path in root.glob("world-*") if path.name[6:].isdigit() and RunFiles(path).finished]
    return {path.name: path for path in sorted(found, key=lambda path: int(path.name[6:]))}


def unlike(root: Path) -> str:
    """Which worlds were not made by one config, in a sentence; empty where all were."""
    configs = {name: comparable(RunFiles(path).experiment) for name, path in finished_worlds(root).items()}
    first = next(iter(configs), "")
    others = [name for name in configs if configs[name] != configs[first]]
    if not others:
        return ""
    return f"{', '.join(others)} had another config than {first}: run or remove them"


def comparable(experiment: Row) -> Json:
    """A config without what may differ between worlds."""
    world = {name: value for name, value in experiment["world"].items() if name != "seed"}
    return {name: value for name, value in experiment.items() if name not in OWN} | {"world": world}


def write(root: Path) -> Path:
    """Write worlds.json, worlds.md, worlds.html and compare.html into `root`; returns the path of worlds.html.

    Raises:
      RunError: fewer than two worlds are finished, or they were made by different configs.
    """
    roots = finished_worlds(root)
    if len(roots) < 2:
        raise RunError(f"{root} holds {len(roots)} finished worlds: a summary needs two")
    if reason := unlike(root):
        raise RunError(f"{root}: {reason}")
    summary = summarise(roots)
    write_json(root / "worlds.json", summary)
    write_text(root / "worlds.md", markdown(summary))
    compare.write(list(roots.values()), root / "compare.html")
    write_text(root / "worlds.html", page(f"{root.name}: worlds", body(root.name, summary)))
    return root / "worlds.html"


def summarise(roots: dict[str, Path]) -> Row:
    """Everything that worlds.json holds."""
    runs = {name: RunFiles(path) for name, path in roots.items()}
    level = float(next(iter(runs.values())).experiment["fits"]["level"])
    claims = {name: {c["claim"]: c for c in run.fits.read("claims")} for name, run in runs.items()}
    statements = {c: {name: by[c] for name, by in claims.items() if c in by} for by in claims.values() for c in by}
    whole = [measured(by, level) for by in statements.values() if len(measured(by, level)[0]) == len(runs)]
    shared = common(np.array([ratio(values, errors) for values, errors in whole]), len(runs))
    return {
        "worlds": list(roots), "level": level, "common": shared._asdict(),
        "statements": [statement(by, shared, level) for by in statements.values()],
        "left_out": forecasts([run.fits.read("coefficients") for run in runs.values()]),
        "highest": [row for name, run in runs.items() for row in highest(name, run)],
    }  # fmt: skip


def highest(world: str, run: RunFiles) -> list[Row]:
    """Of one world, by method and RM size: the highest gold of the mean curve over seeds and its KL, and both at its
    end."""
    f, out = Files(run.fits.curves(), run.fits.read("coefficients")), []
    for method in f.methods():
        for g in f.sizes(method.name):
            kl, gold = mean_curve(g, "gold")
            top = int(gold.argmax())
            row = {"kl": float(kl[top]), "gold": float(gold[top]), "end_kl": float(kl[-1]), "end_gold": float(gold[-1])}
            out.append({"world": world, "method": method.name, "rm_params": g.params} | row)
    return out


def measured(by_world: dict[str, Row], level: float) -> tuple[np.ndarray, np.ndarray]:
    """(statistics, their standard errors), f64[W] each, of the worlds that give them."""
    rows = [row for row in by_world.values() if row["statistic"] is not None and row["interval"]]
    return np.array([row["statistic"] for row in rows]), np.array([error_of(row, level) for row in rows])


def error_of(row: Row, level: float) -> float:
    """The standard error that a verdict's row states, else the one that its interval has."""
    if row.get("se") is not None:
        return float(row["se"])
    return standard_error(row["interval"], row.get("df") or NORMAL, level)


def statement(by_world: dict[str, Row], shared: Common, level: float) -> Row:
    """One statement over the worlds that judged it."""
    first = next(iter(by_world.values()))
    values, errors = measured(by_world, level)
    given = [of for of in by_world.values() if of["statistic"] is not None]
    row: Row = {
        **{name: first[name] for name in ("claim", "text", "measured", "threshold", "figure")},
        "by_world": {
            name: {part: of[part] for part in ("statistic", "interval", "verdict", "seeds")}
            for name, of in by_world.items()
        },
        "n_worlds": len(values), "seeds": min((of["seeds"] for of in given), default=0),
        "statistic": None, "interval": None, "verdict": "undecided", "verdict_alone": "undecided", "why": first["why"],
    }  # fmt: skip
    if len(values) < 2:
        return row | {"why": f"one world alone gives it; {row['why']}".rstrip("; ") if len(values) else row["why"]}
    threshold = (first["threshold"][0], first["threshold"][1])
    p, alone = pool(values, errors, shared, level), pool(values, errors, ALONE, level)
    verdict, why = decided(p, threshold, len(values), row["seeds"], level)
    return row | {
        "statistic": p.mean, "interval": [p.low, p.high], "se": p.error, "df": p.df, "within": p.within,
        "between": p.between, "verdict": verdict, "why": why, "interval_alone": [alone.low, alone.high],
        "verdict_alone": decided(alone, threshold, len(values), row["seeds"], level)[0],
    }  # fmt: skip


def decided(
    p: Pooled, threshold: tuple[float | None, float | None], worlds: int, seeds: int, level: float
) -> tuple[str, str]:
    """(verdict, what would decide it where it is undecided) by where the pooled interval lies."""
    low, high = (-np.inf if threshold[0] is None else threshold[0]), (np.inf if threshold[1] is None else threshold[1])
    if seeds < MIN_SEEDS:
        return "undecided", f"{seeds} RM seeds in a world; a verdict needs {MIN_SEEDS}"
    if low < p.low and p.high < high:
        return "holds", ""
    if p.high <= low or p.low >= high:
        return "fails", ""
    distance = min(abs(p.mean - low), abs(p.mean - high))
    more_worlds = worlds_to_decide(p, distance, worlds, level)
    more_seeds = seeds_to_decide(p, distance, worlds, seeds, level)
    ways = [f"{more_worlds} worlds"] if more_worlds else []
    ways += [f"{more_seeds} seeds in each of these"] if more_seeds else []
    return "undecided", f"about {' or '.join(ways)} would decide it" if ways else "the mean lies at the threshold"


def forecasts(coefficients: Sequence[Row]) -> dict[str, Row]:
    """By method: of all left-out sizes of all worlds how many lie in their intervals, and the median error."""
    out = {}
    for method in dict.fromkeys(method for of in coefficients for method in of):
        rows = [row for of in coefficients for row in of.get(method, {}).get("left_out", [])]
        errors = [row["relative_error"] for row in rows if row["relative_error"] is not None]
        if rows:
            out[method] = {
                "cases": len(rows), "gold_inside": sum(row["gold_inside"] for row in rows),
                "kl_inside": sum(row["kl_inside"] for row in rows),
                "median_error": float(np.median(errors)) if errors else None,
            }  # fmt: skip
    return out


def count(summary: Row, which: str = "verdict", papers: bool = True) -> str:
    """How many statements hold: of the paper, or of other papers."""
    found = [s[which] for s in summary["statements"] if of_the_paper(s["claim"]) == papers]
    return f"{found.count('holds')} hold, {found.count('fails')} fail and {found.count('undecided')} are undecided"


def intro(summary: Row) -> str:
    """How many statements are decided, and how worlds were pooled."""
    shared = summary["common"]
    own = [s for s in summary["statements"] if of_the_paper(s["claim"])]
    said = f"Of {len(own)} statements in {len(summary['worlds'])} worlds {count(summary)}. "
    if others := len(summary["statements"]) - len(own):
        said += f"Of {others} statements of other papers {count(summary, papers=False)}. "
    said += f"Statistics are means over worlds with {summary['level']:.0%} intervals that hold what worlds differ by"
    if shared["df"]:
        said += f": their variance over worlds, {shared['ratio']:.2f} times what their own errors make over all "
        said += f"statements, is drawn to that as if it was known from {shared['df']:.1f} degrees of freedom. "
        return said + f"By each statement's own worlds alone (Hartung-Knapp) {count(summary, 'verdict_alone')}."
    return said + " (Hartung-Knapp)."


def forecast_lines(summary: Row) -> list[str]:
    """A sentence per method on its left-out RM sizes."""
    out = []
    for name, x in summary["left_out"].items():
        median = "" if x["median_error"] is None else f"; median error of the height {x['median_error']:.0%}"
        out.append(
            f"{find(name).title}, RM sizes left out one at a time: highest gold in its interval in {x['gold_inside']} "
            f"of {x['cases']} cases, its KL in {x['kl_inside']}{median}."
        )
    return out


def by_size(summary: Row) -> tuple[list[str], list[list[str]]]:
    """(head, rows) of the table by RM size: highest gold of every method in every world, its KL, and gold at the end
    where that is less."""
    cells = {}
    for row in summary["highest"]:
        at, end = (f"{number(row[gold])} ({row[kl]:.1f})" for gold, kl in (("gold", "kl"), ("end_gold", "end_kl")))
        cells[row["rm_params"], row["method"], row["world"]] = at if row["gold"] == row["end_gold"] else f"{at}, {end}"
    methods = dict.fromkeys(row["method"] for row in summary["highest"])
    columns = [(method, world) for method in methods for world in summary["worlds"]]
    head = ["RM parameters", *(f"{find(method).short}, {world}" for method, world in columns)]
    sizes = sorted({params for params, _, _ in cells})
    return head, [[f"{params:,}", *(cells.get((params, *column), "–") for column in columns)] for params in sizes]


SHOWN = "Highest gold of the mean curve over seeds (at KL), and gold at the end where that is less:"
HEAD = ("", "claim", "measured")
TAIL = ("pooled [interval]", "holds if", "seeds × worlds", "verdict")


def cells(s: Row, worlds: Sequence[str]) -> list[str]:
    """One statement's row."""
    given = [s["by_world"].get(name, {}) for name in worlds]
    each = [f"{number(row.get('statistic'))} {row.get('verdict', '')}".strip() for row in given]
    pooled = number(s["statistic"])
    if s["interval"]:
        pooled += f" [{number(s['interval'][0])}, {number(s['interval'][1])}]"
    verdict = s["verdict"] + (f": {s['why']}" if s["verdict"] == "undecided" and s["why"] else "")
    behind = f"{s['seeds']} × {s['n_worlds']}"
    return [s["claim"], s["text"], s["measured"], *each, pooled, region(*s["threshold"]), behind, verdict]


def markdown(summary: Row) -> str:
    """worlds.md."""
    head = [*HEAD, *summary["worlds"], *TAIL]
    lines = [line(head), line(["---"] * len(head))]
    lines += [line(cells(s, summary["worlds"])) for s in summary["statements"]]
    sizes = f"{SHOWN}\n\n{table(*by_size(summary))}"
    return "\n\n".join([intro(summary), *forecast_lines(summary), sizes, "\n".join(lines)]) + "\n"


def body(name: str, summary: Row) -> list[str]:
    """worlds.html: the verdict beside the statement, what each world says last."""
    links = "".join(f"<li><a href='{world}/report.html'>{world}</a></li>" for world in summary["worlds"])
    columns = ["", "claim, and what is measured", "verdict", *TAIL[:-1], *summary["worlds"]]
    head = "".join(f"<th{' class=text' if i < 3 else ''}>{html.escape(of)}</th>" for i, of in enumerate(columns))
    return [
        f"<h1>{html.escape(name)}: {len(summary['worlds'])} worlds</h1>",
        f"<p>{html.escape(intro(summary))}</p>",
        *(f"<p>{html.escape(said)}</p>" for said in forecast_lines(summary)),
        f"<p>{SHOWN}</p>",
        html_table(*by_size(summary)),
        f"<ul>{links}<li><a href='compare.html'>their curves side by side</a></li></ul>",
        f"<table><tr>{head}</tr>{''.join(table_row(s, summary['worlds']) for s in summary['statements'])}</table>",
    ]


def table_row(s: Row, worlds: Sequence[str]) -> str:
    """One statement's row of worlds.html."""
    claim, text, measured, *rest, _ = cells(s, worlds)
    each, numbers = rest[: len(worlds)], rest[len(worlds) :]
    verdict = html.escape(s["verdict"])
    why = f"<br><span class=note>{html.escape(s['why'])}</span>" if s["verdict"] == "undecided" and s["why"] else ""
    return "".join(
        [
            f"<tr><td>{html.escape(claim)}</td><td class=prose>{html.escape(text)}",
            f"<br><span class=note>{html.escape(measured)}</span></td>",
            f"<td class='verdict {verdict}'>{verdict}{why}</td>",
            *(f"<td>{html.escape(cell)}</td>" for cell in (*numbers, *each)),
            "</tr>",
        ]
    )
