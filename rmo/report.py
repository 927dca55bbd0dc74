"""report.html and the figures of a run, from the run directory's files alone: one file, openable anywhere."""

import html
from pathlib import Path
from typing import Any

from rmo import appendix, beyond, figures, hints, markdown, plots
from rmo.costs import cost_section
from rmo.curve import Curve
from rmo.exhibits import DRAWINGS, Drawing, Files, load
from rmo.files import RunError, read_json, write_json, write_text
from rmo.selection import Missing
from rmo.tables import (
    claims_table,
    coefficient_table,
    count_verdicts,
    gold_section,
    laws_table,
    lower_end_table,
    number,
    paper_table,
    rivals_table,
    sample_tables,
    summary_sentence,
    table_1,
    table_2,
    trend_text,
)

CSS = """
:root{color-scheme:light}body{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
h1{font-size:1.6rem}h2{font-size:1.25rem;margin-top:2.6rem}h3{font-size:1.05rem;margin-top:2rem}figure{margin:1rem 0}
figcaption{color:#444;font-size:.92rem;max-width:50rem}svg{max-width:100%;height:auto}
table{border-collapse:collapse;font-size:.88rem;margin:.6rem 0;display:block;overflow-x:auto}
td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap;vertical-align:top}th{font-weight:600}
td:first-child,th:first-child{text-align:left}td.text{text-align:left;white-space:normal;font-family:ui-monospace,monospace;font-size:.82rem}
td.prose{text-align:left;white-space:normal;min-width:20rem}td.verdict{font-weight:600;white-space:normal;min-width:7rem;text-align:left}
td.verdict .note{font-weight:400}.holds{color:#17663a}.fails{color:#a3201d}.undecided{color:#6b5900}
.note{color:#555}.reading{font-size:.92rem;margin:.2rem 0}code{background:#f3f3f3;padding:.05rem .25rem}
"""


UNIT = " Scores are gold standard deviations above the initial policy."


def write(root: Path, out: Path | None = None) -> Path:
    """Write figures/*.svg, report.html and results.md into `out` (default: `root`); returns the report's path.

    Raises:
      RunError: the directory is not that of a run whose fits are done.
    """
    if not (root / "coefficients.json").exists() or not (root / "stages.json").exists():
        near = "" if root.exists() else hints.instead(root)
        raise RunError(f"{root} is not a run with finished fits: give a directory that `rmo run` filled{near}")
    f, claims, gold = load(root), read_json(root / "claims.json"), read_json(root / "gold.json")
    stages, nested, e = read_json(root / "stages.json"), read_json(root / "nested.json"), f.experiment
    where = {row["stage"]: root / row["path"] for row in stages}
    out = out or root
    drawn, lacking = draw_all(f)
    main_ppo = [row for row in f.ppo if row["kl_coef"] == 0 and row["variant"] == ""]
    if main_ppo:
        full, policy = max(r["rm_comparisons"] for r in main_ppo), f.sizes("ppo")[0].policy
        main_ppo = [r for r in main_ppo if r["rm_comparisons"] == full and r["policy_params"] == policy]
        drawn["ppo_diagnostics"] = plots.svg(plots.ppo_diagnostics(main_ppo))
    for name, text in drawn.items():
        write_text(out / "figures" / f"{name}.svg", text)

    body = [
        f"<h1>Reward-model overoptimization: {html.escape(e['name'])}</h1>",
        summary_sentence(f.curves, claims, UNIT),
    ]
    body += ["<h2>The paper's claims</h2>", claims_intro(claims, f), claims_table(claims, set(drawn))]
    body += ["<h2>The paper's figures and tables</h2>"]
    for d in in_order(figures.__name__, appendix.__name__):
        body.append(exhibit(d, drawn, lacking, claims))
        body += [paper_table(f.summary)] if d.name == "fig3c" else []
        if d.name == "fig9":
            body += ["<h3 id=table1>Table 1: hyper-parameters</h3>", table_1(e)]
            body += ["<h3 id=table2>Table 2: one prompt at growing n</h3>", table_2(nested, where)]
    body += ["<h2>Beyond the paper</h2>"]
    body += [exhibit(d, drawn, lacking, claims) for d in in_order(beyond.__name__)]
    body += ["<h2>Fits</h2>"]
    for method, part in f.summary.items():
        body += [
            f"<h3>{plots.METHOD_NAMES[method]}: {part['form']}</h3>",
            coefficient_table(part),
            lower_end_table(part),
        ]
        body += [rivals_table(part)]
    body += ["<h3>Coefficients against RM size</h3>", trend_text(f.summary), laws_table(f.summary)]
    body += ["<h2>Is gold a fair judge?</h2>", gold_section(e, gold, where)]
    if main_ppo:
        caption = (
            "Read on held-out prompts (KL, entropy, length) or from the last iteration before the read. KL efficiency "
        )
        caption += "below 1: PPO spends more KL than best-of-n for the same proxy score."
        body += ["<h2>PPO diagnostics</h2>", show(drawn["ppo_diagnostics"], caption)]
    body += ["<h2>What the policies write</h2>", sample_tables(where, e, e["proxies"]["sweeps"][0]["name"])]
    body += ["<h2 id=cost>What this run cost, and where its time went</h2>", cost_section(stages, where)]
    write_text(out / "report.html", page(e["name"], body))
    write_text(out / "results.md", markdown.results(f, claims))
    return out / "report.html"


