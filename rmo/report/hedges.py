"""What each way of optimising buys: a table per RM over every method, reward and setting of runs, and a picture."""

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rmo.analysis import hedges
from rmo.analysis.curve import Curve, CurveError
from rmo.analysis.curve_id import CurveId
from rmo.analysis.fitting import Group, group
from rmo.artifacts.measured import with_prompts
from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.spent import Spent, labels, spent
from rmo.config.ensembles import WITHOUT
from rmo.methods import method as methods
from rmo.methods.method import find
from rmo.report.figures import gold_and_compute, style
from rmo.report.page.document import page
from rmo.report.page.markdown import line
from rmo.runtime.files import names_of, write_json, write_text
from rmo.runtime.types import Row

HEAD = (
    "way", "gold at its peak", "rank", "KL there", "gold at twice that KL", "rank", "lost by its stop", "rank",
    "labels, at most", "rank", "seconds", "rank", "seeds",
)  # fmt: skip
PARTS = ("optimising", "training_rms", "pool")
NOTE = (
    "Gold is in its standard deviations above the initial policy; brackets are {level:.0%} intervals over prompts and "
    "RM seeds, on the same ones for all rows. A rank is shared by all that cannot be told from the best of it, at a "
    "level that allows for as many comparisons as there are rows (Bonferroni); ranks of labels and seconds are of "
    "numbers without error. Of a reward that combines RMs there is one: its interval "
    "holds the luck of prompts only. A stop is a method's own rule where it has one, else the advice of a fit; it is "
    "decided on one half of the prompts (or, without scores per prompt, by the other seeds) and judged on the other "
    "against the highest gold of the first half, so that it may win a little. Seconds are device-seconds of one "
    "curve's own share of its stages, compiling left out, gold's reads counted: its optimisation, the training of its "
    "RMs and, for what chooses among draws, the pool. FLOPs are not recorded. – is not known, or beyond the data."
)
ALONE = (
    "Some of these runs are known from tables of curves alone, without scores per prompt: their peaks are picked and "
    "read on the same numbers, which makes them a little too high, and their intervals are over seeds only."
)
WITH_COSTS = (
    "Gold at its peak against the device-seconds that one curve took; the line joins what nothing beats at as little."
)
WITHOUT_COSTS = "Gold at its peak and the KL there; seconds are not known here."
ATTACKS = ("backdoor", "confounded")  # settings and recipes that are made to do harm
NO_COSTS = "What was spent in seconds is not known here: these directories have no stages, whose cost.json says it."


def measure(roots: Sequence[Path], level: float) -> Row:
    """All that hedges.json holds.

    Raises:
      RunError: a directory has no curves.
      CurveError: there is nothing to compare.
    """
    sections, alone, attacks = [], 0, 0
    for name, root in zip(names_of(roots), roots, strict=True):
        run = RunFiles(root)
        costs = spent(run) if (root / "stages.json").exists() else {}
        curves = with_prompts(run)
        kept = [c for c in curves if not is_attack(c.id)]
        attacks += len({c.id.group for c in curves}) - len({c.id.group for c in kept})
        for groups in at_one_rm(kept):
            if len(groups) < 2:
                alone += 1
                continue
            sections.append({"run": name, "rm": rm_text(groups), "rows": rows_of(groups, costs, level)})
    if not sections:
        raise CurveError("no RM was optimised against in more than one way: there is nothing to compare")
    return {"level": level, "sections": sections, "one_way_only": alone, "attacks": attacks}


def is_attack(id: CurveId) -> bool:
    """Whether a curve shows what harm can be done, which is no way to optimise."""
    return any(name in id.settings or name in id.rm_recipe for name in ATTACKS)


def at_one_rm(curves: Sequence[Curve]) -> list[list[Group]]:
    """Groups that are comparable: against RMs of one size and number of comparisons, from one policy, however trained
    and combined. What has no RM behind it stands beside every RM of as many comparisons."""
    every = [g for method in methods.every() for g in group(curves, method.name) if not g.id.against_gold]
    every = [g for g in every if WITHOUT not in g.id.rm_combined]  # which are there for the jackknife alone
    found: dict[tuple, list[Group]] = {}
    for g in every:
        if g.params:
            found.setdefault((g.params, g.comparisons, g.policy), []).append(g)
    without = [g for g in every if not g.params]
    if without and not found:
        return [without]
    for (_, comparisons, policy), groups in found.items():
        groups += [g for g in without if g.policy == policy and g.comparisons in (comparisons, None)]
    return [found[key] for key in sorted(found, key=lambda key: tuple(x or 0 for x in key))]


def rm_text(groups: Sequence[Group]) -> str:
    """Which RM a section is about."""
    g = max(groups, key=lambda g: g.params)
    words = [f"RM of {g.params:,} parameters"] if g.params else ["no RM"]
    words += [f"{g.comparisons:,} comparisons"] if g.comparisons else []
    words += [f"policy of {g.policy:,}"] if g.policy else []
    return ", ".join(words)


def rows_of(groups: Sequence[Group], costs: dict[CurveId, Spent], level: float) -> list[Row]:
    """The table of one RM, best gold first."""
    found = hedges.ways(groups)
    rows = hedges.table(found, level)
    for row, way in zip(rows, found, strict=True):
        many = len(way.group.curves) if way.best_seed else 1  # all of them are needed to pick the best
        own = [costs[c.id] for c in way.group.curves if c.id in costs]
        known = bool(own) and all(s.seconds is not None for s in own)
        parts = {part: mean([getattr(s, part) for s in own]) * many for part in PARTS} if known else None
        count = labels(way.group.id)
        row["label"] = label_of(way)
        row["labels"] = None if count is None else {"value": count * many}
        row["seconds"] = {"value": sum(parts.values()), "parts": parts} if parts else None
    for name in ("labels", "seconds"):
        values = [row[name] and row[name]["value"] for row in rows]
        differ = np.array([[a != b for b in values] for a in values])
        for row, place in zip(rows, hedges.ranks(values, differ, larger=False), strict=True):
            if row[name]:
                row[name]["rank"] = place
    fronts = hedges.front([gold_of(row) for row in rows], [row["seconds"] and row["seconds"]["value"] for row in rows])
    for row, on in zip(rows, fronts, strict=True):
        row["on_front"] = on
    return sorted(rows, key=gold_of, reverse=True)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def gold_of(row: Row) -> float:
    return row["gold"]["value"] if row["gold"] else float("-inf")


