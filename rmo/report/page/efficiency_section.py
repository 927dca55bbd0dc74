"""What optimisers make of a perfect reward, beside the most that can be had; and whether gold follows the annotator."""

import html
from collections.abc import Sequence

import numpy as np

from rmo.analysis.curve_id import GOLD, CurveId
from rmo.analysis.efficiency import Parts
from rmo.methods.method import find
from rmo.report.figures.drawing import Files
from rmo.report.page.tables import number, table
from rmo.runtime.types import Row

SAID = (
    "Gold is its own proxy here: what is lost is lost by the optimiser alone, not to a proxy's errors. Beside it is "
    "what {frontier} gives at the same KL; intervals are over prompts and seeds. A KL that one of the two does not "
    "reach has no row."
)


def efficiency_section(f: Files) -> str:
    """Tables of gold at equal KL and of what KL and gold are made of; a sentence where there are none."""
    at = f.efficiency.get("at", {})
    rows = [
        [find(name).title, find(frontier).title, row["kl"], row["gold"], row["frontier"], row["ratio"], row["interval"]]
        for frontier, methods in at.items()
        for name, found in methods.items()
        for row in found
    ]
    if not rows:
        return "<p>Gold was not optimised against in this run, or not far enough.</p>"
    head = ["optimiser of gold", "beside", "KL", "gold", "gold beside", "ratio", "interval"]
    titles = " or ".join(find(name).title for name in at)
    return f"<p>{html.escape(SAID.format(frontier=titles))}</p>{table(head, rows, text=(0, 1))}{split_tables(f)}"


def split_tables(f: Files) -> str:
    """What KL and gold are made of at the KLs of the table above, against gold itself."""
    kls = sorted({row["kl"] for methods in f.efficiency["at"].values() for rows in methods.values() for row in rows})
    rows = []
    for name in dict.fromkeys(row["method"] for row in f.split):
        mine = [row for row in f.split if row["method"] == name and CurveId.of_cells(row).rm_combined == GOLD]
        rows += [[find(name).title, kl, *shares_at(mine, kl)] for kl in kls if reaches(mine, kl)]
    if not rows:
        return ""
    length, both = f.efficiency["explained"]
    said = (
        "Nats of KL, and gold, that go with the length of responses, with the rates of words, and the rest: order, "
        "context, and what these cannot tell. KL's parts are the least KL at which lengths are distributed so, and "
        "what the mean rates of words take beyond it; the rest is what is spent otherwise. Gold's parts are "
        "what a linear model on the initial policy's texts expects; there length explains "
        f"{number(length)} of gold's variance within prompts, length and words {number(both)}."
    )
    names = [f"{what}: {part}" for what in ("KL", "gold") for part in Parts._fields]
    return f"<p>{said}</p>{table(['optimiser of gold', 'KL', *names], rows, text=(0,))}"


def reaches(rows: Sequence[Row], kl: float) -> bool:
    """Whether every seed's path gets so far."""
    seeds = {row["seed"] for row in rows}
    return bool(rows) and all(max(r["kl"] for r in rows if r["seed"] == seed) >= kl for seed in seeds)


def shares_at(rows: Sequence[Row], kl: float) -> list[float]:
    """The parts of KL and of gold at a KL, between points, means over seeds."""
    found = []
    for seed in {row["seed"] for row in rows}:
        mine = sorted((row for row in rows if row["seed"] == seed), key=lambda row: row["kl"])
        x = [row["kl"] for row in mine]
        names = [f"{what}_{part}" for what in ("kl", "gold") for part in Parts._fields]
        found.append([float(np.interp(kl, x, [row[name] for row in mine])) for name in names])
    return np.mean(found, axis=0).tolist()


def annotator_table(rows: Sequence[Row]) -> str:
    """How gold and annotator go together along every path, as annotator.json has it; nothing without an annotator."""
    if not rows:
        return ""
    ids = [CurveId.of_cells(row) for row in rows]
    cells = [
        [
            find(id.method).title,
            id.label([other for other in ids if other.method == id.method]),
            *(row[name] for name in ("rank_correlation", "gold_end", "annotator_end")),
            *way_to_the_peak(row),
        ]
        for id, row in zip(ids, rows, strict=True)
    ]
    said = (
        "Along every path gold and what it learned from (the annotator; of real text the judge), each in its standard "
        "deviations on the initial policy: rank correlation of their means over the points of the path (mean over "
        "seeds), where both end, and, up to the KL at which gold's mean over seeds is highest, by how much the "
        "annotator lies above gold where they are farthest apart [interval of that KL, over prompts and seeds], and "
        "the first KL whose interval leaves out 0."
    )
    head = ["method", "against", "rank correlation", "gold at the end", "annotator at the end"]
    head += ["gold peaks at KL", "annotator less gold", "they part at KL"]
    return f"<p>{said}</p>{table(head, cells, text=(0, 1, 6, 7))}"


def way_to_the_peak(row: Row) -> list[float | str]:
    """The last three cells of a row; empty for runs that did not look."""
    if "gap" not in row:
        return ["", "", ""]
    low, high = row["gap_interval"]
    gap = f"{number(row['gap'])} [{number(low)}, {number(high)}] at {number(row['gap_kl'])}"
    return [row["peak_kl"], gap, "nowhere" if row["parted_kl"] is None else number(row["parted_kl"])]
