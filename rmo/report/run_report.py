"""report.html and the figures of a run, from the run directory's files alone: one file, openable anywhere."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmo.analysis.curve import Curve
from rmo.analysis.sweeps import Missing
from rmo.report.figures import appendix, beyond, style
from rmo.report.figures import paper as figures
from rmo.report.figures.drawing import DRAWINGS, Drawing, Files, load
from rmo.report.figures.style import Figure, Overlay
from rmo.report.page import interactive, markdown
from rmo.report.page import texts as excerpts
from rmo.report.page.costs import cost_section
from rmo.report.page.document import citation, page, to_copy, tsv, versions
from rmo.report.page.tables import (
    advice_table,
    claims_table,
    coefficient_table,
    count_verdicts,
    gold_section,
    laws_table,
    lower_end_table,
    number,
    paper_table,
    rivals_table,
    summary_sentence,
    table_1,
    trend_text,
)
from rmo.runtime import errors
from rmo.runtime.files import RunError, read_json, write_json, write_text

FIRST = ("fig1a", "fig1b")  # what readers came for
UNIT = " Scores are gold standard deviations above the initial policy."


def write(root: Path, out: Path | None = None) -> Path:
    """Write figures/*.svg, report.html and results.md into `out` (default: `root`); returns the report's path.

    Raises:
      RunError: the directory is not that of a run whose fits are done.
    """
    finished(root)
    f, claims, gold = load(root), read_json(root / "claims.json"), read_json(root / "gold.json")
    stages, nested, e = read_json(root / "stages.json"), read_json(root / "nested.json"), f.experiment
    where = {row["stage"]: root / row["path"] for row in stages}
    out = out or root
    drawn, lacking = draw_all(f)
    main_ppo = [row for row in f.ppo if row["kl_coef"] == 0 and row["variant"] == ""]
    if main_ppo:
        full, policy = max(r["rm_comparisons"] for r in main_ppo), f.sizes("ppo")[0].policy
        main_ppo = [r for r in main_ppo if r["rm_comparisons"] == full and r["policy_params"] == policy]
        drawn["ppo_diagnostics"] = style.ppo_diagnostics(main_ppo)
    texts, shown = excerpts.at_points(where), {}
    for name, picture in drawn.items():
        svg = style.svg(picture)
        write_text(out / "figures" / f"{name}.svg", svg)
        shown[name] = interactive.div(picture, name, texts) if isinstance(picture, Overlay) else inline(svg)

    body = [
        f"<h1>Reward-model overoptimization: {html.escape(e['name'])}</h1>",
        f"<p><b>{html.escape(e['note'])}</b></p>" if e.get("note") else "",
        summary_sentence(f.curves, claims, UNIT),
    ]
    paper = in_order(figures.__name__, appendix.__name__)
    body += ["<h2 id=curves>Gold and proxy against KL</h2>"]
    body += [exhibit(d, shown, claims) for d in paper if d.name in FIRST and d.name in shown]
    body += ["<h2 id=claims>The paper's claims</h2>", claims_intro(claims, f), claims_table(claims, set(drawn))]
    body += ["<h2 id=figures>The paper's other figures and tables</h2>"]
    for d in paper:
        body += [exhibit(d, shown, claims)] if d.name in shown and d.name not in FIRST else []
        body += [paper_table(f.summary)] if d.name == "fig3c" else []
        if d.name == "fig9":
            body += ["<h3 id=table1>Table 1: hyper-parameters</h3>", table_1(e)]
            body += ["<h3 id=table2>Table 2: one prompt at growing n</h3>", excerpts.table_2(nested, where)]
    body += [without(paper, lacking), "<h2 id=beyond>Beyond the paper</h2>"]
    ours = in_order(beyond.__name__)
    body += [*(exhibit(d, shown, claims) for d in ours if d.name in shown), without(ours, lacking)]
    body += ["<h2 id=fits>Fits</h2>"]
    for method, part in f.summary.items():
        body += [f"<h3>{style.METHOD_NAMES[method]}: {part['form']}</h3>", coefficient_table(part)]
        body += [to_copy("Coefficients to copy, as a table with tabs", coefficients(part))]
        body += [lower_end_table(part), rivals_table(part)]
    body += ["<h3>Coefficients against RM size</h3>", trend_text(f.summary), laws_table(f.summary)]
    body += ["<h2 id=gold>Is gold a fair judge?</h2>", gold_section(gold, where)]
    if main_ppo:
        caption = (
            "Read on held-out prompts (KL, entropy, length) or from the last iteration before the read. KL efficiency "
        )
        caption += "below 1: PPO spends more KL than best-of-n for the same proxy score."
        body += ["<h2 id=ppo>PPO diagnostics</h2>", show(shown["ppo_diagnostics"], caption)]
    body += ["<h2 id=texts>What the policies write</h2>"]
    body += [excerpts.section(where, e["proxies"]["sweeps"][0]["name"], e["ppo"]["read_draws"])]
    body += ["<h2 id=cost>What this run cost, and where its time went</h2>", cost_section(stages, where)]
    body += ["<h2 id=cite>Config, versions, how to cite</h2>", to_copy("The whole config", json.dumps(e, indent=1))]
    body += [to_copy("Versions that drew this page", versions()), to_copy("BibTeX", citation(e["name"]))]
    write_text(out / "report.html", page(e["name"], body))
    write_text(out / "results.md", markdown.results(f, claims))
    return out / "report.html"


def finished(root: Path) -> None:
    """Raises RunError where `root` is not the directory of a run whose fits are done."""
    if not (root / "coefficients.json").exists() or not (root / "stages.json").exists():
        if not root.exists():
            raise RunError(f"there is no {root}{errors.instead(root)}")
        raise RunError(f"{root} is not a run with finished fits: give a directory that `rmo run` filled")


def coefficients(part: dict[str, Any]) -> str:
    """Coefficients and peaks with intervals, every digit, tabs between."""
    names = ("alpha", "beta", "peak_kl", "peak_gold")
    head = ["group", *(f"{name}{end}" for name in names for end in ("", " from", " to")), "r2", "seeds"]
    rows = [
        [g["group"], *(x for name in names for x in (g[name], *g[f"{name}_interval"])), g["r2"], g["seeds"]]
        for g in part["groups"]
    ]
    return tsv([head, *rows])


def write_curves(
    out: Path, curves: list[Curve], fitted: dict[str, Any], title: str, unit: str, notes: Sequence[str] = ()
) -> Path:
    """Pictures, coefficients.json and a short report.html of curves without a run; returns the report's path."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    body += [advice_table(part) for part in fitted.values()]
    if all(part["main"] == len(part["groups"]) for part in fitted.values()):  # it speaks of one sweep only
        body += [summary_sentence(curves, [], unit)]
    body += [f"<p class=note>{'<br>'.join(map(html.escape, notes))}</p>"] if notes else []
    for method, part in fitted.items():
        picture = style.curves(curves, fitted, method, "RM score (gold standard deviations)" if unit else "score")
        write_text(out / f"{method}.svg", style.svg(picture))
        caption = f"{style.METHOD_NAMES[method]}: gold (solid), proxy (dashed) and {part['form']}."
        body += [show(interactive.div(picture, method, {}), caption), coefficient_table(part)]
        body += [to_copy("Coefficients to copy, as a table with tabs", coefficients(part))]
        body += [lower_end_table(part), rivals_table(part)]
    body += [trend_text(fitted), laws_table(fitted)]
    write_json(out / "coefficients.json", fitted)
    write_text(out / "report.html", page(title, body))
    return out / "report.html"


def draw_all(f: Files) -> tuple[dict[str, Figure | Overlay], dict[str, str]]:
    """(pictures by name, why a figure has no analogue in this run by name)."""
    drawn, lacking = {}, {}
    for d in DRAWINGS:
        try:
            drawn[d.name] = d.draw(f)
        except Missing as missing:
            lacking[d.name] = str(missing)
    return drawn, lacking


def in_order(*modules: str) -> list[Drawing]:
    """The drawings of some modules, module by module, each in the order of its file."""
    return [d for module in modules for d in DRAWINGS if d.draw.__module__ == module]


def inline(svg: str) -> str:
    """The <svg> element without the XML prologue, which HTML does not take."""
    return svg[svg.index("<svg") :]


def show(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def exhibit(d: Drawing, shown: dict[str, str], claims: list[dict[str, Any]]) -> str:
    """One figure: title, picture, caption, and our reading, which is the verdicts that rest on it."""
    head = f"<h3 id={d.name}>{html.escape(d.title)}</h3>"
    readings = [
        f"<p class=reading>{c['claim']}. {html.escape(c['text'])}: "
        f"<b class={c['verdict']}>{c['verdict']}</b> ({number(c['statistic'])} {number(c['interval'])})</p>"
        for c in claims if c["figure"] == d.name and c["statistic"] is not None
    ]  # fmt: skip
    return head + show(shown[d.name], html.escape(d.caption)) + "".join(readings)


def without(drawings: Sequence[Drawing], lacking: dict[str, str]) -> str:
    """Those that have no analogue in this run, and why, as one list."""
    items = [f"<li>{html.escape(f'{d.title}: {lacking[d.name]}')}</li>" for d in drawings if d.name in lacking]
    return f"<h3>No analogue in this run</h3><ul class=note>{''.join(items)}</ul>" if items else ""


def claims_intro(claims: list[dict[str, Any]], f: Files) -> str:
    """How many claims hold, and what a verdict means."""
    level = f.experiment["fits"]["level"]
    return (
        f"<p>{count_verdicts(claims)} A statement holds where the whole {level:.0%} interval of its statistic (over "
        "prompts and RM seeds) lies where the paper's wording puts it, fails where none of it does. Thresholds are "
        "fixed in the code beside the wording. What holds or fails here says something of this small world, not of the "
        "paper's.</p>"
    )
