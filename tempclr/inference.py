"""What a trained model is for: vectors of sentences and clips, their similarities, and when each sentence happens.

Every function takes a ``TempCLRModel``, runs it in evaluation mode without gradients on the device it is on, leaves
its mode as it was, and gives back float32 tensors on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tempclr.distributed import num_ranks, shared_map
from tempclr.errors import InputError
from tempclr.similarities import check_batch_size
from tempclr.similarities import similarity as similarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALIGN_MEASURES = ("dtw", "otam", "localize")


def encode_text(
    model: Any,
    sentences: str | Sequence[str],
    *,
    batch_size: int = 64,
    show_progress_bar: bool = False,
    across_ranks: bool = False,
) -> Tensor:
    """One vector a sentence: (n, hidden_size).

    ``across_ranks``: the ranks of ``torch.distributed`` share the batches and all have all vectors; every rank must
    then call this.

    Raises:
        InputError: the model has no processor, or an entry is not a string.
    """
    sentences = [sentences] if isinstance(sentences, str) else list(sentences)
    for index, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise InputError(f"sentences must be strings, entry {index} is {type(sentence).__name__}")
    if model.processor is None:
        raise InputError(
            "this model has no processor to make tokens with: load it from a folder that holds one, or set "
            "model.processor = TempCLRProcessor(tokenizer)"
        )

    def encode(chosen: list[int]) -> Iterable[Tensor]:
        batch = model.processor(text=[sentences[index] for index in chosen]).to(model.device)
        return model.get_text_features(**batch).pooler_output

    lengths = [len(sentence) for sentence in sentences]
    bar = "encode text" if show_progress_bar else None
    rows = _in_batches(model, encode, lengths, batch_size=batch_size, bar=bar, across_ranks=across_ranks)
    return torch.stack(rows) if rows else torch.zeros(0, model.config.text_config.hidden_size)


def encode_clips(
    model: Any,
    features: Any,
    spans: Sequence[tuple[float, float]],
    *,
    features_per_second: float,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> Tensor:
    """One vector for each ``[start_seconds, end_seconds)`` of a video's ``features`` (T, F): (num_clips, hidden_size).

    A clip has the features its span touches, at least one, and of those the first ``max_num_features``.
    """
    from tempclr.data.sampling import cut_clips

    most = model.config.video_config.max_num_features
    array = feature_array(model, features)
    clips = cut_clips(array, spans, features_per_second=features_per_second, max_num_features=most)
    return encode_cut_clips(model, [clips], batch_size=batch_size, show_progress_bar=show_progress_bar)[0]


def encode_cut_clips(
    model: Any, videos: Sequence[Sequence[np.ndarray]], *, batch_size: int = 64, show_progress_bar: bool = False
) -> list[Tensor]:
    """(num_clips, hidden_size) for the clips that were cut of each video; videos share batches."""
    found = _run_clips(model, videos, "pooler_output", batch_size=batch_size, show_progress_bar=show_progress_bar)
    none = torch.zeros(0, model.config.video_config.hidden_size)
    return [torch.stack(own) if own else none for own in found]


def encode_video(
    model: Any,
    video: Any,
    *,
    frames_per_second: float | None = None,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> Tensor:
    """One vector for each consecutive clip of ``max_num_features`` features of a video (the last one may be shorter).

    ``video``: a file, uint8 RGB frames (N, H, W, 3) with their ``frames_per_second``, or features (T, feature_size).
    From files and frames features are made by the recipe in the model's configuration. A video of no more than
    ``max_num_features`` features gives (1, hidden_size); ``encode_clips`` cuts where one likes.

    Raises:
        InputError: the video is none of these, cannot be decoded, or the model does not record a recipe.
    """
    array, _ = _video_features(model, video, frames_per_second=frames_per_second)
    most = model.config.video_config.max_num_features
    clips = [array[first : first + most] for first in range(0, len(array), most)]
    pooled = _run_clips(model, [clips], "pooler_output", batch_size=batch_size, show_progress_bar=show_progress_bar)
    return torch.stack(pooled[0])


def encode_videos(
    model: Any,
    videos: Sequence[Any],
    *,
    frames_per_second: float | None = None,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> list[Tensor]:
    """For each video what :func:`encode_video` gives, (num_clips, hidden_size); the bar counts videos.

    Raises:
        InputError: as :func:`encode_video`, with the place of the video in the list.
    """
    from tqdm.auto import tqdm

    encoded = []
    for index, video in enumerate(tqdm(videos, desc="encode videos", disable=not show_progress_bar)):
        try:
            encoded.append(encode_video(model, video, frames_per_second=frames_per_second, batch_size=batch_size))
        except InputError as error:
            raise InputError(f"video {index} of {len(videos)}: {error}") from error
    return encoded


def feature_hidden_states(
    model: Any,
    features: Any,
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> Tensor:
    """The video tower's last hidden state of every feature of a long video: (T, F) -> (T, hidden_size).

    The tower sees windows of ``window`` features (default: as many as it has positions), one every ``stride`` (default:
    half of that); where windows overlap their states are averaged. The last window ends with the video and may be
    shorter. After the released step localization, which averages logits in the same way.
    """
    options: dict[str, Any] = {"window": window, "stride": stride, "batch_size": batch_size}
    return hidden_states_of_videos(model, [features], show_progress_bar=show_progress_bar, **options)[0]


def hidden_states_of_videos(
    model: Any,
    videos: Sequence[Any],
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> list[Tensor]:
    """For the features of each video what :func:`feature_hidden_states` gives; short videos share batches."""
    from tempclr.data.sampling import filling

    most = model.config.video_config.max_num_features
    window = most if window is None else window
    if not 1 <= window <= most:
        raise InputError(f"window must be from 1 to the model's {most} positions, got {window}")
    stride = max(1, window // 2) if stride is None else stride
    if not 1 <= stride <= window:
        raise InputError(f"stride must be from 1 to the window of {window}, got {stride}: no feature may be left out")
    arrays = [feature_array(model, features) for features in videos]
    starts = [range(0, max(1, len(array) - window + stride), stride) for array in arrays]
    windows = [[array[at : at + window] for at in own] for array, own in zip(arrays, starts, strict=True)]
    options: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    means: list[Tensor] = []
    for part in filling([len(array) for array in arrays], batch_size * most):
        found = _run_clips(model, windows[part], "last_hidden_state", **options)
        rows = zip(found, starts[part], arrays[part], strict=True)
        means += [_mean_states(states, own, len(array)) for states, own, array in rows]
    return means


def _mean_states(states: Sequence[Tensor], starts: Sequence[int], num_features: int) -> Tensor:
    """(num_features, d) from windows, averaged where they overlap."""
    total = states[0].new_zeros(num_features, states[0].shape[1])
    count = total.new_zeros(num_features, 1)
    for first, state in zip(starts, states, strict=True):
        total[first : first + len(state)] += state
        count[first : first + len(state)] += 1
    return total / count


@dataclass
class Alignment:
    """When each sentence happens in one video.

    Attributes:
        video: its file, where it was one.
        duration: seconds.
        measure: "dtw", "otam" or "localize".
        features_per_second: the rate of the columns of ``cost`` and ``path``.
        spans: for each sentence a dict of ``sentence``, ``start_seconds``, ``end_seconds`` and ``similarity`` (mean
            cosine over its part of the path); the last three are None where the measure left it unmatched.
        cost: (num_sentences, num_features), one minus the cosine.
        path: 0/1 matrix of the same shape, the cells that were chosen.
    """

    video: str | None
    duration: float
    measure: str
    features_per_second: float
    spans: list[dict[str, Any]]
    cost: Tensor
    path: Tensor

    def to_json(self) -> str:
        """Everything but the two matrices, as JSON."""
        plain = {name: value for name, value in self.__dict__.items() if name not in ("cost", "path")}
        return json.dumps(plain, indent=2, ensure_ascii=False)

    def plot(self, **options: Any) -> Figure:
        """A figure of the similarities with the path on top: see ``tempclr.plots.plot_alignment`` for the options."""
        from tempclr.plots import plot_alignment

        return plot_alignment(self, **options)


def align(
    model: Any,
    video: Any,
    sentences: Sequence[str],
    *,
    measure: str = "dtw",
    frames_per_second: float | None = None,
    features_per_second: float | None = None,
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> Alignment:
    """When each of ``sentences``, given in time order, happens in ``video``.

    ``video``: as in :func:`encode_video`. ``features_per_second``: the rate of features that are given; by default that
    of the model's recipe. Sentences are compared with :func:`feature_hidden_states`, then by ``measure``:

    - "dtw": each moment belongs to one sentence, and each sentence has at least one moment;
    - "otam": each moment belongs to one sentence, but sentences at both ends may stay unmatched;
    - "localize": one feature a sentence, in strictly increasing time, the rest is background. It needs at least as
      many features as sentences.

    Raises:
        InputError: no sentence, an unknown measure, a rate that is not known, or what :func:`encode_video` raises.
        ValueError: "localize" with fewer features than sentences.
    """
    from tempclr.costs import cosine_cost
    from tempclr_kernels import alignment

    if measure not in ALIGN_MEASURES:
        raise InputError(f"measure must be one of {', '.join(ALIGN_MEASURES)}, got {measure!r}")
    sentences = [sentences] if isinstance(sentences, str) else list(sentences)
    if not sentences:
        raise InputError("there is no sentence to align")
    features, made_per_second = _video_features(model, video, frames_per_second=frames_per_second)
    rate = features_per_second if made_per_second is None else made_per_second
    if rate is None:
        raise InputError("the model does not record how many features a second it takes: give features_per_second")
    if made_per_second is not None and features_per_second not in (None, made_per_second):
        raise InputError(f"features_per_second is {made_per_second} by the recipe, got {features_per_second}")
    text = encode_text(model, sentences, batch_size=batch_size, show_progress_bar=show_progress_bar)
    states = feature_hidden_states(model, features, batch_size=batch_size, show_progress_bar=show_progress_bar)
    cost = cosine_cost(text, states, eps=model.config.cosine_eps)
    path = _localized(model, text, states) if measure == "localize" else alignment(cost, measure=measure)
    duration = _duration_seconds(video, len(features), rate, frames_per_second)
    return Alignment(
        video=fspath(video) if isinstance(video, (str, PathLike)) else None,
        duration=duration,
        measure=measure,
        features_per_second=rate,
        spans=_spans(sentences, cost, path, features_per_second=rate, duration=duration),
        cost=cost,
        path=path,
    )


def _localized(model: Any, text: Tensor, states: Tensor) -> Tensor:
    from tempclr.evaluation.localization import localize_steps, step_costs

    config = model.config
    temperature = config.temperature if config.similarity == "cosine" else 1.0
    frames = localize_steps(step_costs(states, text, similarity=config.similarity, temperature=temperature))
    path = torch.zeros(len(text), len(states))
    path[torch.arange(len(text)), torch.as_tensor(frames)] = 1
    return path


def _spans(
    sentences: Sequence[str], cost: Tensor, path: Tensor, *, features_per_second: float, duration: float
) -> list[dict[str, Any]]:
    """The seconds of each sentence's features on the path.

    Note [Shared features]: several sentences may share a feature on the path, wherever there are more sentences than
    features. Its time is divided among them evenly and in their order, so that every moment has one sentence and every
    matched sentence has time of its own.
    """
    on_path = path > 0
    shared_by = on_path.sum(0)
    place = on_path.cumsum(0) - 1

    def seconds(column: int, share: int) -> float:
        begin, end = column / features_per_second, min((column + 1) / features_per_second, duration)
        return begin + (end - begin) * share / int(shared_by[column])

    spans = []
    for row, sentence in enumerate(sentences):
        columns = on_path[row].nonzero().flatten().tolist()
        start = end = mean = None
        if columns:
            start = seconds(columns[0], int(place[row, columns[0]]))
            end = seconds(columns[-1], int(place[row, columns[-1]]) + 1)
            mean = float(1 - cost[row, columns].mean())
        spans.append({"sentence": sentence, "start_seconds": start, "end_seconds": end, "similarity": mean})
    return spans


def _duration_seconds(video: Any, num_features: int, rate: float, frames_per_second: float | None) -> float:
    covered = num_features / rate
    if isinstance(video, (str, PathLike)):
        from tempclr.data.video import probe

        return min(probe(video).duration_seconds or covered, covered)
    if video.ndim == 4 and frames_per_second is not None:
        return min(len(video) / frames_per_second, covered)
    return covered


def _video_features(model: Any, video: Any, *, frames_per_second: float | None) -> tuple[np.ndarray, float | None]:
    """Features (T, feature_size) of what was given, and how many a second there are, where the recipe tells."""
    values = model.config.video_config.feature_recipe
    is_file = isinstance(video, (str, PathLike))
    if not is_file and getattr(video, "ndim", None) == 2:
        return feature_array(model, video), (values or {}).get("features_per_second")
    if not is_file and getattr(video, "ndim", None) != 4:
        raise InputError(
            "video must be a file, uint8 frames (N, H, W, 3) or features (T, F), got "
            + (f"shape {tuple(video.shape)}" if hasattr(video, "shape") else type(video).__name__)
        )
    if values is None:
        raise InputError(
            "this model does not record how its features are made (video_config.feature_recipe), so it takes features "
            "only: make them as its training data was made, or set the recipe"
        )
    if not is_file and frames_per_second is None:
        raise InputError("frames need their frames_per_second")
    extractor = _extractor(json.dumps(values, sort_keys=True), str(model.device))
    features = extractor.extract(video, frames_per_second=frames_per_second)
    return feature_array(model, features), extractor.recipe.features_per_second


@lru_cache(maxsize=1)
def _extractor(recipe: str, device: str) -> Any:
    from tempclr.data.features import FeatureExtractor, FeatureRecipe

    return FeatureExtractor(FeatureRecipe.from_dict(json.loads(recipe)), device=device)


def feature_array(model: Any, features: Any) -> np.ndarray:
    """The features of a video as float32 (T, feature_size); an :class:`InputError` where they are not that."""
    values = features.detach().cpu().float().numpy() if isinstance(features, Tensor) else features
    array = np.asarray(values, dtype=np.float32)
    size = model.config.video_config.feature_size
    if array.ndim != 2 or array.shape[1] != size or len(array) == 0:
        raise InputError(f"features must be a non-empty (T, {size}) array for this model, got shape {array.shape}")
    return array


def _run_clips(
    model: Any, videos: Sequence[Sequence[np.ndarray]], output_name: str, *, batch_size: int, show_progress_bar: bool
) -> list[list[Tensor]]:
    """For each clip of each video its pooled vector, or the hidden states of its features; videos share batches."""
    clips = list(chain.from_iterable(videos))
    lengths = [len(clip) for clip in clips]

    def encode(chosen: list[int]) -> list[Tensor]:
        own = torch.tensor([lengths[index] for index in chosen])
        rows = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(clips[index]) for index in chosen], batch_first=True)
        mask = torch.arange(rows.shape[1]) < own[:, None]
        output = model.get_video_features(rows.to(model.device), mask.to(model.device))[output_name]
        if output_name == "pooler_output":
            return list(output)
        return [states[:length] for states, length in zip(output, own.tolist(), strict=True)]

    bar = "encode video" if show_progress_bar else None
    found = iter(_in_batches(model, encode, lengths, batch_size=batch_size, bar=bar))
    return [list(islice(found, len(own))) for own in videos]


def _in_batches(
    model: Any,
    encode: Callable[[list[int]], Iterable[Tensor]],
    lengths: Sequence[int],
    *,
    batch_size: int,
    bar: str | None,
    across_ranks: bool = False,
) -> list[Tensor]:
    """Run ``encode`` on batches of indices, longest first so that a batch is padded little; rows in the given order."""
    check_batch_size(batch_size)
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    travels = across_ranks and num_ranks() > 1

    def run(chosen: list[int]) -> list[Tensor]:
        rows = [row.float().cpu() for row in encode(chosen)]
        return [row.clone() for row in rows] if travels else rows  # pickled, a view takes its whole batch along

    with evaluating(model):
        found = shared_map(run, batches, across_ranks=across_ranks, bar=bar, unit="it", size=len)
    rows = {
        index: row for chosen, own in zip(batches, found, strict=True) for index, row in zip(chosen, own, strict=True)
    }
    return [rows[index] for index in range(len(lengths))]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Within the block the model is in evaluation mode and no gradients are kept; afterwards it is as it was."""
    was_training = [module for module in model.modules() if module.training]
    if was_training:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        # One by one: parts that someone froze in evaluation mode stay so.
        for module in was_training:
            module.training = True
