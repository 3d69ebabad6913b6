"""The loss of fine-tuning on step localization: against the released code's numbers, and its corrected default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tempclr.localization_loss import localization_loss, sequence_frames
from tempclr.negatives import Negatives, sample_step_negatives

CASES = ("case0", "case1", "case2")


@pytest.fixture(scope="module")
def released():
    with np.load(Path(__file__).parent / "data" / "loss_crosstask.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def recorded_negatives(case, released):
    """Rows are recorded as step ids; a step that is done twice may stand for either of its places."""
    sequence = released[f"{case}/action_sequence"].long()
    places = []
    for ids in released[f"{case}/row_step_ids"].tolist():
        left = list(enumerate(sequence.tolist()))
        places.append([left.pop(next(n for n, (_, step) in enumerate(left) if step == wanted))[0] for wanted in ids])
    return Negatives(
        row_orders=torch.tensor(places)[None],
        column_orders=released[f"{case}/col_indices"].long()[None],
        order_mask=torch.tensor([True]),
    )


@pytest.mark.parametrize("precision", ["f64", "f32"])
@pytest.mark.parametrize("measure", ["dtw", "otam"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_released_code(case, measure, precision, released):
    """frame_order="window", Note [Windows overlap]."""
    dtype, tolerance = {"f64": (torch.float64, 1e-9), "f32": (torch.float32, 1e-5)}[precision]
    text = released[f"{case}/pooled_text"].to(dtype, copy=True).requires_grad_()
    video = released[f"{case}/video_seq"].to(dtype, copy=True).requires_grad_()
    parts = localization_loss(
        text,
        video,
        released[f"{case}/targets"],
        step_sequence=released[f"{case}/sequence_targets"],
        frame_order="window",
        measure=measure,
        negatives=recorded_negatives(case, released),
    )
    parts["loss"].backward()
    for name, recorded in (("loss", "loss"), ("unit_loss", "BCE"), ("sequence_loss", "L_seq")):
        wanted = released[f"{case}/{measure}/{precision}/{recorded}"].item()
        assert parts[name].item() == pytest.approx(wanted, rel=tolerance, abs=tolerance), name
    for gradient, name in ((text.grad, "pooled_text"), (video.grad, "video_seq")):
        wanted = released[f"{case}/{measure}/f64/grad_{name}"]
        torch.testing.assert_close(
            gradient.double(), wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item()
        )


@pytest.mark.parametrize("case", CASES)
def test_the_frames_of_the_window_order_are_the_released_ones(case, released):
    targets, sequence = released[f"{case}/targets"], released[f"{case}/action_sequence"]
    rows = torch.arange(len(targets), dtype=torch.float64)[:, None]
    chosen = sequence_frames(rows, targets, None, frame_order="window", max_frames=10 * len(sequence))
    wanted = rows[targets.bool().any(1)][released[f"{case}/sampled_indices_in_nonempty"].long()]
    assert torch.equal(chosen.embeds, wanted)
    changes = (chosen.steps[1:] != chosen.steps[:-1]).nonzero()[:, 0] + 1
    assert [0, *changes.tolist(), len(wanted)] == released[f"{case}/segment_bounds"].tolist()


@pytest.mark.parametrize("case", ["case0", "case2"])
def test_by_default_frames_come_once_and_in_the_order_of_time(case, released):
    """Note [Windows overlap]: whatever the windows, the sequence is that of the video."""
    video, targets = released[f"{case}/video_seq"], released[f"{case}/targets"]
    times = released[f"{case}/frame_time_of_row"].long()
    chosen = sequence_frames(video, targets, times, max_frames=10_000)
    labelled = sorted(set(times[targets.bool().any(1)].tolist()))
    assert len(chosen.embeds) == len(labelled) < int(targets.bool().any(1).sum())
    for place, time in enumerate(labelled):
        torch.testing.assert_close(chosen.embeds[place], video[times == time].mean(0))
        assert targets[times == time][0].argmax() == chosen.steps[place]
    turned = torch.randperm(len(times), generator=torch.Generator().manual_seed(0))
    other = sequence_frames(video[turned], targets[turned], times[turned], max_frames=10_000)
    torch.testing.assert_close(other.embeds, chosen.embeds)
    released_order = sequence_frames(video, targets, times, frame_order="window", max_frames=10_000)
    assert len(released_order.embeds) > len(chosen.embeds)


def test_kept_frames_are_spread_evenly_at_any_number():
    from tempclr.data.sampling import evenly_spaced

    for count in range(1, 90):
        rows = torch.arange(count)[:, None].double()
        for most in (1, 2, 3, 7, 10, 50):
            kept = sequence_frames(rows, torch.ones(count, 1), None, frame_order="window", max_frames=most).embeds
            assert kept[:, 0].tolist() == evenly_spaced(count, most)


def world(num_steps=4, width=6, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(num_steps, width, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 0, -1, 1, 1, 1, -1, 2, 3, 3])
    targets = (labels[:, None] == torch.arange(num_steps)).double()
    frames = 0.3 * torch.randn(len(labels), width, generator=generator, dtype=torch.float64) + targets @ steps
    return steps, frames, targets


SEQUENCE = {"step_sequence": torch.tensor([0, 1, 1, 2, 3]), "frame_times": torch.arange(10)}


def test_the_true_order_costs_less_and_the_weights_add_up():
    steps, frames, targets = world()
    generator = torch.Generator().manual_seed(0)
    parts = localization_loss(steps, frames, targets, **SEQUENCE, generator=generator)
    assert parts["loss"].item() == pytest.approx(
        0.88 * parts["unit_loss"].item() + 0.12 * parts["sequence_loss"].item()
    )
    turned = localization_loss(steps, frames.flip(0), targets.flip(0), **SEQUENCE, generator=generator)
    assert parts["sequence_loss"] < 0.5 * turned["sequence_loss"]


def test_gradients_are_those_of_the_function():
    steps, frames, targets = world()

    def loss(steps, frames):
        generator = torch.Generator().manual_seed(1)
        return localization_loss(steps, frames, targets, **SEQUENCE, num_negatives=3, generator=generator)["loss"]

    assert torch.autograd.gradcheck(loss, (steps.requires_grad_(), frames.requires_grad_()))


@pytest.mark.parametrize(
    ("sequence", "labels"), [([1], [0, 1, 1]), ([1, 1], [1, 1, 1]), ([], [-1, -1, -1]), ([0, 1], [-1, 0, -1])]
)
def test_without_an_order_the_cells_alone_count(sequence, labels):
    steps = torch.randn(2, 4, requires_grad=True)
    targets = (torch.tensor(labels)[:, None] == torch.arange(2)).int()
    parts = localization_loss(
        steps,
        torch.randn(3, 4),
        targets,
        step_sequence=torch.tensor(sequence, dtype=torch.long),
        frame_times=torch.arange(3),
    )
    parts["loss"].backward()
    assert parts["sequence_loss"].item() == 0 and parts["sequence_loss"].requires_grad
    assert parts["loss"].item() == pytest.approx(0.88 * parts["unit_loss"].item(), rel=1e-6)


def test_a_frame_of_two_steps_counts_for_both_cells_and_as_the_first_step():
    targets = torch.tensor([[0, 1, 1], [1, 0, 0]])
    assert sequence_frames(torch.eye(2), targets, torch.arange(2), max_frames=9).steps.tolist() == [1, 0]


@pytest.mark.parametrize("strategy", ["seg_unit", "seg_only"])
def test_negatives_permute_the_steps_and_shuffle_inside_runs(strategy):
    sequence, frames = torch.tensor([0, 1, 0]), torch.tensor([0, 0, 0, 1, 1, 0, 0, 0])
    negatives = sample_step_negatives(
        strategy,
        step_sequence=sequence,
        frame_steps=frames,
        num_negatives=2000,
        generator=torch.Generator().manual_seed(0),
    )
    orders = negatives.row_orders[0]
    assert orders[0].tolist() == [0, 1, 2] and (orders.sort(1).values == torch.arange(3)).all()
    named = {tuple(steps) for steps in sequence[orders[1:]].tolist()}
    assert named == {(0, 0, 1), (1, 0, 0)}, "the exchange of two equal steps is no negative"
    if strategy == "seg_only":
        assert negatives.column_orders is None
        return
    columns = negatives.column_orders[0]
    assert columns[0].tolist() == list(range(8))
    runs = [range(3), range(3, 5), range(5, 8)]
    assert all(sorted(order[run.start : run.stop]) == list(run) for order in columns.tolist() for run in runs)
    assert len({tuple(order) for order in columns.tolist()}) == 6 * 2 * 6


def test_mistakes_are_named():
    steps, frames, targets = world()
    with pytest.raises(ValueError, match="time, window, got 'space'"):
        localization_loss(steps, frames, targets, **SEQUENCE, frame_order="space")
    with pytest.raises(ValueError, match="needs frame_times"):
        localization_loss(steps, frames, targets, step_sequence=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="dtw, otam, got 'cap_avg'"):
        localization_loss(steps, frames, targets, **SEQUENCE, measure="cap_avg")
    with pytest.raises(ValueError, match="seg_unit, seg_only, got 'joint'"):
        localization_loss(steps, frames, targets, **SEQUENCE, negatives="joint")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        localization_loss(steps, frames, targets, **SEQUENCE, num_negatives=0)
    with pytest.raises(ValueError, match=r"of \(10, 4\), got \(4, 10\)"):
        localization_loss(steps, frames, targets.T, **SEQUENCE)
    with pytest.raises(ValueError, match=r"got \(4, 6\) and \(10, 5\)"):
        localization_loss(steps, frames[:, :5], targets, **SEQUENCE)
    with pytest.raises(ValueError, match=r"one time a frame, \(10,\), got \(3,\)"):
        localization_loss(steps, frames, targets, step_sequence=SEQUENCE["step_sequence"], frame_times=torch.arange(3))
