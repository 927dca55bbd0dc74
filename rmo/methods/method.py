"""The door for a method: what a way of spending KL on a reward says of itself, and the registry of all of them.

A method is one module of this folder, or a package with a `door.py`, that defines a `Method` and registers it. Stages,
curves, fits, figures, tables, `rmo watch`, `rmo list` and wandb ask the registry; nothing outside this folder names a
method. Modules here are imported when somebody first asks, so what they import at the top must be light: networks are
imported inside `run`. A method that lives elsewhere is registered by importing it (rmo/cli/plugins.py).
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rmo.config.names import of_rewards

if TYPE_CHECKING:
    from rmo.analysis.curve import Curve
    from rmo.analysis.curve_id import CurveId
    from rmo.config import Experiment
    from rmo.methods.bench import Bench, Record


@dataclass(frozen=True)
class Job:
    """One stage of a method: the rewards of one `scores` stage, optimised from one policy with one set of settings."""

    name: str  # of the stage, after the method's own: `w8x1-main`
    scores: str  # which `scores` stage's rewards it optimises against
    settings: object  # the slice of the config that its numbers depend on
    policy: int = 0  # which of the experiment's policies it starts from
    details: object = None  # for the method itself; nothing else looks at it
    after: tuple[str, ...] = ()  # stages of methods before it in rank whose policies it takes: `ppo/w8x1-main`


@dataclass(frozen=True)
class Diagnostic:
    """One number per point, beside gold and proxy, that tells how an optimisation fares."""

    name: str  # in `Record.diagnostics` and in the method's table
    title: str
    drawn: bool = False  # in the report's figure


Need = Callable[[bool, str], None]  # raises ConfigError with the message unless the first is true


def on_pools(e: "Experiment", kind: type) -> Iterator[Job]:
    """A stage for every pool that was scored by RMs, of every entry of this kind in `methods`: what a method that only
    chooses among a pool's draws has as `jobs`."""
    for settings in e.methods:
        for name, policy in of_rewards(e) if type(settings) is kind else ():
            yield Job(name, name, settings, policy)


def one_entry(e: "Experiment", kind: type, need: Need, more: str) -> None:
    """Refuse two settings of one kind in `methods`, whose stages would have one name; `more` says what to do."""
    found = sum(type(settings) is kind for settings in e.methods)
    need(found < 2, f"methods has {found} entries {kind.__name__}: {more}")


def labels_of_rm(id: "CurveId") -> int | None:
    """The comparisons that a curve's RM was trained on, or that it learned from itself."""
    return id.rm_comparisons


def no_check(e: "Experiment", need: Need) -> None:
    """Nothing to refuse."""


@dataclass(frozen=True)
class Method:
    """Everything that the rest of rmo knows of a method."""

    name: str  # in curves.csv and in the names of stages
    title: str  # in figures and tables
    short: str  # where there is little room
    axis: str  # what `step_or_n` counts: n, iteration
    kl: Literal["exact", "bound"]  # how the KL of its points is known
    kl_axis: str  # the label of KL in its figures
    form: str  # of its curves, a key of `analysis.forms.FORMS`
    jobs: Callable[["Experiment"], Iterable[Job]]  # its stages, in order
    run: Callable[["Bench", Job], "Record"]  # makes one of them
    check: Callable[["Experiment", Need], None] = no_check  # refuses settings that cannot work
    labels: Callable[["CurveId"], int | None] = labels_of_rm  # that one curve took, of one RM; None where not known
    stop: "Callable[[Curve], float] | None" = (
        None  # the KL at which its own rule ends a curve, without other gold than it
    )
    shared_alpha: bool = False  # whether one alpha serves all RM sizes (paper section 3.1)
    diagnostics: tuple[Diagnostic, ...] = ()
    logs_points: bool = False  # whether its log has a row per point (axis, kl, proxy, gold), as a curve to watch
    charts: tuple[tuple[str, str], ...] = ()  # (metric of its log, title) for dashboards
    less_memory: str = ""  # which settings take less, when memory runs out
    rank: int = 100  # place among the methods in tables and figures

    def __str__(self) -> str:
        return self.name


# Kinds of stages and tables that are there already.
TAKEN = {"prompts", "sft", "gold", "samples", "comparisons", "trunks", "proxies", "scores", "fits", "report", "curves",
         "paths", "reward_models"}  # fmt: skip
_METHODS: dict[str, Method] = {}
_discovered = False


def register(method: Method) -> Method:
    """Make a method known. Registering a name again replaces what was there, as when a notebook's cell runs twice.

    Raises:
      ValueError: its name cannot be that of stages and of a table.
    """
    if not method.name.isidentifier() or method.name in TAKEN:
        raise ValueError(f"a method cannot be called {method.name!r}: give another name, of letters, digits and _")
    _METHODS[method.name] = method
    return method


def every() -> list[Method]:
    """All methods, in order: those of this folder, and those that were registered elsewhere."""
    global _discovered
    if not _discovered:
        _discovered = True
        import rmo.methods as folder

        for module in pkgutil.iter_modules(folder.__path__):
            importlib.import_module(f"rmo.methods.{module.name}{'.door' if module.ispkg else ''}")
    return sorted(_METHODS.values(), key=lambda method: (method.rank, method.name))


def names() -> list[str]:
    return [method.name for method in every()]


def find(name: str) -> Method:
    """The method of a name.

    Raises:
      ValueError: there is none; says which there are.
    """
    known = {method.name: method for method in every()}
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        perhaps = f"perhaps {close[0]}; " if close else ""
        raise ValueError(f"method is {name!r}; {perhaps}use one of {', '.join(known)}")
    return known[name]


def default_method() -> str:
    """What a table of curves without a column `method` is taken to be about: the first that counts n."""
    return next(method.name for method in every() if method.axis == "n")
