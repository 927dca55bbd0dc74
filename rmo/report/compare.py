"""Several runs on one page: their curves RM by RM, coefficients, verdicts, and where their configs differ."""

import html
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

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
from rmo.runtime.types import Json, Row

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
    claims = {name: RunFiles(root).fits.read("claims") for name, root in zip(names, roots, strict=True)}
    title = " against ".join(names)
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{same_judge(names, roots)}{UNIT}</p>",
        *run_notes(runs),
        "<h2 id=configs>Where the configs differ</h2>",
        differences({name: f.experiment for name, f in runs.items()}),
        "<h2 id=curves>Curves, RM by RM</h2>",
        *curves(runs),
        "<h2 id=coefficients>Coefficients</h2>",
        coefficients(runs),
        "<h2 id=claims>Claims</h2>",
        verdicts(claims),
    ]
    out = out or roots[0].absolute().parent / f"compare-{'-'.join(names).replace('/', '-')}.html"
    write_text(out, page(title, body))
    return out


def run_notes(runs: dict[str, Files]) -> list[str]:
    """What the configs say of themselves."""
    noted = {name: f.experiment.get("note") for name, f in runs.items()}
    return [f"<p><b>{html.escape(f'{name}: {note}')}</b></p>" for name, note in noted.items() if note]


def curves(runs: dict[str, Files]) -> list[str]:
    """The overlays of every method."""
    body = []
    for method in methods.every():
        for o in overlays(runs, method.name):
            params = o.groups[0].params
            body.append(f"<h3>{method.title} against the proxy of {size(params)} parameters</h3>")
            body.append(show(interactive.div(o, f"{method}-{params}", {}), CAPTION))
    return body


def same_judge(names: Sequence[str], roots: Sequence[Path]) -> str:
    """Whether scores of the runs are in one unit: only where one gold judged the same policy."""
    golds = {RunFiles(root).where["gold"].name for root in roots}
    if len(golds) == 1:
        return "The same gold judged all of them: their scores are in one unit."
    return "Their golds differ, so that scores are each in their own unit: compare shapes, not heights."


def main_sweep(f: Files, method: str) -> list[Group]:
    """None where the run has no curves of the method."""
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
    rows, groups = [], []
    for names, group in alike(found):
        # One RM and method, so that the run is all that tells the curves apart.
        named = replace(group, id=replace(group.id, settings=Settings({"": " = ".join(names)})))
        groups.append(named)
        row = row_of(runs[names[0]].summary, group)
        if row:
            rows.append({**row, **named.id.cells()})
    return Overlay(groups, {method: {"groups": rows}}, run_name, "run")


def run_name(group: Group) -> str:
    return str(group.id.settings)


def alike(found: dict[str, Group]) -> list[tuple[list[str], Group]]:
    """(names of the runs, their group) of every set of runs whose curves are the same."""
    out: list[tuple[list[str], Group]] = []
    for name, group in found.items():
        twin = next((names for names, other in out if same(group, other)), None)
        if twin:
            twin.append(name)
        else:
            out.append(([name], group))
    return out


def same(a: Group, b: Group) -> bool:
    """Whether two groups have the same curves, to the last digit."""

    def of(g: Group) -> list[np.ndarray]:
        return [np.stack([c.kl, c.gold, c.proxy]) for c in g.curves]

    both = zip(of(a), of(b), strict=False)
    return len(a.curves) == len(b.curves) and all(np.array_equal(x, y, equal_nan=True) for x, y in both)


COEFFICIENTS = ("method", "RM", "run", "α", "interval", "β", "interval")
PEAKS = ("peak at KL", "interval", "peak gold", "interval", "R²")


def coefficients(runs: dict[str, Files]) -> str:
    """Coefficients and peaks of the main sweeps, with intervals, RM by RM."""
    rows = []
    for method in methods.every():
        found = []
        for name, f in runs.items():
            fitted = [(g, row_of(f.summary, g)) for g in main_sweep(f, method.name)]
            found += [(g.params, name, row) for g, row in fitted if row]
        for params, name, row in sorted(found, key=itemgetter(0)):
            cells = [row[what + end] for what in ("alpha", "beta") for end in ("", "_interval")]
            cells += [peak_text(row[what + end]) for what in ("peak_kl", "peak_gold") for end in ("", "_interval")]
            rows.append([method.title, size(params), name, *cells, row["r2"]])
    return table([*COEFFICIENTS, *PEAKS], rows)


def verdicts(claims: dict[str, list[Row]]) -> str:
    """Every claim's verdict in each run: where runs differ it is marked, where all leave it open it is folded."""
    by_run = {name: {c["claim"]: c for c in rows} for name, rows in claims.items()}
    texts = {c["claim"]: c["text"] for rows in claims.values() for c in rows}
    head = "<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in ("", "claim", *by_run)) + "</tr>"
    lines, open_ones = [], []
    for claim, text in texts.items():
        found = [rows.get(claim) for rows in by_run.values()]
        undecided = all(c and c["verdict"] == "undecided" for c in found)
        (open_ones if undecided else lines).append(verdict_row(claim, text, found))
    out = f"<table>{head}{''.join(lines)}</table>" if lines else ""
    if open_ones:
        summary = f"{len(open_ones)} claims that every run leaves undecided"
        out += f"<details><summary>{summary}</summary><table>{head}{''.join(open_ones)}</table></details>"
    return out


def verdict_row(claim: str, text: str, found: list[Row | None]) -> str:
    """One claim in every run; None: the run did not judge it."""
    said = html.escape(text)
    if len({c["verdict"] for c in found if c}) > 1:
        said = f"<mark>{said}</mark>"
    cells = [verdict_cell(c) if c else "<td>–</td>" for c in found]
    return f"<tr><td>{html.escape(claim)}</td><td class=prose>{said}</td>{''.join(cells)}</tr>"


def verdict_cell(c: Row) -> str:
    numbers = f"{number(c['statistic'])} {number(c['interval'])}" if c["statistic"] is not None else ""
    verdict = html.escape(c["verdict"])
    return f"<td class='verdict {verdict}'>{verdict}<br><span class=note>{html.escape(numbers)}</span></td>"


def flat(value: Json, name: str = "") -> dict[str, str]:
    """Fields of a config by their path, as text."""
    parts: dict[str, Json] = {}
    if isinstance(value, dict):
        parts = {f"{name}.{key}" if name else key: item for key, item in value.items()}
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = {f"{name}[{i}]": item for i, item in enumerate(value)}
    else:
        return {name: str(value)}
    return {path: text for part, item in parts.items() for path, text in flat(item, part).items()}


def differences(experiments: dict[str, Row]) -> str:
    """Fields that are not the same in all runs, but for those that nothing depends on."""
    fields = {name: flat(e) for name, e in experiments.items()}
    every = dict.fromkeys(key for of in fields.values() for key in of if key not in ("note", "tags"))
    rows = [[key, *(of.get(key, "–") for of in fields.values())] for key in every]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    text = tuple(range(1, 1 + len(fields)))
    return table(["field", *fields], rows, text) if rows else "<p>Nowhere.</p>"
