"""A tokenizer of one's own, for where none can be had: WordPiece trained on the training sentences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tempclr.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_tokenizer(
    sentences: Iterable[str], *, vocab_size: int = 2000, model_max_length: int = 512
) -> PreTrainedTokenizerFast:
    """Train a lower-casing WordPiece tokenizer that writes [CLS] words [SEP], as BERT's does.

    ``sentences``: the training sentences, and only those: words of validation and test must not shape the vocabulary.
    ``vocab_size``: the most tokens, specials included; small corpora give fewer, but every letter of the corpus is a
    token of its own, alone and inside words, whatever the bound. The special tokens [PAD] [UNK] [CLS]
    [SEP] [MASK] have the ids 0 to 4. The same sentences give the same tokenizer.

    Raises:
        InputError: there is no sentence, or ``vocab_size`` leaves no room beyond the special tokens.

    >>> tokenizer = train_tokenizer(["Peel the onion.", "Fry the onion."])
    >>> tokenizer.decode(tokenizer("Fry the onion.")["input_ids"])
    '[CLS] fry the onion. [SEP]'
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size <= len(SPECIAL_TOKENS):
        raise InputError(f"vocab_size must be above {len(SPECIAL_TOKENS)}, the special tokens, got {vocab_size}")
    sentences = list(sentences)
    if not any(sentence.strip() for sentence in sentences):
        raise InputError("a tokenizer needs at least one sentence that is not blank to be trained on, got none")
    pad, unknown, cls, sep, mask = SPECIAL_TOKENS
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = [word for text in sentences for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
    # Note [Continuing letters come first]: the trainer numbers the pieces "##x" as it meets them, in the order of a
    # randomised hash table, and breaks ties by number. Naming them beforehand makes the vocabulary reproducible.
    continuing = sorted({f"##{letter}" for word in words for letter in word[1:]})
    trained = Tokenizer(models.WordPiece(unk_token=unknown))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trained.train_from_iterator(
        words,
        trainers.WordPieceTrainer(
            vocab_size=vocab_size, special_tokens=[*SPECIAL_TOKENS, *continuing], show_progress=False
        ),
    )
    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token=unknown))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=cls,
        sep_token=sep,
        mask_token=mask,
        model_max_length=model_max_length,
        padding_side="right",
        clean_up_tokenization_spaces=True,
    )
