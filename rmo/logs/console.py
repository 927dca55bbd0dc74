"""What trainers print in a terminal, as rows: Python's dicts between progress bars (TRL, ms-swift, slime), verl's
`step:3 - actor/kl_loss:0.1 - ...`, lines of `name: value` or `name=value`, and tables drawn in boxes (AReaL, tinker).
"""

import ast
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rmo.logs.rows import Loaded, LogError, Rows, number, numeric, tidy
from rmo.runtime.types import Row

COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
SCALAR = re.compile(rf"(?:np\.|numpy\.|torch\.)?(?:float|int|bfloat|tensor|array)\d*\(\s*({NUMBER})[^()]*\)")
NO_NUMBER = re.compile(r"(?<![\w'\"])-?(?:nan|inf|NaN|Infinity)(?![\w'\"])")
BAR = re.compile(r"\b(\d+)/\d+ \[\d")  # of a progress bar: 17/1000 [03:08<...
NAMED = re.compile(
    r"\b(?:global_?step|training_?step|step|steps|iteration|iter|rollout|eval)\b\s*[:=#]?\s*(\d+)\b", re.I
)
PAIR = re.compile(rf"([A-Za-z_][\w./@()-]*)\s*[:=]\s*({NUMBER})(?![\w.:/-])")
VERL = re.compile(r"(?:^|\s)step:\s*(\d+) - ")
BOX = "│┃|║"
STEP, AROUND = "step", "step around"  # columns: what a row says itself, and what is printed around it
LONGEST = 50_000  # characters of one dict
UNCLOSED = 200  # braces that are never closed, after which the rest is taken for no log
FEWEST = 3  # rows that share a column, for them to be a curve and not what a program says once


def load_console(path: Path, text: str) -> Loaded:
    """(rows, notes) of what a program printed.

    Raises:
      LogError: it printed no numbers by name again and again.
    """
    plain = COLOURS.sub("", text)
    rows = verl_lines(plain)
    if not rows:
        rows = repeated(max((dicts(plain), boxes(plain), pairs(plain)), key=score))
    if not rows:
        kinds = "dicts, `step:1 - name:value`, `name: value` or tables"
        raise LogError(f"{path}: no numbers by name are printed in it again and again ({kinds}): give the log as JSONL")
    return with_steps(rows)


def with_steps(rows: Rows) -> Loaded:
    """(rows with steps, a note on where they come from). Those of the bars or words around a row count where they tell
    the rows apart; where what was printed came out in lumps, rows are counted instead, if bars say how far apart they
    are."""
    around = [row.pop(AROUND, None) for row in rows]
    if any(STEP in row for row in rows) or all(step is None for step in around):
        return Loaded(rows, [])
    cells = [len(numeric([row])) for row in rows]
    main = [size > 0.5 * max(cells) for size in cells]  # what comes once a step: no evaluations and summaries
    steps = [step for step, is_main in zip(around, main, strict=True) if is_main]
    if None not in steps and len(set(steps)) == len(steps):
        made = [{STEP: step, **row} if step is not None else row for step, row in zip(around, rows, strict=True)]
        return Loaded(made, ["steps are those of the bar or the line that was printed before"])
    apart = max(step for step in around if step is not None) / max(len(steps), 1)
    if apart < 1 or apart != int(apart):
        return Loaded(rows, ["no steps are known: rows count in their order"])
    at = itertools.accumulate(int(apart) * is_main for is_main in main)
    made = [{STEP: step, **row} for step, row in zip(at, rows, strict=True)]
    return Loaded(made, [f"steps are counted, {int(apart)} from row to row, as the bars' last step says"])


def score(rows: Rows) -> int:
    """How much of a curve rows hold: cells with numbers that come again."""
    return sum(len(row) for row in repeated(rows))


