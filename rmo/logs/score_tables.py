"""Best-of-n from scores that exist already: a table of (prompt, draw, proxy, gold) becomes curves. No model is needed.

For people who sampled and scored elsewhere: JSONL, Parquet or npz (see `read`).
"""

import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmo.analysis.curve import Curve, from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.logs.score_rows import NAMES, NUMBERS, SCORES, Columns, TableError, read_columns
from rmo.methods import best_of_n
from rmo.models import metrics
from rmo.rewards.calibration import Calibration, soft_label_scale
from rmo.runtime import errors
from rmo.runtime.types import Json, Row
from rmo.tracking.progress import say

CALIBRATION_PAIRS, LEAST_PAIRS = 50_000, 64  # compared for the proxy's scale: in all, and of every prompt


class ScoreTable(NamedTuple):
    """Scores of N draws for each of Q prompts, by one reward model and by gold."""

    meta: Row  # which reward model: its values of NUMBERS and NAMES
    proxy_QN: np.ndarray  # f64[Q, N]
    gold_QN: np.ndarray  # f64[Q, N]


def read(path: Path) -> list[ScoreTable]:
    """The scores of every reward model in a file.

    Rows (JSONL, JSON, Parquet): one per draw with `prompt`, `proxy`, `gold`, or one per prompt with lists of scores;
    `draw` if rows are out of order; any of rm_params, rm_comparisons, policy_params, seed, rm if there are several RMs.
    npz: `proxy` [Q, N] or [M, Q, N] and `gold` [Q, N]; the optional columns are [M].

    Raises:
      TableError: no such file or format, a column is missing, a cell is no finite number (with its line), prompts
        have different numbers of draws, RMs have scored different prompts, or several RMs look like one.
    """
    if not path.is_file():
        raise TableError(f"{path}: no such file{errors.instead(path)}")
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix == ".csv":
        raise TableError(f"{path}: use .jsonl, .parquet or .npz")
    columns = seeds_of_draws(path, read_columns(path))
    tables = []
    first_prompts = None
    for meta, rows in by_model(columns):
        some = Columns(columns.prompt[rows], *({n: x[rows] for n, x in part.items()} for part in columns[1:]))
        prompts, proxy_QN, gold_QN = by_prompt(path, some)
        table = ScoreTable(meta, proxy_QN, gold_QN)
        if first_prompts is None:
            first_prompts = prompts
        first = tables[0] if tables else table
        same = np.array_equal(prompts, first_prompts) and gold_QN.shape == first.gold_QN.shape
        # In whatever order: each RM's curve depends on its own draws alone.
        if not same or not np.array_equal(np.sort(gold_QN), np.sort(first.gold_QN)):
            raise TableError(f"{path}: {first.meta} and {meta} do not share prompts and gold: give each its own table")
        tables.append(table)
    return tables


def by_model(columns: Columns) -> list[tuple[Row, np.ndarray]]:
    """(meta, its draws i64) of every combination of the values that tell RMs apart; without any, all draws."""
    keys = [*(n for n in NUMBERS if n in columns.numbers), *columns.names]
    if not keys:
        return [({}, np.arange(len(columns.prompt)))]
    cells = [columns.numbers[n] if n in columns.numbers else columns.names[n] for n in keys]
    groups: dict[tuple[Json, ...], list[int]] = {}
    for draw, values in enumerate(zip(*cells, strict=True)):
        groups.setdefault(values, []).append(draw)
    models = []
    for values in sorted(groups, key=lambda found: [(isinstance(x, str), x) for x in found]):
        meta = {n: x if isinstance(x, str) else int(x) for n, x in zip(keys, values, strict=True)}
        models.append((meta, np.array(groups[values])))
    return models


def seeds_of_draws(path: Path, columns: Columns) -> Columns:
    """The same columns, without `seed` where it is that of a draw: each of four or more has one draw of a prompt. Where
    draws have no number, it is theirs."""
    if "seed" not in columns.numbers:
        return columns
    rest = [columns.prompt, *(x for n, x in columns.numbers.items() if n in NUMBERS and n != "seed")]
    rest += columns.names.values()
    draws = Counter(zip(*rest, columns.numbers["seed"], strict=True))
    if max(draws.values()) > 1 or len(draws) < 4 * len(set(zip(*rest, strict=True))):
        return columns
    say(f"rmo: {path}: every draw has a seed of its own, which is taken for the draw's, not for that of an RM")
    numbers = {"draw": columns.numbers["seed"], **columns.numbers}
    del numbers["seed"]
    return columns._replace(numbers=numbers)


