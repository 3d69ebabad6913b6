"""transformers' common modeling and configuration tests on the networks of clips, TCLR and its classifier."""

from __future__ import annotations

import unittest
from typing import Any

import torch
from transformers_common.test_configuration_common import ConfigTester
from transformers_common.test_modeling_common import ModelTesterMixin, floats_tensor

from tempclr.models.tclr import TCLRConfig, TCLRForVideoClassification, TCLRModel
from tempclr.models.video_resnet import VideoResNetConfig, VideoResNetModel

BATCH_SIZE, SIZES = 3, [4, 4, 6, 8, 10]


class BackboneTester:
    __test__ = False
    batch_size = BATCH_SIZE
    is_training = False
    variant = "r3d_18"

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    def get_config(self) -> VideoResNetConfig:
        return VideoResNetConfig(variant=self.variant, hidden_sizes=SIZES, depths=[1, 1, 1, 1])

    def prepare_config_and_inputs_for_common(self) -> tuple[VideoResNetConfig, dict[str, Any]]:
        return self.get_config(), {"pixel_values": floats_tensor([self.batch_size, 16, 3, 16, 16])}


class SeparableTester(BackboneTester):
    __test__ = False
    variant = "r2plus1d_18"


class C3DTester(BackboneTester):
    __test__ = False
    variant = "c3d"


class TCLRTester:
    __test__ = False
    batch_size = BATCH_SIZE
    is_training = True

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    @property
    def video_model_tester(self) -> BackboneTester:
        return BackboneTester(self.parent)

    def get_config(self) -> TCLRConfig:
        return TCLRConfig(
            backbone_config={"hidden_sizes": SIZES, "depths": [1, 1, 1, 1]}, projection_size=6, num_labels=3
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[TCLRConfig, dict[str, Any]]:
        clips = floats_tensor([self.batch_size, 2, 16, 3, 8, 8])
        local_clips = floats_tensor([self.batch_size, 2, 4, 4, 3, 8, 8])
        return self.get_config(), {"global_clips": clips, "local_clips": local_clips, "return_loss": True}


class ClassifierTester(TCLRTester):
    __test__ = False

    def prepare_config_and_inputs_for_common(self) -> tuple[TCLRConfig, dict[str, Any]]:
        return self.get_config(), {"pixel_values": floats_tensor([self.batch_size, 16, 3, 16, 16])}


class ClipTests(ModelTesterMixin):
    has_attentions = False
    test_resize_embeddings = False
    config_class: type
    tester: type

    def setUp(self) -> None:
        self.model_tester = self.tester(self)
        self.config_tester = ConfigTester(
            self, config_class=self.config_class, has_text_modality=False, common_properties=[]
        )

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    def test_model_get_set_embeddings(self) -> None:
        """The common test expects ``nn.Embedding``; here a convolution takes pixels in."""
        for model_class in self.all_model_classes:
            first, second = (model_class(self.model_tester.get_config()) for _ in range(2))
            first.set_input_embeddings(second.get_input_embeddings())
            self.assertIs(first.get_input_embeddings(), second.get_input_embeddings())


class BackboneTests(ClipTests):
    all_model_classes = (VideoResNetModel,)
    config_class = VideoResNetConfig

    def test_hidden_states_output(self) -> None:
        """The common test expects (rows, length, hidden_size); these are maps, after the stem and each block."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        with torch.no_grad():
            states = VideoResNetModel(config).eval()(**inputs, output_hidden_states=True).hidden_states
        self.assertEqual([state.shape[1] for state in states], SIZES)
        self.assertTrue(all(state.ndim == 5 and len(state) == BATCH_SIZE for state in states))


class R3DTest(BackboneTests, unittest.TestCase):
    tester = BackboneTester


class SeparableTest(BackboneTests, unittest.TestCase):
    tester = SeparableTester


class C3DTest(BackboneTests, unittest.TestCase):
    tester = C3DTester


class TCLRTest(ClipTests, unittest.TestCase):
    all_model_classes = (TCLRModel,)
    config_class = TCLRConfig
    tester = TCLRTester
    skip_test_video_features_output_shape = True  # of feature maps, and not (rows, length, hidden_size)

    def test_hidden_states_output(self) -> None:
        self.skipTest("the network is run once for each kind of clip; hidden states are those of `model.backbone`")

    def test_retain_grad_hidden_states_attentions(self) -> None:
        self.skipTest("the network is run once for each kind of clip; hidden states are those of `model.backbone`")

    def test_get_video_features_hidden_states(self) -> None:
        """As in the network: the output of the stem and of each block."""
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        _, inputs = self.model_tester.video_model_tester.prepare_config_and_inputs_for_common()
        states = TCLRModel(config).eval().get_video_features(**inputs, output_hidden_states=True).hidden_states
        self.assertEqual([state.shape[1] for state in states], SIZES)


class ClassifierTest(ClipTests, unittest.TestCase):
    all_model_classes = (TCLRForVideoClassification,)
    config_class = TCLRConfig
    tester = ClassifierTester

    def _prepare_for_class(self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False) -> Any:
        """The common one gives labels to the classes that transformers itself registers."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels:
            inputs["labels"] = torch.zeros(self.model_tester.batch_size, dtype=torch.long)
        return inputs

    def test_hidden_states_output(self) -> None:
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        states = TCLRForVideoClassification(config).eval()(**inputs, output_hidden_states=True).hidden_states
        self.assertEqual([state.shape[1] for state in states], SIZES)
