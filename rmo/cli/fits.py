"""What `rmo fit` and `rmo bon` share: the bootstrap's options, and printing and writing fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo import config
from rmo.analysis.curve import Curve
from rmo.runtime.files import Json, Row


@dataclass(frozen=True, kw_only=True)
class BootstrapOptions:
    """How intervals are made."""

    bootstrap: int = 1000
    """Resamples behind every interval."""
    level: float = 0.95
    """Of the intervals: the share that should hold the truth."""


def check_bootstrap(options: BootstrapOptions) -> None:
    """Raises ConfigError where no interval can be made so."""
    if options.bootstrap < 1 or not 0 < options.level < 1:
        raise config.ConfigError("--bootstrap must be at least 1 and --level between 0 and 1")


def show(curves: list[Curve], fitted: dict[str, Json], out: Path, unit: str = "", notes: Sequence[str] = ()) -> None:
    """Print every fit and its advice, and write pictures, coefficients.json and report.html into `out`.

    `fitted` is what `scaling.summarise` gives for the curves; `unit` is that of gold, for axes.
    """
    from rmo.report import run_report

    for method, part in fitted.items():
        shared = ", one a for all RM sizes of a sweep" if part["shared_alpha"] and part["main"] > 1 else ""
        print(f"{method}: R = {part['form']}{shared}")
        for group in part["groups"]:
            print(f"  {group['group']}: {numbers(group)}; intervals from {group['interval_from']}")
            print(f"    {group['advice']['sentence']}")
        for label in part["too_short"]:
            print(f"  {label}: not fitted, too few points")
    print(run_report.write_curves(out, curves, fitted, out.name, unit, notes))


def numbers(group: Row) -> str:
    """A fitted group's coefficients and peak with their intervals."""
    from rmo.report.page.tables import peak_text

    def coefficient(name: str) -> str:
        low, high = group[f"{name}_interval"]
        return f"{group[name]:.3f} [{low:.3f}, {high:.3f}]"

    def peak(name: str) -> str:
        return f"{peak_text(group[name])} {peak_text(group[f'{name}_interval'])}"

    top = f"peak {peak('peak_gold')} at KL {peak('peak_kl')}" if group["turns"] else "never turns (b <= 0)"
    return f"a {coefficient('alpha')}, b {coefficient('beta')}, R² {group['r2']:.3f}, {top}"
