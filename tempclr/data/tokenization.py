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
    ``vocab_size``: the most tokens, specials included; small corpora give fewer. The special tokens [PAD] [UNK] [CLS]
    [SEP] [MASK] have the ids 0 to 4. The same sentences in the same order give the same tokenizer.

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
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
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