def repeated(rows: Rows) -> Rows:
    """Rows with a number that comes in several of them, once where every process of a run printed them."""
    counts = Counter(name for row in rows for name in numeric([row]) if name not in (STEP, AROUND))
    kept = []
    for row in rows:
        again = [name for name in numeric([row]) if counts[name] >= FEWEST]
        if again and not (kept and kept[-1] == row):
            kept.append(row)
    return [dict(row) for row in kept]


def dicts(text: str) -> Rows:
    """Every dict of numbers that is printed anywhere, with the step of the bar or the words before it."""
    rows = []
    end = 0
    step = None
    for start, found in braces(text):
        value = evaluate(found)
        before = text[end:start].replace("\r", "\n")
        step = step_in(before, step)
        end = start + len(found)
        if value is None or not numeric([row := tidy(value)]):
            continue
        rows.append({**row, AROUND: step})
    return rows


def braces(text: str) -> Iterator[tuple[int, str]]:
    """(where it starts, text) of every outermost {...}, quotes respected."""
    at = text.find("{")
    unclosed = 0
    while at >= 0 and unclosed < UNCLOSED:
        end = closing(text, at)
        if end is None:
            unclosed += 1
            at = text.find("{", at + 1)
            continue
        yield at, text[at:end]
        at = text.find("{", end)


MARKS = re.compile(r"""[{}]|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""")


def closing(text: str, at: int) -> int | None:
    """Where the brace that opens at a place is closed; None if it is not."""
    depth = 0
    for mark in MARKS.finditer(text, at, at + LONGEST):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth == 0:
            return mark.end()
    return None


def evaluate(text: str) -> Row | None:
    """A printed dict of Python's or JSON's; None if it is something else. No code is run."""
    joined = text.replace("\r", "").replace("\n", "")  # a terminal breaks long lines, within words too
    with_numbers = SCALAR.sub(r"\1", joined)
    for parse, source in ((json.loads, joined), (ast.literal_eval, NO_NUMBER.sub("None", with_numbers))):
        try:
            value = parse(source)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            return value
        return None
    return None


def step_in(before: str, last: int | None) -> int | None:
    """The step that the text before a dict names: in its own line, else of the last progress bar, else as before."""
    own = NAMED.findall(before.rpartition("\n")[2])
    if own:
        return int(own[-1])
    bars = BAR.findall(before)
    return int(bars[-1]) if bars else last


def verl_lines(text: str) -> Rows:
    """verl's lines. Of a name that comes twice in a line the first value counts."""
    rows = []
    for line in text.splitlines():
        start = VERL.search(line)
        if not start:
            continue
        row: Row = {STEP: int(start[1])}
        for item in line[start.end() :].split(" - "):
            name, _, value = item.strip().rpartition(":")
            value = SCALAR.sub(r"\1", value)
            if name and number(value) is not None:
                row.setdefault(name.strip(), float(value))
        rows.append(row)
    return rows


def pairs(text: str) -> Rows:
    """Lines with several `name: value` or `name=value`."""
    rows = []
    for line in text.splitlines():
        found = PAIR.findall(line)
        if len(found) < 2:
            continue
        row: Row = {}
        for name, value in found:
            row.setdefault(name, float(value))
        step = NAMED.search(line)
        if step:
            row.setdefault(STEP, int(step[1]))
        rows.append(row)
    return rows


def boxes(text: str) -> Rows:
    """Tables drawn in a terminal, `│ name │ value │`, a row for each table, with the step of the line above it."""
    rows = []
    step = None
    for boxed, lines in itertools.groupby(text.splitlines(), key=lambda line: any(mark in line for mark in BOX)):
        block = list(lines)
        if not boxed:
            steps = NAMED.findall("\n".join(block[-40:]))
            step = int(steps[-1]) if steps else step
            continue
        row = {}
        for line in block:
            cells = [cell.strip() for cell in re.split(f"[{BOX}]", line)]
            for name, value in itertools.pairwise(cells):
                if name and number(name) is None and number(value) is not None:
                    row.setdefault(name, float(value))
        if row:
            rows.append({**row, AROUND: step})
    return rows
