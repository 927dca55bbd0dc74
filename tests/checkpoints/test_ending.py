"""Ids of a checkpoint's config that end a text or fill it up."""

import json

import pytest

from rmo.checkpoints import ending
from rmo.checkpoints.tokenizers import load_tokenizer
from rmo.checkpoints.weight_files import CheckpointError
from tests.helpers.checkpoints import write_checkpoint, write_tokenizer


@pytest.mark.parametrize("value", [2**31, 10**20, True, "2", 1.0, [1, 10**20]])
def test_what_is_no_id_is_said_in_one_line(tmp_path, value):
    """An id too large for the tokenizer's code was a traceback of that."""
    made = write_tokenizer(write_checkpoint(tmp_path / "m", "llama", vocab_size=90, num_hidden_layers=1), 90)
    tokenizer = load_tokenizer(made)
    c = json.loads((made / "config.json").read_text())
    for field, read in (("eos_token_id", ending.response_ends), ("pad_token_id", ending.pad_id)):
        (made / "config.json").write_text(json.dumps({**c, field: value}))
        with pytest.raises(CheckpointError, match=rf"config\.json: {field} is .*, no ids? of "):
            read([made], tokenizer)
