"""Which groups of curves belong together: the sweeps that claims and figures look at, out of one method's groups."""

from collections import Counter
from collections.abc import Sequence

from rmo.analysis.curve_id import Settings
from rmo.analysis.fitting import Group, families


class Missing(Exception):
    """The run holds nothing that this can be computed from; says what it would need."""


def main_family(groups: Sequence[Group], method: str) -> list[Group]:
    """The main sweep over RM sizes, smallest first: most sizes, most comparisons. What has no
    RM of a size, gold as its own proxy too, is in no sweep.

    Raises:
      Missing: there are no groups.
    """
    groups = [g for g in groups if g.id.against_rm]
    if not groups:
        raise Missing(f"no {method} curves")
    return families(groups)[0]


def gold_group(groups: Sequence[Group], method: str) -> Group:
    """Gold as its own proxy, from the main policy, by the method as it stands.

    Raises:
      Missing: gold was not optimised against by this method.
    """
    found = [g for g in groups if g.id.against_gold and not g.id.settings]
    if not found:
        raise Missing(f"no {method} curves against gold itself")
    return found[0]


def plain(groups: Sequence[Group], method: str, **wanted: object) -> list[Group]:
    """Groups whose identity has these fields (of `CurveId`), by RM size; of the main policy, against single RMs trained
    as in the paper, by the method as it stands, unless `wanted` says otherwise."""
    asked = {"policy_params": main_family(groups, method)[0].policy}
    asked |= {"rm_recipe": Settings(), "rm_combined": "", "settings": Settings(), **wanted}
    return [g for g in groups if all(getattr(g.id, name) == value for name, value in asked.items())]


def by_comparisons(groups: Sequence[Group], method: str, params: int, least: int) -> list[Group]:
    """One RM size over the numbers of comparisons, fewest first; `Missing` with fewer than `least` of them."""
    found = sorted(plain(groups, method, rm_params=params), key=lambda g: g.comparisons or 0)
    if len(found) < least:
        raise Missing(f"{method} with fewer than {least} numbers of comparisons")
    return found


def most_swept(groups: Sequence[Group], method: str) -> int:
    """The smallest RM size among those with the most numbers of comparisons."""
    counts = Counter(g.params for g in plain(groups, method))
    return min(counts, key=lambda params: (-counts[params], params))


def repeated(groups: Sequence[Group], method: str) -> list[tuple[int, Group, Group | None, Group | None]]:
    """(epochs, trained so often on few comparisons, once on them, once on as many unique ones) of every RM size.

    Once is `epochs=1` where a recipe says so: those that say nothing are then trained for more (`Proxies.steps`).
    """
    one_epoch = Settings(epochs=1)
    said = any(g.id.rm_recipe == one_epoch for g in groups)
    out = []
    for g in groups:
        alone = set(g.id.rm_recipe) == {"epochs"} and not g.id.rm_combined  # nothing else that is not as in the paper
        if alone and g.id.rm_recipe != one_epoch:
            epochs = int(g.id.rm_recipe.number("epochs"))
            recipe = one_epoch if said else Settings()
            once = {x.comparisons: x for x in plain(groups, method, rm_params=g.params, rm_recipe=recipe)}
            out.append((epochs, g, once.get(g.comparisons), once.get((g.comparisons or 0) * epochs)))
    return out
