"""TCLRModel and the classifier: what is embedded, by whose statistics, and what loads from what."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, AutoModelForVideoClassification

from tempclr import TCLRConfig, TCLRForVideoClassification, TCLRModel, VideoResNetModel, tclr_loss
from tempclr.tclr_losses import global_local_loss

BACKBONE = {"variant": "r3d_10", "hidden_sizes": [4, 4, 6, 8, 10]}


def make(model_class=TCLRModel, **fields):
    torch.manual_seed(0)
    return model_class(TCLRConfig(**{"backbone_config": BACKBONE, "projection_size": 5, "num_labels": 3, **fields}))


def views(num_videos=3, num_timesteps=4, size=16, frames=16):
    generator = torch.Generator().manual_seed(1)
    global_clips = torch.rand((num_videos, 2, frames, 3, size, size), generator=generator)
    return global_clips, torch.rand((num_videos, 2, num_timesteps, frames, 3, size, size), generator=generator)


def by_itself(model, clips):
    """What the network and the head make of one batch of clips, timesteps too."""
    features = model.backbone(clips).timestep_features
    return model.head(features.mean(dim=1)), [model.head(features[:, place]) for place in range(features.shape[1])]


def test_each_kind_of_clip_has_statistics_of_its_own():
    """Note [Statistics of each kind of clip]; the running ones are updated once for each batch, as released."""
    model, single = make().train(), make().train()
    global_clips, local_clips = views()
    output = model(global_clips, local_clips)
    for view in range(2):
        embeds, slices = by_itself(single, global_clips[:, view])
        torch.testing.assert_close(output.global_embeds[:, view], embeds)
        torch.testing.assert_close(output.timestep_embeds[:, view], torch.stack(slices, dim=1))
        for place in range(4):
            embeds = single.head(single.backbone(local_clips[:, view, place]).pooler_output)
            torch.testing.assert_close(output.local_embeds[:, view, place], embeds)
    assert model.backbone.stem[1].num_batches_tracked == 10
    assert model.head.projection_norm.num_batches_tracked == 18
    for (name, one), other in zip(model.named_buffers(), single.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    parts = tclr_loss(output.global_embeds, output.timestep_embeds, output.local_embeds)
    for name, value in parts.items():
        assert (output[name] == value) if value is not None else output.get(name) is None


def test_one_pass_for_all_clips():
    together = make(separate_batch_statistics=False).train()
    embeds = together(*views()).global_embeds
    assert together.backbone.stem[1].num_batches_tracked == together.head.dense_norm.num_batches_tracked == 1
    assert not torch.allclose(embeds, make().train()(*views()).global_embeds, atol=1e-3)
    short = (views()[0], views(frames=8, size=24)[1])  # a second pass where clips differ in size
    together(*short)
    assert together.backbone.stem[1].num_batches_tracked == 3


def test_global_clips_alone_are_trained_without_local_ones():
    """Note [Statistics of each kind of clip]: what one kind of clip gives does not hang on the others."""
    alone, all_clips = make(losses=["instance"]).train(), make(losses=["instance"]).train()
    all_clips.config.losses = ["instance", "local_local"]
    short, whole = alone(*views()), all_clips(*views())
    assert alone.backbone.stem[1].num_batches_tracked == 2 and short.local_embeds is None
    torch.testing.assert_close(short.instance_loss, whole.instance_loss)
    assert short.loss == short.instance_loss
    assert make(losses=["instance"], loss_weights="official").train()(*views()).local_instance_loss is not None
    assert alone.eval()(*views()).local_embeds is not None


@pytest.mark.parametrize("separate", [True, False])
def test_timesteps_of_another_time_have_no_counterparts(separate):
    """Note [Views of different skips]."""
    settings = {"separate_batch_statistics": separate, "losses": ["global_local"]}
    model, all_views = make(aligned_views=False, **settings).train(), make(**settings).train()
    output, other = model(*views()), all_views(*views())
    torch.testing.assert_close(output.timestep_embeds, other.timestep_embeds)
    first = [global_local_loss(output.timestep_embeds[:, 0], local) for local in output.local_embeds.unbind(1)]
    torch.testing.assert_close(output.global_local_loss, sum(first) / 2)
    assert abs(output.global_local_loss - other.global_local_loss) > 1e-3
    instances = make(aligned_views=False, losses=["instance"]).train()(*views())
    torch.testing.assert_close(instances.loss, make(losses=["instance"]).train()(*views()).loss)


def test_in_evaluation_statistics_make_no_difference():
    separate, together = make().eval(), make(separate_batch_statistics=False).eval()
    one, other = (model(*views()) for model in (separate, together))
    for name in ("global_embeds", "timestep_embeds", "local_embeds"):
        torch.testing.assert_close(one[name], other[name])
        torch.testing.assert_close(one[name].norm(dim=-1), torch.ones(one[name].shape[:-1]))
    assert one.loss is None and separate(*views(), return_loss=True).loss is not None
    torch.testing.assert_close(
        separate.get_video_features(views()[0][:, 0]).pooler_output, separate.backbone(views()[0][:, 0]).pooler_output
    )


def test_fewer_timesteps_are_means_of_neighbours():
    model = make(num_timesteps=2).eval()
    global_clips, local_clips = views(num_timesteps=2)
    output = model(global_clips, local_clips)
    features = model.backbone(global_clips[:, 0]).timestep_features
    expected = model.head((features[:, 2] + features[:, 3]) / 2)
    torch.testing.assert_close(output.timestep_embeds[:, 0, 1], expected)
    with pytest.raises(ValueError, match="2 places in time, which 4 timesteps"):
        make(backbone_config={**BACKBONE, "tclr_conv5": False}).eval()(*views())


def test_the_head_of_the_paper():
    model = make(head_norm=False).eval()
    assert {name for name, _ in model.head.named_parameters()} == {
        f"{layer}.{field}" for layer in ("dense", "projection") for field in ("weight", "bias")
    }
    vectors = torch.rand(4, 10)
    hidden = functional.linear(vectors, model.head.dense.weight, model.head.dense.bias).relu()
    expected = functional.linear(hidden, model.head.projection.weight, model.head.projection.bias)
    torch.testing.assert_close(model.head(vectors), functional.normalize(expected))


def test_a_training_step_learns_to_tell_clips_apart():
    """With the loss that each option names; half precision and checkpointing included."""
    model = make(losses=["instance", "local_local"], loss_weights={"instance": 1.0, "local_local": 2.0}).train()
    model.gradient_checkpointing_enable()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(*views())
        assert output.global_local_loss is None and output.loss.dtype == torch.float32
        torch.testing.assert_close(output.loss, output.instance_loss + 2 * output.local_local_loss)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_clips_of_a_video_are_averaged_as_probabilities():
    model = make(TCLRForVideoClassification).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    videos, labels = torch.rand(2, 5, 16, 3, 16, 16), torch.tensor([2, 0])
    single = torch.stack([model(videos[:, clip]).logits.softmax(dim=1) for clip in range(5)], dim=1)
    output = model(videos, labels=labels)
    torch.testing.assert_close(output.logits.exp(), single.mean(dim=1))
    torch.testing.assert_close(output.loss, -single.mean(dim=1)[range(2), labels].log().mean())
    assert model(videos[:, 0], labels=labels).loss.requires_grad
    assert len(model(videos[:, 0], output_hidden_states=True).hidden_states) == 5


@pytest.mark.parametrize(
    ("freeze", "weights_move", "statistics_move"),
    [("none", True, True), ("backbone_weights", False, True), ("backbone", False, False)],
)
def test_what_a_frozen_backbone_keeps(tmp_path, freeze, weights_move, statistics_move):
    """Note [A frozen backbone]."""
    make().save_pretrained(tmp_path)
    model = TCLRForVideoClassification.from_pretrained(tmp_path, freeze=freeze, num_labels=3).train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    trained = [value for value in model.parameters() if value.requires_grad]
    assert (len(trained) == 2) == (freeze != "none")
    optimizer = torch.optim.SGD(trained, lr=0.1)
    model(torch.rand(3, 16, 3, 16, 16), labels=torch.tensor([0, 1, 2])).loss.backward()
    optimizer.step()
    after = model.backbone.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    statistics = {name for name in before if "running" in name or "tracked" in name}
    assert bool(moved & statistics) == statistics_move and bool(moved - statistics) == weights_move
    assert not model.eval().backbone.training


def test_what_loads_from_what(tmp_path):
    model = make(num_labels=3).eval()
    expected = model.backbone.state_dict()
    model.save_pretrained(tmp_path / "tclr")
    VideoResNetModel.from_pretrained(tmp_path / "tclr").save_pretrained(tmp_path / "network")
    TCLRForVideoClassification.from_pretrained(tmp_path / "network", num_labels=7).save_pretrained(tmp_path / "classes")
    for folder, missing in (("tclr", set()), ("network", {"head"}), ("classes", {"head"})):
        loaded, report = TCLRModel.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert {name.split(".")[0] for name in report["missing_keys"]} == missing
        network, report = VideoResNetModel.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        for name, value in expected.items():
            assert torch.equal(loaded.backbone.state_dict()[name], value), (folder, name)
            assert torch.equal(network.state_dict()[name], value), (folder, name)
    assert isinstance(AutoModel.from_pretrained(tmp_path / "tclr"), TCLRModel)
    classifier = AutoModelForVideoClassification.from_pretrained(tmp_path / "classes")
    assert isinstance(classifier, TCLRForVideoClassification) and classifier.config.num_labels == 7
    assert classifier.classifier.out_features == 7 and len(classifier.config.id2label) == 7


@pytest.mark.parametrize("head_norm", [True, False])
def test_a_head_that_does_not_fit_is_told(tmp_path, head_norm):
    make(head_norm=head_norm).save_pretrained(tmp_path)
    _, report = TCLRModel.from_pretrained(tmp_path, head_norm=not head_norm, output_loading_info=True)
    told = report["unexpected_keys" if head_norm else "missing_keys"]
    assert {"head.dense_norm.weight", "head.projection_norm.running_mean"} <= set(told)
    assert report["missing_keys" if head_norm else "unexpected_keys"] == {"head.projection.bias"}
    for kind in (TCLRForVideoClassification, VideoResNetModel):
        assert not kind.from_pretrained(tmp_path, output_loading_info=True)[1]["unexpected_keys"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projection_size": 0}, "projection_size must be an integer"),
        ({"temperatures": [0.1, 0.1]}, "temperatures must be three"),
        ({"losses": ["global"]}, "losses must be some of"),
        ({"freeze": "head"}, "freeze must be one of"),
        ({"classifier_dropout": 1.0}, "classifier_dropout must be"),
        ({"loss_weights": "equal"}, "loss_weights must be"),
        ({"loss_weights": {"instances": 1}}, "loss_weights must be"),
    ],
)
def test_settings_that_make_no_model(fields, message):
    with pytest.raises(ValueError, match=message):
        TCLRConfig(**fields)


def test_clips_that_do_not_belong_together():
    model = make()
    global_clips, local_clips = views()
    for wrong in ((global_clips, None), (global_clips[:2], local_clips), (global_clips, local_clips[:, :, :3])):
        with pytest.raises(ValueError, match=r"global_clips"):
            model(*wrong)
    classifier = make(TCLRForVideoClassification)
    for wrong in (None, torch.rand(3, 16, 16)):
        with pytest.raises(ValueError, match="expected pixel_values"):
            classifier(wrong)
