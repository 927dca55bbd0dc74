"""report.html and the figures of a run, from the run directory's files alone: one file, openable anywhere."""

import html
import json
from collections.abc import Sequence
from pathlib import Path

from rmo.analysis.curve import Curve
from rmo.analysis.sweeps import Missing
from rmo.artifacts.run_files import RunFiles
from rmo.methods.method import Method, find
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.report.figures import appendix, style
from rmo.report.figures import paper as figures
from rmo.report.figures.drawing import Drawing, Files, drawings, load, simple
from rmo.report.figures.style import Figure, Overlay
from rmo.report.page import interactive, markdown, texts
from rmo.report.page.costs import cost_section
from rmo.report.page.document import citation, page, to_copy, tsv, versions
from rmo.report.page.efficiency_section import annotator_table, efficiency_section
from rmo.report.page.ensembles_section import ensembles_section
from rmo.report.page.gold_section import gold_section
from rmo.report.page.over_sizes import hierarchy_table, left_out_table
from rmo.report.page.summary import summary_sentence
from rmo.report.page.tables import (
    advice_table,
    coefficient_table,
    laws_table,
    lower_end_table,
    paper_table,
    rivals_table,
    table_1,
    trend_text,
)
from rmo.report.page.verdicts import claims_intro, claims_table, readings
from rmo.runtime import errors
from rmo.runtime.files import RunError, need_inside, write_json, write_text
from rmo.runtime.types import Row

FIRST = ("fig1a", "fig1b")  # what readers came for
DIAGNOSED = (
    "Read on held-out prompts, or from the last iteration before the read. KL efficiency below 1: the method spends "
    "more KL than best-of-n for the same proxy score."
)
UNIT = " Scores are gold standard deviations above the initial policy."


def write(root: Path, out: Path | None = None) -> Path:
    """Write figures/*.svg, report.html and results.md into `out` (default: `root`); returns the report's path.

    Raises:
      RunError: the directory is not that of a run whose fits are done.
    """
    finished(root)
    out = out or root
    need_inside(out, out / "figures")
    f, run = load(root), RunFiles(root)
    claims = run.fits.read("claims")
    drawn, lacking = draw_all(f)
    healthy = {diagnostics_name(method): draw_diagnostics(f, method) for method in f.methods() if method.diagnostics}
    shown = save_all(drawn | healthy, out, run)
    body = [
        *opening(f, shown, claims),
        hedges_link(root),
        "<h2 id=claims>The paper's claims</h2>",
        claims_intro(claims, f.experiment["fits"]["level"]),
        claims_table(claims, drawn),
        *paper_section(f, run, shown, lacking, claims),
        *beyond_section(shown, lacking, claims),
        *ensembles_section(run.fits.table("ensembles")),
        *fits_section(f),
        "<h2 id=gold>Is gold a fair judge?</h2>",
        gold_section(run, run.fits.read("gold")),
        annotator_table(run.fits.read("annotator") if run.fits.has("annotator") else []),
        "<h2 id=perfect>What optimisers make of a perfect reward</h2>",
        efficiency_section(f),
        *diagnostics_sections(f, shown),
        "<h2 id=texts>What the policies write</h2>",
        texts.section(run),
        "<h2 id=cost>What this run cost, and where its time went</h2>",
        cost_section(run),
        *closing(f.experiment),
    ]
    write_text(out / "report.html", page(f.experiment["name"], body))
    write_text(out / "results.md", markdown.results(f, claims))
    return out / "report.html"


def opening(f: Files, shown: dict[str, str], claims: list[Row]) -> list[str]:
    """What the run is, what came out in a sentence, and the figures that readers came for."""
    e = f.experiment
    body = [f"<h1>Reward-model overoptimization: {html.escape(e['name'])}</h1>"]
    body += [f"<p><b>{html.escape(e['note'])}</b></p>"] if e.get("note") else []
    body += [summary_sentence(f.curves, claims, UNIT), "<h2 id=curves>Gold and proxy against KL</h2>"]
    body += [exhibit(d, shown, claims) for d in drawings() if d.name in FIRST and d.name in shown]
    return body + other_methods(f, shown)