def page(title: str, body: list[str]) -> str:
    """One self-contained HTML page."""
    text = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    return text + f"<title>rmo: {html.escape(title)}</title><style>{CSS}</style><body>{''.join(body)}</body></html>\n"


def write_curves(out: Path, curves: list[Curve], fitted: dict[str, Any], title: str, unit: str) -> Path:
    """Pictures, coefficients.json and a short report.html of curves that came without a run; returns the report's path."""
    body = [f"<h1>{html.escape(title)}</h1>", summary_sentence(curves, [], unit)]
    for method, part in fitted.items():
        picture = plots.svg(plots.curves(curves, fitted, method))
        write_text(out / f"{method}.svg", picture)
        body += [show(picture, f"{plots.METHOD_NAMES[method]}: gold (solid), proxy (dashed) and {part['form']}.")]
        body += [coefficient_table(part), lower_end_table(part), rivals_table(part)]
    body += [trend_text(fitted), laws_table(fitted)]
    write_json(out / "coefficients.json", fitted)
    write_text(out / "report.html", page(title, body))
    return out / "report.html"


def draw_all(f: Files) -> tuple[dict[str, str], dict[str, str]]:
    """(SVG by name, why a figure has no analogue in this run by name)."""
    drawn, lacking = {}, {}
    for d in DRAWINGS:
        try:
            drawn[d.name] = plots.svg(d.draw(f))
        except Missing as missing:
            lacking[d.name] = str(missing)
    return drawn, lacking


def in_order(*modules: str) -> list[Drawing]:
    """The drawings of some modules, module by module, each in the order of its file."""
    return [d for module in modules for d in DRAWINGS if d.draw.__module__ == module]


def inline(svg: str) -> str:
    """The <svg> element without the XML prologue, which HTML does not take."""
    return svg[svg.index("<svg") :]


def show(svg: str, caption: str) -> str:
    return f"<figure>{inline(svg)}<figcaption>{caption}</figcaption></figure>"


def exhibit(d: Drawing, drawn: dict[str, str], lacking: dict[str, str], claims: list[dict[str, Any]]) -> str:
    """One figure: title, picture, caption, and our reading, which is the verdicts that rest on it."""
    head = f"<h3 id={d.name}>{html.escape(d.title)}</h3>"
    if d.name in lacking:
        return head + f"<p class=note>No analogue in this run: {html.escape(lacking[d.name])}.</p>"
    readings = [
        f"<p class=reading>{c['claim']}. {html.escape(c['text'])}: "
        f"<b class={c['verdict']}>{c['verdict']}</b> ({number(c['statistic'])} {number(c['interval'])})</p>"
        for c in claims if c["figure"] == d.name and c["statistic"] is not None
    ]  # fmt: skip
    return head + show(drawn[d.name], html.escape(d.caption)) + "".join(readings)


def claims_intro(claims: list[dict[str, Any]], f: Files) -> str:
    """How many claims hold, and what a verdict means."""
    level = f.experiment["fits"]["level"]
    return (
        f"<p>{count_verdicts(claims)} A statement holds where the whole {level:.0%} interval of its statistic (over prompts and RM seeds) lies "
        "where the paper's wording puts it, fails where none of it does. Thresholds are fixed in the code beside the wording. "
        "What holds or fails here says something of this small world, not of the paper's.</p>"
    )
