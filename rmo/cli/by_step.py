"""What `rmo fit` says of a log that no fit can be made of: why, and what gold by step shows all the same."""

from pathlib import Path

from rmo.analysis.by_step import judge
from rmo.logs.no_kl import NoFit, NoKl
from rmo.runtime.files import write_json
from rmo.runtime.types import Row


def judged(found: NoFit) -> list[Row]:
    """A judgement of every run's gold by step: run, gold_column, verdict, sentence and what they stand on."""
    return [
        {"run": name, "gold_column": reads.gold, **judge(reads.step, reads.value, reads.se)}
        for name, reads in found.reads.items()
    ]


def show(found: NoFit, out: Path) -> list[Row]:
    """Print why there is no fit and a judgement of every run's gold by step, and write them into `out`; returns the
    judgements. What the user has to answer is not printed: it is raised, and comes last.
    """
    for note in found.notes:
        print(note)
    if isinstance(found, NoKl):
        print(found)
    print("gold by step, without a fit (a step is no measure of how far from the initial policy it is):")
    rows = judged(found)
    for row in rows:
        print(f"  {row['run']}: {row['sentence']}")
    write_json(out / "gold_by_step.json", rows)
    print(out / "gold_by_step.json")
    return rows
