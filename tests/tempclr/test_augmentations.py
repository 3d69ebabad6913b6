"""TCLR's augmentations: equal to what the released code makes of given parameters, drawn as often as it draws them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from tempclr.data import pixel_operations as pixel
from tempclr.data.augmentations import (
    AUGMENTATIONS,
    PRETRAINING,
    WEAK,
    Augmentation,
    AugmentationRecipe,
    augment_clip,
    augment_clips,
    centre_crop,
    draw_augmentation,
)

RELEASED = np.load(Path(__file__).parent / "data/tclr_augmentations.npz")
IMAGE = torch.from_numpy(RELEASED["image_bgr_hwc"]).permute(2, 0, 1)[
    None
]  # blue first: channels are taken as they come
NUM_DRAWS = 4000


def released(kind: str, index: int) -> Augmentation:
    """The recorded parameters as ours: r0 to r7 decide, p_* are the strengths."""
    p = {key.split("/p_")[1]: RELEASED[key][index].item() for key in RELEASED if key.startswith(f"{kind}/p_")}
    r = RELEASED[f"{kind}/r"][index]
    weak = kind == "linear_train"
    contrast, colour, gray, cutout = (0.125, 0.15, (0.9, 1.0), 0.25) if weak else (0.25, 0.3, (0.7, 0.875), 0.5)
    grayscale = gray[0] < r[4] < gray[1]
    return Augmentation(
        crop=(p["y0"], p["x0"], int(240 * p["cf"])),
        contrast=p["contrast"] if r[0] < contrast else None,
        contrast_last=bool(r[0] > contrast / 2),
        hue=p["hue"] if r[1] < colour else None,
        saturation=p["sat"] if r[2] < colour else None,
        brightness=p["bri"] if r[3] < colour else None,
        grayscale=bool(grayscale),
        gamma=p["gamma"] if grayscale and r[5] > 0.25 else None,
        dropped_channel=p["drop"] if not weak and r[4] > gray[1] else None,
        flip=bool(r[6] > 0.5),
        cutout=(p["x_erase"], p["y_erase"], p["e1"], p["e2"]) if r[7] < cutout else None,
    )


@pytest.mark.parametrize("case", [key[: -len("/out_u8_chw")] for key in RELEASED if key.count("/") == 2])
def test_given_parameters_give_the_released_pixels(case):
    """Resizing rounds differently by one step at times; what follows adds to it: most where hue is kept in 8 bits."""
    kind, index = case.split("/")
    ours = augment_clip(IMAGE, released(kind, int(index)))[0].int()
    difference = (ours - torch.from_numpy(RELEASED[f"{case}/out_u8_chw"]).int()).abs()
    assert (difference > 1).float().mean() < 0.001 and (difference > 0).float().mean() < 0.05
    assert difference.max() <= (4 if released(kind, int(index)).hue is not None else 2)


def test_the_centre_crop_is_the_released_one():
    difference = (centre_crop(IMAGE)[0].int() - torch.from_numpy(RELEASED["val/out_u8_chw"]).int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.05


def picture() -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (40, 36, 3), dtype=np.uint8)
    values[:8] = values[:8, :, :1]  # gray
    values[8:10], values[10:12] = 0, 255
    return values


def hue_by_pillow(image: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(int) + int(turn * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


@pytest.mark.parametrize("strength", [0.75, 0.9, 1.0, 1.13, 1.25])
@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (pixel.adjust_contrast, lambda image, factor: ImageEnhance.Contrast(image).enhance(factor)),
        (pixel.adjust_saturation, lambda image, factor: ImageEnhance.Color(image).enhance(factor)),
        (pixel.adjust_brightness, lambda image, factor: ImageEnhance.Brightness(image).enhance(factor)),
        (lambda frames, factor: pixel.adjust_hue(frames, factor - 1), lambda image, f: hue_by_pillow(image, f - 1)),
        (
            lambda frames, _: pixel.luminance(frames).expand_as(frames),
            lambda image, _: image.convert("L").convert("RGB"),
        ),
    ],
    ids=["contrast", "saturation", "brightness", "hue", "grayscale"],
)
def test_colours_equal_pillows_bit_by_bit(ours, pillows, strength):
    """Note [Hue in 8 bits]"""
    frames = torch.from_numpy(picture()).permute(2, 0, 1)
    expected = np.asarray(pillows(Image.fromarray(picture()), strength))
    assert np.array_equal(ours(frames[None], strength)[0].permute(1, 2, 0).numpy(), expected)


def test_hue_agrees_with_pillow_for_all_hues_of_many_colours():
    values = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    for turn in (-0.5, -0.1, 0.0, 0.073, 0.5):
        ours = pixel.adjust_hue(torch.from_numpy(values).permute(2, 0, 1), turn).permute(1, 2, 0).numpy()
        assert np.array_equal(ours, np.asarray(hue_by_pillow(Image.fromarray(values), turn)))


@pytest.mark.parametrize("side", [60, 112, 144, 200, 240])
def test_resizing_is_within_one_step_of_pillow(side):
    values = np.random.default_rng(side).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    expected = np.asarray(
        Image.fromarray(values[:side, 10 : 10 + side]).resize((112, 112), Image.Resampling.BILINEAR)
    ).astype(int)
    ours = pixel.crop_and_resize(torch.from_numpy(values).permute(2, 0, 1), (0, 10, side), 112)
    difference = np.abs(ours.permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.05


def draws_of(recipe: AugmentationRecipe, *, height: int = 240, width: int = 320, count: int = NUM_DRAWS):
    generator = torch.Generator().manual_seed(11)
    return [draw_augmentation(recipe, height=height, width=width, generator=generator) for _ in range(count)]


def assert_likely(count: int, total: int, probability: float) -> None:
    """Within five standard deviations of the binomial distribution: one false alarm in two million."""
    deviation = np.sqrt(total * probability * (1 - probability))
    assert abs(count - total * probability) <= 5 * deviation, (count, total * probability)


@pytest.mark.parametrize(
    ("recipe", "colour", "contrast", "gray", "drop", "cutout"),
    [(PRETRAINING, 0.3, 0.25, 0.175, 0.125, 0.5), (WEAK, 0.15, 0.125, 0.1, 0.0, 0.25)],
    ids=["pretraining", "weak"],
)
def test_how_often(recipe, colour, contrast, gray, drop, cutout):
    draws = draws_of(recipe)

    def share(probability, happens, among=draws):
        assert_likely(sum(map(happens, among)), len(among), probability)

    share(contrast, lambda draw: draw.contrast is not None)
    share(contrast / 2, lambda draw: draw.contrast is not None and draw.contrast_last)
    for name in ("hue", "saturation", "brightness"):
        share(colour, lambda draw, name=name: getattr(draw, name) is not None)
    share(gray, lambda draw: draw.grayscale)
    share(0.75, lambda draw: draw.gamma is not None, [draw for draw in draws if draw.grayscale])
    share(drop, lambda draw: draw.dropped_channel is not None)
    share(0.5, lambda draw: draw.flip)
    share(cutout, lambda draw: draw.cutout is not None)
    assert not any(draw.grayscale and draw.dropped_channel is not None for draw in draws)
    assert not any(draw.gamma is not None and not draw.grayscale for draw in draws)
    assert all(draw.blur_sigma is None and draw.shear_rotation is None for draw in draws)
    dropped = [draw.dropped_channel for draw in draws if draw.dropped_channel is not None]
    for channel in range(3) if dropped else ():
        assert_likely(dropped.count(channel), len(dropped), 1 / 3)


@pytest.mark.parametrize("recipe", [PRETRAINING, WEAK], ids=["pretraining", "weak"])
def test_how_strong(recipe):
    """All of a range comes, evenly, and nothing beyond it."""
    draws = draws_of(recipe)
    for name in ("contrast", "hue", "saturation", "brightness", "gamma"):
        low, high = getattr(recipe, name)
        values = [getattr(draw, name) for draw in draws if getattr(draw, name) is not None]
        assert low <= min(values) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(values) <= high
        assert_likely(sum(value < (low + high) / 2 for value in values), len(values), 0.5)
    cutouts = np.array([draw.cutout for draw in draws if draw.cutout is not None])
    for column in (2, 3):
        assert set(cutouts[:, column]) == set(range(9, 19))
        assert_likely(int((cutouts[:, column] < 14).sum()), len(cutouts), 0.5)
    for column in (0, 1):
        assert cutouts[:, column].min() >= 0 and 105 < cutouts[:, column].max() <= 111


def test_the_published_numbers():
    assert (PRETRAINING.contrast, PRETRAINING.hue, PRETRAINING.gamma) == ((0.75, 1.25), (-0.1, 0.1), (0.75, 1.25))
    assert (WEAK.contrast, WEAK.hue, WEAK.gamma) == ((0.9, 1.1), (-0.05, 0.05), (0.85, 1.15))
    assert PRETRAINING.crop_scale == WEAK.crop_scale == (0.6, 1.0)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (112, 112), (64, 64), (48, 400)])
@pytest.mark.parametrize("biased", [False, True])
def test_crops_fit_frames_of_any_size(height, width, biased):
    draws = draws_of(AugmentationRecipe(released_crop_bias=biased), height=height, width=width, count=500)
    for top, left, side in (draw.crop for draw in draws):
        assert 0 <= top <= height - side and 0 <= left <= width - side
        assert int(0.6 * min(height, width)) <= side <= min(height, width)


def test_the_released_bias_never_reaches_the_right_edge():
    """Spec of the released crop: at scale f the right edge is 320 - 80 f at most."""
    biased, fair = (
        [draw.crop for draw in draws_of(AugmentationRecipe(released_crop_bias=bias), count=2000)]
        for bias in (True, False)
    )
    assert all(left + side <= 320 - 80 * (side / 240) + 1 for _, left, side in biased)
    assert max(left + side for _, left, side in biased) < 275 and max(left + side for _, left, side in fair) == 320
    assert max(top + side for top, _, side in biased) >= 239


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_can_be_switched_off_alone(name):
    """Note [Draws do not depend on each other]: the others come out as they were."""
    full = PRETRAINING.with_complex()
    touched = {"grayscale": ("grayscale", "gamma", "dropped_channel"), "channel_drop": ("dropped_channel",)}
    touched |= {"blur": ("blur_sigma",)}
    names = touched.get(name, (name,))
    changed = 0
    for with_it, without in zip(draws_of(full, count=300), draws_of(full.without(name), count=300), strict=True):
        kept = {each.name: getattr(with_it, each.name) for each in fields(with_it) if each.name not in names}
        assert kept == {key: getattr(without, key) for key in kept}
        changed += with_it != without
        if name == "crop":
            assert without.crop == (0, 40, 240)
        elif name != "grayscale":
            assert not getattr(without, names[0])
    assert changed > 10


def test_the_complex_set_is_off_and_can_be_had():
    draws = draws_of(PRETRAINING.with_complex())
    assert_likely(sum(draw.blur_sigma is not None for draw in draws), len(draws), 0.3)
    assert_likely(sum(draw.shear_rotation is not None for draw in draws), len(draws), 0.3)


def plain(**options) -> torch.Tensor:
    frames = torch.from_numpy(picture()).permute(2, 0, 1)[None, :, :36]
    return augment_clip(frames, Augmentation(crop=(0, 0, 36), **options), image_size=36)


def test_blur_keeps_the_mean_and_lowers_contrast():
    original, blurred = plain().float(), plain(blur_sigma=1.5).float()
    assert (blurred.std() < 0.5 * original.std()) and (blurred.mean() - original.mean()).abs() < 2
    assert torch.equal(plain(blur_sigma=0.1), plain())  # exp(-50) of the neighbour


def test_shear_and_rotation_move_points_as_they_should():
    """A dot right of the middle goes down when turned clockwise; one above it goes sideways when sheared."""
    frames = torch.zeros(1, 3, 41, 61, dtype=torch.uint8)
    frames[..., 20, 45] = 255
    turned = pixel.shear_and_rotate(frames, 0.0, 90.0)
    assert divmod(int(turned[0, 0].argmax()), 61) == (35, 30)
    assert torch.equal(pixel.shear_and_rotate(frames, 0.0, 0.0), frames)
    frames = torch.zeros(1, 3, 41, 61, dtype=torch.uint8)
    frames[..., 10, 30] = 255
    sheared = divmod(int(pixel.shear_and_rotate(frames, 45.0, 0.0)[0, 0].argmax()), 61)
    assert sheared in ((10, 20), (10, 40))


def test_flip_channel_and_cutout_do_what_they_say():
    assert torch.equal(plain(flip=True), plain().flip(-1))
    dropped = plain(dropped_channel=1)
    assert not dropped[:, 1].any() and torch.equal(dropped[:, [0, 2]], plain()[:, [0, 2]])
    cut = plain(cutout=(30, 2, 9, 10))
    assert not cut[..., 30:, 2:12].any() and torch.equal(cut[..., :30, :], plain()[..., :30, :])


def test_all_frames_of_a_clip_are_altered_alike():
    draw = draws_of(PRETRAINING.with_complex(), height=36, width=36, count=40)
    frame = torch.from_numpy(picture()).permute(2, 0, 1)[:, :36]
    for each in draw:
        clip = augment_clip(frame.expand(3, -1, -1, -1), replace(each), image_size=24)
        assert torch.equal(clip[0], clip[2])


def test_the_frames_given_stay_as_they_are():
    frames = torch.full((2, 3, 30, 30), 9, dtype=torch.uint8)
    augment_clip(frames, Augmentation(crop=(0, 0, 30), cutout=(0, 0, 9, 9)), image_size=30)
    assert (frames == 9).all()


def test_clips_of_one_video_each_have_their_own():
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 3, 30, 40), dtype=np.uint8))
    clips = [torch.arange(0, 16, 4), torch.tensor([3, 2, 2, 1]), torch.tensor([7])[[0, 0, 0, 0]]]
    draws = draws_of(PRETRAINING, height=30, width=40, count=3)
    together = augment_clips(frames, clips, draws, image_size=16)
    for index, (clip, draw) in enumerate(zip(clips, draws, strict=True)):
        assert torch.equal(together[index], augment_clip(frames[clip], draw, image_size=16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip_probability": 1.5}, "flip_probability must lie"),
        ({"grayscale_probability": 0.9}, "exclude each other"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"image_size": 0}, "sizes"),
    ],
)
def test_impossible_recipes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AugmentationRecipe(**options)


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match="no augmentation 'colour'"):
        PRETRAINING.without("colour")
