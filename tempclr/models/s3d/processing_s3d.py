"""The processor of S3D-G: sentences to ids, frames to clips of pixels, as its released features were made."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.utils import PROCESSOR_NAME

from .tokenization_s3d import VOCABULARY_FILE, S3DTokenizer

OPTIONS = ("return_tensors", "padding", "truncation", "max_length")
OPTION_GROUPS = ("text_kwargs", "videos_kwargs", "common_kwargs")
TEXT_DEFAULTS = {"padding": "max_length", "truncation": True}
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


class S3DProcessor(ProcessorMixin):
    """A tokenizer, where there is a vocabulary, and what happens to frames before the network.

    Frames are taken ``fps`` a second, their shorter side is scaled to ``size``, the middle square of ``crop_size`` cut
    out, values divided by 255; each ``num_frames`` are a clip, the last one filled up with black.

    Raises:
        ValueError: a setting that is not a positive integer, or an interpolation other than 2 or 3.

    >>> processor = S3DProcessor(num_frames=4, size=32, crop_size=32)
    >>> processor(videos=np.zeros((6, 40, 60, 3), dtype=np.uint8))["pixel_values_videos"].shape
    torch.Size([2, 4, 3, 32, 32])
    """

    # Not keyword-only: ProcessorMixin restores only what it sees among the positional parameters.
    def __init__(
        self,
        tokenizer: Any = None,
        num_frames: int = 30,
        fps: int = 30,
        size: int = 224,
        crop_size: int = 224,
        do_center_crop: bool = True,
        resample: int = 3,
    ):
        if tokenizer is not None:
            super().__init__(tokenizer)
        self.tokenizer, self.chat_template = tokenizer, None
        settings = {"num_frames": num_frames, "fps": fps, "size": size, "crop_size": crop_size}
        for name, value in settings.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
            setattr(self, name, value)
        if resample not in _INTERPOLATIONS:
            raise ValueError(f"resample must be 2 (bilinear) or 3 (bicubic), got {resample!r}")
        self.do_center_crop, self.resample = do_center_crop, resample

    @property
    def model_input_names(self) -> list[str]:
        return ["pixel_values_videos", "input_ids"]

    def __call__(self, text: str | Sequence[str] | None = None, videos: Any = None, **kwargs: Any) -> BatchFeature:
        """Make the inputs of ``S3DModel`` from sentences, from the frames of one video, or from both.

        ``videos``: uint8 RGB frames (T, H, W, 3), already ``fps`` a second. ``return_tensors``: "pt" (default), "np",
        or None for lists. ``padding``, ``truncation`` and ``max_length`` of the tokenizer may be given too, also in
        ``text_kwargs`` or ``common_kwargs``, as transformers' processors take them; by default sentences are filled to
        16 words. Returns ``pixel_values_videos`` (clips, num_frames, 3, crop_size, crop_size), float32 from 0 to 1, and
        ``input_ids`` (sentences, words), int64.

        Raises:
            ValueError: nothing was given, there is no vocabulary, the frames are of another shape or type, or
                ``do_sample_frames`` is not False: frames come sampled.
            TypeError: an option that is none of these.
        """
        options = _options(kwargs)
        return_tensors = options.pop("return_tensors", "pt")
        if text is None and videos is None:
            raise ValueError("give text, videos or both")
        batch: dict[str, Any] = {}
        if videos is not None:
            batch["pixel_values_videos"] = self._clips(np.asarray(videos))
        if text is not None:
            if self.tokenizer is None:
                raise ValueError("this processor has no vocabulary: convert the checkpoint with --vocabulary")
            sentences = [text] if isinstance(text, str) else list(text)
            batch["input_ids"] = self.tokenizer(sentences, **{**TEXT_DEFAULTS, **options})["input_ids"]
        return BatchFeature(batch, tensor_type=return_tensors)

    def _clips(self, frames: np.ndarray) -> torch.Tensor:
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
            raise ValueError(f"expected uint8 frames (T, H, W, 3), found {frames.dtype} {frames.shape}")
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
        height, width = pixels.shape[-2:]
        scaled = [int(self.size * side / min(height, width)) for side in (height, width)]
        if scaled != [height, width]:
            mode = _INTERPOLATIONS[self.resample]
            pixels = functional.interpolate(pixels, scaled, mode=mode, antialias=True, align_corners=False)
        if self.do_center_crop:
            top, left = (max(side - self.crop_size, 0) // 2 for side in scaled)
            pixels = pixels[..., top : top + self.crop_size, left : left + self.crop_size]
        missing = -len(pixels) % self.num_frames
        return functional.pad(pixels.float() / 255, (0, 0) * 3 + (0, missing)).unflatten(0, (-1, self.num_frames))

    def save_pretrained(self, save_directory: str | PathLike, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As ``ProcessorMixin.save_pretrained``; without a vocabulary, only the settings are written."""
        if self.tokenizer is not None:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.to_json_file(folder / PROCESSOR_NAME)
        return [str(folder / PROCESSOR_NAME)]

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> list[Any]:
        from transformers.utils import cached_file

        places = {key: value for key, value in kwargs.items() if key not in ("processor_dict", "trust_remote_code")}
        found = cached_file(
            pretrained_model_name_or_path, VOCABULARY_FILE, _raise_exceptions_for_missing_entries=False, **places
        )
        return [None if found is None else S3DTokenizer.from_pretrained(pretrained_model_name_or_path, **places)]


def _options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The options in ``kwargs``, those in its groups included; one that is given twice may not differ."""
    options = {name: value for name, value in kwargs.items() if name not in OPTION_GROUPS}
    for group in OPTION_GROUPS:
        for name, value in (kwargs.get(group) or {}).items():
            if name in options and options[name] != value:
                raise ValueError(f"{name} is given twice, as {options[name]!r} and in {group} as {value!r}")
            options[name] = value
    if options.pop("do_sample_frames", False) is not False:
        raise ValueError("this processor takes frames that are sampled already: leave do_sample_frames out")
    for name in options:
        if name not in OPTIONS:
            raise TypeError(f"got an unexpected option {name!r}: this processor takes {', '.join(OPTIONS)}")
    return options


__all__ = ["S3DProcessor"]