def hedges_link(root: Path) -> str:
    """To the page of `rmo hedges`, where it was made."""
    text = "What each way of optimising buys, side by side at the same reward model"
    return f"<p><a href='hedges.html'>{text}</a></p>" if (root / "hedges.html").exists() else ""


def closing(e: Row) -> list[str]:
    """What others need: the config, versions, how to cite."""
    return [
        "<h2 id=cite>Config, versions, how to cite</h2>",
        to_copy("The whole config", json.dumps(e, indent=1)),
        to_copy("Versions that drew this page", versions()),
        to_copy("BibTeX", citation(e["name"])),
    ]


def diagnostics_sections(f: Files, shown: dict[str, str]) -> list[str]:
    body = []
    for method in f.methods():
        name = diagnostics_name(method)
        if name in shown:
            body += [f"<h2 id={method.name}>{method.short} diagnostics</h2>", show(shown[name], DIAGNOSED)]
    return body


def diagnostics_name(method: Method) -> str:
    return f"{method.name}_diagnostics"


def draw_diagnostics(f: Files, method: Method) -> Figure:
    """A method's health on the main sweep."""
    rows = [row for group in f.sizes(method.name) for row in f.health(method.name).of(group.id)]
    return style.diagnostics(method, rows)


def save_all(drawn: dict[str, Figure | Overlay], out: Path, run: RunFiles) -> dict[str, str]:
    """Every picture as figures/NAME.svg; returns what the page shows of each."""
    responses, shown = texts.PointTexts(run), {}
    for name, picture in drawn.items():
        svg = style.svg(picture)
        write_text(out / "figures" / f"{name}.svg", svg)
        shown[name] = interactive.div(picture, name, responses) if isinstance(picture, Overlay) else inline(svg)
    return shown


def other_methods(f: Files, shown: dict[str, str]) -> list[str]:
    """The curves of methods that the paper has not."""
    out = []
    for method in f.methods():
        name = curves_name(method)
        if name in shown:
            kl = "KL, of which an upper bound is known," if method.kl == "bound" else "KL"
            caption = f"Gold (solid) and proxy (dashed) against {kl} with {method.form} fitted to gold."
            out += [f"<h3 id={name}>{html.escape(method.title)}</h3>", show(shown[name], html.escape(caption))]
    return out


def curves_name(method: Method) -> str:
    """The name of the figure of a method's main sweep."""
    return f"curves_{method.name}"


def paper_section(
    f: Files, run: RunFiles, shown: dict[str, str], lacking: dict[str, str], claims: list[Row]
) -> list[str]:
    """The paper's other figures, in its order, and its tables beside ours."""
    paper = in_order(figures.__name__, appendix.__name__)
    body = ["<h2 id=figures>The paper's other figures and tables</h2>"]
    for d in paper:
        if d.name in shown and d.name not in FIRST:
            body.append(exhibit(d, shown, claims))
        if d.name == "fig3c":
            body.append(paper_table(f.summary))
        if d.name == "fig9":
            body += ["<h3 id=table1>Table 1: hyper-parameters</h3>", table_1(run.experiment)]
            body += ["<h3 id=table2>Table 2: one prompt at growing n</h3>", texts.table_2(run.fits.read("nested"), run)]
    return [*body, without(paper, lacking)]


def beyond_section(shown: dict[str, str], lacking: dict[str, str], claims: list[Row]) -> list[str]:
    """Every figure that is not the paper's, wherever it was registered."""
    paper = {d.name for d in in_order(figures.__name__, appendix.__name__)}
    ours = [d for d in drawings() if d.name not in paper]
    found = [exhibit(d, shown, claims) for d in ours if d.name in shown]
    return ["<h2 id=beyond>Beyond the paper</h2>", *found, without(ours, lacking)]


def fits_section(f: Files) -> list[str]:
    """Coefficients of every method, rival forms, laws against RM size."""
    body = ["<h2 id=fits>Fits</h2>"]
    for name, part in f.summary.items():
        body.append(f"<h3>{find(name).title}: {html.escape(part['form'])}</h3>")
        body += fit_tables(part)
    return [*body, "<h3>Coefficients against RM size</h3>", trend_text(f.summary), laws_table(f.summary)]


