"""`rmo forecast`: what to expect of an RM that was not trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo import config
from rmo.cli.options import Positional, need_positive, parse


@dataclass(frozen=True, kw_only=True)
class ForecastOptions:
    """What to expect of an RM that was not trained, from the RMs of a run: its highest gold, the KL there, and the KL
    at which to stop, for every method of the run that has at least three RM sizes (or numbers of comparisons)."""

    run: Positional[str]
    """A run directory, a directory of kept results, or a curves.csv."""
    rm_params: int
    """Parameters of the RM, without embeddings."""
    comparisons: int | None = None
    """Comparisons that it would be trained on; default: the most that the run's RMs had."""
    seeds: int = 1
    """The forecast is for the mean over so many RMs."""
    kl: tuple[float, ...] = ()
    """KL distances (nats) at which gold is asked for; default: 1 2 5 10 20, as far as was measured."""
    level: float = 0.95
    """Of the intervals: the share that should hold what is measured once the RM is trained."""
    out: Path | None = None
    """Directory for forecast.json and a picture, forecast.svg."""


def main(args: Sequence[str]) -> None:
    options = parse(ForecastOptions, args, "rmo forecast")
    comparisons = 1 if options.comparisons is None else options.comparisons
    need_positive(**{"rm-params": options.rm_params, "seeds": options.seeds, "comparisons": comparisons})
    need_positive(kl=min(options.kl, default=1.0))
    if not 0 < options.level < 1:
        raise config.ConfigError(f"--level is {options.level}: it must lie between 0 and 1")
    from rmo.artifacts.run_files import curves_at
    from rmo.report import forecast
    from rmo.runtime.files import directory

    curves = curves_at(directory(options.run))
    found = forecast.forecasts(curves, options.rm_params, options.comparisons, options.seeds, options.kl, options.level)
    print("\n".join(forecast.lines(found, asked_kls=bool(options.kl))))
    if options.out:
        print("", *forecast.write(found, options.out), sep="\n")
