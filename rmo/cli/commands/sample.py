"""`rmo sample`: responses of a policy to a file of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo.cli import devices
from rmo.cli.options import ModelOptions, Positional, beside, need_positive, parse


@dataclass(frozen=True)
class SampleOptions(ModelOptions):
    """Draw responses to every prompt of a file, a row each: the text, its token ids, its log-probability. Killed at any
    moment, the same command continues."""

    model: Positional[str]
    """Directory of a stage (sft, ppo/...), of a Hugging Face checkpoint, or a name of the hub."""
    prompts: Positional[Path]
    """JSONL, JSON or Parquet; a row has prompt, text, or messages (role and content)."""
    draws: int = 1
    """Responses to each prompt."""
    length: int = 0
    """Longest response in tokens; 0: 64, or half of what the model takes if that is less."""
    temperature: float = 1.0
    """Of sampling; always from the whole distribution."""
    seed: int = 0
    replace: bool = False
    """Write over columns of rows that have the names of new ones, such as response."""


def main(args: Sequence[str]) -> None:
    options = parse(SampleOptions, args, "rmo sample")
    from rmo.logs import score_and_sample

    need_positive(
        batch=options.batch,
        draws=options.draws,
        temperature=options.temperature,
        length=options.length or 1,  # 0 is the default length
    )
    out = options.out or beside(options.prompts, "_samples.jsonl")
    devices.count()  # warns where an accelerator is overlooked
    rows = score_and_sample.sample(
        options.model,
        options.prompts,
        out,
        batch=options.batch,
        chat=options.chat,
        draws=options.draws,
        length=options.length,
        temperature=options.temperature,
        seed=options.seed,
        member=options.member,
        dtype=options.dtype,
        skip_long=options.skip_long,
        replace=options.replace,
    )
    print(f"{rows} prompts x {options.draws} draws: {out}")
