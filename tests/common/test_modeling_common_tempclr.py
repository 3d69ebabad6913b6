"""transformers' common modeling and configuration tests on TempCLR: text tower, video tower, both."""

from __future__ import annotations

import unittest
from typing import Any

import torch
from transformers_common.test_configuration_common import ConfigTester
from transformers_common.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

from tempclr.models.tempclr import (
    TempCLRConfig,
    TempCLRModel,
    TempCLRTextConfig,
    TempCLRTextModel,
    TempCLRVideoConfig,
    TempCLRVideoModel,
)

TOWER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


class TextTester:
    """What the common tests ask of a model: a small configuration, inputs, and the sizes they check."""

    __test__ = False
    batch_size, seq_length = 4, 7
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    is_training = False

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    def get_config(self) -> TempCLRTextConfig:
        return TempCLRTextConfig(vocab_size=99, max_position_embeddings=64, **TOWER)

    def prepare_config_and_inputs_for_common(self) -> tuple[TempCLRTextConfig, dict[str, Any]]:
        input_ids = ids_tensor([self.batch_size, self.seq_length], 99)
        mask = torch.ones_like(input_ids)
        mask[1:, -2:] = 0
        return self.get_config(), {"input_ids": input_ids, "attention_mask": mask}


class VideoTester:
    __test__ = False
    # Six features between [CLS] and [SEP].
    batch_size, seq_length = 4, 8
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    is_training = False

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    def get_config(self) -> TempCLRVideoConfig:
        return TempCLRVideoConfig(feature_size=12, max_num_features=10, **TOWER)

    def prepare_config_and_inputs_for_common(self) -> tuple[TempCLRVideoConfig, dict[str, Any]]:
        features = floats_tensor([self.batch_size, self.seq_length - 2, 12])
        mask = torch.ones(features.shape[:2], dtype=torch.long)
        mask[1:, -2:] = 0
        return self.get_config(), {"video_features": features, "video_mask": mask}


class BothTester:
    __test__ = False
    batch_size = 4
    # Both towers get gradients from the loss of the model alone, so training is tested here.
    is_training = True

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent
        self.text_model_tester, self.video_model_tester = TextTester(parent), VideoTester(parent)

    def get_config(self) -> TempCLRConfig:
        towers = self.text_model_tester.get_config(), self.video_model_tester.get_config()
        return TempCLRConfig(text_config=towers[0], video_config=towers[1])

    def prepare_config_and_inputs_for_common(self) -> tuple[TempCLRConfig, dict[str, Any]]:
        _, text = self.text_model_tester.prepare_config_and_inputs_for_common()
        _, video = self.video_model_tester.prepare_config_and_inputs_for_common()
        return self.get_config(), {**text, **video, "return_loss": True}


class TextModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (TempCLRTextModel,)
    # Resizing is for language models, whose head must follow; this tower has none.
    test_resize_embeddings = False

    def setUp(self) -> None:
        self.model_tester = TextTester(self)
        self.config_tester = ConfigTester(
            self, config_class=TempCLRTextConfig, has_text_modality=True, hidden_size=32, num_attention_heads=4
        )

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class VideoModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (TempCLRVideoModel,)
    test_resize_embeddings = False  # of words, which this tower does not have

    def setUp(self) -> None:
        self.model_tester = VideoTester(self)
        self.config_tester = ConfigTester(
            self, config_class=TempCLRVideoConfig, has_text_modality=False, hidden_size=32, num_attention_heads=4
        )

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    def test_model_get_set_embeddings(self) -> None:
        """The common test expects ``nn.Embedding``; here an MLP takes features to tokens."""
        model = TempCLRVideoModel(self.model_tester.get_config())
        other = TempCLRVideoModel(self.model_tester.get_config()).get_input_embeddings()
        model.set_input_embeddings(other)
        self.assertIs(model.get_input_embeddings(), other)


class BothModelsTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (TempCLRModel,)
    test_resize_embeddings = False
    _is_composite = True
    # The common test makes pixels; the shape of ``get_video_features`` is tested with the models.
    skip_test_video_features_output_shape = True

    def setUp(self) -> None:
        self.model_tester = BothTester(self)
        self.config_tester = ConfigTester(
            self, config_class=TempCLRConfig, has_text_modality=False, common_properties=[]
        )

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    # What follows stands for common tests that look for the parts of a single tower at the top of the output.

    def _towers(self, **options: Any) -> list[tuple[Any, Any, int]]:
        """(output of a tower, the model's output, number of its tokens) of both towers."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = TempCLRModel._from_config(config, attn_implementation="eager").eval()
        output = model(**inputs, **options)
        return [
            (output.text_model_output, output, self.model_tester.text_model_tester.seq_length),
            (output.video_model_output, output, self.model_tester.video_model_tester.seq_length),
        ]

    def test_attention_outputs(self) -> None:
        for tower, _, length in self._towers(output_attentions=True):
            self.assertEqual([tuple(each.shape) for each in tower.attentions], [(4, 4, length, length)] * 2)
        for tower, _, _ in self._towers():
            self.assertIsNone(tower.attentions)

    def test_hidden_states_output(self) -> None:
        for tower, _, length in self._towers(output_hidden_states=True):
            self.assertEqual([tuple(each.shape) for each in tower.hidden_states], [(4, length, 32)] * 3)

    def test_retain_grad_hidden_states_attentions(self) -> None:
        for tower, output, _ in self._towers(output_hidden_states=True, output_attentions=True):
            kept = [tower.hidden_states[0], tower.attentions[0]]
            for each in kept:
                each.retain_grad()
            output.loss.backward(retain_graph=True)
            self.assertTrue(all(each.grad is not None and each.grad.abs().sum() > 0 for each in kept))

    def test_eager_and_sdpa_embed_alike(self) -> None:
        """For each type of numbers; the bounds are a few of their rounding steps at values of about 1."""
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 3e-3)):
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            model = TempCLRModel(config).eval().to(dtype)
            outputs = []
            for implementation in ("eager", "sdpa"):
                model.set_attn_implementation(implementation)
                outputs.append(model(**inputs))
            for name in ("text_embeds", "video_embeds"):
                first, second = (output[name].float() for output in outputs)
                torch.testing.assert_close(first, second, rtol=bound, atol=bound)


def _in_the_towers(self: unittest.TestCase, *arguments: Any) -> None:
    self.skipTest("called with one tower's input alone: run for each tower, and test_eager_and_sdpa_embed_alike")


for _name in dir(ModelTesterMixin):
    if _name.startswith("test_eager_matches_sdpa_inference_"):
        setattr(BothModelsTest, _name, _in_the_towers)
