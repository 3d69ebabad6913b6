"""transformers' common processing tests on S3D-G's processor."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any

import numpy as np
from transformers_common.test_processing_common import ProcessorTesterMixin

from tempclr.models.s3d import S3DProcessor, S3DTokenizer

WORDS = ["lower", "newer", "upper", "older", "longer", "string", "add", "oil", "peel", "cut"]


class S3DProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = S3DProcessor

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "vocab.txt")
            file.write_text("\n".join(WORDS) + "\n")
            return S3DTokenizer(str(file))

    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        return {"num_frames": 4, "size": 32, "crop_size": 32}

    def prepare_videos_inputs(self, batch_size: int | None = None) -> Any:
        """Frames as this processor takes them: of one video, the colours last."""
        return np.random.default_rng(0).integers(255, size=(8, 30, 40, 3), dtype=np.uint8)

    def test_init_arguments_not_in_processor_kwargs(self) -> None:
        """The common test wants sizes in a video processor of their own, and calls itself perhaps too strict.

        transformers' video processors need torchvision, which this package does without.
        """
        self.skipTest("sizes are settings of the processor, because a video processor would need torchvision")

    def test_subprocessor_defaults_text(self) -> None:
        """Sentences are filled up to 16 words, unlike by the tokenizer alone: padding takes part in their vectors."""
        processor = self.get_processor()
        sentences = self.prepare_text_inputs(batch_size=2)
        alone = processor.tokenizer(sentences, padding="max_length", truncation=True, return_tensors="pt")
        self.assertEqual(processor(text=sentences)["input_ids"].tolist(), alone["input_ids"].tolist())

    def test_subprocessor_defaults_0_text(self) -> None:
        self.skipTest("sentences are filled up to 16 words: see test_subprocessor_defaults_text")
