"""What a curve is of: method, reward model, policy, settings, seed. Grouping, labels and CSV come from here."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Value = float | str
GOLD = "gold"  # `rm_combined` where the reward is gold itself
NO_RM = "no RM"  # `rm_combined` where a policy learns from comparisons without a reward model
# Fields of a training recipe: in tables of rmo before 0.3 they stand in one column with a method's settings.
RECIPE = ("prompts", "epochs", "flip", "weight_decay", "dropout", "smoothing", "stop_early")


def _value(text: str) -> Value:
    """A number where it is one (NaN is not: it would equal nothing), else the text."""
    try:
        number = float(text)
    except ValueError:
        return text
    return text if math.isnan(number) else number


def _text(value: Value) -> str:
    """Nine digits where they are enough, else all."""
    if isinstance(value, str):
        return value
    short = format(value, ".9g")
    return short if float(short) == value else repr(value)


class Settings(Mapping[str, Value]):
    """What differs from the default, by name: immutable, hashable, `epochs=4 dropout=0.1` as text.

    A run's own label, which has no name, is kept under the empty name and comes last in the text.
    """

    def __init__(self, values: Mapping[str, Value] | None = None, **more: Value):
        found = {**(values or {}), **more}
        self._values = {name: value if isinstance(value, str) else float(value) for name, value in found.items()}
        if self._values.keys() - {""}:
            self._check()

    def _check(self) -> None:
        """Raises ValueError where the text would not be read back as it is: the text is what tables hold."""
        again = Settings.parse(str(self))._values
        for name, value in self._values.items():
            if again.get(name) != value:
                raise ValueError(
                    f"setting {name}={value!r} cannot be written in a table: no spaces, =, or number as text"
                )

    @classmethod
    def parse(cls, text: str) -> "Settings":
        """Of the text that `str` makes: words `name=value`, then the label, if any."""
        values: dict[str, Value] = {}
        rest = text.strip()
        while "=" in (word := rest.partition(" ")[0])[1:]:
            name, _, value = word.partition("=")
            values[name] = _value(value)
            rest = rest.removeprefix(word).lstrip()
        found = cls()
        found._values = {**values, "": rest} if rest else values
        return found

    @classmethod
    def differing(cls, value: "DataclassInstance", plain: object) -> "Settings":
        """Fields (numbers and texts) of a dataclass that are not as in another value of it."""
        found: dict[str, Value] = {}
        for f in dataclasses.fields(value):
            mine = getattr(value, f.name)
            if mine != getattr(plain, f.name):
                found[f.name] = ",".join(map(str, mine)) if isinstance(mine, tuple) else mine
        return cls(found)

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __str__(self) -> str:
        words = [f"{name}={_text(value)}" for name, value in self.items() if name]
        return " ".join([*words, str(self[""])] if "" in self else words)

    def __repr__(self) -> str:
        return f"Settings({str(self)!r})"

    def number(self, name: str, default: float = 0.0) -> float:
        """A setting as a number; the default where it is not set."""
        return float(self.get(name, default))

    def without(self, *names: str) -> "Settings":
        return Settings({name: value for name, value in self.items() if name not in names})


@dataclass(frozen=True)
class CurveId:
    """The identity of one curve. `seed` None: of a group of curves that differ in nothing but the seed."""

    method: str
    rm_params: int = 0  # without embeddings; 0 where not known
    rm_comparisons: int | None = None  # that the RM was trained on
    rm_recipe: Settings = field(default_factory=Settings)  # how it was trained, where not as in the paper
    rm_combined: str = ""  # how several RMs make one score, or GOLD, NO_RM; empty: one RM, trained on labels
    policy_params: int | None = None
    settings: Settings = field(default_factory=Settings)  # of the method, where not its default
    seed: int | None = None  # of the RM

    @property
    def rm(self) -> tuple[int, int | None, str]:
        """What identifies the RM but for its seed: curves of one RM and seed share its luck, however it was trained."""
        return self.rm_params, self.rm_comparisons, self.rm_combined

    @property
    def against_gold(self) -> bool:
        """Whether gold is its own proxy here: no RM of a sweep, and nothing that can be overoptimised."""
        return self.rm_combined == GOLD

    @property
    def against_rm(self) -> bool:
        """Whether what is optimised is one RM of a sweep, or several combined: neither gold nor labels alone."""
        return self.rm_combined not in (GOLD, NO_RM)

    @property
    def group(self) -> "CurveId":
        """What curves that are fitted together have in common: all but the seed."""
        return replace(self, seed=None)

    @property
    def family(self) -> "CurveId":
        """What groups of one sweep over RM sizes have in common."""
        return replace(self, seed=None, rm_params=0)

    @property
    def same_rm(self) -> "CurveId":
        """What curves of different methods against one RM, from one policy, have in common. Gold is one RM, whatever
        seed it is optimised with."""
        return replace(self, method="", settings=Settings(), seed=None if self.against_gold else self.seed)

    @property
    def _rest(self) -> tuple[str, str, str]:
        """Texts of what is no number of its own: how the RM is combined, its recipe, the settings but for KL's."""
        return self.rm_combined, str(self.rm_recipe), str(self.settings.without("kl_coef"))

    @property
    def order(self) -> tuple[float | str, ...]:
        """Sorts groups: by RM size, comparisons, policy, then settings."""
        sizes = (self.rm_params, self.rm_comparisons or 0, self.policy_params or 0)
        return *sizes, self.settings.number("kl_coef"), " ".join(filter(None, self._rest))

    def label(self, among: Sequence["CurveId"]) -> str:
        """What tells this group from the others."""
        parts = [f"{self.rm_params:,} parameters"] if self.rm_params else []
        if self.rm_comparisons and len({other.rm_comparisons for other in among if not other.against_gold}) > 1:
            parts.append(f"{self.rm_comparisons:,} comparisons")
        if self.policy_params and len({other.policy_params for other in among}) > 1:
            parts.append(f"policy {self.policy_params:,}")
        if len({other.settings.number("kl_coef") for other in among}) > 1:
            parts.append(f"KL coefficient {self.settings.number('kl_coef'):g}")
        return ", ".join([*parts, *filter(None, self._rest)]) or "all"

    def cells(self) -> dict[str, str | int | None]:
        """The identity as columns of a table; the method and the seed among them."""
        found = {name: getattr(self, name) for name in COLUMNS}
        return {name: str(value) if isinstance(value, Settings) else value for name, value in found.items()}

    @classmethod
    def of_cells(cls, row: Mapping[str, object], older: bool = False) -> "CurveId":
        """Of a table's columns, as text or as numbers; those that are missing or empty are not known.

        Reads the columns `kl_coef` and `variant` too of tables so old that they have no settings, and, with `older`, of
        any: in a table of curves they are never diagnostics.

        Raises:
          ValueError: a cell is not a number; says which.
        """
        names = (*COLUMNS, *OLDER) if older or "settings" not in row else COLUMNS
        return _of_cells(tuple((name, row.get(name)) for name in names))


