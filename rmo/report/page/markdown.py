"""What came out of a run, in Markdown: the two tables that people quote. READMEs hold them word for word."""

from typing import Any

from rmo.report.figures.drawing import Files
from rmo.report.figures.style import mean_curve, row_of
from rmo.report.page.tables import count_verdicts, region


def results(f: Files, claims: list[dict[str, Any]]) -> str:
    """results.md: gold and proxy by RM size, then every claim."""
    return f"{sizes_table(f)}\n\n{count_verdicts(claims)}\n\n{claims_table(claims)}\n"


def number(x: float | None, digits: int = 2) -> str:
    return "–" if x is None else f"{x:.{digits}f}".replace("-", "−")


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def sizes_table(f: Files) -> str:
    """For every RM size of the main sweep, by method: highest gold of the mean curve over seeds and its KL, gold and
    proxy at the last point, R² of all seeds' points about the fit."""
    head, cells, methods = ["RM parameters"], {}, []
    for method in f.methods():
        name, groups = method.short, f.sizes(method.name)
        last = "at the largest n" if method.axis == "n" else "at the end (KL)"
        methods.append(method)
        head += [f"{name}: highest gold (KL)", f"gold {last}", "its proxy", "R²"]
        for g in groups:
            (kl, gold), (_, proxy) = mean_curve(g, "gold"), mean_curve(g, "proxy")
            i = int(gold.argmax())
            end = f" ({kl[-1]:.0f})" if method.axis != "n" else ""
            r2 = (row_of(f.summary, g) or {}).get("r2")
            cells.setdefault(g.params, {})[method] = [
                f"{number(gold[i])} ({kl[i]:.1f})", number(gold[-1]) + end, number(proxy[-1]), number(r2)
            ]  # fmt: skip
    lines = [row(head), row(["---"] * len(head))]
    for params, rows in sorted(cells.items()):
        lines.append(row([f"{params:,}", *(c for m in methods for c in rows.get(m, ["not run", "", "", ""]))]))
    return "\n".join(lines)


def claims_table(claims: list[dict[str, Any]]) -> str:
    """Every claim with its statistic, interval, threshold and verdict."""
    lines = [row(["", "claim", "measured", "statistic [interval]", "holds if", "verdict"]), row(["---"] * 6)]
    for c in claims:
        interval = f" [{', '.join(map(number, c['interval']))}]" if c["interval"] else ""
        verdict = c["verdict"] if c["verdict"] == "undecided" else f"**{c['verdict']}**"
        why = f": {c['why']}" if c["why"] and c["statistic"] is None else ""
        lines.append(row([c["claim"], c["text"], c["measured"], number(c["statistic"]) + interval,
                          region(*c["threshold"]), verdict + why]))  # fmt: skip
    return "\n".join(lines)
