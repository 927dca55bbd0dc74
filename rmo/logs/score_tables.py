"""Best-of-n from scores that exist already: a table of (prompt, draw, proxy, gold) becomes curves. No model is needed.

For people who sampled and scored elsewhere: JSONL, Parquet or npz (see `read`).
"""

import json
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmo.analysis.curve import Curve, from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.methods import best_of_n
from rmo.models import metrics
from rmo.rewards.calibration import Calibration, soft_label_scale
from rmo.runtime import errors
from rmo.runtime.files import Row, RunError

SCORES = ("proxy", "gold")
NEEDED = ("prompt", *SCORES)
KEYS = ("rm_params", "rm_comparisons", "policy_params", "seed")  # optional columns: every combination is one RM
CALIBRATION_PAIRS = 50_000


class TableError(RunError):
    """What is wrong with a table of scores and where, in one line."""


class ScoreTable(NamedTuple):
    """Scores of N draws for each of Q prompts, by one reward model and by gold."""

    meta: Row  # which reward model: its values of KEYS
    proxy_QN: np.ndarray  # f64[Q, N]
    gold_QN: np.ndarray  # f64[Q, N]


def read(path: Path) -> list[ScoreTable]:
    """The scores of every reward model in a file.

    JSONL and Parquet: a row per draw with `prompt`, `proxy`, `gold`; `draw` if rows are out of order; any of
    rm_params, rm_comparisons, policy_params, seed if there are several RMs. npz: `proxy` [Q, N] or [M, Q, N] and
    `gold` [Q, N]; the optional columns are [M].

    Raises:
      TableError: no such file or format, a column is missing, a cell is no finite number (with its line), prompts
        have different numbers of draws, or RMs have scored different prompts.
    """
    if not path.is_file():
        raise TableError(f"{path}: no such file{errors.instead(path)}")
    if path.suffix == ".npz":
        return read_npz(path)
    columns = checked(path, read_columns(path))
    keys = [name for name in KEYS if name in columns]
    tables = []
    first_prompts = None
    for meta, rows in by_model(columns, keys):
        prompts, proxy_QN, gold_QN = by_prompt(path, {name: values[rows] for name, values in columns.items()})
        table = ScoreTable(meta, proxy_QN, gold_QN)
        if first_prompts is None:
            first_prompts = prompts
        first = tables[0] if tables else table
        if not np.array_equal(prompts, first_prompts) or not np.array_equal(gold_QN, first.gold_QN):
            raise TableError(f"{path}: {first.meta} and {meta} do not share prompts and gold: give each its own table")
        tables.append(table)
    return tables


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a JSONL or Parquet file that are of use, as they are stored.

    Raises:
      TableError: another format, or a file that cannot be read.
    """
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
    """Where a JSONL file first has a line that is no JSON, or a score that is no number; empty for Parquet."""
    if path.suffix == ".parquet":
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        for i, line in enumerate(file, start=1):
            try:
                row = json.loads(line) if line.strip() else {}
            except ValueError as error:
                return f"line {i} is no JSON: {error}"
            for name in SCORES:
                if isinstance(row, dict) and not isinstance(row.get(name, 0), int | float):
                    return f"line {i}: {name} is {row[name]!r}, not a number"
    return ""


def checked(path: Path, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns, with all but `prompt` as f64.

    Raises:
      TableError: a column is missing, there are no rows, or a cell is not what its column holds.
    """
    for name in NEEDED:
        if name not in columns:
            optional = ", ".join(KEYS)
            raise TableError(f"{path} has no column {name}: a row is prompt, proxy, gold; optionally draw, {optional}")
    if not len(columns["prompt"]):
        raise TableError(f"{path} has no rows")
    result = {"prompt": columns["prompt"]}
    for name in (*SCORES, *KEYS, "draw"):
        if name in columns:
            result[name] = numbers(path, name, columns[name])
    if columns["prompt"].dtype.kind in "Of":  # no whole numbers: texts, or something is missing
        missing = np.array([prompt is None or prompt != prompt for prompt in columns["prompt"]])
        if missing.any():
            raise TableError(f"{path} row {int(missing.argmax()) + 1} has no prompt")
    return result


def numbers(path: Path, name: str, cells: np.ndarray) -> np.ndarray:
    """A column as f64: finite scores, whole numbers elsewhere.

    Raises:
      TableError: a cell is something else; says which.
    """
    try:
        values = np.asarray(cells, np.float64)
    except (TypeError, ValueError) as error:
        raise TableError(f"{path}: {first_bad_line(path) or f'column {name} is not all numbers'}") from error
    bad = ~np.isfinite(values)
    if name not in SCORES:
        bad |= values != np.round(values)
    if bad.any():
        row = int(bad.argmax())
        kind = "a finite number" if name in SCORES else "a whole number"
        raise TableError(f"{path} row {row + 1}: {name} is {values[row]:g}, not {kind}")
    return values


def by_model(columns: dict[str, np.ndarray], keys: list[str]) -> list[tuple[Row, np.ndarray]]:
    """(meta, its rows i64) of every combination of the key columns' values; without keys, all rows."""
    if not keys:
        return [({}, np.arange(len(columns["prompt"])))]
    combinations, which = np.unique(np.stack([columns[name] for name in keys], axis=1), axis=0, return_inverse=True)
    models = []
    for m, values in enumerate(combinations):
        meta = {name: int(value) for name, value in zip(keys, values, strict=True)}
        models.append((meta, np.flatnonzero(which.ravel() == m)))
    return models


