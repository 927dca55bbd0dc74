"""What a curve is of: method, reward model, policy, settings, seed. Grouping, labels and CSV come from here."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

Value = float | str
# Fields of a training recipe: in tables of rmo before 0.3 they stand in one column with a method's settings.
RECIPE = ("prompts", "epochs", "flip", "weight_decay", "dropout", "smoothing", "stop_early")


def _value(text: str) -> Value:
    try:
        return float(text)
    except ValueError:
        return text


class Settings(Mapping[str, Value]):
    """What differs from the default, by name: immutable, hashable, `epochs=4 dropout=0.1` as text.

    A text without names, such as a run's own label, is kept under the empty name.
    """

    def __init__(self, values: Mapping[str, Value] | None = None, **more: Value):
        found = {**(values or {}), **more}
        self._values = {name: value if isinstance(value, str) else float(value) for name, value in found.items()}

    @classmethod
    def parse(cls, text: str) -> "Settings":
        """Of the text that `str` makes."""
        parts = [part.partition("=") for part in text.split()]
        if not all(name and mark for name, mark, _ in parts):
            return cls({"": text})
        return cls({name: _value(value) for name, _, value in parts})

    @classmethod
    def differing(cls, value: object, plain: object, leave_out: Sequence[str] = ()) -> "Settings":
        """Fields (numbers and texts) of a dataclass that are not as in another value of it."""
        names = [f.name for f in dataclasses.fields(value) if f.name not in leave_out]  # type: ignore[arg-type]
        return cls({n: getattr(value, n) for n in names if getattr(value, n) != getattr(plain, n)})

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __str__(self) -> str:
        return " ".join(
            f"{name}={value if isinstance(value, str) else format(value, '.9g')}" if name else str(value)
            for name, value in self.items()
        )

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
    rm_combined: str = ""  # how several RMs make one score; empty: it is one RM
    policy_params: int | None = None
    settings: Settings = field(default_factory=Settings)  # of the method, where not its default
    seed: int | None = None  # of the RM

    @property
    def rm(self) -> tuple[int, int | None, str]:
        """What identifies the RM but for its seed: curves of one RM and seed share its luck, however it was trained."""
        return self.rm_params, self.rm_comparisons, self.rm_combined

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
        """What curves of different methods against one RM, from one policy, have in common."""
        return replace(self, method="", settings=Settings())

    @property
    def plain(self) -> bool:
        """Whether the RM is a single one trained as in the paper, and the method has its default settings."""
        return not (self.rm_recipe or self.rm_combined or self.settings)

    @property
    def order(self) -> tuple:
        """Sorts groups: by RM size, comparisons, policy, then settings."""
        kl_coef = self.settings.number("kl_coef")
        rest = " ".join(filter(None, (self.rm_combined, str(self.rm_recipe), str(self.settings.without("kl_coef")))))
        return self.rm_params, self.rm_comparisons or 0, self.policy_params or 0, kl_coef, rest

    def label(self, among: Sequence["CurveId"]) -> str:
        """What tells this group from the others."""

        def differs(name: str) -> bool:
            return len({getattr(other, name) for other in among}) > 1

        parts = [f"{self.rm_params:,} parameters"] if self.rm_params else []
        if self.rm_comparisons and differs("rm_comparisons"):
            parts.append(f"{self.rm_comparisons:,} comparisons")
        if self.policy_params and differs("policy_params"):
            parts.append(f"policy {self.policy_params:,}")
        if len({other.settings.number("kl_coef") for other in among}) > 1:
            parts.append(f"KL coefficient {self.settings.number('kl_coef'):g}")
        rest = (self.rm_combined, str(self.rm_recipe), str(self.settings.without("kl_coef")))
        return ", ".join([*parts, *filter(None, rest)]) or "all"

    def cells(self) -> dict[str, str | int | None]:
        """The identity as columns of a table; the method and the seed among them."""
        return {name: str(v) if isinstance(v := getattr(self, name), Settings) else v for name in COLUMNS}

    @classmethod
    def of_cells(cls, row: Mapping[str, object]) -> "CurveId":
        """Of a table's columns, as text or as numbers; those that are missing or empty are not known.

        Reads the columns `kl_coef` and `variant` of older tables too.

        Raises:
          ValueError: a cell is not a number; says which.
        """

        def whole(name: str) -> int | None:
            cell = row.get(name)
            try:
                return None if cell is None or cell == "" or cell != cell else int(float(cell))  # type: ignore[arg-type]
            except ValueError:
                raise ValueError(f"{name} is {cell!r}, not a number") from None

        def text(name: str) -> str:
            cell = row.get(name)
            return cell if isinstance(cell, str) else ""

        recipe, settings = Settings.parse(text("rm_recipe")), Settings.parse(text("settings"))
        variant = Settings.parse(text("variant"))
        recipe = Settings({**{n: v for n, v in variant.items() if n in RECIPE}, **recipe})
        settings = Settings({**{n: v for n, v in variant.items() if n not in RECIPE}, **settings})
        penalty = row.get("kl_coef")
        if penalty not in (None, "") and penalty == penalty:
            try:
                number = float(penalty)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                raise ValueError(f"kl_coef is {penalty!r}, not a number") from None
            settings = Settings({"kl_coef": number, **settings}) if number else settings
        return cls(
            text("method"), whole("rm_params") or 0, whole("rm_comparisons"), recipe, text("rm_combined"),
            whole("policy_params"), settings, whole("seed"),
        )  # fmt: skip


COLUMNS = tuple(f.name for f in dataclasses.fields(CurveId))


class Identified(Protocol):
    """Anything that a `CurveId` belongs to."""

    @property
    def id(self) -> CurveId: ...
