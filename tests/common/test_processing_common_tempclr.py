"""transformers' common processing tests on the processor of TempCLR, with each kind of tokenizer it may hold."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import ByteLevelBPETokenizer
from transformers import BertTokenizer, RobertaTokenizer
from transformers_common.test_processing_common import ProcessorTesterMixin

from tempclr.data.tokenization import train_tokenizer
from tempclr.models.tempclr import TempCLRProcessor

SENTENCES = ["lower newer", "upper older longer string", "peel the onion and fry it in oil", "cut the bread in half"]


class TempCLRProcessorTests(ProcessorTesterMixin):
    processor_class = TempCLRProcessor

    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        return {"max_text_tokens": 11, "max_num_features": 7}

    def test_model_input_names(self) -> None:
        """The common test knows neither features nor paragraphs, without which there are no masks of units."""
        clips = [[np.ones((3, 4)), np.ones((2, 4))]]
        processor = self.get_processor()
        inputs = processor(text=[SENTENCES[:2]], video_features=clips, clip_sentence_index=[[0, 1]])
        self.assertEqual(set(inputs), set(processor.model_input_names))


class TrainedTokenizerTest(TempCLRProcessorTests, unittest.TestCase):
    """WordPiece, trained by ``tempclr pretrain`` on the sentences of the rows."""

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        return train_tokenizer(SENTENCES)


class BertTokenizerTest(TempCLRProcessorTests, unittest.TestCase):
    """BERT's, as the released checkpoints take it."""

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        words = sorted({word for sentence in SENTENCES for word in sentence.split()})
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "vocab.txt")
            file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n")
            return BertTokenizer(vocab=str(file))


class ByteLevelTokenizerTest(TempCLRProcessorTests, unittest.TestCase):
    """Byte-level pairs with other names of special tokens, as of RoBERTa."""

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        trainer = ByteLevelBPETokenizer()
        specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trainer.train_from_iterator(SENTENCES, vocab_size=300, special_tokens=specials, show_progress=False)
        with tempfile.TemporaryDirectory() as folder:
            vocab, merges = trainer.save_model(folder)
            return RobertaTokenizer(vocab=vocab, merges=merges)