def by_prompt(path: Path, columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(prompt ids [Q], proxy, gold f64[Q, N]): prompts by id, draws by `draw` or as in the file.

    Raises:
      TableError: prompts have different numbers of draws, or a draw is there twice.
    """
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
        twice_Q = (draw_QN[:, 1:] == draw_QN[:, :-1]).any(axis=1)
        if twice_Q.any():
            raise TableError(
                f"{path}: prompt {names[twice_Q.argmax()]} has one draw twice; if several RMs scored it, name them in a"
                f" column ({', '.join(KEYS)})"
            )
    proxy_QN, gold_QN = (columns[name][order].reshape(len(names), -1) for name in SCORES)
    return names, proxy_QN, gold_QN


def read_npz(path: Path) -> list[ScoreTable]:
    """The scores of every reward model in an npz file.

    Raises:
      TableError: an array is missing, has another shape, or holds something else than finite numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        why = "pickles and arrays of objects are never opened" if "allow_pickle" in str(error) else str(error)
        raise TableError(f"{path} is no npz of numbers: {why}") from error
    if "proxy" not in arrays or "gold" not in arrays:
        has = ", ".join(arrays) or "nothing"
        raise TableError(f"{path} has {has}: it needs proxy [Q, N] or [M, Q, N], and gold [Q, N]")
    gold_QN = arrays["gold"]
    proxy_MQN = arrays["proxy"][None] if arrays["proxy"].ndim == 2 else arrays["proxy"]
    if proxy_MQN.ndim != 3 or gold_QN.shape != proxy_MQN.shape[1:]:
        shapes = f"proxy is {arrays['proxy'].shape}, gold {gold_QN.shape}"
        raise TableError(f"{path}: {shapes}: use [Q, N] or [M, Q, N], and [Q, N]")
    for name in SCORES:
        if not np.isfinite(arrays[name]).all():
            raise TableError(f"{path}: {name} holds values that are no finite numbers")
    metas = npz_metas(path, arrays, len(proxy_MQN))
    return [ScoreTable(meta, proxy_QN, gold_QN) for meta, proxy_QN in zip(metas, proxy_MQN, strict=True)]


def npz_metas(path: Path, arrays: dict[str, np.ndarray], models: int) -> list[Row]:
    """Which reward model each of `models` is.

    Raises:
      TableError: a key has another number of values, or two RMs have the same values.
    """
    keys = [name for name in KEYS if name in arrays]
    for name in keys:
        if arrays[name].shape != (models,):
            raise TableError(f"{path}: {name} is {arrays[name].shape}: one for each of the {models} RMs is needed")
    metas = [{name: int(arrays[name][m]) for name in keys} for m in range(models)]
    if len({tuple(meta.items()) for meta in metas}) < models:
        raise TableError(f"{path} holds {models} RMs without a difference: name them in an array ({', '.join(KEYS)})")
    return metas


def curve(meta: Row, proxy_QN: np.ndarray, gold_QN: np.ndarray, max_n: int, points: int = 32) -> Curve:
    """Best-of-n's curve up to max_n, in gold standard deviations above the initial policy.

    Scores are recalibrated as in a run (paper section 2.2): gold to mean 0 and variance 1 over all draws; the proxy to
    mean 0 and the scale at which its differences best predict gold's soft labels, on neighbouring draws of a prompt.

    Raises:
      TableError: gold or proxy does not vary, there are too few prompts, or max_n is more than the draws.
    """
    prompts, draws = gold_QN.shape
    if points < 4:
        raise TableError(f"{points} points: a curve needs at least 4")
    if prompts < 2 or not 4 <= max_n <= draws:
        raise TableError(f"{prompts} prompts with {draws} draws, n up to {max_n}: needs 2 prompts, 4 <= max n <= draws")
    for name, scores_QN in (("gold", gold_QN), ("proxy", proxy_QN)):
        if scores_QN.std() == 0:
            raise TableError(f"{name} is the same for every draw: nothing to learn")
    gold = Calibration(float(gold_QN.mean()), float(1 / gold_QN.std()))(gold_QN)
    proxy = Calibration(float(proxy_QN.mean()), proxy_scale(proxy_QN, gold))(proxy_QN)
    ns = best_of_n.grid(max_n, points)
    proxy_KQ, gold_KQ = best_of_n.best_of_n(proxy, gold, ns)
    # Each prompt relative to its own start, as in a run: averages stay, a prompt's baseline is no noise.
    id = CurveId.of_cells({**meta, "method": best_of_n.METHOD.name})
    return from_prompts(id, ns, metrics.kl_bon(ns), proxy_KQ - proxy_KQ[:1], gold_KQ - gold_KQ[:1])


def proxy_scale(proxy_QN: np.ndarray, gold_QN: np.ndarray) -> float:
    """The scale at which differences of the proxy best predict gold's soft labels (gold is calibrated)."""
    draws = gold_QN.shape[1]
    even, odd = slice(0, draws - 1, 2), slice(1, draws, 2)
    proxy_gap = (proxy_QN[:, even] - proxy_QN[:, odd]).ravel()
    gold_gap = (gold_QN[:, even] - gold_QN[:, odd]).ravel()
    pick = np.random.default_rng(0).permutation(len(gold_gap))[:CALIBRATION_PAIRS]
    return soft_label_scale(proxy_gap[pick], gold_gap[pick])
