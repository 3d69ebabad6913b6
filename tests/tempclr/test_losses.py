from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from tempclr.losses import sequence_loss, tempclr_loss, unit_loss
from tempclr.negatives import STRATEGIES, Negatives
from tempclr_kernels import dtw


def embeddings(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def paragraphs(counts, *, clips_per_sentence=2, dim=6, padding=0):
    """Padded paragraphs with ``clips_per_sentence`` clips a sentence and one background clip behind the first."""
    rows = [
        [0] * clips_per_sentence + [-1] + [s for s in range(1, n) for _ in range(clips_per_sentence)] for n in counts
    ]
    width = max(map(len, rows)) + padding
    index = torch.full((len(rows), width), -1)
    clip_mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, values in enumerate(rows):
        index[row, : len(values)], clip_mask[row, : len(values)] = torch.tensor(values), True
    sentence_mask = torch.arange(max(counts) + padding) < torch.tensor(counts)[:, None]
    masks = {"sentence_mask": sentence_mask, "clip_mask": clip_mask, "clip_sentence_index": index}
    return embeddings(*sentence_mask.shape, dim), embeddings(*clip_mask.shape, dim), masks


# --- the unit loss


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_unit_loss_of_pairs_is_the_sum_of_two_cross_entropies(similarity):
    text, video = embeddings(5, 4), embeddings(5, 4)
    a, b = (video, text) if similarity == "dot" else (normalize(video, dim=1), normalize(text, dim=1))
    logits = a @ b.T / (1.0 if similarity == "dot" else 0.05)
    target = torch.arange(5)
    expected = cross_entropy(logits, target) + cross_entropy(logits.T, target)
    torch.testing.assert_close(unit_loss(text, video, similarity=similarity, temperature=0.05), expected)


def test_one_clip_a_sentence_in_paragraphs_is_the_loss_of_their_pairs():
    text, video = embeddings(2, 3, 4), embeddings(2, 3, 4)
    index = torch.arange(3).expand(2, 3)
    loss = unit_loss(text, video, clip_sentence_index=index, similarity="dot")
    torch.testing.assert_close(loss, unit_loss(text.flatten(0, 1), video.flatten(0, 1), similarity="dot"))


def test_several_clips_count_the_mean_of_their_log_probabilities():
    text, video, masks = paragraphs([3, 2])
    loss = unit_loss(text, video, similarity="dot", **masks)
    sentences = [text[b, s] for b, n in ((0, 3), (1, 2)) for s in range(n)]
    clips, owner = [], []
    for b, first in ((0, 0), (1, 3)):
        for c, sentence in enumerate(masks["clip_sentence_index"][b].tolist()):
            if sentence >= 0:
                clips.append(video[b, c])
                owner.append(first + sentence)
    logits = torch.stack(clips) @ torch.stack(sentences).T
    to_sentence = cross_entropy(logits, torch.tensor(owner))
    log_probabilities = logits.T.log_softmax(dim=1)
    to_clip = [
        torch.stack([log_probabilities[s, c] for c, own in enumerate(owner) if own == s]).mean() for s in range(5)
    ]
    torch.testing.assert_close(loss, to_sentence - torch.stack(to_clip).mean())


@pytest.mark.parametrize("function", [unit_loss, sequence_loss])
def test_padding_and_background_may_hold_anything(function):
    text, video, masks = paragraphs([4, 2, 3])
    wide_text, wide_video = (torch.full((3, n + 2, 6), math.nan, dtype=torch.float64) for n in (4, 9))
    real_text = torch.where(masks["sentence_mask"][..., None], text, math.nan)
    foreground = masks["clip_mask"] & (masks["clip_sentence_index"] >= 0)
    wide_text[:, :4] = real_text.detach()
    wide_video[:, :9] = torch.where(foreground[..., None], video, math.nan).detach()
    wide = {
        "sentence_mask": torch.nn.functional.pad(masks["sentence_mask"], (0, 2)),
        "clip_mask": torch.nn.functional.pad(masks["clip_mask"], (0, 2)),
        "clip_sentence_index": torch.nn.functional.pad(masks["clip_sentence_index"], (0, 2), value=-1),
    }
    wide_text = wide_text.detach().requires_grad_()
    options = {}
    if function is sequence_loss:
        # One order for both widths: the clips of the two-sentence paragraph, say, swap their segments.
        options = {"negatives": "seg_only", "num_negatives": 1}
        masks["sentence_mask"], wide["sentence_mask"] = masks["sentence_mask"].clone(), wide["sentence_mask"].clone()
        for each in (masks, wide):
            each["sentence_mask"][0, 2:], each["sentence_mask"][2, 2:] = False, False
    narrow = function(text, video, **masks, **options)
    padded = function(wide_text, wide_video, **wide, **options)
    torch.testing.assert_close(padded, narrow)
    padded.backward()
    narrow.backward()
    gradient = torch.where(wide["sentence_mask"][:, :4, None], wide_text.grad[:, :4], 0)
    torch.testing.assert_close(gradient, text.grad)


@pytest.mark.parametrize("function", [unit_loss, sequence_loss])
def test_masks_may_be_integers_and_need_not_be_prefixes(function):
    text, video, masks = paragraphs([2, 2])
    masks["clip_sentence_index"] = masks["clip_sentence_index"].clone()
    moved = torch.tensor([2, 0, 1])
    place = moved.argsort()
    options = {"negatives": "seg_only", "num_negatives": 1} if function is sequence_loss else {}
    wide_text = torch.nn.functional.pad(text, (0, 0, 0, 1))[:, moved]
    index = masks["clip_sentence_index"]
    scattered = {
        "sentence_mask": torch.nn.functional.pad(masks["sentence_mask"], (0, 1))[:, moved].long(),
        "clip_mask": masks["clip_mask"].long(),
        "clip_sentence_index": torch.where(index >= 0, place[index.clamp_min(0)], -1),
    }
    torch.testing.assert_close(
        function(wide_text, video, **scattered, **options), function(text, video, **masks, **options)
    )


def test_without_any_clip_the_unit_loss_is_a_differentiable_zero():
    text, video, masks = paragraphs([2, 2])
    masks["clip_mask"] = torch.zeros_like(masks["clip_mask"])
    loss = unit_loss(text, video, **masks)
    loss.backward()
    assert loss.item() == 0 and not text.grad.any() and not video.grad.any()


# --- the sequence loss


def test_sequence_loss_by_hand():
    text, video, masks = paragraphs([3], clips_per_sentence=1)
    orders = torch.tensor([[[0, 1, 2, 3], [1, 0, 2, 3], [2, 1, 0, 3]]])
    negatives = Negatives(column_orders=orders, order_mask=torch.tensor([True]))
    loss = sequence_loss(text, video, negatives=negatives, temperature=0.5, gamma=0.1, **masks)
    clips = video[0, [0, 2, 3]]
    products = text[0] @ clips.T
    cost = 1 - products / (text[0].norm(dim=1)[:, None] * clips.norm(dim=1) + 0.01)
    distances = torch.stack([dtw(cost[:, order[:3]], gamma=0.1, impl="reference") for order in orders[0]])
    torch.testing.assert_close(loss, cross_entropy(-distances[None] / 0.5, torch.tensor([0])))


def test_the_gradient_in_the_toy_example_of_two_pairs():
    """TempCLR A.5: with costs 1 - m·n and two units, the loss on the hard path is a softmax over the two orders."""
    text, video = embeddings(1, 2, 8), embeddings(1, 2, 8)
    with torch.no_grad():  # the diagonal must be the best path of the true order, and of the swapped one
        text.copy_(normalize(torch.eye(2, 8) + 0.05, dim=1))
        video.copy_(normalize(torch.eye(2, 8) + 0.07, dim=1))
    loss = sequence_loss(text, video, negatives="seg_only", num_negatives=1, gamma=0.0, cosine_eps=0.0)
    m, n = text[0], video[0]
    # The swapped order costs more on its diagonal than around it, so its best path takes three cells.
    swapped = 1 - m @ n.flip(0).T
    best = min(swapped[0, 0] + swapped[1, 1], swapped[0, 0] + swapped[0, 1] + swapped[1, 1])
    positive = 2 - m[0] @ n[0] - m[1] @ n[1]
    expected = -torch.log(torch.exp(-positive) / (torch.exp(-positive) + torch.exp(-best)))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("measure", ["dtw", "otam"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_a_finite_loss_and_gradients(strategy, measure):
    text, video, masks = paragraphs([4, 2, 3, 1], padding=1)
    loss = sequence_loss(text, video, negatives=strategy, num_negatives=5, measure=measure, **masks)
    loss.backward()
    assert loss.item() > 0
    assert torch.isfinite(text.grad).all() and torch.isfinite(video.grad).all()
    assert text.grad[0].any() and video.grad[0].any()
    assert not video.grad[masks["clip_sentence_index"] < 0].any(), "background takes no part"


@pytest.mark.parametrize("strategy", ["seg_unit", "visual_anchor", "within_seg"])
def test_paragraphs_without_negatives_contribute_nothing(strategy):
    text, video, masks = paragraphs([3, 1])
    generator = torch.Generator().manual_seed(1)
    loss = sequence_loss(text, video, negatives=strategy, generator=generator, **masks)
    loss.backward()
    assert not text.grad[1].any() and not video.grad[1].any()
    alone = {name: mask[:1] for name, mask in masks.items()}
    drawn_alone = sequence_loss(text[:1], video[:1], negatives=strategy, num_negatives=200, **alone)
    drawn_together = sequence_loss(text, video, negatives=strategy, num_negatives=200, **masks)
    assert drawn_together.item() == pytest.approx(drawn_alone.item(), rel=0.1), "the mean is over those that count"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_paragraph_at_all_is_a_differentiable_zero(strategy):
    text, video, masks = paragraphs([1])
    loss = sequence_loss(text, video, negatives=strategy, **masks)
    loss.backward()
    assert loss.item() == 0 and not text.grad.any() and not video.grad.any()


def test_unpaired_is_a_softmax_over_the_distances_to_the_videos_of_the_batch():
    text, video, masks = paragraphs([3, 2, 4])
    loss = sequence_loss(text, video, negatives="unpaired", gamma=0.1, **masks)
    expected = []
    for b, n in enumerate((3, 2, 4)):
        distances = []
        for other in [b, *(o for o in range(3) if o != b)]:
            clips = video[other][masks["clip_sentence_index"][other] >= 0]
            norms = text[b, :n].norm(dim=1)[:, None] * clips.norm(dim=1)
            distances.append(dtw(1 - text[b, :n] @ clips.T / (norms + 0.01), gamma=0.1, impl="reference"))
        expected.append(cross_entropy(-torch.stack(distances)[None], torch.tensor([0])))
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_gradients_of_the_whole_loss_are_right():
    text, video, masks = paragraphs([3, 2], clips_per_sentence=1, dim=3)
    orders = torch.tensor([[[0, 1, 2, 3], [1, 2, 0, 3]], [[0, 1, 2, 3], [1, 0, 2, 3]]])
    negatives = Negatives(
        column_orders=orders,
        order_mask=torch.tensor([True, True]),
        other_videos=torch.tensor([[1], [0]]),
        other_mask=torch.tensor([[True], [True]]),
    )

    def loss(text, video):
        return tempclr_loss(text, video, negatives=negatives, temperature=0.5, **masks)["loss"]

    assert torch.autograd.gradcheck(loss, (text, video))


def test_training_on_the_sequence_loss_orders_what_was_ambiguous():
    torch.manual_seed(0)
    text = torch.randn(1, 4, 8, requires_grad=True)
    video = torch.randn(1, 4, 8, requires_grad=True)
    optimizer = torch.optim.SGD([text, video], lr=1.0)
    before = sequence_loss(text, video, generator=torch.Generator().manual_seed(0)).item()
    for _ in range(30):
        optimizer.zero_grad()
        sequence_loss(text, video).backward()
        optimizer.step()
    assert sequence_loss(text, video, generator=torch.Generator().manual_seed(0)).item() < 0.5 * before


# --- both together


def test_the_whole_is_the_weighted_sum_of_its_named_parts():
    text, video, masks = paragraphs([3, 2])
    parts = tempclr_loss(text, video, unit_weight=0.3, sequence_weight=0.7, **masks)
    torch.testing.assert_close(parts["loss"], 0.3 * parts["unit_loss"] + 0.7 * parts["sequence_loss"])
    assert set(parts) == {"loss", "unit_loss", "sequence_loss"}


def test_a_part_of_weight_zero_is_not_computed():
    text, video, masks = paragraphs([3, 2])
    state = torch.get_rng_state()
    parts = tempclr_loss(text, video, unit_weight=1, sequence_weight=0, **masks)
    assert parts["sequence_loss"] is None and torch.equal(parts["loss"], parts["unit_loss"])
    assert torch.equal(torch.get_rng_state(), state), "the baseline draws no negatives"
    assert tempclr_loss(text, video, unit_weight=0, sequence_weight=1, **masks)["unit_loss"] is None
    with pytest.raises(ValueError, match="both 0"):
        tempclr_loss(text, video, unit_weight=0, sequence_weight=0, **masks)


def test_pairs_have_the_unit_loss_alone():
    text, video = embeddings(4, 3), embeddings(4, 3)
    parts = tempclr_loss(text, video)
    assert parts["sequence_loss"] is None
    torch.testing.assert_close(parts["loss"], unit_loss(text, video))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_low_precision_are_computed_in_float32(dtype):
    text, video, masks = paragraphs([3, 2])
    text, video = text.detach().to(dtype), video.detach().to(dtype)
    generator = torch.Generator()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = tempclr_loss(text, video, generator=generator.manual_seed(0), **masks)["loss"]
    exact = tempclr_loss(text.double(), video.double(), generator=generator.manual_seed(0), **masks)["loss"]
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("measure", ["dtw", "otam"])
def test_the_whole_loss_compiles_into_one_graph(measure):
    text, video, masks = paragraphs([3, 2])
    text, video = text.detach().float().requires_grad_(), video.detach().float().requires_grad_()

    def loss(text, video, **masks):
        # With two units there is one other order, so that the draw cannot change the value.
        return tempclr_loss(text, video, negatives="visual_anchor", num_negatives=2, measure=measure, **masks)["loss"]

    masks["sentence_mask"][0, 2] = False
    torch._dynamo.reset()
    value = torch.compile(loss, fullgraph=True, backend="aot_eager")(text, video, **masks)
    value.backward()
    compiled_gradient, text.grad = text.grad, None
    expected = loss(text, video, **masks)
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(compiled_gradient, text.grad)


def test_wrong_arguments_are_told():
    text, video, masks = paragraphs([3, 2])
    with pytest.raises(ValueError, match="cosine, dot, got 'l2'"):
        unit_loss(text, video, similarity="l2", **masks)
    with pytest.raises(ValueError, match="dtw, otam, got 'cap_avg'"):
        sequence_loss(text, video, measure="cap_avg", **masks)
    with pytest.raises(ValueError, match=r"\(B, S, d\), video_embeds \(B, C, d\), got \(2, 3, 6\) and \(1, 7, 6\)"):
        sequence_loss(text, video[:1], **masks)
    with pytest.raises(ValueError, match=r"one sentence a clip: got \(2, 6\) sentences, \(3, 6\) clips"):
        unit_loss(torch.zeros(2, 6), torch.zeros(3, 6))
