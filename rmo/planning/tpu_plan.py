"""`rmo plan`: compile an experiment's programs for a TPU slice on a machine without one; what fits, and what it costs.

Memory and collectives are the TPU compiler's own, per device. FLOPs and bytes are counted over the program's matrix
multiplications (a decode loop counts as R steps): what the mathematics asks for, not what a compiler made of it. The
time is a roofline: no program can be faster, real ones are slower.
"""

import json
import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from rmo import config
from rmo.planning.programs import Program, programs
from rmo.runtime.files import RunError, write_json
from rmo.runtime.flops import PEAKS, largest, matmuls
from rmo.tracking.progress import Progress


@dataclass(frozen=True)
class Chip:
    """Published peaks of one chip (Google Cloud's pages of TPU versions, 2026)."""

    flops: float  # bf16 per second
    memory: float  # bytes
    bandwidth: float  # bytes of memory per second
    links: float  # bytes between chips per second
    devices: int = 1  # that JAX sees per chip


CHIPS = {
    "v4": Chip(PEAKS["TPU v4"], 32 * 2**30, 1228e9, 300e9, 2),
    "v5e": Chip(PEAKS["TPU v5 lite"], 16 * 2**30, 819e9, 200e9),
    "v5p": Chip(PEAKS["TPU v5"], 95 * 2**30, 2765e9, 600e9),
    "v6e": Chip(PEAKS["TPU v6 lite"], 32 * 2**30, 1640e9, 448e9),
}  # fmt: skip
# Slices that can be had, small ones first (Google Cloud's pages of TPU configurations, 2026).
SLICES = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
}
USABLE = 0.984  # of a chip's memory; the rest is the runtime's own
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


def kind_of(name: str) -> str:
    """The chip of a slice's name.

    Raises:
      RunError: there is no such chip.
    """
    kind = name.split(":")[0]
    if kind not in CHIPS:
        raise RunError(f"--topology {name}: known chips are {', '.join(CHIPS)}, e.g. v5e:8x8")
    return kind


