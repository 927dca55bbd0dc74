"""Which column of a log plays which role: the one that was named, else one that a known trainer calls so."""

import difflib
import re
from collections.abc import Sequence
from typing import Literal

from rmo.logs.columns import Columns
from rmo.logs.gold_in_proxy import parts_of
from rmo.logs.kl_columns import like, meaning
from rmo.logs.rows import LogError, Rows, number, numeric
from rmo.logs.trainers import PENALISED, TRAINERS, plain, trainer_of

Role = Literal["kl", "gold", "proxy", "length", "step", "se", "n", "per_token"]
STEPS = ("step", "global_step", "train/global_step", "training/global_step", "trainer/global_step", "training_step",
         "Step", "_step", "steps", "checkpoint_step", "progress/batch", "progress/step", "rollout/step", "train/step",
         "eval/step", "episode", "step_or_n", "iteration", "iter", "update", "updates", "batch",
         "checkpoint")  # fmt: skip
SPREAD = re.compile(r"(std|_se|/se|stderr|min|max|count|median)$|(std|worst|best)@")  # of another column's spread
LENGTH = re.compile(r"(^|[/_.])(len|length|lengths|lens|seqlen)($|[/_.])|(completion|response|output)_?tokens")
NO_RESPONSE_LENGTH = re.compile("prompt|total|max|min|std|clip|terminated|input|trunc|penalt|reward|context|ratio|sum")
PROXIES = ("proxy", "proxy_reward", "reward_proxy", "proxy_score", "rm_score", "rm_reward", "reward_model_score",
           "reward_mean", "mean_reward", "train_reward", "reward_train", "avg_reward", "reward_avg", "rewards_mean",
           "reward", "rewards", "score", "scores", "return_mean")  # of an unknown trainer, likeliest first  # fmt: skip
NO_PROXY = re.compile("gold|eval|val(id|/|_)|test|judge|human|true|held")
LIKE_GOLD = (
    "gold",
    "judge",
    "win",
    "human",
    "val",
    "eval",
    "test",
    "acc",
    "pass",
    "score",
    "reward",
)  # likeliest first
NEVER_GOLD = re.compile(
    r"(^|[/_])(lr|learning_rate|epoch|eps|_?runtime|_?timestamp|time)$|loss|norm$|clip|tokens?$|_time$|ratio|flos|var$"
    r"|/lr|(^|/)values/|vpred|returns?/|return$|non_score|per_second|(^|[/_])(num|n|len)_|entropy|length|kl|beta|lambda|vram|memory|timing|sampling|disagree|advantage"
)
SHOWN = 8  # columns that a message lists


def match(wanted: str, names: Sequence[str]) -> str | None:
    """The column called `wanted`, or called so but for what trainers put before names; `*` stands for any text."""
    if wanted in names:
        return wanted
    for name in names:
        if like(name, wanted):
            return name
    return None


def pick(role: Role, rows: Rows, want: Columns) -> str | None:
    """The column of a role: the one that `want` names, else that of a known trainer, else one of a usual name.

    Gold is known by its name alone, and only where a single column has it: no log says what its user really wants.
    """
    names = numeric(rows)
    given = getattr(want, role, None)
    if given is not None:
        return match(given, names)
    if role == "gold":
        never = (SPREAD, NEVER_GOLD)
        return only([n for n in names if "gold" in n.lower() and not any(one.search(n.lower()) for one in never)])
    for candidate in trainers_names(role, names):
        if found := match(candidate, names):
            return found
    if role == "length":
        lengths = [name for name in names if LENGTH.search(name) and not NO_RESPONSE_LENGTH.search(name)]
        return lengths[0] if lengths else None
    if role == "kl":
        return kl_by_name(names)
    if role == "proxy":
        return proxy_by_name(names)
    return only([name for name in names if last(name) == role])


def last(name: str) -> str:
    """`kl` of objective/kl."""
    return plain(name).rpartition("/")[2]


def kl_by_name(names: Sequence[str]) -> str | None:
    """The only column that is called a KL and is not known to be another one; of several, one called just that."""
    trainer = trainer_of(names)
    called = [name for name in names if re.search(r"(^|[^a-z])kl($|[^a-z])|kl_?div|kldiv", name.lower())]
    found = [name for name in called if not SPREAD.search(name.lower()) and meaning(name, trainer).unit != "no"]
    return only(found) or only([name for name in found if last(name) == "kl"])


