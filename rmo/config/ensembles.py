"""RMs of several sizes as one reward, and an ensemble without each of its seeds in turn."""

import dataclasses
from dataclasses import dataclass
from typing import Protocol, TypeVar

WITHOUT = "-without-"  # in the name of an ensemble, before the RM seed that is left out


@dataclass(frozen=True)
class Ensemble:
    """RMs of several sizes of one sweep and recipe as one reward (rmo/rewards); seeds alone are `Sweep.combined`."""

    name: str = "sizes"
    """Part of the names of its stages."""
    how: str = "mean"
    """As in `Combined`, of their scores: parameters of different shapes have no average."""
    sweep: str = "main"
    """Which of proxies.sweeps they come from."""
    recipe: int = 0
    """Which of that sweep's recipes, as an index."""
    sizes: tuple[int, ...] = ()
    """Which of proxies.sizes, as indices; empty means all that the sweep has."""
    seeds: tuple[int, ...] = ()
    """Which RM seeds of each size; empty means all."""
    coefficient: float = 0.5
    """As in `Combined`."""


class HasSeeds(Protocol):
    """`Combined`, or an `Ensemble`."""

    @property
    def name(self) -> str: ...
    @property
    def seeds(self) -> tuple[int, ...]: ...


C = TypeVar("C", bound=HasSeeds)


def with_each_left_out(ensemble: C, seeds: int) -> tuple[C, ...]:
    """An ensemble of some of so many RM seeds, and what it is without each of them: `mean`, `mean-without-0`, ... That
    gives intervals over which seeds form it (the jackknife), where it has at least three."""
    of = ensemble.seeds or tuple(range(seeds))
    out = [ensemble]
    for seed in of:
        rest = tuple(other for other in of if other != seed)
        out.append(dataclasses.replace(ensemble, name=f"{ensemble.name}{WITHOUT}{seed}", seeds=rest))  # type: ignore[type-var]
    return tuple(out)