COLUMNS = tuple(f.name for f in dataclasses.fields(CurveId))
OLDER = ("kl_coef", "variant")


@functools.lru_cache(maxsize=65_536)  # a table has a row per point of a curve
def _of_cells(cells: tuple[tuple[str, object], ...]) -> CurveId:
    """What `CurveId.of_cells` reads."""
    row = dict(cells)

    def number(name: str) -> float | None:
        cell = row.get(name)
        if cell is None or cell == "" or cell != cell:
            return None
        found = _value(str(cell))
        if isinstance(found, str) or math.isinf(found):
            raise ValueError(f"{name} is {cell!r}, not a number")
        return found

    def whole(name: str) -> int | None:
        found = number(name)
        if found is not None and found != int(found):
            raise ValueError(f"{name} is {row.get(name)!r}: it must be a whole number")
        return None if found is None else int(found)

    def text(name: str) -> str:
        cell = row.get(name)
        return cell if isinstance(cell, str) else ""

    older = Settings.parse(text("variant"))
    recipe = {name: value for name, value in older.items() if name in RECIPE}
    settings: dict[str, Value] = {"kl_coef": penalty} if (penalty := number("kl_coef")) else {}
    settings |= older.without(*RECIPE)
    return CurveId(
        method=text("method"),
        rm_params=whole("rm_params") or 0,
        rm_comparisons=whole("rm_comparisons"),
        rm_recipe=Settings({**recipe, **Settings.parse(text("rm_recipe"))}),
        rm_combined=text("rm_combined"),
        policy_params=whole("policy_params"),
        settings=Settings({**settings, **Settings.parse(text("settings"))}),
        seed=whole("seed"),
    )
