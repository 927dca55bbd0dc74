"""`rmo plan`: compile an experiment's programs for a TPU slice on a machine without one; what fits, and what it costs.

Memory and collectives are the TPU compiler's own, per device. Of GPUs, which cannot be compiled for without one, they
are those of XLA's CPU compiler: what is held is right, temporaries are an estimate, since it fuses otherwise. FLOPs and
bytes are counted over the program's matrix multiplications (a decode loop counts as R steps): what the mathematics asks
for, not what a compiler made of it. The time is a roofline: no program can be faster, real ones are slower.
"""

import json
import re
import time
from pathlib import Path

import jax
from jax.sharding import Mesh

from rmo import config
from rmo.planning.chips import GPUS, SLICES, Chip, kind_of, topology
from rmo.planning.hlo import collectives
from rmo.planning.program import Program, bytes_on_one_device
from rmo.planning.programs import programs
from rmo.runtime.files import Row, RunError, write_json
from rmo.runtime.flops import largest, matmuls
from rmo.tracking.progress import Progress

GIB = 2**30
Name = tuple[str, str]  # stage and program


def name_of(program: Program) -> Name:
    return program.stage, program.name


def plan(e: config.Experiment, name: str, model: int = 1, only: tuple[str, ...] = (), out: Path | None = None) -> Row:
    """What every program of an experiment (or those with one of `only` in their names) takes on a slice: {experiment,
    topology, chips, mesh, chip_hours, programs: [...]}. It is written to `out` after every program; those that `out`
    holds already, of the same experiment and mesh, are not compiled again (delete it after a change of the code).

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
        if name_of(program) not in rows:
            rows[name_of(program)] = row = examine(program, mesh, chip, e.world.response)
            if not row["fits"]:
                row["fits_on"] = roomier(e, program, name, model)
                row["why"] += f"; {row['fits_on'] or 'no larger slice'} can hold it"
            if out:
                write_json(out, summary(e, name, mesh, chip, ordered(every, rows)))
        bar.to(done)
    bar.close()
    return summary(e, name, mesh, chip, ordered(listed, rows))


def begun(out: Path, new: Row) -> dict[Name, Row]:
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


def ordered(listed: list[Program], rows: dict[Name, Row]) -> list[Row]:
    """The rows that there are, in the order of the experiment."""
    return [rows[name_of(p)] for p in listed if name_of(p) in rows]


def roomier(e: config.Experiment, program: Program, name: str, model: int) -> str:
    """The smallest larger slice of the same chips that holds a program; "" where none does."""
    kind, size = kind_of(name), topology(name, model)[0].size
    for larger in (f"{kind}:{shape}" for shape in SLICES[kind]):
        if topology(larger, 1)[0].size <= size:
            continue
        mesh, chip = topology(larger, model)
        there = next(p for p in once(e, mesh) if name_of(p) == name_of(program))
        if examine(there, mesh, chip, e.world.response)["fits"]:
            return larger
    return ""


def once(e: config.Experiment, mesh: Mesh) -> list[Program]:
    """Every program once, with the calls of all stages that run it. Of those that only differ in what rests beside
    them, the one that needs most memory."""
    found: dict[Name, Program] = {}
    for program in programs(e, mesh):
        before = found.get(name_of(program))
        if before:
            larger = max(before, program, key=resting)
            program = larger._replace(calls=before.calls + program.calls)
        found[name_of(program)] = program
    return list(found.values())


def resting(program: Program) -> int:
    """Bytes on one device of what a program is given, and of what rests beside it."""
    return bytes_on_one_device((program.args, program.beside))


def summary(e: config.Experiment, name: str, mesh: Mesh, chip: Chip, rows: list[Row]) -> Row:
    """The plan as it is written to a file."""
    chips = mesh.size // chip.devices
    known = [row["seconds"] * row["calls"] for row in rows if row["seconds"] is not None]
    hours = sum(known) * chips / 3600
    head = {"experiment": config.digest(config.to_json(e)), "topology": name, "chips": chips, "mesh": dict(mesh.shape)}
    return head | {"chip_hours": hours, "programs": rows}


def suggest(e: config.Experiment, kind: str) -> Row:
    """The plan on the smallest slice of chips `kind`, and on it the least splitting of layers, that all programs fit.

    Raises:
      RunError: none does.
    """
    hard: list[Name] = []  # what did not fit before is tried first
    for shape in SLICES[kind]:
        name = f"{kind}:{shape}"
        size = topology(name, 1)[0].size
        for model in (m for m in (1, 2, 4, 8) if m <= max(size // 2, 1)):  # all are powers of two
            mesh, chip = topology(name, model)
            listed = in_order_of(hard, once(e, mesh))
            rows = until_one_does_not_fit(listed, mesh, chip, e.world.response)
            if rows[-1]["fits"]:
                return summary(e, name, mesh, chip, rows)
            refused = listed[len(rows) - 1]
            hard.insert(0, name_of(refused))
            print(f"{name}, --model-parallel {model}: {refused.stage}, {refused.name} {rows[-1]['why']}")
    raise RunError(f"no slice of {kind} up to {SLICES[kind][-1]} fits; {hard[0][0]}, {hard[0][1]} is what needs most")


def in_order_of(hard: list[Name], listed: list[Program]) -> list[Program]:
    """The programs, with those named in `hard` before all others."""

    def place(program: Program) -> int:
        return hard.index(name_of(program)) if name_of(program) in hard else len(hard)

    return sorted(listed, key=place)


def until_one_does_not_fit(listed: list[Program], mesh: Mesh, chip: Chip, response: int) -> list[Row]:
    """Rows of programs, the last one of the first that does not fit, if any."""
    rows: list[Row] = []
    for program in listed:
        rows.append(examine(program, mesh, chip, response))
        if not rows[-1]["fits"]:
            break
    return rows


def examine(program: Program, mesh: Mesh, chip: Chip, response: int) -> Row:
    """One row; a program that the compiler refuses says why. A decode loop counts `response` steps."""
    row: Row = {"stage": program.stage, "program": program.name, "calls": program.calls, "seconds": None}
    started = time.monotonic()
    rests = resting(program)
    if rests > chip.usable:  # the compiler need not be asked
        why = f"needs {rests / GIB:.1f}G of {chip.usable / GIB:.1f}G for what it is given"
        return row | {"fits": False, "why": why, "compile_seconds": 0.0}
    try:
        with jax.set_mesh(mesh):
            # What a program does not use rests in memory all the same.
            jitted = jax.jit(program.fn, donate_argnums=program.donated, keep_unused=True)
            traced = jitted.trace(*program.args)
            row["largest_array"], row["largest"] = largest(traced.jaxpr.jaxpr)
            compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        return row | {"fits": False, "why": refusal(error), "compile_seconds": time.monotonic() - started}
    row |= memory(compiled, bytes_on_one_device(program.beside), chip)
    moved = collectives_of(compiled)
    flops, size = (total / mesh.size for total in matmuls(traced.jaxpr.jaxpr, response))
    row |= {"flops": flops, "bytes": size, "seconds": roofline(flops, size, moved or [], chip), "collectives": moved}
    return row | {"compile_seconds": time.monotonic() - started}


def refusal(error: Exception) -> str:
    """Why the compiler refused a program: the memory that it needs, or what the error says."""
    needs = r"(?:temporaries|Used) \(?([\d.]+)([GM])\)? (?:of|exceeds available HBM) \(?([\d.]+)[GM]"
    found = re.search(needs, str(error))
    return f"needs {found[1]}{found[2]} of {found[3]}G" if found else " ".join(str(error).split())[:160]


def memory(compiled: jax.stages.Compiled, beside: int, chip: Chip) -> Row:
    """What a compiled program holds of a device's memory, in bytes, with what rests beside it."""
    found = compiled.memory_analysis()
    assert found is not None
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes + beside
    total = held + found.temp_size_in_bytes
    return {
        "fits": bool(total <= chip.usable),
        "why": f"needs {total / GIB:.1f}G of {chip.usable / GIB:.1f}G",
        "arguments": found.argument_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "total": total,
        "memory": chip.usable,
    }


