"""Tokenizers: made from a list of words, saved beside a model, loaded again, and read back as text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rmo.runtime import checksums, hosts
from rmo.runtime.errors import of_system
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


class BytePairs(NamedTuple):
    """A byte-level BPE tokenizer, as files of other kinds than tokenizer.json spell it."""

    tokens: list[str]  # by id; a byte is a letter, as in GPT-2
    merges: list[tuple[str, str]]  # the first is applied first
    split: str  # one of SPLITS
    special: dict[str, bool]  # tokens that are found before text is split; whether decoding may leave them out
    names: dict[str, str]  # bos_token, eos_token, pad_token, unk_token -> token
    begins: bool = False  # whether bos is put before texts
    ends: bool = False  # whether eos is put behind texts
    chat_template: str | None = None
    length: int | None = None  # the longest text


LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How a text is cut before pairs are merged, by llama.cpp's names: into GPT-2's words; into digits and GPT-2's words, as
# SmolLM and StarCoder; into Llama 3's words, where whole words of the vocabulary are taken without merging.
SPLITS = ("gpt-2", "smollm", "llama-bpe")


def make_byte_bpe(given: BytePairs) -> PreTrainedTokenizerFast:
    """A real tokenizer of transformers.

    Raises:
      ValueError: a merge makes no token, or a token that is named is not there.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(given.tokens)}
    if missing := [token for token in given.names.values() if token not in ids]:
        raise ValueError(f"{missing[0]} is no token")
    try:
        core = Tokenizer(models.BPE(ids, given.merges, ignore_merges=given.split == "llama-bpe"))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(str(error)) from error
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=given.split != "llama-bpe")
    before = {
        "gpt-2": [],
        "smollm": [pre_tokenizers.Digits(individual_digits=True)],
        "llama-bpe": [pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated")],
    }[given.split]
    core.pre_tokenizer = pre_tokenizers.Sequence([*before, words])  # type: ignore[assignment]
    core.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    core.add_tokens([AddedToken(t, special=special, normalized=False) for t, special in given.special.items()])
    around = [given.names["bos_token"] if given.begins else "", "$A", given.names["eos_token"] if given.ends else ""]
    if given.begins or given.ends:
        added = [(token, ids[token]) for token in (around[0], around[2]) if token]
        core.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=" ".join(filter(None, around)), special_tokens=added
        )
    made = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **given.names)
    made.chat_template = given.chat_template
    if given.length:
        made.model_max_length = given.length
    return made


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
    checksums.check_tree(directory)
    if not has_tokenizer(directory):
        raise RunError(f"{directory} has no tokenizer ({', '.join(FILES)}): put one beside the model")
    try:
        return AutoTokenizer.from_pretrained(str(local(directory)))
    except Exception as error:
        why = of_system(error) if isinstance(error, OSError) else str(error)
        raise RunError(f"{directory}: cannot load the tokenizer: {' '.join(why.split())}") from error


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
