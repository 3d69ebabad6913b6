"""TempCLR: two towers without fusion or projection, whose mean-pooled vectors are compared as they are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import ProcessorMixin, Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple, logging

from .configuration_tempclr import TempCLRConfig
from .modeling_tempclr_towers import TempCLRPreTrainedModel, TempCLRTextModel, TempCLRVideoModel

logger = logging.get_logger(__name__)

NEEDS_PACKAGE = "{what} needs the tempclr package, which cannot be imported here ({error}): pip install tempclr"
PROCESSOR_FILES = ("processor_config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt")
HUB_KEYWORDS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)


@dataclass
class TempCLROutput(ModelOutput):
    """What ``TempCLRModel`` returns.

    ``text_embeds``, ``video_embeds``: pooled vectors with the leading dimensions of the input, zero for units that are
    padding. ``text_model_output``, ``video_model_output``: what the towers returned; for paragraphs their
    ``last_hidden_state`` (and hidden states, attentions) hold one flat row for each unit that went through the tower,
    that is for each real one. ``loss`` and its named parts ``unit_loss`` and, for paragraphs, ``sequence_loss`` are
    there when the loss was asked for. ``clip_hidden_states``, on request: the last layer at each feature of each clip,
    (N, T, d) or (B, C, T, d), zero where clip or feature is padding.
    """

    loss: torch.Tensor | None = None
    unit_loss: torch.Tensor | None = None
    sequence_loss: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    video_model_output: BaseModelOutputWithPooling | None = None
    clip_hidden_states: torch.Tensor | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(part.to_tuple() if isinstance(part, ModelOutput) else part for part in self.values())


def run_units(
    tower: nn.Module, units: torch.Tensor, mask: torch.Tensor | None, unit_mask: torch.Tensor | None, **kwargs: Any
) -> BaseModelOutputWithPooling:
    """Run a tower over the units (B, U, ...) of padded paragraphs; ``pooler_output`` is (B, U, d), zero for padding.

    Note [Padding costs nothing]: units that are padding are left out of the tower, so its work is that of the real
    ones. How many there are depends on the data, which a compiled graph cannot follow: while compiling, all go in,
    padding as rows without a real token, and are set to zero afterwards. So they do where no unit is real, since
    attention does not run on no row at all.
    """
    rows = units.flatten(0, 1)
    rows_mask = None if mask is None else mask.bool().flatten(0, 1)
    real = None if unit_mask is None else unit_mask.bool().flatten()
    chosen = None if real is None or torch.compiler.is_compiling() else real.nonzero().squeeze(1)
    if chosen is not None and len(chosen):
        output = _run_in_groups(tower, rows[chosen], None if rows_mask is None else rows_mask[chosen], **kwargs)
        pooled = output.pooler_output
        pooled = pooled.new_zeros(len(rows), pooled.shape[1]).index_copy(0, chosen, pooled)
    elif real is not None:
        of_real = real[:, None].expand(rows.shape[:2])
        output = tower(rows, of_real if rows_mask is None else rows_mask & of_real, **kwargs)
        pooled = output.pooler_output.masked_fill(~real[:, None], 0)
    else:
        output = tower(rows, rows_mask, **kwargs)
        pooled = output.pooler_output
    output.pooler_output = pooled.unflatten(0, units.shape[:2])
    return output


def group_bounds(lengths: Sequence[int], max_padding: float) -> list[tuple[int, int]]:
    """Begin and end of runs of ascending lengths, in each of which no unit is shorter than the longest by more than the
    share ``max_padding``: so much of what is computed is padding at most.

    >>> group_bounds([3, 9, 10, 30, 31], max_padding=0.1)
    [(0, 1), (1, 3), (3, 5)]
    """
    bounds, end = [], len(lengths)
    while end:
        begin = bisect_left(lengths, (1 - max_padding) * lengths[end - 1] - 1e-9, hi=end)
        bounds.append((begin, end))
        end = begin
    return bounds[::-1]


def _run_in_groups(
    tower: nn.Module, rows: torch.Tensor, mask: torch.Tensor | None, **kwargs: Any
) -> BaseModelOutputWithPooling:
    """Run a tower over units (N, L, ...), in groups of like length where its ``max_padding`` asks for them.

    Note [Units of like length together]: a batch is padded to its longest unit, and the towers would compute what they
    leave out again. Sorted by length and run in groups, each cut to its own longest unit, they compute little else than
    what is real, whatever videos a batch holds: contrastive batches stay random ones. The vectors are the same up to
    rounding, but for dropout, which then falls otherwise.
    """
    max_padding = getattr(tower, "max_padding", None)
    records = any(kwargs.get(name) for name in ("output_hidden_states", "output_attentions"))
    if mask is None or max_padding is None or records:
        return tower(rows, mask, **kwargs)
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    lengths, order = (mask * places).amax(1).sort(stable=True)
    sorted_lengths = lengths.clamp(min=1).tolist()
    states, pooled = [], []
    for begin, end in group_bounds(sorted_lengths, max_padding):
        length, units = sorted_lengths[end - 1], order[begin:end]
        output = tower(rows[units, :length], mask[units, :length], **kwargs)
        padding = (0, 0, 0, mask.shape[1] - length)
        states.append(nn.functional.pad(output.last_hidden_state, padding))
        pooled.append(output.pooler_output)
    back = order.argsort()
    return BaseModelOutputWithPooling(last_hidden_state=torch.cat(states)[back], pooler_output=torch.cat(pooled)[back])


def spread_hidden_states(
    states: torch.Tensor, video_mask: torch.Tensor | None, clip_mask: torch.Tensor | None, shape: tuple[int, ...]
) -> torch.Tensor:
    """The rows (units, T, d) that went through the tower, in their places of ``shape`` (..., T), zero elsewhere."""
    real = torch.ones(shape, dtype=torch.bool, device=states.device) if video_mask is None else video_mask.bool()
    if len(shape) == 3:
        of_clips = real.new_ones(shape[:2]) if clip_mask is None else clip_mask.bool()
        if len(states) < of_clips.numel():  # see Note [Padding costs nothing]
            full = states.new_zeros(of_clips.numel(), *states.shape[1:])
            states = full.index_copy(0, of_clips.flatten().nonzero().squeeze(1), states)
        states, real = states.unflatten(0, shape[:2]), real & of_clips[..., None]
    return states.masked_fill(~real[..., None], 0)


def _loss_function() -> Any:
    try:
        from tempclr.losses import tempclr_loss
    except ImportError as error:
        raise ImportError(NEEDS_PACKAGE.format(what="return_loss=True", error=error)) from error
    return tempclr_loss


def _inference() -> Any:
    try:
        from tempclr import inference
    except ImportError as error:
        raise ImportError(NEEDS_PACKAGE.format(what="encoding and aligning", error=error)) from error
    return inference


class TempCLRModel(TempCLRPreTrainedModel):
    """Both towers; ``forward`` embeds pairs or paragraphs and, when asked, compares them by the loss of the paper.

    >>> from tempclr import TempCLRConfig, TempCLRModel
    >>> tiny = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    >>> model = TempCLRModel(TempCLRConfig(text_config=tiny, video_config={**tiny, "feature_size": 8})).eval()
    >>> output = model(input_ids=torch.tensor([[2, 7, 3], [2, 9, 3]]), video_features=torch.rand(2, 5, 8))
    >>> output.text_embeds.shape, output.video_embeds.shape
    (torch.Size([2, 32]), torch.Size([2, 32]))
    """

    config: TempCLRConfig
    config_class = TempCLRConfig

    def __init__(self, config: TempCLRConfig):
        super().__init__(config)
        self.text_model = TempCLRTextModel._from_config(config.text_config)
        self.video_model = TempCLRVideoModel._from_config(config.video_config)
        self._processor: ProcessorMixin | None = None
        self.post_init()

    @property
    def processor(self) -> ProcessorMixin | None:
        """The processor found beside the weights, or the one that was set; None where there is none."""
        return self._processor

    @processor.setter
    def processor(self, processor: ProcessorMixin | None) -> None:
        self._processor = processor

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: Any) -> None:
        self.text_model.set_input_embeddings(value)

    def set_max_padding(self, share: float | None) -> None:
        """Run the units of paragraphs in groups of like length; None, as at first, runs them all at once.

        At most this share of the tokens that the towers compute is then padding: see Note [Units of like length
        together].

        Raises:
            ValueError: not a share, at least 0 and below 1.
        """
        if share is not None and not 0 <= share < 1:
            raise ValueError(f"max_padding must be at least 0 and below 1, got {share}")
        self.text_model.max_padding = self.video_model.max_padding = share

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        sentence_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        """Vectors of sentences, as ``pooler_output``: (N, L) ids give (N, d), paragraphs (B, S, L) give (B, S, d)."""
        kwargs["return_dict"] = True
        if input_ids is not None and input_ids.ndim == 3:
            return run_units(self.text_model, input_ids, attention_mask, sentence_mask, **kwargs)
        return self.text_model(input_ids, attention_mask, **kwargs)

    @can_return_tuple
    def get_video_features(
        self,
        video_features: torch.FloatTensor | None = None,
        video_mask: torch.Tensor | None = None,
        clip_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        """Vectors of clips, as ``pooler_output``: (N, T, F) features give (N, d), paragraphs (B, C, T, F) (B, C, d)."""
        kwargs["return_dict"] = True
        if video_features is not None and video_features.ndim == 4:
            return run_units(self.video_model, video_features, video_mask, clip_mask, **kwargs)
        return self.video_model(video_features, video_mask, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        video_features: torch.FloatTensor | None = None,
        video_mask: torch.Tensor | None = None,
        sentence_mask: torch.Tensor | None = None,
        clip_mask: torch.Tensor | None = None,
        clip_sentence_index: torch.Tensor | None = None,
        return_loss: bool | None = None,
        output_clip_hidden_states: bool = False,
        order_seeds: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | TempCLROutput:
        """Embed sentences and clips, given as pairs or as paragraphs. Masks: bool or int, 1 = real, default all real.

        Pairs: ``input_ids``, ``attention_mask`` (N, L); ``video_features`` (N, T, F), ``video_mask`` (N, T).
        Paragraphs: ``input_ids``, ``attention_mask`` (B, S, L), ``sentence_mask`` (B, S); ``video_features``
        (B, C, T, F), ``video_mask`` (B, C, T), ``clip_mask`` (B, C), ``clip_sentence_index`` (B, C), -1 = background.

        ``return_loss``: None means in training mode only, so that a plain ``transformers.Trainer`` can train the model.
        ``output_clip_hidden_states``: also the last layer at each feature, shaped as the features are.
        ``order_seeds`` (B,): what each paragraph's negative orders are drawn by; None: the global generator.

        Raises:
            ValueError: one of the two inputs is missing, or one has the shape of pairs and the other of paragraphs.
        """
        _check_shapes(input_ids, video_features)
        text_output = self.get_text_features(
            input_ids, attention_mask, sentence_mask, **{**kwargs, "return_dict": True}
        )
        video_output = self.get_video_features(video_features, video_mask, clip_mask, **{**kwargs, "return_dict": True})
        text_embeds, video_embeds = text_output.pooler_output, video_output.pooler_output
        clip_hidden_states = None
        if output_clip_hidden_states and video_features is not None:
            shape = tuple(video_features.shape[:-1])
            clip_hidden_states = spread_hidden_states(video_output.last_hidden_state, video_mask, clip_mask, shape)
        parts = {}
        if self.training if return_loss is None else return_loss:
            parts = _loss_function()(
                text_embeds,
                video_embeds,
                sentence_mask=sentence_mask,
                clip_mask=clip_mask,
                clip_sentence_index=clip_sentence_index,
                order_seeds=order_seeds,
                **self.config.loss_settings(),
            )
        return TempCLROutput(
            **parts,
            text_embeds=text_embeds,
            video_embeds=video_embeds,
            text_model_output=text_output,
            video_model_output=video_output,
            clip_hidden_states=clip_hidden_states,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike | None, *args: Any, **kwargs: Any) -> Any:
        """As ``PreTrainedModel.from_pretrained``; a processor found at the same place becomes ``model.processor``."""
        places = {name: kwargs[name] for name in HUB_KEYWORDS if name in kwargs}
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if pretrained_model_name_or_path is not None:
            model.processor = _find_processor(pretrained_model_name_or_path, places)
        return loaded

    def save_pretrained(self, save_directory: str | PathLike, *args: Any, **kwargs: Any) -> None:
        """As ``PreTrainedModel.save_pretrained``; the processor, where there is one, is saved beside the weights."""
        super().save_pretrained(save_directory, *args, **kwargs)
        is_main_process = args[0] if args else kwargs.get("is_main_process", True)
        if self.processor is not None and is_main_process:
            self.processor.save_pretrained(save_directory)

    def encode_text(
        self,
        sentences: str | Sequence[str],
        *,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        convert_to_numpy: bool = False,
    ) -> Any:
        """One vector a sentence, (n, hidden_size) float32 on the CPU: see ``tempclr.inference.encode_text``.

        ``convert_to_numpy``: an array instead of a tensor, here and in ``encode_video`` and ``similarity``.
        """
        options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
        return _returned(_inference().encode_text(self, sentences, **options), convert_to_numpy)

    def encode_video(self, video: Any, *, convert_to_numpy: bool = False, **options: Any) -> Any:
        """One vector a clip of a file, of frames or of features: see ``tempclr.inference.encode_video``.

        A list or tuple of videos gives a list, one entry a video, which ``similarity`` takes as it is: see
        ``tempclr.inference.encode_videos``.
        """
        encode = _inference().encode_videos if isinstance(video, (list, tuple)) else _inference().encode_video
        return _returned(encode(self, video, **options), convert_to_numpy)

    def similarity(
        self, a: Any, b: Any, *, measure: str | None = None, convert_to_numpy: bool = False, **options: Any
    ) -> Any:
        """Similarity of every a to every b, higher is closer: see ``tempclr.inference.similarity``."""
        own = self.config.similarity
        found = _inference().similarity(a, b, measure=measure or own, unit_similarity=own, **options)
        return _returned(found, convert_to_numpy)

    def align(self, video: Any, sentences: Sequence[str], *, measure: str = "dtw", **options: Any) -> Any:
        """When each sentence happens in the video: see ``tempclr.inference.align``."""
        return _inference().align(self, video, sentences, measure=measure, **options)


def _returned(values: torch.Tensor | list[torch.Tensor], convert_to_numpy: bool) -> Any:
    if not convert_to_numpy:
        return values
    return [one.numpy() for one in values] if isinstance(values, list) else values.cpu().numpy()


def _check_shapes(input_ids: torch.Tensor | None, video_features: torch.Tensor | None) -> None:
    if input_ids is None or video_features is None:
        raise ValueError(
            "forward needs input_ids and video_features; for one of the two use get_text_features or get_video_features"
        )
    if (input_ids.ndim, video_features.ndim) not in ((2, 3), (3, 4)):
        raise ValueError(
            "expected pairs, input_ids (N, L) with video_features (N, T, F), or paragraphs, (B, S, L) with "
            f"(B, C, T, F); got {tuple(input_ids.shape)} with {tuple(video_features.shape)}"
        )


def _find_processor(path: str | PathLike, places: dict[str, Any]) -> ProcessorMixin | None:
    from .processing_tempclr import TempCLRProcessor

    folder = Path(path, places.get("subfolder", ""))
    if Path(path).is_dir() and not any((folder / name).is_file() for name in PROCESSOR_FILES):
        return None
    try:
        return TempCLRProcessor.from_pretrained(path, **places)
    except Exception as error:
        # The weights are of use without it, and a broken tokenizer file raises whatever its content provokes.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning(f"no processor was loaded from {path}, set model.processor to encode text ({reason})")
        return None


__all__ = ["TempCLRModel", "TempCLROutput", "TempCLRPreTrainedModel", "TempCLRTextModel", "TempCLRVideoModel"]
