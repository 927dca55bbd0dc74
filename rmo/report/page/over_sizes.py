"""Tables of the hierarchical fit over RM size and of sizes that were left out of it, as HTML."""

import html

from rmo.analysis.forecasting import sentence
from rmo.report.page.tables import note, peak_text, table
from rmo.runtime.types import Json, Row

COEFFICIENTS = ("α", "interval", "β", "interval")
PEAKS = ("peak gold (fit)", "interval", "at KL", "interval")


def hierarchy_table(part: Row) -> str:
    """Coefficients and peaks of every size, and the law they follow; nothing where none was fitted."""
    fitted = part.get("hierarchy")
    if not fitted:
        return ""
    rows = []
    for size in fitted["sizes"]:
        two = [size[name + end] for name in ("alpha", "beta") for end in ("", "_interval")]
        rows.append([size["group"], *two, *(peak_text(x) for x in peak_cells(size))])
    law, seeds, sizes = fitted["law"], fitted["between_seeds"], fitted["between_sizes"]
    change = [law[name][what] for name in ("alpha", "beta") for what in ("per_decade", "interval")]
    rows.append(["change per decade", *change, *[""] * len(PEAKS)])
    said = (
        "Hierarchical fit over RM size: each seed's α and β scatter about their size's, and those about a law in log "
    )
    said += "size (restricted maximum likelihood); a size is drawn to the law as far as its seeds scatter. Standard "
    said += f"deviation between seeds: α {seeds['alpha']:.2g}, β {seeds['beta']:.2g}; of sizes about the law: "
    said += f"α {sizes['alpha']:.2g}, β {sizes['beta']:.2g}."
    return table(["RM", *COEFFICIENTS, *PEAKS], rows) + note(said)


def peak_cells(size: Row) -> list[Json]:
    return [size[name + end] for name in ("peak_gold", "peak_kl") for end in ("", "_interval")]


def left_out_table(part: Row) -> str:
    """Every RM size as the others predict it; nothing where too few are there."""
    rows = part.get("left_out")
    if not rows:
        return ""
    cells = [left_out_cells(row) for row in rows]
    head = ["RM left out", "highest gold predicted", "interval", "measured", "error"]
    head += ["at KL predicted", "interval", "measured"]
    said = f"{html.escape(sentence(rows))}. What is compared is the highest gold within the range of KL that was run, "
    said += "read on one half of the prompts where the other half is highest; † the largest and the smallest size, of "
    said += "which the law is extrapolated, * outside its interval."
    return table(head, cells) + note(said)


def left_out_cells(row: Row) -> list[object]:
    def mark(value: float, inside: bool) -> str:
        return f"{value:.2f}" + ("" if inside else " *")

    error = row["relative_error"]
    return [
        row["group"] + (" †" if row["extrapolated"] else ""),
        row["predicted_gold"],
        row["gold_interval"],
        mark(row["measured_gold"], row["gold_inside"]),
        "–" if error is None else f"{error:.0%}",
        row["predicted_kl"],
        row["kl_interval"],
        mark(row["measured_kl"], row["kl_inside"]) + (" (end)" if row["measured_at_end"] else ""),
    ]