def refuse_pools(path: Path, columns: Columns, prompt: np.ndarray) -> None:
    """Refuse draws of several RMs, or prompts of several sets, that would be taken for more draws of one.

    Args:
      prompt: i64[D], which prompt each draw is of.

    Raises:
      TableError: a column that nothing reads parts every prompt's draws alike, or every gold score is there several
        times.
    """
    if "draw" in columns.numbers:
        return  # a draw that is there twice is refused
    for name, cells in columns.others.items():
        values, which = np.unique(cells, return_inverse=True)
        counts = np.zeros((prompt.max() + 1, len(values)), int)
        np.add.at(counts, (prompt, which), 1)
        evenly = counts.min() == counts.max() or (len(counts) >= 5 and (counts == counts[0]).all())
        if len(values) > 1 and evenly and counts.max() > 1:
            parts = f"{values[0]} and {values[1]}" if len(values) == 2 else f"{values[0]}, {values[1]}, ..."
            raise TableError(
                f"{path}: {name} ({parts}) parts every prompt's draws alike: call it rm if it names RMs, make it part"
                " of prompt if it names sets of prompts, or leave it out if all are draws of one policy by one RM"
            )
    pairs, times = np.unique(np.stack([prompt, columns.numbers["gold"]]), axis=1, return_counts=True)
    varied = pairs.shape[1] >= max(20, 2 * (prompt.max() + 1))
    if varied and (each := int(np.gcd.reduce(times))) > 1:
        raise TableError(
            f"{path}: every gold score is there {each} times: if {each} RMs scored the draws, name them in a column rm"
        )


