"""Several runs on one page: their curves RM by RM, coefficients, verdicts, and where their configs differ."""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.analysis.fitting import Group
from rmo.analysis.sweeps import Missing
from rmo.artifacts.run_files import RunFiles
from rmo.methods import method as methods
from rmo.report.figures.drawing import Files, load
from rmo.report.figures.style import Overlay, row_of, size
from rmo.report.page import interactive
from rmo.report.page.document import page
from rmo.report.page.tables import number, peak_text, table
from rmo.report.run_report import UNIT, finished, show
from rmo.runtime.files import names_of, write_text

CAPTION = "Main sweep; means over seeds. Runs joined by = have the same curve, to the last digit."


def write(roots: Sequence[Path], out: Path | None = None) -> Path:
    """The page, written to the file `out` (default: compare-RUN1-RUN2.html beside the first run); returns it.

    Raises:
      RunError: a directory is not that of a run whose fits are done, or it is named twice.
    """
    names = names_of(roots)
    for root in roots:
        finished(root)
    runs = dict(zip(names, map(load, roots), strict=True))
    body = [f"<h1>{html.escape(' against '.join(names))}</h1>", f"<p>{same_judge(names, roots)}{UNIT}</p>"]
    noted = {name: f.experiment.get("note") for name, f in runs.items()}
    body += [f"<p><b>{html.escape(f'{name}: {note}')}</b></p>" for name, note in noted.items() if note]
    body += ["<h2 id=configs>Where the configs differ</h2>", differences({n: f.experiment for n, f in runs.items()})]
    body += ["<h2 id=curves>Curves, RM by RM</h2>"]
    for method in methods.every():
        for o in overlays(runs, method.name):
            rm = size(o.groups[0].params)
            body.append(f"<h3>{method.title} against the proxy of {rm} parameters</h3>")
            body.append(show(interactive.div(o, f"{method}-{o.groups[0].params}", {}), CAPTION))
    body += ["<h2 id=coefficients>Coefficients</h2>", coefficients(runs)]
    body += [
        "<h2 id=claims>Claims</h2>",
        verdicts({n: RunFiles(r).fits.read("claims") for n, r in zip(names, roots, strict=True)}),
    ]
    out = out or roots[0].absolute().parent / f"compare-{'-'.join(names).replace('/', '-')}.html"
    write_text(out, page(" against ".join(names), body))
    return out


def same_judge(names: Sequence[str], roots: Sequence[Path]) -> str:
    """Whether scores of the runs are in one unit: only where one gold judged the same policy."""
    golds = {RunFiles(root).where["gold"].name for root in roots}
    if len(golds) == 1:
        return "The same gold judged all of them: their scores are in one unit."
    return "Their golds differ, so that scores are each in their own unit: compare shapes, not heights."


def main_sweep(f: Files, method: str) -> list[Group]:
    try:
        return f.sizes(method)
    except Missing:
        return []


def overlays(runs: dict[str, Files], method: str) -> list[Overlay]:
    """One for each RM size that several runs have, a colour per run; else one of every run's largest."""
    sweeps = {name: {g.params: g for g in main_sweep(f, method)} for name, f in runs.items()}
    sweeps = {name: groups for name, groups in sweeps.items() if groups}
    everything = sorted({params for groups in sweeps.values() for params in groups})
    shared = [params for params in everything if sum(params in groups for groups in sweeps.values()) > 1]
    sets = [{name: groups[params] for name, groups in sweeps.items() if params in groups} for params in shared]
    if not sets and len(sweeps) > 1:
        sets = [{name: groups[max(groups)] for name, groups in sweeps.items()}]
    return [overlay(runs, method, found) for found in sets]


def overlay(runs: dict[str, Files], method: str, found: dict[str, Group]) -> Overlay:
    """Curves of one group per run; the run's name stands where groups have their settings. Runs whose curves are the
    same, as where settings differ only in what comes later, share one."""
    shown: list[tuple[list[str], Group]] = []
    for name, group in found.items():
        twin = next((names for names, other in shown if same(group, other)), None)
        if twin:
            twin.append(name)
        else:
            shown.append(([name], group))
    rows, groups = [], []
    for names, group in shown:
        # One RM and method, so that the run is all that tells the curves apart.
        named = dataclasses.replace(group, id=dataclasses.replace(group.id, settings=Settings({"": " = ".join(names)})))
        groups.append(named)
        if row := row_of(runs[names[0]].summary, group):
            rows.append({**row, **named.id.cells()})
    return Overlay(groups, {method: {"groups": rows}}, lambda g: str(g.id.settings), "run")


