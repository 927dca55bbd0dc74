"""A GGUF file, llama.cpp's: its fields and its tensors, read through the `gguf` package.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rmo.checkpoints.weight_files import POINTER, CheckpointError
from rmo.runtime.types import Json

if TYPE_CHECKING:
    from gguf import ReaderTensor

MAGIC = b"GGUF"


class Gguf(NamedTuple):
    """A file whose numbers are not read yet."""

    path: Path
    fields: dict[str, Json]  # by llama.cpp's names, e.g. llama.block_count
    tensors: dict[str, ReaderTensor]

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, rows first; the file has it the other way round."""
        return tuple(int(n) for n in self.tensors[name].shape[::-1])

    def numbers(self, name: str) -> np.ndarray:
        """A tensor as f32, dequantised.

        Raises:
          CheckpointError: its type is not known, or it holds what is no number.
        """
        from gguf import quants

        tensor = self.tensors[name]
        try:
            value = np.asarray(quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        except NotImplementedError as error:
            kind = tensor.tensor_type.name
            raise CheckpointError(f"{self.path}: {name} is {kind}, which the gguf package cannot read") from error
        if not np.isfinite(value).all():
            raise CheckpointError(f"{self.path}: {name} has numbers that are not finite: fetch the file again")
        return value


def read(path: Path) -> Gguf:
    """The fields of a file, and where its tensors are.

    Raises:
      CheckpointError: it is none, cut short, one part of several, or of the other byte order; or `gguf` is missing.
    """
    check_beginning(path)
    try:
        from gguf import GGUFReader
    except ImportError as error:
        install = "pip install gguf (EXTRAS=dev,gguf launch/local.sh in a clone)"
        raise CheckpointError(f"{path} needs the package gguf to be read: {install}") from error
    try:
        reader = GGUFReader(path)
        fields = {name: plain(field.contents()) for name, field in reader.fields.items()}
    except OSError:
        raise
    except Exception as error:  # whatever it meets where a file ends too soon
        why = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} is damaged or cut short ({why}): fetch it again") from error
    if reader.byte_order != "I":
        raise CheckpointError(f"{path} is of the other byte order: fetch the file that is made for this machine")
    if isinstance(parts := fields.get("split.count"), int) and parts > 1:
        raise CheckpointError(f"{path} is one of {parts} parts: merge them first (llama-gguf-split --merge)")
    return Gguf(path, fields, {tensor.name: tensor for tensor in reader.tensors})


def check_beginning(path: Path) -> None:
    """Raises CheckpointError where a file does not begin as GGUF does."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory: give the .gguf file in it")
    with open(path, "rb") as file:
        start = file.read(len(POINTER))
    if start == POINTER:
        raise CheckpointError(f"{path} is a pointer of Git LFS, not the file: fetch it (git lfs pull)")
    if not start.startswith(MAGIC):
        raise CheckpointError(f"{path} is no GGUF file")


def plain(value: Json) -> Json:
    """A field's value; a float as the decimal that was stored in 32 bits: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
