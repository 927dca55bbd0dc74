"""What several reward models as one gain over single ones, and what they cost."""

from collections.abc import Sequence

from rmo.analysis.curve_id import COLUMNS, CurveId
from rmo.methods.method import find
from rmo.report.page.tables import note, table
from rmo.runtime.types import Row

HEAD = (
    "method", "ensemble", "KL of its peak", "gold there", "gain", "interval", "beside the best", "interval",
    "lost at the end", "lost by its rule", "labels", "trained", "run",
)  # fmt: skip
SAID = (
    "Gain is the highest gold of the ensemble less the mean of its single RMs', beside the best the same less that of "
    "the RM with the highest validation accuracy. Intervals are over prompts, and over RM seeds where the ensembles "
    "that lack one of them were made too. Lost is gold from the peak to the largest KL that all reach, and to where "
    "the variance over its RMs has doubled, which is a rule to stop by without gold. Labels count each comparison "
    "once; parameters are of the RMs that are trained, and of those that run to score a text. Gold at equal KL is in "
    "ensembles.csv."
)


def ensembles_section(rows: Sequence[Row]) -> list[str]:
    """`rows` of ensembles.csv, one line for each ensemble under a heading; nothing where the run has none."""
    if not rows:
        return []
    places: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        places.setdefault(tuple(row[name] for name in COLUMNS), {})[row["place"]] = row
    body = [cells(found) for found in places.values()]
    return ["<h2 id=ensembles>Several reward models as one</h2>", note(SAID), table(HEAD, body, text=(0, 1))]


def cells(places: dict[str, Row]) -> list[object]:
    """One ensemble, by the places where it was compared."""
    peak = places["peak"]
    one = CurveId.of_cells(peak)
    recipe = f", {one.rm_recipe}" if one.rm_recipe else ""
    out: list[object] = [find(one.method).short, f"{one.rm_combined}, {one.rm_params:,} parameters{recipe}"]
    out += [peak["kl"], peak["gold"]]
    for compared in ("gain", "over_best"):
        out += [peak[compared], [peak[f"{compared}_low"], peak[f"{compared}_high"]]]
    out += [places[name]["regret"] if name in places else None for name in ("end", "spread")]
    return [*out, *(peak.get(name) for name in ("labels", "trained", "run"))]
