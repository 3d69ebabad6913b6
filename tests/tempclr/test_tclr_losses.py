"""TCLR's losses: values and gradients recorded from the released code, and what follows from the equations."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tempclr.tclr_losses import (
    LossWeights,
    gather_rows,
    global_local_loss,
    instance_loss,
    local_local_loss,
    loss_weights,
    tclr_loss,
)

ROOT = Path(__file__).resolve().parents[2]
RECORDED = np.load(Path(__file__).resolve().parent / "data" / "tclr_losses.npz")
CASES = sorted({name.partition("/")[0] for name in RECORDED.files} - {"step"})


def recorded(name):
    return torch.tensor(RECORDED[name], requires_grad=True)


def step_embeddings():
    """The recorded step: [view, global clip and its four slices, video, d] and [view, local clip, video, d]."""
    sparse, dense = recorded("step/sparse"), recorded("step/dense")
    return sparse, dense, (sparse[:, 0].transpose(0, 1), sparse[:, 1:].permute(2, 0, 1, 3), dense.permute(2, 0, 1, 3))


def random_embeddings(num_videos=5, num_timesteps=4, size=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(num_videos, 2, size), (num_videos, 2, num_timesteps, size), (num_videos, 2, num_timesteps, size)]
    drawn = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return tuple(functional.normalize(part, dim=-1) for part in drawn)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_of_each_loss_are_the_released_ones(case):
    temperature = float(case.split("_T")[1].split("_")[0])
    names = ("lsr", "gdr") if case.startswith("gl") else ("zi", "zj")
    a, b = (recorded(f"{case}/{name}") for name in names)
    if case.startswith("gl"):
        loss = a.shape[1] * global_local_loss(a, b, temperature=temperature)
    else:
        loss = instance_loss(a, b, temperature=temperature)
    loss.backward()
    # Logits of raw vectors reach some hundreds, of which float32 keeps five digits behind the point.
    np.testing.assert_allclose(loss.item(), RECORDED[f"{case}/loss"], rtol=1e-6, atol=1e-5)
    for tensor, name in zip((a, b), names, strict=True):
        np.testing.assert_allclose(tensor.grad, RECORDED[f"{case}/g{name}"], atol=1e-5)


def test_one_training_step_is_the_released_one():
    sparse, dense, embeds = step_embeddings()
    parts = tclr_loss(*embeds, weights="official")
    parts["loss"].backward()
    for name, weight, key in (
        ("instance_loss", 1, "ic2"),
        ("local_instance_loss", 14, "ic1"),
        ("local_local_loss", 6, "ll"),
        ("global_local_loss", 16, "gl"),
        ("loss", 1, "total"),
    ):
        np.testing.assert_allclose(weight * parts[name].item(), RECORDED[f"step/{key}"], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(sparse.grad, RECORDED["step/g_sparse"], atol=1e-5)
    np.testing.assert_allclose(dense.grad, RECORDED["step/g_dense"], atol=1e-5)


def test_the_losses_are_the_equations():
    """Written out, anchor by anchor, in the symbols of the paper; equations 2 to 4 sum over the timesteps."""
    global_embeds, timesteps, local = random_embeddings()
    num_videos, num_timesteps, tau = 5, 4, 0.3

    def similar(u, v):
        return math.exp(float(u @ v) / tau)

    instance = of_locals = of_scales = 0.0
    for i in range(num_videos):
        for own, other in ((0, 1), (1, 0)):
            anchor = global_embeds[i, own]
            rows = range(num_videos)
            total = sum(similar(anchor, global_embeds[j, own]) for j in rows if j != i)
            total += sum(similar(anchor, global_embeds[j, other]) for j in rows)
            instance -= math.log(similar(anchor, global_embeds[i, other]) / total) / (2 * num_videos)
            for p in range(num_timesteps):
                anchor = local[i, own, p]
                total = sum(similar(anchor, local[i, own, q]) for q in range(num_timesteps) if q != p)
                total += sum(similar(anchor, local[i, other, q]) for q in range(num_timesteps))
                of_locals -= math.log(similar(anchor, local[i, other, p]) / total) / (2 * num_videos)
        for own in range(2):
            for other in range(2):
                for p in range(num_timesteps):
                    slices, clips = timesteps[i, own], local[i, other]
                    positive = similar(slices[p], clips[p])
                    of_scales -= math.log(positive / sum(similar(slices[p], clip) for clip in clips)) / (4 * num_videos)
                    of_scales -= math.log(positive / sum(similar(part, clips[p]) for part in slices)) / (4 * num_videos)
    parts = tclr_loss(global_embeds, timesteps, local, temperatures=(tau,) * 3)
    assert parts["instance_loss"].item() == pytest.approx(instance, rel=1e-12)
    assert num_timesteps * parts["local_local_loss"].item() == pytest.approx(of_locals, rel=1e-12)
    assert 2 * num_timesteps * parts["global_local_loss"].item() == pytest.approx(of_scales, rel=1e-12)
    assert parts["loss"].item() == pytest.approx(instance + of_locals + of_scales, rel=1e-12)
    assert parts["local_instance_loss"] is None


def test_weights_follow_timesteps_and_batch():
    """Note [Weights of the parts]."""
    assert loss_weights("paper", num_timesteps=4, num_videos=40) == (1, 0, 4, 8)
    assert loss_weights("official", num_timesteps=4, num_videos=40) == (1, 14, 40, 16)
    assert loss_weights("paper", num_timesteps=2, num_videos=9) == (1, 0, 2, 4)
    assert loss_weights({"local_local": 2}, num_timesteps=4, num_videos=1) == LossWeights(0, 0, 2, 0)
    for wrong in ("papers", {"locals": 1.0}, {"instance": -1.0}, {"instance": math.nan}):
        with pytest.raises(ValueError, match="weights must be"):
            loss_weights(wrong, num_timesteps=4, num_videos=1)


@pytest.mark.parametrize("chosen", [("instance",), ("local_local",), ("global_local",), ("instance", "global_local")])
def test_losses_can_be_chosen(chosen):
    embeds = random_embeddings()
    everything = tclr_loss(*embeds, weights="official")
    parts = tclr_loss(*embeds, weights="official", losses=chosen)
    names = [name for name in LossWeights._fields if name.removeprefix("local_") in chosen or name in chosen]
    weight = loss_weights("official", num_timesteps=4, num_videos=5)
    assert {name for name in LossWeights._fields if parts[f"{name}_loss"] is not None} == set(names)
    expected = sum(getattr(weight, name) * everything[f"{name}_loss"] for name in names)
    torch.testing.assert_close(parts["loss"], expected)


def test_other_moments_of_a_video_are_negatives():
    clips = torch.eye(4)[None]
    pairs = [(clips, clips), (clips, clips.roll(1, dims=1)), (clips, clips.flip(1))]
    for loss in (local_local_loss, global_local_loss):
        right, *wrong = (loss(*pair).item() for pair in pairs)
        assert right < 0.01 and min(wrong) > 9, loss.__name__


def test_temperatures_belong_to_their_losses():
    embeds = random_embeddings()
    base = tclr_loss(*embeds, weights="official")
    for place, changed in enumerate([{"instance", "local_instance"}, {"local_local"}, {"global_local"}]):
        temperatures = [0.1, 0.1, 0.1]
        temperatures[place] = 0.5
        parts = tclr_loss(*embeds, weights="official", temperatures=temperatures)
        assert {name for name in LossWeights._fields if parts[f"{name}_loss"] != base[f"{name}_loss"]} == changed


def test_a_single_video_has_no_instance_to_tell_apart():
    view = torch.rand(1, 3, requires_grad=True)
    loss = instance_loss(view, torch.rand(1, 3))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and view.grad.isfinite().all()


def test_low_precision_is_computed_in_float32():
    embeds = random_embeddings()
    full = tclr_loss(*(part.float() for part in embeds))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(tclr_loss(*(part.float() for part in embeds)), full, rtol=0, atol=0)
    assert tclr_loss(*(part.bfloat16() for part in embeds))["loss"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": ["locals"]}, "losses must be some of"),
        ({"losses": []}, "losses must be some of"),
        ({"weights": {"instance": 1}, "losses": ["local_local"]}, "nothing counts"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tclr_loss(*random_embeddings(), **change)


def test_global_clips_alone_need_no_local_ones():
    global_embeds, _, _ = embeds = random_embeddings()
    alone = tclr_loss(global_embeds, None, None, losses=["instance"], gather=lambda rows: rows)
    assert alone["loss"] == tclr_loss(*embeds, losses=["instance"])["loss"] and alone["local_local_loss"] is None
    with pytest.raises(ValueError, match="local_local needs timestep_embeds and local_embeds"):
        tclr_loss(global_embeds, None, None, losses=["instance", "local_local"])
    for weights in ("official", {"instance": 1, "local_instance": 1}):
        with pytest.raises(ValueError, match="there are no local_embeds"):
            tclr_loss(global_embeds, None, None, losses=["instance"], weights=weights)


def test_shapes_that_do_not_belong_together_are_refused():
    global_embeds, timesteps, local = random_embeddings()
    for wrong in ((global_embeds[:, :1], timesteps, local), (global_embeds, timesteps[:, :, :3], local)):
        with pytest.raises(ValueError, match="expected embeddings"):
            tclr_loss(*wrong)
    with pytest.raises(ValueError, match="one shape"):
        instance_loss(global_embeds[:, 0], global_embeds[:3, 0])


DRIVER = """
import sys, torch, torch.distributed as dist
from tempclr.tclr_losses import gather_rows, tclr_loss
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meeting", rank=int(sys.argv[2]), world_size=2)
saved = torch.load(f"{sys.argv[1]}/embeds.pt")
mine = slice(0, 3) if dist.get_rank() == 0 else slice(3, 5)
weight = torch.eye(saved[0].shape[-1], dtype=torch.float64, requires_grad=True)
results = {}
for weights in ("paper", "official"):
    parts = tclr_loss(*(part[mine] @ weight for part in saved), weights=weights, gather=gather_rows)
    gradient = torch.autograd.grad(parts["loss"], weight)[0]
    dist.all_reduce(gradient)
    results[weights] = parts["loss"].detach(), gradient / 2
torch.save(results, f"{sys.argv[1]}/rank{dist.get_rank()}.pt")
dist.barrier()
dist.destroy_process_group()
"""


def test_two_ranks_have_the_loss_and_gradients_of_the_joint_batch(tmp_path):
    """Of different sizes; a gather of detached rows would have the loss but not the gradients."""
    embeds = random_embeddings()
    torch.save(list(embeds), tmp_path / "embeds.pt")
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "kernels", "hub"))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-c", DRIVER, str(tmp_path), str(rank)] for rank in range(2)]
    ranks = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    for rank in ranks:
        _, errors = rank.communicate(timeout=100)
        assert rank.returncode == 0, errors[-2000:]
    for weights in ("paper", "official"):
        weight = torch.eye(7, dtype=torch.float64, requires_grad=True)
        joint = tclr_loss(*(part @ weight for part in embeds), weights=weights)["loss"]
        joint.backward()
        for rank in range(2):
            loss, gradient = torch.load(tmp_path / f"rank{rank}.pt")[weights]
            torch.testing.assert_close(loss, joint.detach())
            torch.testing.assert_close(gradient, weight.grad)


def test_without_ranks_rows_stay_as_they_are():
    rows = torch.rand(3, 2)
    assert gather_rows(rows) is rows
