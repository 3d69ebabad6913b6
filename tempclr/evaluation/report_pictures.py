"""The pictures of an evaluation report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tempclr.costs import cost_matrix
from tempclr.evaluation.embeddings import Embeddings, embed_paragraphs
from tempclr.evaluation.localization import features_and_rate, step_texts
from tempclr.evaluation.report import markdown_table
from tempclr.evaluation.scores import keep_windows
from tempclr.evaluation.suite import Measured
from tempclr_kernels import alignment

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph

__all__ = ["Pictures", "draw_pictures", "worst_queries"]

NUM_EXAMPLES = 3
NUM_FAILURES = 10
MOST_PIXELS = 320
FILM_FRAMES = 24


@dataclass
class Pictures:
    """Sections of a report: (title, text, [(file name, alternative text)]), and notes on what was left out."""

    sections: list[tuple[str, str, list[tuple[str, str]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, title: str, text: str, *files: tuple[str, str]) -> None:
        self.sections.append((title, text, list(files)))


def draw_pictures(
    folder: Path,
    measured: Measured,
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    show_progress_bar: bool = False,
) -> Pictures:
    """Draw what suits the task into ``folder`` and tell what each picture shows."""
    from tqdm.auto import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    pictures = Pictures()
    _draw_numbers(folder, measured, pictures)
    _draw_failures(folder, measured, model, paragraphs, pictures)
    # The longest films of the middle would take long: examples are spread evenly over the dataset.
    examples = sorted({int(place) for place in np.linspace(0, len(paragraphs) - 1, min(NUM_EXAMPLES, len(paragraphs)))})
    matches, alignments = [], []
    for number in tqdm(examples, desc="draw examples", unit="video", disable=not show_progress_bar):
        paragraph = paragraphs[number]
        film = _film(paragraph, pictures)
        matches.append(_draw_match(folder, number, model, paragraph, film))
        alignments.append(_draw_alignment(folder, number, model, paragraph, measured.task, film))
    pictures.add(
        "Captions and clips",
        "Each sentence against each annotated segment of its own video, in time order; the outlined cells are the DTW "
        "path. A dot marks a sentence whose best clip by itself lies off the path.",
        *matches,
    )
    pictures.add(
        "Alignments",
        "Similarity of each sentence (where steps of a task are localized: of each step) to each moment, with the path "
        "taken and the annotated segments.",
        *alignments,
    )
    return pictures


def worst_queries(ranks: NDArray, *, count: int = NUM_FAILURES) -> list[int]:
    """The queries that rank worst, worst first, equal ranks in their order; those at rank 1 are no failures.

    >>> worst_queries(np.array([1, 7, 2, 7]))
    [1, 3, 2]
    """
    order = np.argsort(-np.nan_to_num(np.asarray(ranks, dtype=np.float64), nan=np.inf), kind="stable")
    return [int(query) for query in order if not ranks[query] <= 1][:count]


def _draw_numbers(folder: Path, measured: Measured, pictures: Pictures) -> None:
    from tempclr.plots import plot_recalls, plot_tasks

    if measured.task in ("retrieval", "clip-retrieval"):
        for index, (name, result) in enumerate(measured.results.items()):
            file = f"recalls-{index}.png"
            plot_recalls(dict(result.metrics), path=folder / file)
            pictures.add(f"Recalls, {name}", "", (file, f"R@K bars, {name}"))
    if measured.task == "localization":
        for index, (name, result) in enumerate(measured.results.items()):
            file = f"tasks-{index}.png"
            plot_tasks(result.recall_per_task, mean=result.recall, path=folder / file)
            pictures.add(f"Recall of each task, {name}", "", (file, f"recall of each task, {name}"))


def _draw_failures(
    folder: Path, measured: Measured, model: Any, paragraphs: Sequence[Paragraph], pictures: Pictures
) -> None:
    name, result = next(iter(measured.results.items()))
    rows: list[list[Any]]
    title = f"The {NUM_FAILURES} worst failures, {name}"
    if measured.task == "retrieval":
        _draw_retrieval_failures(folder, title, result, measured.embeddings[name], paragraphs, pictures)
    elif measured.task == "localization":
        shares = np.array(
            [hits.sum() / max(1, there.sum()) for hits, there in zip(result.hits, result.annotated, strict=True)]
        )
        order = [int(video) for video in np.argsort(shares, kind="stable") if shares[video] < 1][:NUM_FAILURES]
        rows = [
            [paragraphs[video].video_id, paragraphs[video].task, int(result.hits[video].sum()),
             int(result.annotated[video].sum())]
            for video in order
        ]  # fmt: skip
        table = markdown_table(["video", "task", "steps found", "steps annotated"], rows)
        pictures.add(title, table if rows else "Every annotated step is found.")
    elif measured.task == "matching":
        shares = result.per_video
        order = [int(video) for video in np.argsort(shares, kind="stable") if shares[video] < 1][:NUM_FAILURES]
        rows = [[paragraphs[video].video_id, 100 * float(shares[video])] for video in order]
        table = markdown_table(["video", "matched sentences, %"], rows, digits=1)
        pictures.add(title, table if rows else "Every sentence is matched with its own segment.")
    else:
        ranks = result.ranks["text-to-video"] if measured.task == "clip-retrieval" else result.ranks
        owners = [(video, place) for video, one in enumerate(paragraphs) for place in range(len(one))]
        if len(ranks) != len(owners):
            pictures.notes.append("Ties are counted as queries of their own, so failures are not listed.")
            return
        rows = []
        for query in worst_queries(ranks):
            video, place = owners[query]
            rows.append([paragraphs[video].video_id, paragraphs[video].sentences[place], float(ranks[query])])
        table = markdown_table(["video", "sentence", "rank"], rows, digits=1)
        pictures.add(title, table if rows else "Every sentence ranks its own first.")


def _draw_retrieval_failures(
    folder: Path, title: str, result: Any, embeddings: Embeddings, paragraphs: Sequence[Paragraph], pictures: Pictures
) -> None:
    from tempclr.plots import plot_failures
    from tempclr.plots.matches import Failure, Match

    measure = "dtw" if "dtw" in result.ranks else next(iter(result.ranks))
    worst = worst_queries(result.ranks[measure])
    if not worst:
        pictures.add(title, f"By `{measure}` every paragraph ranks its own video first.")
        return
    failures, rows = [], []
    for query in worst:
        paragraph, winner = paragraphs[query], int(result.first[measure][query])
        own, first = (
            Match(paragraphs[video].video_id, *_pair(embeddings, query, video, result.protocols[measure], measure))
            for video in (query, winner)
        )
        failures.append(Failure(paragraph.sentences, int(result.ranks[measure][query]), own, first))
        rows.append([paragraph.video_id, int(result.ranks[measure][query]), first.video_id, paragraph.sentences[0]])
    plot_failures(failures, measure="OTAM" if measure.startswith("otam") else "DTW", path=folder / "failures.png")
    table = markdown_table(["video", "rank", "ranked first", "first sentence"], rows)
    text = f"By `{measure}`. Left the paragraph against its own video, right against the one that was ranked first."
    pictures.add(title, f"{text}\n\n{table}", ("failures.png", "the worst failures"))


def _pair(embeddings: Embeddings, query: int, video: int, protocol: Any, measure: str) -> tuple[Tensor, Tensor]:
    """Similarity and path of one paragraph and one video as the clean protocol aligns them, best windows alone."""
    sentences = embeddings.sentences[query, : embeddings.num_sentences[query]]
    clips = embeddings.clips[video, : embeddings.num_clips[video]]
    close = 1 - cost_matrix(sentences, clips, similarity=protocol.similarity)
    if protocol.keep_ratio is not None:
        count = min(len(clips), max(len(sentences), int(protocol.keep_ratio * len(sentences))))
        counts = [torch.tensor(number, device=close.device) for number in ([len(clips)], [[count]])]
        close = keep_windows(close[None, None], *counts)[0, 0]
    return close, alignment(1 - close, measure="otam" if measure.startswith("otam") else "dtw")


def _draw_match(
    folder: Path, number: int, model: Any, paragraph: Paragraph, film: tuple[NDArray, NDArray] | None
) -> tuple[str, str]:
    from tempclr.plots import plot_matches

    vectors = embed_paragraphs(model, [paragraph], across_ranks=False)
    cost = cost_matrix(vectors.sentences[0], vectors.clips[0], similarity="cosine")
    middles = (np.array(paragraph.starts) + np.array(paragraph.ends)) / 2
    thumbnails = None
    if film is not None:
        thumbnails = [film[0][int(np.abs(film[1] - middle).argmin())] for middle in middles]
    spans = zip(paragraph.starts, paragraph.ends, strict=True)
    file = f"matches-{number}.png"
    plot_matches(
        1 - cost,
        alignment(cost),
        paragraph.sentences,
        thumbnails=thumbnails,
        clip_labels=[f"{start:.0f}–{end:.0f} s" for start, end in spans],  # noqa: RUF001 (a range of seconds)
        title=paragraph.video_id,
        path=folder / file,
    )
    return file, f"captions and clips of {paragraph.video_id}"


def _draw_alignment(
    folder: Path, number: int, model: Any, paragraph: Paragraph, task: str, film: tuple[NDArray, NDArray] | None
) -> tuple[str, str]:
    from tempclr.inference import align
    from tempclr.plots import plot_alignment

    features, rate = features_and_rate(paragraph)
    localized = task == "localization" and len(features) >= len(step_texts(paragraph))
    aligned = align(
        model,
        features,
        step_texts(paragraph) if localized else list(paragraph.sentences),
        measure="localize" if localized else "dtw",
        features_per_second=rate,
    )
    file = f"alignment-{number}.png"
    plot_alignment(
        aligned,
        frames=None if film is None else film[0],
        frame_seconds=None if film is None else film[1],
        true_spans=list(zip(paragraph.starts, paragraph.ends, strict=True)),
        span_rows=paragraph.step_indices if localized else None,
        title=paragraph.video_id.replace("$", r"\$"),
        path=folder / file,
    )
    return file, f"alignment of {paragraph.video_id}"


def _film(paragraph: Paragraph, pictures: Pictures) -> tuple[NDArray, NDArray] | None:
    """Small frames of the video, a few over all of it and one in the middle of each segment, with their seconds."""
    from tempclr.data.video import iterate_frames

    if paragraph.video is None or not Path(paragraph.video).is_file():
        what = (
            "names no video" if paragraph.video is None else f"names {Path(paragraph.video).name}, which is not there"
        )
        pictures.notes.append(f"`{paragraph.video_id}` {what}: its pictures have no filmstrip.")
        return None
    duration = paragraph.duration_seconds
    middles = (np.array(paragraph.starts) + np.array(paragraph.ends)) / 2
    wanted = np.concatenate(
        [np.linspace(0, duration, FILM_FRAMES, endpoint=False) + duration / FILM_FRAMES / 2, middles]
    )
    # Two frames a second are near enough; of an hour's film only the wanted ones are kept.
    rate = 2.0
    needed = set(np.round(wanted * rate).astype(int).tolist())
    frames, seconds = [], []
    for index, (second, frame) in enumerate(iterate_frames(paragraph.video, frames_per_second=rate)):
        if index in needed or index == 0:
            step = max(1, -(-max(frame.shape[:2]) // MOST_PIXELS))
            frames.append(frame[::step, ::step].copy())
            seconds.append(second)
    return np.stack(frames), np.array(seconds)
