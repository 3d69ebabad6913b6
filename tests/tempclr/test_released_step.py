"""One training step of the released code, repeated: the same clips through towers, collator and losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.data.captions_collation import CaptionCollator, CaptionedVideo
from tempclr.data.captions_sampling import CaptionClip, sequence_units
from tempclr.losses import sequence_loss, unit_loss
from tempclr.models.tempclr import TempCLRConfig, TempCLRModel
from tempclr.negatives import Negatives
from tempclr.trainer import select_parameters

DATA = Path(__file__).parent / "data"
CLS_ID, SEP_ID, NUM_CLIPS = 3, 4, 16
SIZES = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96}


@pytest.fixture(scope="module")
def step():
    with np.load(DATA / "released_step.npz") as arrays:
        return dict(arrays)


def ours(name):
    name = name.replace("text_encoder.", "text_model.")
    name = name.replace("video_encoder.videomlp.", "video_model.embeddings.video_mlp.")
    return name.replace("video_encoder.bert.", "video_model.")


def released_model():
    """The features are recorded behind the first matrix, which is then the identity: 512 numbers each are much."""
    state = {}
    with np.load(DATA / "released_tiny_model.npz") as arrays:
        for name in arrays.files:
            if not name.startswith("weights/"):
                continue
            value = torch.from_numpy(arrays[name]).float()
            name = ours(name.removeprefix("weights/"))
            if name == "video_model.embeddings.word_embeddings.weight":
                name, value = "video_model.embeddings.special_token_embeddings.weight", value[[CLS_ID, SEP_ID]]
            elif name == "video_model.embeddings.position_embeddings.weight":
                value = value[: 32 + 2]
            elif name.endswith("video_mlp.linear1.weight"):
                value = torch.eye(48)
            state[name] = value
    config = TempCLRConfig(
        text_config={**SIZES, "vocab_size": 89, "num_hidden_layers": 4, "max_position_embeddings": 80},
        video_config={**SIZES, "num_hidden_layers": 2, "feature_size": 48},
    )
    model = TempCLRModel(config).eval()
    model.load_state_dict(state)
    return model


class Tokens:
    pad_token_id = 0


class Processor:
    tokenizer = Tokens()


def recorded_batch(step):
    features = np.split(step["projected_features"], np.cumsum(step["num_features"])[:-1])
    videos = []
    for number in range(2):
        clips = range(number * NUM_CLIPS, (number + 1) * NUM_CLIPS)
        # [CLS][SEP] words [SEP]: the text tower does not see the first [SEP].
        token_ids = [np.delete(step["caps"][clip][: step["num_tokens"][clip]], 1).tolist() for clip in clips]
        names = ("text_start", "text_end", "video_start", "video_end")
        spans = [CaptionClip(*(int(step[name][clip]) for name in names)) for clip in clips]
        units = sequence_units(spans)
        assert units == step["units"][number].tolist()
        others = [[position] for position in range(NUM_CLIPS) if position not in units]
        videos.append(
            CaptionedVideo(str(number), spans, token_ids, [features[clip] for clip in clips], [units, *others])
        )
    return CaptionCollator(Processor())(videos)


def test_loss_and_gradients_of_the_norms_are_the_released_ones(step):
    batch = recorded_batch(step)
    model = released_model()
    assert select_parameters(model, "norm_only") == sum(value.size for name, value in step.items() if "grad/" in name)
    output = model(**batch, return_loss=False)
    sequences = batch["clip_mask"].sum(1) == 5
    orders = torch.arange(5).repeat(len(sequences), 32, 1)
    orders[sequences, 1:] = torch.from_numpy(step["orders"].astype(np.int64))
    masks = {name: batch[name] for name in ("sentence_mask", "clip_mask", "clip_sentence_index")}
    unit = unit_loss(output.text_embeds, output.video_embeds, **masks, similarity="dot")
    sequence = sequence_loss(
        output.text_embeds,
        output.video_embeds,
        **masks,
        negatives=Negatives(row_orders=orders, order_mask=sequences),
    )
    loss = 0.3 * unit + 0.7 * sequence
    loss.backward()
    assert loss.item() == pytest.approx(step["loss"].item(), rel=1e-5)
    trained = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, wanted in step.items():
        if name.startswith("grad/"):
            found = trained.pop(ours(name.removeprefix("grad/"))).numpy()
            np.testing.assert_allclose(
                found, wanted, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(wanted).max()), err_msg=name
            )
    assert not trained
