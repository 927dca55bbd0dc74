"""`rmo score`: a file of texts through a reward model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo.cli import devices
from rmo.cli.options import ModelOptions, Positional, need_positive, parse


@dataclass(frozen=True)
class ScoreOptions(ModelOptions):
    """Score every row of a file with a reward model. Killed at any moment, the same command continues."""

    model: Positional[str]
    """Directory of a stage (gold, proxies/...), of a Hugging Face checkpoint, or a name of the hub."""
    texts: Positional[Path]
    """JSONL or Parquet; a row has text, prompt and response, or messages (role and content)."""


def main(args: Sequence[str]) -> None:
    options = parse(ScoreOptions, args, "rmo score")
    from rmo.logs import score_and_sample

    need_positive(batch=options.batch)
    out = options.out or options.texts.with_name(options.texts.stem + "_scores.jsonl")
    devices.count()  # warns where an accelerator is overlooked
    rows = score_and_sample.score(
        options.model,
        options.texts,
        out,
        batch=options.batch,
        chat=options.chat,
        member=options.member,
        dtype=options.dtype,
    )
    print(f"{rows} rows scored: {out}")
