"""The released rule of S3D-G's text module: the sentence's known words, in lower case, numbered by the vocabulary."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from transformers.tokenization_utils import PreTrainedTokenizer

VOCABULARY_FILE = "vocab.txt"
_WORD = re.compile(r"[\w']+")


class S3DTokenizer(PreTrainedTokenizer):
    """Words to ids: line number of the word in ``vocab_file``, counted from 1; 0 is padding, up to 16 ids a sentence.

    Words are runs of letters, digits, underscores and apostrophes; those that the vocabulary lacks are left out, and
    the first 16 that remain are kept.

    Raises:
        ValueError: a line of the vocabulary is empty, or two are equal.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "vocab.txt")
    ...     _ = file.write_text("add\\noil\\n")
    ...     S3DTokenizer(str(file))("Add the oil, ADD!")["input_ids"]
    [1, 2, 1]
    """

    vocab_files_names: ClassVar = {"vocab_file": VOCABULARY_FILE}
    model_input_names: ClassVar = ["input_ids"]

    def __init__(self, vocab_file: str, pad_token: str = "<pad>", model_max_length: int = 16, **kwargs: Any):
        self.words = Path(vocab_file).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        self._ids = {word: index for index, word in enumerate(self.words, 1)}
        if "" in self._ids or len(self._ids) != len(self.words):
            raise ValueError(f"{vocab_file}: expected one word a line, each once, found empty lines or words twice")
        # Otherwise a sentence that holds the name of the padding would be split there.
        options = {"split_special_tokens": True, "unk_token": None, **kwargs}
        super().__init__(pad_token=pad_token, model_max_length=model_max_length, **options)

    @property
    def vocab_size(self) -> int:
        return len(self.words) + 1

    def get_vocab(self) -> dict[str, int]:
        return {str(self.pad_token): 0, **self._ids}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [word for word in _WORD.findall(text.lower()) if word in self._ids]

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return self.words[index - 1] if index else str(self.pad_token)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        name = f"{filename_prefix}-{VOCABULARY_FILE}" if filename_prefix else VOCABULARY_FILE
        file = Path(save_directory, name)
        file.write_text("\n".join(self.words) + "\n", encoding="utf-8")
        return (str(file),)


__all__ = ["S3DTokenizer"]
