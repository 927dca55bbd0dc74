"""What came out of a run, in Markdown: the two tables that people quote. READMEs hold them word for word."""

from collections.abc import Sequence

import numpy as np

from rmo.analysis.fitting import Group
from rmo.analysis.forecasting import sentence
from rmo.methods.method import Method, find
from rmo.report.figures.drawing import Files
from rmo.report.figures.style import mean_curve, row_of
from rmo.report.page.verdicts import count_verdicts, region
from rmo.runtime.types import Row

SIDE_BY_SIDE = 2  # methods in one row of the table by RM size
LONG = ["RM parameters", "comparisons", "method", "highest gold (KL)", "gold at the end (KL)"]
NOT_RUN = ["not run", "", "", ""]  # cells of an RM size that a method was not run against


def results(f: Files, claims: list[Row]) -> str:
    """results.md: gold and proxy by RM size, gold as its own proxy, forecasts of left-out sizes, every claim."""
    forecasts = [f"{method.title}: {sentence(rows)}." for method, rows in left_out(f)]
    parts = [sizes_table(f), gold_table(f), *forecasts, count_verdicts(claims), claims_table(claims)]
    return "\n\n".join(filter(None, parts)) + "\n"


def left_out(f: Files) -> list[tuple[Method, list[Row]]]:
    """Each method's rows of left-out RM sizes, where there are any."""
    found = [(method, f.summary.get(method.name, {}).get("left_out", [])) for method in f.methods()]
    return [(method, rows) for method, rows in found if rows]


def number(x: float | None, digits: int = 2) -> str:
    return "–" if x is None else f"{x:.{digits}f}".replace("-", "−")


def line(cells: Sequence[str]) -> str:
    """One row of a table."""
    return "| " + " | ".join(cells) + " |"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A whole table."""
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def sizes_table(f: Files) -> str:
    """For every RM size of the main sweep, by method: highest gold of the mean curve over seeds and its KL, gold and
    proxy at the last point, R² of all seeds' points about the fit. Two methods stand side by side, more of them below
    each other."""
    methods = f.methods()
    if len(methods) > SIDE_BY_SIDE:
        return long_table(f, methods)
    cells = {method: {g.params: size_cells(f, method, g) for g in f.sizes(method.name)} for method in methods}
    rows = [
        [f"{params:,}", *(cell for method in methods for cell in cells[method].get(params, NOT_RUN))]
        for params in sorted({params for of in cells.values() for params in of})
    ]
    return table(["RM parameters", *(title for method in methods for title in size_head(method))], rows)


def long_table(f: Files, methods: Sequence[Method]) -> str:
    """The same in one row per RM size and method, which says too what its RMs learned from and its settings: methods
    need not share those."""
    found = [(g, method) for method in methods for g in f.sizes(method.name)]
    rows = []
    for g, method in sorted(found, key=lambda pair: pair[0].params):
        name = ", ".join(filter(None, [method.short, g.id.rm_combined, str(g.id.rm_recipe), str(g.id.settings)]))
        rows.append([f"{g.params:,}", f"{g.comparisons or 0:,}", name, *size_cells(f, method, g, every_kl=True)])
    return table([*LONG, "its proxy", "R²"], rows)


KLS = (1.0, 2.0, 4.0, 6.0)  # nats at which optimisers of gold are compared


def gold_table(f: Files) -> str:
    """Gold at equal KL when gold is its own proxy, by method, means over seeds; nothing where it was not optimised."""
    names = dict.fromkeys(curve.method for curve in f.curves if curve.id.against_gold)
    if not names:
        return ""
    paths = {name: mean_curve(f.gold(name), "gold") for name in names}
    rows = []
    for name, (kl, gold) in paths.items():
        found = [float(np.interp(at, kl, gold)) if at <= kl[-1] else None for at in KLS]
        rows.append([find(name).title, *map(number, found)])
    return table(["Gold as its own proxy", *(f"gold at KL {kl:g}" for kl in KLS)], rows)


def size_head(method: Method) -> list[str]:
    last = "at the largest n" if method.axis == "n" else "at the end (KL)"
    return [f"{method.short}: highest gold (KL)", f"gold {last}", "its proxy", "R²"]


def size_cells(f: Files, method: Method, group: Group, every_kl: bool = False) -> list[str]:
    (kl, gold), (_, proxy) = mean_curve(group, "gold"), mean_curve(group, "proxy")
    top = int(gold.argmax())
    end = f" ({kl[-1]:.0f})" if method.axis != "n" or every_kl else ""
    r2 = (row_of(f.summary, group) or {}).get("r2")
    return [f"{number(gold[top])} ({kl[top]:.1f})", number(gold[-1]) + end, number(proxy[-1]), number(r2)]


def claims_table(claims: list[Row]) -> str:
    """Every claim with its statistic, interval, threshold and verdict."""
    head = ["", "claim", "measured", "statistic [interval]", "holds if", "verdict"]
    return table(head, [claim_cells(c) for c in claims])


def claim_cells(c: Row) -> list[str]:
    statistic = number(c["statistic"])
    if c["interval"]:
        low, high = c["interval"]
        statistic += f" [{number(low)}, {number(high)}]"
    verdict = c["verdict"] if c["verdict"] == "undecided" else f"**{c['verdict']}**"
    if c["why"] and c["statistic"] is None:
        verdict += f": {c['why']}"
    if c.get("seeds_needed"):
        verdict += f" (about {c['seeds_needed']} seeds would decide it)"
    return [c["claim"], c["text"], c["measured"], statistic, region(*c["threshold"]), verdict]
