"""One stage of a method, whichever it is: the rewards of a `scores` stage, optimised (paper section 3)."""

from rmo.artifacts.stages import Optimised
from rmo.experiment.bench import RunBench


def optimised(bench: RunBench) -> None:
    """Runs the method and keeps its record. The names of its members are written as soon as it knows them."""
    record = bench.method.run(bench, bench.job)
    bench.begin(record.arms)
    Optimised(bench.out).write(record)