def same(a: Group, b: Group) -> bool:
    """Whether two groups have the same curves, to the last digit."""

    def of(g: Group) -> list[np.ndarray]:
        return [np.stack([c.kl, c.gold, c.proxy]) for c in g.curves]

    both = zip(of(a), of(b), strict=False)
    return len(a.curves) == len(b.curves) and all(np.array_equal(x, y, equal_nan=True) for x, y in both)


def coefficients(runs: dict[str, Files]) -> str:
    """Coefficients and peaks of the main sweeps, with intervals, RM by RM."""
    rows = []
    for method in methods.every():
        found = [
            (g.params, name, row)
            for name, f in runs.items()
            for g in main_sweep(f, method.name)
            if (row := row_of(f.summary, g))
        ]
        for params, name, row in sorted(found, key=lambda x: x[0]):
            cells = [row[what + end] for what in ("alpha", "beta") for end in ("", "_interval")]
            cells += [peak_text(row[what + end]) for what in ("peak_kl", "peak_gold") for end in ("", "_interval")]
            rows.append([method.title, size(params), name, *cells, row["r2"]])
    head = [
        "method",
        "RM",
        "run",
        "α",
        "interval",
        "β",
        "interval",
        "peak at KL",
        "interval",
        "peak gold",
        "interval",
        "R²",
    ]
    return table(head, rows)


def verdicts(claims: dict[str, list[dict[str, Any]]]) -> str:
    """Every claim's verdict in each run: where runs differ it is marked, where all leave it open it is folded."""
    by_run = {name: {c["claim"]: c for c in rows} for name, rows in claims.items()}
    texts = {c["claim"]: c["text"] for rows in claims.values() for c in rows}
    head = "<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in ("", "claim", *by_run)) + "</tr>"
    lines, open_ones = [], []
    for claim, text in texts.items():
        of = [rows.get(claim) for rows in by_run.values()]
        differ = len({c["verdict"] for c in of if c}) > 1
        said = html.escape(text)
        cells = [f"<td>{claim}</td><td class=prose>{f'<mark>{said}</mark>' if differ else said}</td>"]
        for c in of:
            numbers = f"{number(c['statistic'])} {number(c['interval'])}" if c and c["statistic"] is not None else ""
            cells.append(
                f"<td class='verdict {c['verdict']}'>{c['verdict']}<br><span class=note>{numbers}</span></td>"
                if c
                else "<td>–</td>"
            )
        undecided = all(c and c["verdict"] == "undecided" for c in of)
        (open_ones if undecided else lines).append("<tr>" + "".join(cells) + "</tr>")
    tables = [f"<table>{head}{''.join(rows)}</table>" for rows in (lines, open_ones)]
    folded = f"<details><summary>{len(open_ones)} claims that every run leaves undecided</summary>{tables[1]}</details>"
    return (tables[0] if lines else "") + (folded if open_ones else "")


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Fields of a config by their path, as text."""
    if isinstance(value, dict):
        return {
            key: x for part, item in value.items() for key, x in flat(item, f"{name}.{part}" if name else part).items()
        }
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {key: x for i, item in enumerate(value) for key, x in flat(item, f"{name}[{i}]").items()}
    return {name: str(value)}


def differences(experiments: dict[str, dict[str, Any]]) -> str:
    """Fields that are not the same in all runs, but for those that nothing depends on."""
    fields = {name: flat(e) for name, e in experiments.items()}
    every = dict.fromkeys(key for of in fields.values() for key in of if key not in ("note", "tags"))
    rows = [[key, *(of.get(key, "–") for of in fields.values())] for key in every]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    text = tuple(range(1, 1 + len(fields)))
    return table(["field", *fields], rows, text) if rows else "<p>Nowhere.</p>"
