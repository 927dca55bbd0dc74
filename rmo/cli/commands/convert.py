"""`rmo convert`: a GGUF file as a Hugging Face directory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rmo.cli.options import Positional, parse


@dataclass(frozen=True)
class ConvertOptions:
    """Write a GGUF file of the Llama family (llama.cpp's) as a directory that `rmo sample`, a config's policy and
    transformers take: config.json, model.safetensors, tokenizer, chat template. Quantised weights are dequantised."""

    file: Positional[Path]
    """The .gguf file."""
    directory: Positional[Path]
    """A new directory."""
    stored: Literal["float32", "bfloat16"] = "float32"
    """Type of the numbers written: float32 is what the file says, bfloat16 rounds and takes half of the disk."""


def main(args: Sequence[str]) -> None:
    options = parse(ConvertOptions, args, "rmo convert")
    from rmo.checkpoints import gguf_convert

    made = gguf_convert.convert(options.file, options.directory, options.stored)
    shape = made.shape
    print(f"{made.parameters:,} parameters, {shape.layers} layers of width {shape.width}: {options.directory}")