def proxy_by_name(names: Sequence[str]) -> str | None:
    """The column whose name is the likeliest of a proxy's."""
    possible = [name for name in names if not NO_PROXY.search(name.lower())]
    for wanted in PROXIES:
        for name in possible:
            if last(name).lower() == wanted or plain(name).lower().replace("/", "_") == wanted:
                return name
    return None


def only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def trainers_names(role: Role, names: Sequence[str]) -> Sequence[str]:
    """What the trainer that wrote columns `names` calls a role."""
    trainer = trainer_of(names)
    if trainer is None:
        return ()
    if role == "kl":
        return tuple(name for name, kl in TRAINERS[trainer].kl.items() if kl.unit != "no")
    return tuple(getattr(TRAINERS[trainer], role, ()))


def need(role: Role, rows: Rows, want: Columns) -> str:
    """As `pick`.

    Raises:
      LogError: there is none, or gold could be several; lists the columns there are, the likeliest first.
    """
    if found := pick(role, rows, want):
        return found
    given = getattr(want, role)
    names = likeliest(role, given, [name for name in numeric(rows) if name not in STEPS and not SPREAD.search(name)])
    if role == "gold" and not given:
        raise LogError(ask_for_gold(names, rows, want))
    what = f"there are no numbers in a column {given}" if given else f"which column is {role}? It is not guessed"
    raise LogError(f"{what}: say --{role.replace('_', '-')} with one of {listed(names)}")


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN]) or "none: no column holds numbers"
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def ask_for_gold(names: Sequence[str], rows: Rows, want: Columns) -> str:
    """The question which column is gold, with those that it may be: neither what was optimised nor what no score is
    called."""
    proxy = pick("proxy", rows, want)
    summed = parts_of(numeric(rows), proxy) if proxy else []
    optimised = (proxy, *summed, *(name for name in names if any(like(name, one) for one in PENALISED)))
    possible = [name for name in names if name not in optimised and not NEVER_GOLD.search(name.lower())]
    question = "which column is gold? It is not guessed"
    elsewhere = "score samples of checkpoints by what you want, and log it"
    if not proxy:
        return f"{question}: say --gold with one of {listed(possible or names)}; if none is, {elsewhere}"
    known = f"{proxy} is what was optimised"
    if summed:
        known += f", and {listed(summed)} are summed into it, but for those of weight 0"
    if not possible:
        return f"{question}: no column looks like one ({known}): {elsewhere}, or say --gold COLUMN"
    return f"{question}: say --gold with one of {listed(possible)}; if none is, {elsewhere} ({known})"


def likeliest(role: Role, given: str | None, names: Sequence[str]) -> list[str]:
    """Columns, the likeliest for a role first: for gold what the trainer scores held-out prompts by, then by words;
    else by how their names are spelled."""
    target = (given or role).lower()
    trainer = trainer_of(names)
    held_out = TRAINERS[trainer].gold if trainer else ()

    def unlike(name: str) -> float:
        return -difflib.SequenceMatcher(None, target, name.lower()).ratio()

    def rank_as_gold(name: str) -> float:
        if any(like(name, wanted) for wanted in held_out):
            return -1
        if NEVER_GOLD.search(name.lower()):
            return len(LIKE_GOLD) + 1
        ranks = [i for i, word in enumerate(LIKE_GOLD) if word in name.lower()]
        return min(ranks, default=len(LIKE_GOLD))

    return sorted(names, key=rank_as_gold if role == "gold" and not given else unlike)


def step_column(rows: Rows, want: Columns, gold: str, kl: str | None) -> str | None:
    """The column of steps: the one that `want` names, else the trainer's or a usual one that every row with gold or KL
    has, or most of those with both.

    None: there is none, and every row with one of them has both, so that the order of rows does.

    Raises:
      LogError: there is none, and the rows with gold are not the rows with KL.
    """
    used = [gold] if kl is None else [gold, kl]
    if want.n:
        return need("n", rows, want)
    if want.step:
        return need("step", rows, want)
    candidates = dict.fromkeys((*trainers_names("step", numeric(rows)), *STEPS))
    rows = [row for row in rows if any(number(row.get(name)) is not None for name in used)]
    for name in candidates:
        if all(number(row.get(name)) is not None for row in rows):
            return name
    whole = [row for row in rows if all(number(row.get(name)) is not None for name in used)]
    for name in candidates:
        if len(whole) > 3 and sum(number(row.get(name)) is not None for row in whole) > 0.5 * len(rows):
            return name
    if len(whole) == len(rows):
        return None
    raise LogError(f"rows with {' and with '.join(used)} share no column of steps: say --step COLUMN")
