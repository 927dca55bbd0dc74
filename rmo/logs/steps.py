"""One step for logs that count each kind of row by a step of its own, as slime does."""

from rmo.logs.rows import Rows, number

TRAIN, ROLLOUT, EVAL = "train/step", "rollout/step", "eval/step"


def one_step(rows: Rows) -> Rows:
    """The rows with a column `step` that counts rollouts, where rows of training, rollouts and evaluation have steps of
    their own; several steps of training may belong to one rollout. Any other rows as they are."""
    last = {}
    for name in (TRAIN, ROLLOUT, EVAL):
        steps = [found for row in rows if (found := number(row.get(name))) is not None]
        if steps:
            last[name] = max(steps)
    if len(last) < 2:
        return rows
    per_rollout = 1
    if TRAIN in last and ROLLOUT in last:
        per_rollout = max(1, round((last[TRAIN] + 1) / (last[ROLLOUT] + 1)))
    made = []
    for row in rows:
        own = {name: found for name in last if (found := number(row.get(name))) is not None}
        if not own:
            made.append(row)
            continue
        step = own.get(ROLLOUT, own.get(EVAL, own.get(TRAIN, 0) // per_rollout))
        made.append({**row, "step": step})
    return made