def label_of(way: hedges.Way) -> str:
    """A row's name: method, and whatever is not the default."""
    id = way.group.id
    words = [find(id.method).title, *(str(x) for x in (id.settings, id.rm_recipe, id.rm_combined) if x)]
    words += ["best single seed, picked by gold"] if way.best_seed else []
    beside = (
        ""
        if way.best_seed or id.rm_combined or len(way.group.curves) < 2
        else f", mean of {len(way.group.curves)} seeds"
    )
    return ", ".join(words) + beside


def cells(row: Row) -> list[str]:
    """One row as texts."""
    out = [
        row["label"],
        ranged(row["gold"]),
        rank(row["gold"]),
        kl_text(row),
        ranged(row["twice"]),
        rank(row["twice"]),
    ]
    out += [ranged(row["regret"]) + ("" if not row["regret"] or row["own_stop"] else " (fit)"), rank(row["regret"])]
    out += [whole(row["labels"]), rank(row["labels"]), whole(row["seconds"]), rank(row["seconds"])]
    return [*out, str(row["seeds"])]


def ranged(x: Row | None) -> str:
    if not x:
        return "–"
    ends = x["interval"]
    return f"{x['value']:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def kl_text(row: Row) -> str:
    """The KL of the peak; said where it is the last that was measured, so that gold may rise on."""
    last = row["kl"] and row["kl"]["value"] >= row["reach_kl"] * (1 - 1e-6)
    return ranged(row["kl"]) + (", the last" if last else "")


def rank(x: Row | None) -> str:
    return str(x["rank"]) if x else "–"


def whole(x: Row | None) -> str:
    return "–" if not x else f"{x['value']:,.0f}" if x["value"] >= 10 else f"{x['value']:.2g}"


def heading(section: Row) -> str:
    return f"{section['run']}: {section['rm']}"


def remarks(found: Row) -> list[str]:
    """What a reader must know of these numbers."""
    rows = [row for section in found["sections"] for row in section["rows"]]
    out = [NOTE.format(level=found["level"])]
    if not all(row["halved"] for row in rows):
        out.append(ALONE)
    if not any(row["seconds"] for row in rows):
        out.append(NO_COSTS)
    if found["one_way_only"]:
        out.append(f"{found['one_way_only']} RMs that were optimised against in one way only are left out.")
    if found["attacks"]:
        out.append(
            f"{found['attacks']} curves (means over seeds) with a backdoor in the reward or against RMs of confounded "
            "comparisons are left out: they are made to do harm and no ways to optimise."
        )
    return out


def lines(found: Row) -> list[str]:
    """The tables for a terminal: gold, KL, regret and seconds."""
    out = []
    for section in found["sections"]:
        out += ["", heading(section)]
        for row in section["rows"]:
            text = f"  {rank(row['gold']):>2}  {row['label']}: gold {ranged(row['gold'])} at KL {kl_text(row)}"
            text += f", at twice that {ranged(row['twice'])}; its stop loses {ranged(row['regret'])}"
            out.append(f"{text}; {whole(row['labels'])} labels, {whole(row['seconds'])} s")
    return [*out, ""]


def markdown(found: Row) -> str:
    """hedges.md."""
    parts = ["# What each way of optimising buys"]
    for section in found["sections"]:
        rows = [line(HEAD), line(["---"] * len(HEAD)), *(line(cells(row)) for row in section["rows"])]
        parts += [f"## {heading(section)}", "\n".join(rows)]
    return "\n\n".join([*parts, *remarks(found)]) + "\n"


def body(found: Row) -> list[str]:
    """hedges.html."""
    out = ["<h1>What each way of optimising buys</h1>"]
    for i, section in enumerate(found["sections"]):
        out.append(f"<h2 id=rm{i}>{html.escape(heading(section))}</h2>")
        head = "".join(f"<th>{html.escape(name)}</th>" for name in HEAD)
        out.append(f"<table><tr>{head}</tr>{''.join(map(html_row, section['rows']))}</table>")
        picture = style.svg(gold_and_compute.picture(section["rows"]))
        known = any(row["seconds"] for row in section["rows"])
        caption = f"<figcaption>{WITH_COSTS if known else WITHOUT_COSTS}</figcaption>"
        out.append(f"<figure>{picture[picture.index('<svg') :]}{caption}</figure>")
    out.append("<h2 id=how>How to read it</h2>")
    out += [f"<p>{html.escape(text)}</p>" for text in remarks(found)]
    return out


def html_row(row: Row) -> str:
    first, *rest = cells(row)
    return f"<tr><td class=prose>{html.escape(first)}</td>{''.join(f'<td>{html.escape(x)}</td>' for x in rest)}</tr>"


def write(found: Row, out: Path) -> Path:
    """hedges.json, hedges.md and hedges.html into a directory; returns the page's path."""
    write_json(out / "hedges.json", found)
    write_text(out / "hedges.md", markdown(found))
    write_text(out / "hedges.html", page("what each way of optimising buys", body(found)))
    return out / "hedges.html"
