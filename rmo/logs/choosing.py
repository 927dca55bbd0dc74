"""Which column of a log plays which role: the one that was named, else one that a known trainer calls so."""

import difflib
import re
from collections.abc import Sequence
from typing import Literal

from rmo.logs.columns import Columns
from rmo.logs.formats import LogError, Rows, number, numeric
from rmo.logs.trainers import TRAINERS, plain, trainer_of

Role = Literal["kl", "gold", "proxy", "length", "step", "se", "n", "per_token"]
STEPS = ("step", "global_step", "train/global_step", "training/global_step", "Step", "_step", "episode", "step_or_n",
         "iteration", "iter", "update", "updates")  # fmt: skip
SPREAD = re.compile(r"(std|_se|/se|min|max|count)$|(std|worst|best)@")  # columns that describe another column's spread
NO_RESPONSE_LENGTH = re.compile("prompt|total|max|min|std")
LIKE_GOLD = ("gold", "judge", "win", "val", "eval", "test", "acc", "score", "reward")  # the likeliest first
SHOWN = 8  # columns that a message lists


def match(wanted: str, names: Sequence[str]) -> str | None:
    """The column called `wanted`, or called so but for what trainers put before names."""
    if wanted in names:
        return wanted
    for name in names:
        if plain(name) == plain(wanted):
            return name
    return None


def pick(role: Role, rows: Rows, want: Columns) -> str | None:
    """The column of a role: the one that `want` names, else that of a known trainer, else one of the role's own name.

    Gold is known by its name alone, and only where a single column has it: no log says what its user really wants.
    """
    names = numeric(rows)
    given = getattr(want, role, None)
    if given is not None:
        return match(given, names)
    if role == "gold":
        return only([name for name in names if "gold" in name.lower() and not SPREAD.search(name.lower())])
    for candidate in trainers_names(role, names):
        if found := match(candidate, names):
            return found
    if role == "length":
        lengths = [name for name in names if "length" in name and not NO_RESPONSE_LENGTH.search(name)]
        return lengths[0] if lengths else None
    return only([name for name in names if plain(name).rpartition("/")[2] == role])


def only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def trainers_names(role: Role, names: Sequence[str]) -> Sequence[str]:
    """What the trainer that wrote columns `names` calls a role."""
    trainer = trainer_of(names)
    return tuple(getattr(TRAINERS[trainer], role)) if trainer else ()


def need(role: Role, rows: Rows, want: Columns) -> str:
    """As `pick`.

    Raises:
      LogError: there is none, or gold could be several; lists the columns there are, the likeliest first.
    """
    if found := pick(role, rows, want):
        return found
    given = getattr(want, role)
    names = likeliest(role, given, [name for name in numeric(rows) if name not in STEPS and not SPREAD.search(name)])
    shown = ", ".join(names[:SHOWN]) or "none: no column holds numbers"
    if len(names) > SHOWN:
        shown += f" and {len(names) - SHOWN} more"
    what = f"there are no numbers in a column {given}" if given else f"which column is {role}? It is not guessed"
    line = f"{what}: say --{role.replace('_', '-')} with one of {shown}"
    if role == "gold" and not given:
        line += "; if none is, score samples of checkpoints by what you want, and log it"
    raise LogError(line)


def likeliest(role: Role, given: str | None, names: Sequence[str]) -> list[str]:
    """Columns, the likeliest for a role first: by words for gold, else by how their names are spelled."""
    target = (given or role).lower()

    def unlike(name: str) -> float:
        return -difflib.SequenceMatcher(None, target, name.lower()).ratio()

    def rank_as_gold(name: str) -> float:
        ranks = [i for i, word in enumerate(LIKE_GOLD) if word in name.lower()]
        return min(ranks, default=len(LIKE_GOLD))

    return sorted(names, key=rank_as_gold if role == "gold" and not given else unlike)


def step_column(rows: Rows, want: Columns, gold: str, kl: str | None) -> str | None:
    """The column of steps: the one that `want` names, else a usual one that every row with gold or KL has.

    None: there is none, and every row with one of them has both, so that the order of rows does.

    Raises:
      LogError: there is none, and the rows with gold are not the rows with KL.
    """
    used = [gold] if kl is None else [gold, kl]
    rows = [row for row in rows if any(number(row.get(name)) is not None for name in used)]
    if want.n:
        return need("n", rows, want)
    if want.step:
        return need("step", rows, want)
    for name in STEPS:
        if all(number(row.get(name)) is not None for row in rows):
            return name
    if all(number(row.get(name)) is not None for row in rows for name in used):
        return None
    raise LogError(f"rows with {' and with '.join(used)} share no column of steps: say --step COLUMN")
