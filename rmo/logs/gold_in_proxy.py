"""Whether what is called gold is what was optimised, or a part of it: then its curve shows no overoptimisation."""

import numpy as np

from rmo.logs.rows import Rows, number, numeric
from rmo.logs.series import pairs
from rmo.logs.trainers import TRAINERS, like, trainer_of

FEWEST = 8  # reads that a correlation needs
SAME = 1e-4  # of the proxy's spread: below it two columns are one
TOGETHER = 0.9  # correlation of what is not trend in two columns
EXACT = 0.9999  # R² of a weighted sum
NO_WEIGHT = 0.01  # of a part, relative to the largest


def warning(rows: Rows, gold: str, proxy: str | None, step: str | None) -> str | None:
    """Why gold is no gold: it is the proxy, or a part of it by the numbers, or by its name; None if nothing says so."""
    if proxy is None:
        return None
    after = "it was optimised itself, so its curve shows no overoptimisation: give a gold that the reward does not hold"
    both = shared(rows, gold, proxy, step)
    if len(both) >= FEWEST and is_same(both):
        return f"gold {gold} is {proxy} itself (the same numbers): {after}"
    weight = weight_in(rows, gold, proxy)
    if weight is not None:
        return f"gold {gold} is a part of {proxy}, with weight {weight:.2g}: {after}" if weight else None
    if moves_with(both):
        return f"gold {gold} moves with {proxy} read by read, beyond any trend: if it is a part of it, {after}"
    if is_part_by_name(gold, proxy, numeric(rows)):
        why = f"by its name gold {gold} is one of the rewards that {proxy} is summed from"
        return f"{why}: unless its weight is 0, {after}"
    return None


def shared(rows: Rows, gold: str, proxy: str, step: str | None) -> np.ndarray:
    """(gold, proxy) at the K steps that have both, f64[K, 2]."""
    first, second = dict(pairs(rows, gold, step)), dict(pairs(rows, proxy, step))
    steps = sorted(first.keys() & second.keys())
    return np.array([(first[at], second[at]) for at in steps]).reshape(len(steps), 2)


def is_same(both: np.ndarray) -> bool:
    spread = float(np.ptp(both[:, 1]))
    return spread > 0 and float(np.abs(both[:, 0] - both[:, 1]).max()) <= SAME * spread


def parts_of(names: list[str], proxy: str) -> list[str]:
    """Columns of reward functions that the trainer sums into its proxy, of a function its mean alone."""
    trainer = trainer_of(names)
    wanted = TRAINERS[trainer].parts if trainer and any(like(proxy, p) for p in TRAINERS[trainer].proxy) else ()
    for pattern in wanted:
        found = [name for name in names if like(name, pattern) and not name.startswith("eval") and name != proxy]
        if found:
            return found
    return []


def weight_in(rows: Rows, gold: str, proxy: str) -> float | None:
    """Gold's weight in the sum of reward functions that the proxy is; None where it is no such sum, or it is not known
    (there are too few rows, or the functions move as one)."""
    parts = parts_of(numeric(rows), proxy)
    if gold not in parts:
        return None
    cells = [[number(row.get(name)) for name in (proxy, *parts)] for row in rows]
    table = np.array([row for row in cells if None not in row], np.float64)
    if len(table) < len(parts) + 3:
        return None
    x = np.column_stack([table[:, 1:], np.ones(len(table))])
    spread = x[:, :-1].std(axis=0)
    gold_at = parts.index(gold)
    if spread[gold_at] == 0:
        return None
    weights, _, rank, _ = np.linalg.lstsq(x, table[:, 0], rcond=None)
    left = table[:, 0] - x @ weights
    constant = int((spread == 0).sum())
    if rank < x.shape[1] - constant or left.var() > (1 - EXACT) * table[:, 0].var():
        return None
    share = np.abs(weights[:-1]) * spread
    return 0.0 if share[gold_at] < NO_WEIGHT * share.max() else float(weights[gold_at])


def moves_with(both: np.ndarray) -> bool:
    """Whether two columns share what is left of them without their trends: their second differences correlate, and are
    noise (larger than the first ones), not the bend of a smooth curve."""
    if len(both) < FEWEST + 2:
        return False
    first, second = np.diff(both, axis=0), np.diff(both, 2, axis=0)
    if (second.std(axis=0) <= first.std(axis=0)).any() or (second.std(axis=0) == 0).any():
        return False
    return float(np.corrcoef(second.T)[0, 1]) > TOGETHER


def is_part_by_name(gold: str, proxy: str, names: list[str]) -> bool:
    """Whether gold's name puts it among the functions that the proxy sums: rewards/format of reward."""
    if gold in parts_of(names, proxy):
        return True
    folder, _, _ = gold.removesuffix("/mean").rpartition("/")
    above, _, last = proxy.removesuffix("/mean").rpartition("/")
    summed = last in ("total", "sum", "reward", "rewards", "overall")
    return (
        bool(folder) and summed and (folder == above or folder.rstrip("s") == last.rstrip("s")) and "eval" not in gold
    )
