import numpy as np

from rmo.checkpoints import tokenizers


def test_tokenizer_is_real_and_reloads(tmp_path):
    vocabulary = ["<pad>", "<bos>", "<eos>", "ba", "be", "bi"]
    tokenizers.save_tokenizer(tokenizers.make_tokenizer(vocabulary), tmp_path)
    tokenizer = tokenizers.load_tokenizer(tmp_path)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer("bi ba be")["input_ids"] == [5, 3, 4]
    mask = np.array([False, True, True, True])
    assert tokenizers.decode(tokenizer, np.array([0, 1, 4, 2]), mask) == "<bos> be <eos>"
