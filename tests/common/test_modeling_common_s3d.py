"""transformers' common modeling and configuration tests on S3D-G: text module, video network, both."""

from __future__ import annotations

import unittest
from typing import Any

import torch
from transformers_common.test_configuration_common import ConfigTester
from transformers_common.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

from tempclr.models.s3d import S3DConfig, S3DModel, S3DTextConfig, S3DTextModel, S3DVideoConfig, S3DVideoModel


class TextTester:
    __test__ = False
    batch_size, seq_length, hidden_size = 3, 16, 12
    is_training = False

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    def get_config(self) -> S3DTextConfig:
        return S3DTextConfig(vocab_size=40, embedding_size=8, hidden_size=12, projection_dim=5)

    def prepare_config_and_inputs_for_common(self) -> tuple[S3DTextConfig, dict[str, Any]]:
        return self.get_config(), {"input_ids": ids_tensor([self.batch_size, self.seq_length], 40)}


class VideoTester:
    __test__ = False
    batch_size = 3
    is_training = False

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    def get_config(self) -> S3DVideoConfig:
        block = [2, 2, 2, 2, 2, 2]
        return S3DVideoConfig(stem_sizes=[4, 4, 6], stages=[[block], [block, block], [block]], projection_dim=5)

    def prepare_config_and_inputs_for_common(self) -> tuple[S3DVideoConfig, dict[str, Any]]:
        return self.get_config(), {"pixel_values_videos": floats_tensor([self.batch_size, 6, 3, 32, 32])}


class BothTester:
    __test__ = False
    batch_size = 3
    is_training = False

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent
        self.text_model_tester, self.video_model_tester = TextTester(parent), VideoTester(parent)

    def get_config(self) -> S3DConfig:
        towers = self.text_model_tester.get_config(), self.video_model_tester.get_config()
        return S3DConfig(text_config=towers[0], video_config=towers[1])

    def prepare_config_and_inputs_for_common(self) -> tuple[S3DConfig, dict[str, Any]]:
        _, text = self.text_model_tester.prepare_config_and_inputs_for_common()
        _, video = self.video_model_tester.prepare_config_and_inputs_for_common()
        return self.get_config(), {**video, **text}


class S3DTests(ModelTesterMixin):
    has_attentions = False
    test_resize_embeddings = False


class TextModelTest(S3DTests, unittest.TestCase):
    all_model_classes = (S3DTextModel,)

    def test_hidden_states_output(self) -> None:
        self.skipTest("the text module has one hidden layer, which is its last_hidden_state")

    def test_retain_grad_hidden_states_attentions(self) -> None:
        self.skipTest("the text module has one hidden layer, which is its last_hidden_state")

    def setUp(self) -> None:
        self.model_tester = TextTester(self)
        self.config_tester = ConfigTester(
            self, config_class=S3DTextConfig, has_text_modality=False, common_properties=["hidden_size"]
        )

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class VideoModelTest(S3DTests, unittest.TestCase):
    all_model_classes = (S3DVideoModel,)

    def test_hidden_states_output(self) -> None:
        """The common test expects (rows, length, hidden_size); these are feature maps, before and after each block."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        with torch.no_grad():
            states = S3DVideoModel(config).eval()(**inputs, output_hidden_states=True).hidden_states
        self.assertEqual([state.shape[1] for state in states], [6, 8, 8, 8, 8])
        self.assertTrue(all(state.ndim == 5 and len(state) == 3 for state in states))

    def test_model_get_set_embeddings(self) -> None:
        """The common test expects ``nn.Embedding``; here a convolution takes pixels in."""
        first, second = (S3DVideoModel(self.model_tester.get_config()) for _ in range(2))
        first.set_input_embeddings(second.get_input_embeddings())
        self.assertIs(first.get_input_embeddings(), second.get_input_embeddings())

    def setUp(self) -> None:
        self.model_tester = VideoTester(self)
        self.config_tester = ConfigTester(
            self, config_class=S3DVideoConfig, has_text_modality=False, common_properties=[]
        )

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class BothModelsTest(S3DTests, unittest.TestCase):
    all_model_classes = (S3DModel,)
    skip_test_video_features_output_shape = True  # as above, of feature maps

    def test_hidden_states_output(self) -> None:
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        output = S3DModel(config).eval()(**inputs, output_hidden_states=True)
        self.assertEqual(len(output.video_model_output.hidden_states), 5)

    def test_retain_grad_hidden_states_attentions(self) -> None:
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        output = S3DModel(config)(**inputs, output_hidden_states=True)
        state = output.video_model_output.hidden_states[0]
        state.retain_grad()
        output.video_embeds.flatten()[0].backward()
        self.assertIsNotNone(state.grad)

    def test_get_video_features_hidden_states(self) -> None:
        """As in the video network: feature maps, and not (rows, length, hidden_size)."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = S3DModel(config).eval()
        states = model.get_video_features(inputs["pixel_values_videos"], output_hidden_states=True).hidden_states
        self.assertEqual([state.shape[1] for state in states], [6, 8, 8, 8, 8])

    def test_get_text_features_hidden_states(self) -> None:
        self.skipTest("the text module has one hidden layer, which is its last_hidden_state")

    def setUp(self) -> None:
        self.model_tester = BothTester(self)
        self.config_tester = ConfigTester(self, config_class=S3DConfig, has_text_modality=False, common_properties=[])

    def test_config(self) -> None:
        self.config_tester.run_common_tests()
