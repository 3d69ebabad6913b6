"""A tokenizer trained on one's own sentences."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from tempclr.data.tokenization import SPECIAL_TOKENS, train_tokenizer
from tempclr.errors import InputError

SENTENCES = ["Peel the onion.", "Fry the onion in oil", "Add salt, pepper and the tomatoes", "stir"]


def test_special_tokens_have_berts_ids():
    tokenizer = train_tokenizer(SENTENCES)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id) == (0, 2, 3)


def test_writes_cls_words_sep_and_pads_on_the_right():
    tokenizer = train_tokenizer(SENTENCES)
    encoded = tokenizer(["FRY the onion", "stir"], padding=True)
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]) == ["[CLS]", "fry", "the", "onion", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][1]) == ["[CLS]", "stir", "[SEP]", "[PAD]", "[PAD]"]
    assert encoded["attention_mask"] == [[1] * 5, [1, 1, 1, 0, 0]]


def test_unknown_letters_become_unk():
    tokenizer = train_tokenizer(SENTENCES)
    assert tokenizer.convert_ids_to_tokens(tokenizer("Ж")["input_ids"]) == ["[CLS]", "[UNK]", "[SEP]"]


def test_decodes_to_words():
    tokenizer = train_tokenizer(SENTENCES)
    assert tokenizer.decode(tokenizer("Fry the onions")["input_ids"], skip_special_tokens=True).startswith(
        "fry the onion"
    )


def test_vocabulary_is_reproducible():
    """Note [Continuing letters come first]: ties are broken in the same way each time and in any order of sentences."""
    words = [f"{first}{second}{third}" for first in "abcdef" for second in "ghijkl" for third in "mnopqr"]
    vocabularies = [train_tokenizer(corpus, vocab_size=80).get_vocab() for corpus in (words, iter(words), words[::-1])]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]
    assert len(vocabularies[0]) == 80


def test_letters_are_tokens_whatever_the_bound():
    tokenizer = train_tokenizer(["abc"], vocab_size=6)
    assert len(tokenizer) == 5 + 3 + 2
    assert tokenizer.convert_ids_to_tokens(tokenizer("abc")["input_ids"]) == ["[CLS]", "a", "##b", "##c", "[SEP]"]


def test_round_trip(tmp_path):
    tokenizer = train_tokenizer(SENTENCES, model_max_length=7)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 7
    assert loaded("Fry the onion!")["input_ids"] == tokenizer("Fry the onion!")["input_ids"]


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(InputError, match="at least one sentence"):
        train_tokenizer([" ", ""])
    with pytest.raises(InputError, match="vocab_size must be above 5, the special tokens, got 5"):
        train_tokenizer(SENTENCES, vocab_size=5)