def collectives_of(compiled: jax.stages.Compiled) -> list[Row] | None:
    """The collectives of a compiled program; None where libtpu cannot write it down (of some for v5p and v6e)."""
    try:
        return collectives(compiled.as_text() or "")
    except jax.errors.JaxRuntimeError:
        return None


def roofline(flops: float, size: float, moved: list[Row], chip: Chip) -> float:
    """Seconds that one device needs at least, for as many FLOPs, bytes of memory and collectives."""
    between_chips = sum(c["bytes"] * c["times"] for c in moved)
    of_a_chip = chip.devices  # which share its peaks
    return max(
        flops * of_a_chip / chip.flops, size * of_a_chip / chip.bandwidth, between_chips * of_a_chip / chip.links
    )


def table(found: Row) -> str:
    """The plan for people, as Markdown."""
    lines = [
        f"{found['topology']}: {found['chips']} chips, mesh {found['mesh']['data']} x {found['mesh']['model']}", "",
        "| stage | program | GiB per device: held + temporary / has | TFLOP per device | collectives, GB per device"
        " (in decode loop) | seconds at the roofline | calls |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [table_row(row) for row in found["programs"]]
    hours = found["chip_hours"]
    lines += ["", f"{hours:.{0 if hours >= 10 else 2}f} chip-hours at the roofline, for what is listed and compiles."]
    if found["topology"].split(":")[0] in GPUS:
        lines.append("Temporaries are those of XLA's CPU compiler, which stands in for the GPU's: an estimate.")
    return "\n".join(lines)


def table_row(row: Row) -> str:
    """One program's line."""
    head = f"| {row['stage']} | {row['program']} |"
    if row["seconds"] is None:
        return f"{head} **does not compile: {row['why']}** | | | | {row['calls']:,} |"
    held = row["total"] - row["temporaries"]
    room = f"{held / GIB:.1f} + {row['temporaries'] / GIB:.1f} / {row['memory'] / GIB:.0f}"
    if not row["fits"]:
        room += f" **does not fit; {row['fits_on'] or 'no larger slice'} can hold it**"
    cells = [room, f"{row['flops'] / 1e12:.2f}", moved_cell(row), f"{row['seconds']:.3g}", f"{row['calls']:,}"]
    return f"{head} {' | '.join(cells)} |"


def moved_cell(row: Row) -> str:
    """GB of a row's collectives and, in brackets, of those in the decode loop."""
    if row["collectives"] is None:
        return "not known"
    every = sum(c["bytes"] * c["times"] for c in row["collectives"])
    decode = sum(c["bytes"] * c["times"] for c in row["collectives"] if c["decode"])
    return f"{every / 1e9:.2f} ({decode / 1e9:.2f})"
