"""The schedule of TCLR: warm-up, plateaus, and a state that a checkpoint keeps."""

from __future__ import annotations

import io
import math

import pytest
import torch

from tempclr.recipes.tclr_schedule import PlateauTrainingArguments, WarmupPlateau


def made(**settings):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    return WarmupPlateau(optimizer, **{"steps_per_epoch": 2, "warmup_epochs": 0, "patience": 2, **settings})


def rates(schedule, losses):
    """The rate of each step: the loss of an update is known after it."""
    seen = []
    for step, loss in enumerate(losses, start=1):
        seen.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.advance(step, loss)
    return seen


def test_warm_up_is_linear_and_ends_at_the_full_rate():
    seen = rates(made(warmup_epochs=2, steps_per_epoch=5), [1.0] * 12)
    assert seen == pytest.approx([1e-4 * step for step in range(1, 11)] + [1e-3, 1e-3])


def test_the_released_factors_hold_for_whole_epochs():
    schedule = made(warmup_factors=[0.01, 0.05, 0.1, 0.5, 1.0], steps_per_epoch=3)
    seen = rates(schedule, [1.0] * 18)
    assert seen == pytest.approx([1e-3 * factor for factor in (0.01, 0.05, 0.1, 0.5, 1.0, 1.0) for _ in range(3)])


def test_the_rate_falls_after_epochs_above_the_lowest_loss():
    losses = [5, 4, 4.5, 4.6, 4.0, 4.1, 4.1, 3.9, 4.7, 4.8]
    by_epoch = {"steps_per_epoch": 1, "patience": 3}
    # An epoch that equals the lowest loss neither counts nor starts the count anew; 3.9 does.
    assert rates(made(**by_epoch), losses) == pytest.approx([1e-3] * 6 + [1e-4] * 4)
    assert rates(made(**{**by_epoch, "patience": 4}), losses) == pytest.approx([1e-3] * 7 + [1e-4] * 3)
    assert rates(made(**{**by_epoch, "patience": 5}), losses) == pytest.approx([1e-3] * 10)
    forgets_not = rates(made(**{**by_epoch, "patience": 5, "in_a_row": False}), [*losses, 1.0])
    assert forgets_not == pytest.approx([1e-3] * 9 + [1e-4] * 2)


def test_an_epoch_is_judged_by_its_mean_and_warm_up_is_left_alone():
    assert rates(made(patience=1), [1, 3, 3, 1, 1, 4, 1, 1]) == pytest.approx([1e-3] * 6 + [1e-4] * 2)
    rising = list(range(1, 9))
    warm = made(patience=1, steps_per_epoch=1, warmup_epochs=4)
    assert rates(warm, rising) == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7])


@pytest.mark.parametrize("killed_after", range(1, 12))
def test_plateaus_survive_a_kill(killed_after):
    """Note [Plateaus survive a kill]: within an epoch too."""
    losses = [3.0, 2.0, 2.6, 2.5, 2.7, 2.4, 1.0, 1.2, 1.3, 1.1, 1.2, 1.4, 1.5]
    settings = {"patience": 1, "warmup_epochs": 1.5}
    whole = made(**settings)
    expected = rates(whole, losses)
    first = made(**settings)
    rates(first, losses[:killed_after])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = made(**settings)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.optimizer.param_groups[0]["lr"] = first.get_last_lr()[0]  # an optimizer's own state keeps its rate
    seen = []
    for step, loss in enumerate(losses[killed_after:], start=killed_after + 1):
        seen.append(second.optimizer.param_groups[0]["lr"])
        second.advance(step, loss)
    assert seen == expected[killed_after:]
    assert (second.lowest_loss, second.num_worse, second.num_decays) == (
        whole.lowest_loss,
        whole.num_worse,
        whole.num_decays,
    )


def test_steps_of_the_trainer_itself_change_nothing():
    schedule = made(warmup_epochs=2)
    before = schedule.get_last_lr()
    schedule.step()
    assert schedule.get_last_lr() == before == [1e-3 / 4]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"warmup_epochs": -1}, "warmup_epochs must be"),
        ({"warmup_epochs": math.nan}, "warmup_epochs must be"),
        ({"warmup_factors": [0.1, -1]}, "warmup_factors must be"),
        ({"plateau_patience": 0}, "plateau_patience must be"),
        ({"plateau_factor": 1.0}, "plateau_factor must be"),
    ],
)
def test_numbers_that_are_no_schedule_are_refused(settings, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        PlateauTrainingArguments(str(tmp_path), **settings)
