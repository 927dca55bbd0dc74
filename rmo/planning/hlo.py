"""Collectives of a compiled program, counted from its text."""

import math
import re
from collections import Counter

from rmo.runtime.files import Row

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}

HEAD = re.compile(r"(?:ENTRY )?%?([\w.\-]+) .*\{\s*$")
ENTRY = re.compile(r"ENTRY %?([\w.\-]+)")
LOOP = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
CALL = re.compile(r"(?:call|conditional|async-start)\(.*(?:to_apply|calls)=%?([\w.\-]+)")
CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
COLLECTIVE = re.compile(r"= (.*?) (" + "|".join(COLLECTIVES) + r")(-start)?\(")
CONSTANT = re.compile(r"s32\[\][^=]*constant\((\d+)\)")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")

Bodies = dict[str, list[str]]  # the lines of each computation
Key = tuple[str, int, bool]  # kind, bytes, whether in the decode loop


def collectives(text: str) -> list[Row]:
    """[{kind, bytes, decode, times}] of a compiled program: bytes of one result on one device, whether it sits in the
    decode loop, and how often it runs, from the constants that loops are compared with. What moves most comes first."""
    entry = ENTRY.search(text)
    found: Counter[Key] = Counter()
    if entry:
        count(computations(text), entry[1], 1, False, found)
    rows = [{"kind": kind, "bytes": size, "decode": decode, "times": n} for (kind, size, decode), n in found.items()]
    return sorted(rows, key=lambda row: -row["bytes"] * row["times"])


def computations(text: str) -> Bodies:
    """The lines of each computation, by its name."""
    bodies: Bodies = {}
    name = ""
    for line in text.splitlines():
        head = HEAD.match(line)
        if head and "->" in line:
            name = head[1]
            bodies[name] = []
        elif name:
            bodies[name].append(line)
    return bodies


def count(bodies: Bodies, name: str, times: int, decode: bool, found: Counter[Key]) -> None:
    """Add the collectives of a computation that runs `times` times, and of all that it calls, to `found`."""
    for line in bodies.get(name, []):
        loop = LOOP.search(line)
        if loop:
            condition, body = loop.groups()
            inside, often = decode or "decode/while" in line, times * steps(bodies, condition)
            count(bodies, condition, often, inside, found)
            count(bodies, body, often, inside, found)
            continue
        called = CALL.search(line)
        if called:
            count(bodies, called[1], times, decode, found)
        collective = COLLECTIVE.search(line)
        if collective:
            found[collective[2], largest_array(collective[1]), decode] += times


def steps(bodies: Bodies, condition: str) -> int:
    """How often a loop runs: the largest constant in its condition."""
    return max([1, *(int(n) for n in CONSTANT.findall(whole(bodies, condition)))])


def whole(bodies: Bodies, name: str) -> str:
    """The text of a computation and of what it calls."""
    text = "\n".join(bodies.get(name, []))
    return text + "".join(whole(bodies, part) for part in CALLED.findall(text))


def largest_array(result: str) -> int:
    """Bytes of the largest array of a result's type, such as (bf16[4,4], f32[8])."""
    sizes = []
    for kind, dims in ARRAY.findall(result):
        shape = [int(n) for n in dims.split(",")] if dims else []
        sizes.append(math.prod(shape) * BYTES.get(kind, 4))
    return max(sizes)
