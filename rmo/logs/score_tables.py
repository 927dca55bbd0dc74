"""Best-of-n from scores that exist already: a table of (prompt, draw, proxy, gold) becomes curves. No model is needed.

For people who sampled and scored elsewhere: JSONL, Parquet or npz (see `read`).
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from rmo.analysis.curve import Curve, from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.methods import best_of_n
from rmo.models import metrics
from rmo.rewards.calibration import Calibration, soft_label_scale
from rmo.runtime import errors
from rmo.runtime.files import RunError

KEYS = ("rm_params", "rm_comparisons", "policy_params", "seed")  # optional columns that tell curves apart
NEEDED = ("prompt", "proxy", "gold")


class TableError(RunError):
    """What is wrong with a table of scores and where, in one line."""


def read(path: Path) -> list[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """(what tells it apart, proxy f64[Q, N], gold f64[Q, N]) of every reward model in a table.

    JSONL and Parquet: a row per draw with `prompt`, `proxy`, `gold`; `draw` if rows are out of order; any of
    rm_params, rm_comparisons, policy_params, seed if there are several RMs. npz: `proxy` [Q, N] or [M, Q, N] and
    `gold` [Q, N]; the optional columns are [M].

    Raises:
      TableError: no such file or format, a column is missing, a cell is no finite number (with its line), or prompts
        have different numbers of draws.
    """
    if not path.is_file():
        raise TableError(f"{path}: no such file{errors.instead(path)}")
    if path.suffix == ".npz":
        return read_npz(path)
    columns = read_columns(path)
    for name in NEEDED:
        if name not in columns:
            raise TableError(
                f"{path} has no column {name}: a row is prompt, proxy, gold; optionally draw, {', '.join(KEYS)}"
            )
    size = len(columns["prompt"])
    if not size:
        raise TableError(f"{path} has no rows")
    keys = [name for name in KEYS if name in columns]
    for name in ("proxy", "gold", *keys, *(["draw"] if "draw" in columns else [])):
        values = columns[name] = numbers(path, name, columns[name])
        bad = ~np.isfinite(values) | ((values != np.round(values)) & (name not in ("proxy", "gold")))
        if bad.any():
            kind = "a finite number" if name in ("proxy", "gold") else "a whole number"
            raise TableError(f"{path} row {int(bad.argmax()) + 1}: {name} is {values[bad.argmax()]:g}, not {kind}")
    if columns["prompt"].dtype.kind in "Of":  # no whole numbers: texts, or something is missing
        missing = np.array([x is None or x != x for x in columns["prompt"]])
        if missing.any():
            raise TableError(f"{path} row {int(missing.argmax()) + 1} has no prompt")
    which, combinations = np.zeros(size, np.int64), np.zeros((1, 0))
    if keys:
        given = np.stack([columns[name] for name in keys], axis=1)
        combinations, which = np.unique(given, axis=0, return_inverse=True)
    out, first = [], None
    for m, values in enumerate(combinations):
        rows = np.flatnonzero(which.ravel() == m) if len(combinations) > 1 else np.arange(size)
        part = {name: columns[name][rows] for name in (*NEEDED, *(["draw"] if "draw" in columns else []))}
        meta = {name: int(value) for name, value in zip(keys, values, strict=True)}
        prompts, proxy_QN, gold_QN = by_prompt(path, part)
        first = first or (meta, prompts, gold_QN)
        if not np.array_equal(prompts, first[1]) or not np.array_equal(gold_QN, first[2]):
            raise TableError(f"{path}: {first[0]} and {meta} do not share prompts and gold: give each its own table")
        out.append((meta, proxy_QN, gold_QN))
    return out


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """Columns of a JSONL or Parquet file."""
    import pyarrow
    import pyarrow.json
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        elif path.suffix in (".jsonl", ".json", ".ndjson"):
            table = pyarrow.json.read_json(path)
        else:
            raise TableError(f"{path}: use .jsonl, .parquet or .npz")
    except pyarrow.ArrowException as error:
        raise TableError(f"{path}: {first_bad_line(path) or str(error).splitlines()[0]}") from error
    return {name: table[name].to_numpy() for name in table.column_names if name in (*NEEDED, "draw", *KEYS)}


def first_bad_line(path: Path) -> str:
    """Where a JSONL file first has something that is no flat object."""
    if path.suffix == ".parquet":
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        for i, line in enumerate(file, start=1):
            try:
                row = json.loads(line) if line.strip() else {}
            except ValueError as error:
                return f"line {i} is no JSON: {error}"
            for name in ("proxy", "gold"):
                if isinstance(row, dict) and not isinstance(row.get(name, 0), int | float):
                    return f"line {i}: {name} is {row[name]!r}, not a number"
    return ""


def numbers(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TableError(f"{path}: {first_bad_line(path) or f'column {name} is not all numbers'}") from error


def by_prompt(path: Path, columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(prompt ids [Q], proxy, gold f64[Q, N]): prompts by id, draws by `draw` or as in the file."""
    names, prompt, counts = np.unique(columns["prompt"], return_inverse=True, return_counts=True)
    if counts.min() != counts.max():
        low, high = names[counts.argmin()], names[counts.argmax()]
        raise TableError(
            f"{path}: prompt {low} has {counts.min()} draws, prompt {high} {counts.max()}: each needs as many"
        )
    order = np.argsort(prompt, kind="stable")
    if "draw" in columns:
        order = np.lexsort((columns["draw"], prompt))
        draw_QN = columns["draw"][order].reshape(len(names), -1)
        if (draw_QN[:, 1:] == draw_QN[:, :-1]).any():
            q = int(np.flatnonzero((draw_QN[:, 1:] == draw_QN[:, :-1]).any(axis=1))[0])
            raise TableError(f"{path}: prompt {names[q]} has one draw twice; tell RMs apart by {', '.join(KEYS)}")
    proxy, gold = (columns[name][order].reshape(len(names), -1) for name in ("proxy", "gold"))
    return names, proxy, gold