def topology(name: str, model: int) -> tuple[Mesh, Chip]:
    """(mesh, chip) of a slice such as v5e:8x8.

    Raises:
      RunError: libtpu is not installed, or it knows no such slice.
    """
    kind = kind_of(name)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    try:
        devices = np.array(topologies.get_topology_desc(name, platform="tpu").devices)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        hint = "pip install libtpu (it runs without a TPU)"
        raise RunError(f"--topology {name}: {line}; if libtpu is missing: {hint}") from error
    if devices.size % model:
        raise RunError(f"--model-parallel is {model}: it must divide the {devices.size} devices of {name}")
    mesh = Mesh(devices.reshape(-1, model), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
    return mesh, CHIPS[kind]


def plan(
    e: config.Experiment, name: str, model: int = 1, only: tuple[str, ...] = (), out: Path | None = None
) -> dict[str, Any]:
    """What every program of an experiment (or those with one of `only` in their names) takes on a slice: {topology,
    chips, mesh, programs: [...], chip_hours}. It is written to `out` after every program; those that `out` holds
    already, of the same experiment and mesh, are not compiled again (delete it after a change of the code).

    Raises:
      RunError: no program has such a name; `out` is not a plan of this experiment and mesh.
    """
    mesh, chip = topology(name, model)
    every = once(e, mesh)
    listed = [p for p in every if not only or any(want in f"{p.stage}, {p.name}" for want in only)]
    if not listed:
        raise RunError(f"--only {' '.join(only)}: no program has that in its name; without it all are listed")
    rows = begun(out, summary(e, name, mesh, chip, [])) if out and out.exists() else {}
    bar = Progress(name, len(listed), "program")
    for done, program in enumerate(listed, start=1):
        key = (program.stage, program.name)
        if key not in rows:
            row = rows[key] = examine(program, mesh, chip, e.world.response)
            if not row["fits"]:
                row["fits_on"] = roomier(e, program, name, model)
                row["why"] += f"; {row['fits_on'] or 'no larger slice'} can hold it"
            if out:
                write_json(out, summary(e, name, mesh, chip, ordered(every, rows)))
        bar.to(done)
    bar.close()
    return summary(e, name, mesh, chip, ordered(listed, rows))


def begun(out: Path, new: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of a plan that was begun, by stage and program.

    Raises:
      RunError: the file is another plan's, or none.
    """
    try:
        found = json.loads(out.read_text())
        same = all(found[k] == new[k] for k in ("experiment", "topology", "mesh"))
        rows = {(row["stage"], row["program"]): row for row in found["programs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"--out {out}: not a plan; name another file") from error
    if not same:
        raise RunError(f"--out {out}: a plan of another experiment or mesh; delete it, or name another file")
    return rows


def ordered(listed: list[Program], rows: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that there are, in the order of the experiment."""
    return [rows[p.stage, p.name] for p in listed if (p.stage, p.name) in rows]


def roomier(e: config.Experiment, program: Program, name: str, model: int) -> str:
    """The smallest larger slice of the same chips that holds a program; "" where none does."""
    kind, size = kind_of(name), topology(name, model)[0].size
    for larger in (f"{kind}:{shape}" for shape in SLICES[kind]):
        mesh, chip = topology(larger, 1)
        if mesh.size <= size:
            continue
        mesh, chip = topology(larger, model)
        there = next(p for p in once(e, mesh) if (p.stage, p.name) == (program.stage, program.name))
        if examine(there, mesh, chip, e.world.response)["fits"]:
            return larger
    return ""


def once(e: config.Experiment, mesh: Mesh) -> list[Program]:
    """Every program once, with the calls of all sweeps, which differ only in how many steps they make."""
    found: dict[tuple[str, str], Program] = {}
    for p in programs(e, mesh):
        before = found.get((p.stage, p.name))
        found[p.stage, p.name] = p._replace(calls=p.calls + before.calls) if before else p
    return list(found.values())


def summary(e: config.Experiment, name: str, mesh: Mesh, chip: Chip, rows: list[dict[str, Any]]) -> dict[str, Any]:
    chips = mesh.size // chip.devices
    known = [row["seconds"] * row["calls"] for row in rows if row["seconds"] is not None]
    hours = sum(known) * chips / 3600
    head = {"experiment": config.digest(config.to_json(e)), "topology": name, "chips": chips, "mesh": dict(mesh.shape)}
    return head | {"chip_hours": hours, "programs": rows}


def suggest(e: config.Experiment, kind: str) -> dict[str, Any]:
    """The plan on the smallest slice of chips `kind`, and on it the least splitting of layers, that all programs fit.

    Raises:
      RunError: none does.
    """
    hard: list[tuple[str, str]] = []  # what did not fit before is tried first
    for shape in SLICES[kind]:
        name = f"{kind}:{shape}"
        size = topology(name, 1)[0].size
        for model in (m for m in (1, 2, 4, 8) if m < size):  # all are powers of two
            mesh, chip = topology(name, model)
            key = lambda p: hard.index((p.stage, p.name)) if (p.stage, p.name) in hard else len(hard)  # noqa: E731
            rows = []
            for program in sorted(once(e, mesh), key=key):
                rows.append(examine(program, mesh, chip, e.world.response))
                if not rows[-1]["fits"]:
                    hard[:0] = [(program.stage, program.name)]
                    print(f"{name}, --model-parallel {model}: {program.stage}, {program.name} {rows[-1]['why']}")
                    break
            else:
                return summary(e, name, mesh, chip, rows)
    raise RunError(f"no slice of {kind} up to {SLICES[kind][-1]} fits; {hard[0][0]}, {hard[0][1]} is what needs most")


def examine(program: Program, mesh: Mesh, chip: Chip, response: int) -> dict[str, Any]:
    """One row; a program that the compiler refuses says why."""
    row: dict[str, Any] = {"stage": program.stage, "program": program.name, "calls": program.calls, "seconds": None}
    started = time.monotonic()
    limit = chip.memory / chip.devices * USABLE
    rests = sum(map(on_one_device, jax.tree.leaves((program.args, program.beside))))
    if rests > limit:  # the compiler need not be asked
        why = f"needs {rests / 2**30:.1f}G of {limit / 2**30:.1f}G for what it is given"
        return row | {"fits": False, "why": why, "compile_seconds": 0.0}
    try:
        with jax.set_mesh(mesh):
            # What a program does not use rests in memory all the same.
            jitted = jax.jit(program.fn, donate_argnums=program.donated, keep_unused=True)
            traced = jitted.trace(*program.args)
            work = matmuls(traced.jaxpr.jaxpr, response)
            row["largest_array"], row["largest"] = largest(traced.jaxpr.jaxpr)
            compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        said = r"(?:temporaries|Used) \(?([\d.]+)([GM])\)? (?:of|exceeds available HBM) \(?([\d.]+)[GM]"
        found = re.search(said, str(error))
        why = f"needs {found[1]}{found[2]} of {found[3]}G" if found else " ".join(str(error).split())[:160]
        return row | {"fits": False, "why": why, "compile_seconds": time.monotonic() - started}
    memory: Any = compiled.memory_analysis()
    beside = sum(map(on_one_device, jax.tree.leaves(program.beside)))
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes + beside
    total = held + memory.temp_size_in_bytes
    try:
        moved = collectives(compiled.as_text() or "")
    except jax.errors.JaxRuntimeError:  # of some programs for v5p and v6e libtpu cannot write down what it made
        moved = None
    flops, size = work[0] / mesh.size, work[1] / mesh.size
    share = chip.devices
    seconds = max(
        flops * share / chip.flops, size * share / chip.bandwidth,
        sum(c["bytes"] * c["times"] for c in moved or ()) * share / chip.links,
    )  # fmt: skip
    return row | {
        "fits": bool(total <= limit), "why": f"needs {total / 2**30:.1f}G of {limit / 2**30:.1f}G",
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes, "total": total, "memory": limit, "flops": flops, "bytes": size,
        "seconds": seconds, "collectives": moved, "compile_seconds": time.monotonic() - started,
    }  # fmt: skip


def on_one_device(x: Any) -> int:
    """Bytes of an array's share."""
    shape = x.sharding.shard_shape(x.shape) if getattr(x, "sharding", None) else x.shape
    return math.prod(shape) * x.dtype.itemsize


def collectives(text: str) -> list[dict[str, Any]]:
    """[{kind, bytes, times, decode}] of a compiled program: bytes of one result on one device, how often it runs (from
    the constants that loops are compared with), and whether it sits in the decode loop."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        head = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{\s*$", line)
        if head and "->" in line:
            name = head[1]
            bodies[name] = []
        elif name:
            bodies[name].append(line)
    out: dict[tuple[str, int, bool], int] = {}

    def whole(name: str) -> str:
        """A computation and what it calls."""
        text = "\n".join(bodies.get(name, []))
        return text + "".join(whole(part) for part in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text))

    def walk(name: str, times: int, decode: bool) -> None:
        for line in bodies.get(name, []):
            loop = re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line)
            if loop:
                ends = [int(n) for n in re.findall(r"s32\[\][^=]*constant\((\d+)\)", whole(loop[1]))]
                for part in loop.groups():  # condition and body
                    walk(part, times * max([1, *ends]), decode or "decode/while" in line)
                continue
            called = re.search(r"(?:call|conditional|async-start)\(.*(?:to_apply|calls)=%?([\w.\-]+)", line)
            if called:
                walk(called[1], times, decode)
            kind = re.search(r"= (.*?) (" + "|".join(COLLECTIVES) + r")(-start)?\(", line)
            if kind:
                shapes = re.findall(r"(\w+)\[([\d,]*)\]", kind[1])
                sizes = [math.prod(map(int, dims.split(","))) * BYTES.get(t, 4) if dims else 4 for t, dims in shapes]
                key = (kind[2], max(sizes), decode)
                out[key] = out.get(key, 0) + times

    entry = re.search(r"ENTRY %?([\w.\-]+)", text)
    if entry:
        walk(entry[1], 1, False)
    rows = [{"kind": k, "bytes": b, "decode": d, "times": n} for (k, b, d), n in out.items()]
    return sorted(rows, key=lambda row: -row["bytes"] * row["times"])


def table(found: dict[str, Any]) -> str:
    """The plan for people, as Markdown."""
    g = 2**30
    lines = [
        f"{found['topology']}: {found['chips']} chips, mesh {found['mesh']['data']} x {found['mesh']['model']}", "",
        "| stage | program | GiB per device: held + temporary / has | TFLOP per device | collectives, GB per device"
        " (in decode loop) | seconds at the roofline | calls |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in found["programs"]:
        head = f"| {row['stage']} | {row['program']} |"
        if row["seconds"] is None:
            lines.append(f"{head} **does not compile: {row['why']}** | | | | {row['calls']:,} |")
            continue
        held = row["total"] - row["temporaries"]
        memory = f"{held / g:.1f} + {row['temporaries'] / g:.1f} / {row['memory'] / g:.0f}"
        memory += "" if row["fits"] else f" **does not fit; {row['fits_on'] or 'no larger slice'} can hold it**"
        sums = [
            sum(c["bytes"] * c["times"] for c in row["collectives"] or () if not decode or c["decode"]) / 1e9
            for decode in (False, True)
        ]
        said = f"{sums[0]:.2f} ({sums[1]:.2f})" if row["collectives"] is not None else "not known"
        lines.append(
            f"{head} {memory} | {row['flops'] / 1e12:.2f} | {said} | {row['seconds']:.3g} | {row['calls']:,} |"
        )
    lines.append("")
    lines.append(f"{found['chip_hours']:.0f} chip-hours at the roofline, for what is listed and compiles.")
    return "\n".join(lines)
