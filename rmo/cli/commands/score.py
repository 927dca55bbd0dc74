"""`rmo score`: a file of texts through a reward model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rmo.cli import devices
from rmo.cli.options import ModelOptions, Positional, beside, need_positive, parse
from rmo.config import ConfigError


@dataclass(frozen=True)
class ScoreOptions(ModelOptions):
    """Score every row of a file with a reward model. Killed at any moment, the same command continues."""

    model: Positional[str]
    """Directory of a stage (gold, proxies/...), of a Hugging Face checkpoint, or a name of the hub."""
    texts: Positional[Path]
    """JSONL, JSON or Parquet; a row has prompt and response, chosen and rejected, answers, messages, or a whole text.
    Of a row with a prompt its responses are scored, each by itself."""
    name: str = "score"
    """The new column; of chosen and rejected NAME_chosen and NAME_rejected, of a list of answers NAMEs."""
    at: Literal["last", "before-pad"] = "last"
    """The token a score is read at: the last of the text, or the last that is not the model's pad, as transformers'
    classifiers do; they differ where pad is eos and texts end in it."""


def main(args: Sequence[str]) -> None:
    options = parse(ScoreOptions, args, "rmo score")
    from rmo.logs import score_and_sample

    need_positive(batch=options.batch)
    if not options.name.strip():
        raise ConfigError("--name is empty: give the new column a name")
    out = options.out or beside(options.texts, "_scores.jsonl")
    devices.count()  # warns where an accelerator is overlooked
    rows = score_and_sample.score(
        options.model,
        options.texts,
        out,
        batch=options.batch,
        chat=options.chat,
        member=options.member,
        dtype=options.dtype,
        name=options.name,
        at=options.at,
        skip_long=options.skip_long,
    )
    print(f"{rows} rows scored: {out}")