def fit_tables(part: Row) -> list[str]:
    """Everything that was fitted to one method."""
    if not part["groups"]:
        return [coefficient_table(part)]
    copied = to_copy("Coefficients to copy, as a table with tabs", coefficients(part))
    over_sizes = [hierarchy_table(part), left_out_table(part)]
    return [coefficient_table(part), copied, *over_sizes, lower_end_table(part), rivals_table(part)]


def finished(root: Path) -> None:
    """Raises RunError where `root` is not the directory of a run whose fits are done."""
    if not root.exists():
        raise RunError(f"there is no {root}{errors.instead(root)}")
    if not RunFiles(root).finished:
        raise RunError(f"{root} is not a run with finished fits: give a directory that `rmo run` filled")


def coefficients(part: Row) -> str:
    """Coefficients and peaks with intervals, every digit, tabs between."""
    names = ("alpha", "beta", "peak_kl", "peak_gold")
    head = ["group", *(f"{name}{end}" for name in names for end in ("", " from", " to")), "r2", "seeds"]
    rows = []
    for g in part["groups"]:
        numbers = [x for name in names for x in (g[name], *g[f"{name}_interval"])]
        rows.append([g["group"], *numbers, g["r2"], g["seeds"]])
    return tsv([head, *rows])


def write_curves(out: Path, curves: list[Curve], fitted: Row, title: str, unit: str, notes: Sequence[str] = ()) -> Path:
    """Pictures, coefficients.json and a short report.html of curves without a run; returns the report's path.

    `fitted` is what `scaling.summarise` gives for the curves; `unit` is a sentence on gold's unit, empty if unknown.
    """
    body = [f"<h1>{html.escape(title)}</h1>", *(advice_table(part) for part in fitted.values())]
    if all(part["main"] == len(part["groups"]) for part in fitted.values()):  # it speaks of one sweep only
        body.append(summary_sentence(curves, [], unit))
    if notes:
        body.append(f"<p class=note>{'<br>'.join(map(html.escape, notes))}</p>")
    axis = "RM score (gold standard deviations)" if unit else "score"
    for method, part in fitted.items():
        picture = style.curves(curves, fitted, method, axis)
        write_text(out / f"{method}.svg", style.svg(picture))
        caption = f"{find(method).title}: gold (solid), proxy (dashed) and {html.escape(part['form'])}."
        body += [show(interactive.div(picture, method, {}), caption), *fit_tables(part)]
    body += [trend_text(fitted), laws_table(fitted)]
    write_json(out / "coefficients.json", fitted)
    write_text(out / "report.html", page(title, body))
    return out / "report.html"


def draw_all(f: Files) -> tuple[dict[str, Figure | Overlay], dict[str, str]]:
    """(pictures by name, why a figure has no analogue in this run by name)."""
    drawn, lacking = {}, {}
    for d in drawings():
        try:
            drawn[d.name] = d.draw(f)
        except Missing as missing:
            lacking[d.name] = str(missing)
    for method in f.methods():
        if method.name not in (BEST_OF_N, PPO):  # figures 1a and 1b
            drawn[curves_name(method)] = simple(f, f.sizes(method.name), "params", "RM parameters")
    return drawn, lacking


def in_order(*modules: str) -> list[Drawing]:
    """The drawings of some modules, module by module, each in the order of its file."""
    return [d for module in modules for d in drawings() if d.draw.__module__ == module]


def inline(svg: str) -> str:
    """The <svg> element without the XML prologue, which HTML does not take."""
    return svg[svg.index("<svg") :]


def show(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def exhibit(d: Drawing, shown: dict[str, str], claims: list[Row]) -> str:
    """One figure: title, picture, caption, and our reading, which is the verdicts that rest on it."""
    head = f"<h3 id={d.name}>{html.escape(d.title)}</h3>"
    return head + show(shown[d.name], html.escape(d.caption)) + readings(claims, d.name)


def without(drawings: Sequence[Drawing], lacking: dict[str, str]) -> str:
    """Those that have no analogue in this run, and why, as one list."""
    items = [f"<li>{html.escape(f'{d.title}: {lacking[d.name]}')}</li>" for d in drawings if d.name in lacking]
    return f"<h3>No analogue in this run</h3><ul class=note>{''.join(items)}</ul>" if items else ""
