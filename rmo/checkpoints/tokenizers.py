"""Tokenizers: made from a list of words, saved beside a model, loaded again, and read back as text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmo.runtime import hosts
from rmo.runtime.files import RunError, local, written

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def make_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """A real tokenizer of transformers whose tokens are whole words. Needs <pad>, <bos>, <eos> first."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=vocabulary[0]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    pad, bos, eos = vocabulary[:3]
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=pad, bos_token=bos, eos_token=eos, padding_side="left"
    )


def train_bpe(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `size` tokens, <pad>, <bos>, <eos> and all bytes among them: it reads any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    core.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = ["<pad>", "<bos>", "<eos>"]
    every_byte = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(  # type: ignore[call-arg]
        vocab_size=size, special_tokens=special, initial_alphabet=every_byte, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    pad, bos, eos = special
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=pad, bos_token=bos, eos_token=eos, padding_side="left"
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write a tokenizer; when this returns, every process finds it there."""
    if hosts.writer():
        with written(directory) as here:
            tokenizer.save_pretrained(here)
    hosts.barrier(f"tokenizer in {directory}")


def has_tokenizer(directory: Path) -> bool:
    """Whether a directory holds the files of a tokenizer."""
    return any((directory / name).exists() for name in FILES)


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer saved in `directory`.

    Raises:
      RunError: there is none, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    # Without files some classes of transformers would make an empty tokenizer of their own.
    if not has_tokenizer(directory):
        raise RunError(f"{directory} has no tokenizer ({', '.join(FILES)}): put one beside the model")
    try:
        return AutoTokenizer.from_pretrained(str(local(directory)))
    except Exception as error:
        raise RunError(f"{directory}: cannot load the tokenizer: {' '.join(str(error).split())}") from error


def eos_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id that ends a text, if there is one."""
    eos = tokenizer.eos_token_id
    return eos if isinstance(eos, int) else None


def decode(tokenizer: PreTrainedTokenizerFast, tokens_T: np.ndarray, mask_T: np.ndarray) -> str:
    """Text of the tokens under `mask_T`, special ones shown; where tokens are whole words, with spaces between them."""
    ids = [int(t) for t, m in zip(tokens_T, mask_T, strict=True) if m]
    if tokenizer.backend_tokenizer.decoder is None:
        return " ".join(tokenizer.convert_ids_to_tokens(ids))
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
