"""transformers' common modeling and configuration tests on the video-only model and its few-shot heads."""

from __future__ import annotations

import unittest
from typing import Any

from transformers_common.test_configuration_common import ConfigTester
from transformers_common.test_modeling_common import ModelTesterMixin, floats_tensor

from tempclr.models.few_shot import FewShotConfig, FewShotForEpisodes, FewShotModel


class EncoderTester:
    __test__ = False
    batch_size, seq_length = 4, 6
    hidden_size, num_hidden_layers, num_attention_heads = 16, 2, 2
    is_training = False

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    def get_config(self) -> FewShotConfig:
        return FewShotConfig(
            feature_size=8,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_num_frames=6,
            hidden_dropout_prob=0.0,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[FewShotConfig, dict[str, Any]]:
        return self.get_config(), {"frame_features": floats_tensor([self.batch_size, self.seq_length, 8])}


class EpisodeTester(EncoderTester):
    head = "otam"

    def get_config(self) -> FewShotConfig:
        config = super().get_config()
        config.head, config.trx_head_size, config.trx_dropout = self.head, 12, 0.0
        return config

    def prepare_config_and_inputs_for_common(self) -> tuple[FewShotConfig, dict[str, Any]]:
        support, query = floats_tensor([self.batch_size, 3, 1, 6, 8]), floats_tensor([self.batch_size, 5, 6, 8])
        return self.get_config(), {"support_features": support, "query_features": query}


class TRXTester(EpisodeTester):
    head = "trx"


class FewShotTests(ModelTesterMixin):
    has_attentions = False  # the encoder is torch's, which does not hand them out
    test_resize_embeddings = False

    def test_model_get_set_embeddings(self) -> None:
        """The common test expects ``nn.Embedding``; here a linear layer takes features to tokens."""
        first, second = (FewShotModel(self.model_tester.get_config()) for _ in range(2))
        first.set_input_embeddings(second.get_input_embeddings())
        self.assertIs(first.get_input_embeddings(), second.get_input_embeddings())


class EncoderTest(FewShotTests, unittest.TestCase):
    all_model_classes = (FewShotModel,)

    def setUp(self) -> None:
        self.model_tester = EncoderTester(self)
        self.config_tester = ConfigTester(
            self, config_class=FewShotConfig, has_text_modality=False, hidden_size=16, num_attention_heads=2
        )

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class EpisodeTests(FewShotTests):
    def test_hidden_states_output(self) -> None:
        self.skipTest("supports and queries go through the encoder apart: run for the encoder")

    def test_retain_grad_hidden_states_attentions(self) -> None:
        self.skipTest("supports and queries go through the encoder apart: run for the encoder")


class EpisodeTest(EpisodeTests, unittest.TestCase):
    all_model_classes = (FewShotForEpisodes,)

    def setUp(self) -> None:
        self.model_tester = EpisodeTester(self)


class TRXTest(EpisodeTests, unittest.TestCase):
    all_model_classes = (FewShotForEpisodes,)

    def setUp(self) -> None:
        self.model_tester = TRXTester(self)
