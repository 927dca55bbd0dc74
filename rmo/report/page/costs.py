"""What a run cost, where its time went and the rates it reached: from the stages' cost.json and speed.jsonl alone."""

from collections import Counter

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
    None of runs that did not tell."""
    kinds: dict[str, list[Row]] = {}
    for row in run.stages:
        if row["seconds"] is not None:
            kinds.setdefault(row["stage"].split("/")[0], []).append(row)
    out = []
    for kind, rows in kinds.items():
        stages = [run.stage(row["stage"]) for row in rows]
        compiled = [stage.cost().get("compile_seconds") for stage in stages]
        found = speed(stages)
        spent = {what: value for what, value in found.items() if what not in (*RATES, "seconds")}
        out.append({
            "stage": kind, "instances": len(rows), "seconds": sum(row["seconds"] for row in rows),
            "compile": None if None in compiled else sum(filter(None, compiled)), "spent": spent,
            "logged": max(found.get("seconds", 0.0), sum(row["seconds"] for row in rows)),
            **{what: found[what] for what in RATES if what in found},
        })  # fmt: skip
    return out


def cost_section(run: RunFiles) -> str:
    """The report's page of it, as HTML."""
    found = costs(run)
    total = sum(kind["seconds"] for kind in found)
    share = lambda part, whole: f"{part / whole:.0%}" if whole else "–"  # noqa: E731
    rows = []
    for kind in found:
        spent = sorted(kind["spent"].items(), key=lambda item: -item[1])
        parts = ", ".join(f"{what} {share(value, kind['logged'])}" for what, value in spent if value > 0)
        compiling = "–" if kind["compile"] is None else f"{kind['compile']:.1f}"
        rate, used, memory = (kind.get(what) for what in RATES)
        rows.append([
            kind["stage"], kind["instances"], f"{kind['seconds']:.1f}", share(kind["seconds"], total), compiling,
            parts or "–", number(round(rate)) if rate else "–", f"{used:.0%}" if used else "–",
            f"{memory / 2**30:.1f}" if memory else "–",
        ])  # fmt: skip
    compiling = sum(kind["compile"] or 0.0 for kind in found)
    rows.append(["all", sum(kind["instances"] for kind in found), f"{total:.1f}", "", f"{compiling:.1f}", *[""] * 4])
    head = ["stage", "instances", "seconds", "share", "compiling", "of its time", "tokens/s", "peak FLOP/s", "GiB"]
    each = [
        [row["stage"], f"{row['seconds']:.1f}", share(row["seconds"], total)]
        for row in run.stages if row["seconds"] is not None
    ]  # fmt: skip
    versions = run.stage("sft").cost()
    note = (
        f"<p class=note>Python {versions['python']}, jax {versions['jax']}, {versions['backend']}. Seconds of the call "
        "that finished each stage. Compiling includes tracing and fetching from the cache of compiled programs; "
        "<i>iterate</i> is PPO's sampling, scoring and updating in one program, <i>read</i> reading gold on the way, "
        "<i>wait</i> waiting for the device, <i>batch</i> making and placing a batch. Share of peak FLOP/s and memory "
        "of a device are known on accelerators.</p>"
    )
    every = f"<details><summary>Every stage instance</summary>{table(['stage', 'seconds', 'share'], each)}</details>"
    return table(head, rows, (5,)) + note + every