def read_npz(path: Path) -> list[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            table = {name: np.asarray(arrays[name], np.float64) for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        why = "pickles and arrays of objects are never opened" if "allow_pickle" in str(error) else str(error)
        raise TableError(f"{path} is no npz of numbers: {why}") from error
    if "proxy" not in table or "gold" not in table:
        raise TableError(
            f"{path}: has {', '.join(table) or 'nothing'}: it needs proxy [Q, N] or [M, Q, N], gold [Q, N]"
        )
    proxy, gold = table["proxy"], table["gold"]
    proxy = proxy[None] if proxy.ndim == 2 else proxy
    if proxy.ndim != 3 or gold.shape != proxy.shape[1:]:
        shapes = f"proxy is {table['proxy'].shape}, gold {gold.shape}"
        raise TableError(f"{path}: {shapes}: use [Q, N] or [M, Q, N], and [Q, N]")
    for name in ("proxy", "gold"):
        if not np.isfinite(table[name]).all():
            raise TableError(f"{path}: {name} holds values that are no finite numbers")
    keys = [name for name in KEYS if name in table]
    for name in keys:
        if table[name].shape != (len(proxy),):
            raise TableError(f"{path}: {name} is {table[name].shape}: one for each of the {len(proxy)} RMs is needed")
    metas = [{name: int(table[name][m]) for name in keys} for m in range(len(proxy))]
    if len({tuple(meta.items()) for meta in metas}) < len(proxy):
        raise TableError(f"{path} holds {len(proxy)} RMs that nothing tells apart: add {', '.join(KEYS)}")
    return [(meta, proxy[m], gold) for m, meta in enumerate(metas)]


def curve(meta: dict[str, Any], proxy_QN: np.ndarray, gold_QN: np.ndarray, max_n: int, points: int = 32) -> Curve:
    """Best-of-n's curve up to max_n, in gold standard deviations above the initial policy.

    Scores are recalibrated as in a run (paper section 2.2): gold to mean 0 and variance 1 over all draws; the proxy to
    mean 0 and the scale at which its differences best predict gold's soft labels, on neighbouring draws of a prompt.

    Raises:
      TableError: gold does not vary, there are too few prompts, or max_n is more than the draws.
    """
    prompts, draws = gold_QN.shape
    if points < 4:
        raise TableError(f"{points} points: a curve needs at least 4")
    if prompts < 2 or not 4 <= max_n <= draws:
        raise TableError(f"{prompts} prompts with {draws} draws, n up to {max_n}: needs 2 prompts, 4 <= max n <= draws")
    if gold_QN.std() == 0 or proxy_QN.std() == 0:
        raise TableError(f"{'gold' if gold_QN.std() == 0 else 'proxy'} is the same for every draw: nothing to learn")
    gold = Calibration(float(gold_QN.mean()), float(1 / gold_QN.std()))(gold_QN)
    even, odd = slice(0, draws - 1, 2), slice(1, draws, 2)
    proxy_gap, gold_gap = ((x[:, even] - x[:, odd]).ravel() for x in (proxy_QN, gold))
    pick = np.random.default_rng(0).permutation(len(gold_gap))[:50_000]
    scale = soft_label_scale(proxy_gap[pick], gold_gap[pick])
    proxy = Calibration(float(proxy_QN.mean()), scale)(proxy_QN)
    ns = best_of_n.grid(max_n, points)
    proxy_KQ, gold_KQ = best_of_n.best_of_n(proxy, gold, ns)
    # Each prompt relative to its own start, as in a run: averages stay, a prompt's baseline is no noise.
    id = CurveId.of_cells({**meta, "method": best_of_n.METHOD.name})
    return from_prompts(id, ns, metrics.kl_bon(ns), proxy_KQ - proxy_KQ[:1], gold_KQ - gold_KQ[:1])