def by_prompt(path: Path, columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(prompt ids [Q], proxy, gold f64[Q, N]): prompts by id, draws by `draw` or as in the file.

    Raises:
      TableError: prompts have different numbers of draws, a draw is there twice, or RMs look like draws.
    """
    names, prompt, counts = np.unique(columns.prompt, return_inverse=True, return_counts=True)
    if counts.min() != counts.max():
        low, high = (shortened(names[i]) for i in (counts.argmin(), counts.argmax()))
        raise TableError(
            f"{path}: prompt {low} has {counts.min()} draws, prompt {high} {counts.max()}: each needs as many"
        )
    refuse_pools(path, columns, prompt)
    order = np.argsort(prompt, kind="stable")
    if "draw" in columns.numbers:
        order = np.lexsort((columns.numbers["draw"], prompt))
        draw_QN = columns.numbers["draw"][order].reshape(len(names), -1)
        twice_Q = (draw_QN[:, 1:] == draw_QN[:, :-1]).any(axis=1)
        if twice_Q.any():
            who = shortened(names[int(twice_Q.argmax())])
            advice = f"if several RMs scored it, name them in a column ({', '.join((*NUMBERS, 'rm'))})"
            raise TableError(f"{path}: prompt {who} has one draw twice; {advice}")
    proxy_QN, gold_QN = (columns.numbers[name][order].reshape(len(names), -1) for name in SCORES)
    return names, proxy_QN, gold_QN


def shortened(prompt: str) -> str:
    """A prompt's beginning, for a message."""
    line = " ".join(prompt.split())
    return line if len(line) <= 40 else f"{line[:37]}..."


def read_npz(path: Path) -> list[ScoreTable]:
    """The scores of every reward model in an npz file.

    Raises:
      TableError: an array is missing, has another shape, or holds something else than finite numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
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
    keys = [name for name in NUMBERS if name in arrays]
    for name in keys:
        if arrays[name].shape != (models,):
            raise TableError(f"{path}: {name} is {arrays[name].shape}: one for each of the {models} RMs is needed")
        if not (np.isfinite(arrays[name]) & (arrays[name] == np.round(arrays[name]))).all():
            raise TableError(f"{path}: {name} holds something else than whole numbers")
    metas = [{name: int(arrays[name][m]) for name in keys} for m in range(models)]
    if len({tuple(meta.items()) for meta in metas}) < models:
        raise TableError(
            f"{path} holds {models} RMs without a difference: name them in an array ({', '.join(NUMBERS)})"
        )
    return metas


def default_max_n(draws: int) -> int:
    """A quarter of the draws, beyond which the estimator gets noisy; but a curve needs n up to 4."""
    return max(draws // 4, min(draws, 4))


def curve(meta: Row, proxy_QN: np.ndarray, gold_QN: np.ndarray, max_n: int, points: int = 32) -> Curve:
    """Best-of-n's curve up to max_n, in gold standard deviations above the initial policy.

    Scores are recalibrated as in a run (paper section 2.2): gold to mean 0 and variance 1 over all draws; the proxy to
    mean 0 and the scale at which its differences best predict gold's soft labels, on pairs of draws of a prompt. The
    order of draws changes nothing; of those that the proxy cannot tell apart each is as likely to be the best.

    Raises:
      TableError: gold or proxy does not vary, there are too few prompts, or max_n is more than the draws.
    """
    proxy, gold = calibrated(proxy_QN, gold_QN, max_n, points)
    ns = best_of_n.grid(max_n, points)
    proxy_KQ, gold_KQ = best_of_n.best_of_n(proxy, gold, ns)
    # Each prompt relative to its own start, as in a run: averages stay, a prompt's baseline is no noise.
    id = id_of(meta, best_of_n.METHOD.name)
    return from_prompts(id, ns, metrics.kl_bon(ns), proxy_KQ - proxy_KQ[:1], gold_KQ - gold_KQ[:1])


def id_of(meta: Row, method: str) -> CurveId:
    """What a curve of a method against a table's reward model is of."""
    cells = {**meta, "method": method}
    return CurveId.of_cells({**cells, "rm_recipe": spelled({n: meta[n] for n in NAMES if n in meta})})


def calibrated(proxy_QN: np.ndarray, gold_QN: np.ndarray, max_n: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    """(proxy, gold) as `curve` recalibrates them, gold with its mean over draws that the proxy cannot tell apart.

    Raises:
      TableError: as `curve` does.
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
    return proxy, mean_of_ties(proxy_QN, gold)


def spelled(names: Row) -> str:
    """Names of an RM as a curve's identity holds texts: without spaces and =, and no number."""
    words = {name: re.sub(r"[\s=]+", "-", str(value).strip()) or "-" for name, value in names.items()}
    return " ".join(f"{name}={word if re.search('[A-Za-z]', word) else f'rm-{word}'}" for name, word in words.items())


def mean_of_ties(proxy_QN: np.ndarray, gold_QN: np.ndarray) -> np.ndarray:
    """Gold with the mean over each prompt's draws of equal proxy in the place of each of them, f64[Q, N]: which of them
    is the best is a matter of chance, not of their order."""
    out = gold_QN.astype(np.float64)
    order = np.sort(proxy_QN, axis=1)
    for q in np.flatnonzero((order[:, 1:] == order[:, :-1]).any(axis=1)):
        _, which, counts = np.unique(proxy_QN[q], return_inverse=True, return_counts=True)
        out[q] = (np.bincount(which, out[q]) / counts)[which]
    return out


def proxy_scale(proxy_QN: np.ndarray, gold_QN: np.ndarray) -> float:
    """The scale at which differences of the proxy best predict gold's soft labels (gold is calibrated).

    Draws are put in order of gold first, then the same pairs of ranks are compared in every prompt: all of them, or a
    random choice. So the order of a file, which may be sorted by anything, has no part in it.
    """
    prompts, draws = gold_QN.shape
    order = np.lexsort((proxy_QN, gold_QN), axis=1)
    proxy_QN, gold_QN = (np.take_along_axis(x, order, axis=1) for x in (proxy_QN, gold_QN))
    first, second = np.triu_indices(draws, 1)
    wanted = max(CALIBRATION_PAIRS // prompts, LEAST_PAIRS)
    if len(first) > wanted:
        pick = np.random.default_rng(0).permutation(len(first))[:wanted]
        first, second = first[pick], second[pick]
    proxy_gap = (proxy_QN[:, second] - proxy_QN[:, first]).ravel()
    gold_gap = (gold_QN[:, second] - gold_QN[:, first]).ravel()
    both = np.concatenate([proxy_gap, -proxy_gap]), np.concatenate([gold_gap, -gold_gap])  # no pair has a first
    return soft_label_scale(*both)
