"""What a run cost, where its time went and the rates it reached: from the stages' cost.json and speed.jsonl alone."""

import html
from collections import Counter
from operator import itemgetter

from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.stages import Stage
from rmo.report.page.tables import number, table
from rmo.runtime.files import Row

RATES = ("tokens_per_second", "utilisation", "peak_memory")  # in speed.jsonl; what else is there are seconds


def speed(stages: list[Stage]) -> dict[str, float]:
    """Of some stage instances together: seconds of each kind that their logs tell apart, rates as means over time, the
    largest memory."""
    out: Counter[str] = Counter()
    weight: Counter[str] = Counter()
    for row in (row for stage in stages for row in stage.speed()):
        for name, value in row.items():
            if name == "peak_memory":
                out[name] = max(out[name], value)
            elif name in RATES:
                out[name] += value * row["seconds"]
                weight[name] += row["seconds"]
            elif name not in ("step", "of"):
                out[name] += value
    return {name: value / (weight[name] or 1) for name, value in out.items()}


def costs(run: RunFiles) -> list[Row]:
    """Per kind of stage: {stage, instances, seconds, compile, spent: {what: seconds}, and rates where they are known},
    of the calls that finished each instance; `spent`, and `logged`, of which it is a part, of all calls. `compile` is
    None where it is not known."""
    kinds: dict[str, list[Row]] = {}
    for row in run.stages:
        if row["seconds"] is not None:
            kinds.setdefault(row["stage"].split("/")[0], []).append(row)
    return [cost(kind, rows, [run.stage(row["stage"]) for row in rows]) for kind, rows in kinds.items()]


def cost(kind: str, rows: list[Row], stages: list[Stage]) -> Row:
    """One row of `costs`: of all instances of one kind."""
    compiled = [stage.cost().get("compile_seconds") for stage in stages]
    seconds = sum(row["seconds"] for row in rows)
    found = speed(stages)
    return {
        "stage": kind,
        "instances": len(rows),
        "seconds": seconds,
        "compile": None if None in compiled else sum(filter(None, compiled)),
        "spent": {what: value for what, value in found.items() if what not in (*RATES, "seconds")},
        "logged": max(found.get("seconds", 0.0), seconds),
        **{what: found[what] for what in RATES if what in found},
    }


def share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "–"


def cost_section(run: RunFiles) -> str:
    """The report's section on costs, as HTML."""
    found = costs(run)
    total = sum(kind["seconds"] for kind in found)
    compiling = sum(kind["compile"] or 0.0 for kind in found)
    instances = sum(kind["instances"] for kind in found)
    rows = [cost_row(kind, total) for kind in found]
    rows.append(["all", instances, f"{total:.1f}", "", f"{compiling:.1f}", *[""] * 4])
    head = ["stage", "instances", "seconds", "share", "compiling", "of its time", "tokens/s", "peak FLOP/s", "GiB"]
    return table(head, rows, (5,)) + cost_note(run) + every_instance(run, total)


def cost_row(kind: Row, total: float) -> list[object]:
    """One kind of stage as cells; `total` is the seconds of all."""
    spent = sorted(kind["spent"].items(), key=itemgetter(1), reverse=True)
    parts = ", ".join(f"{what} {share(value, kind['logged'])}" for what, value in spent if value > 0)
    rate, used, memory = (kind.get(what) for what in RATES)
    return [
        kind["stage"],
        kind["instances"],
        f"{kind['seconds']:.1f}",
        share(kind["seconds"], total),
        "–" if kind["compile"] is None else f"{kind['compile']:.1f}",
        parts or "–",
        number(round(rate)) if rate else "–",
        f"{used:.0%}" if used else "–",
        f"{memory / 2**30:.1f}" if memory else "–",
    ]


def cost_note(run: RunFiles) -> str:
    cost = run.stage("sft").cost()
    made_with = f"Python {cost['python']}, jax {cost['jax']}, {cost['backend']}"
    return (
        f"<p class=note>{html.escape(made_with)}. Seconds of the call "
        "that finished each stage. Compiling includes tracing and fetching from the cache of compiled programs; "
        "<i>iterate</i> is PPO's sampling, scoring and updating in one program, <i>read</i> reading gold on the way, "
        "<i>wait</i> waiting for the device, <i>batch</i> making and placing a batch. Share of peak FLOP/s and memory "
        "of a device are known on accelerators.</p>"
    )


def every_instance(run: RunFiles, total: float) -> str:
    """The seconds of every stage instance, folded."""
    known = [row for row in run.stages if row["seconds"] is not None]
    rows = [[row["stage"], f"{row['seconds']:.1f}", share(row["seconds"], total)] for row in known]
    return f"<details><summary>Every stage instance</summary>{table(['stage', 'seconds', 'share'], rows)}</details>"
