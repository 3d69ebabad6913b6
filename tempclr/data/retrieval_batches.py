"""Batches of similar videos: each is drawn from a video and its nearest by the model's own vectors, anew each epoch.

The clips of such a batch are hard to tell apart, which is what a contrastive loss learns from (VideoCLIP's
retrieval-augmented training).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, Subset
from tqdm.auto import tqdm
from transformers import TrainerCallback

from tempclr.data.files import atomic_path
from tempclr.errors import InputError
from tempclr.sharding import whole_model

__all__ = [
    "SEARCHES",
    "RetrievalBatches",
    "SimilarVideoSampler",
    "embed_videos",
    "nearest_videos",
    "similar_batches",
]

SEARCHES = ("faiss", "exact")
MAX_CELLS = 512
MIN_VIDEOS_A_CELL, MAX_VIDEOS_A_CELL = 39, 48  # faiss warns below the first; the released search trains on the second
MAX_DISTANCES = 16 * 2**20  # of a chunk of the exact search: 64 MB of float32
_log = logging.getLogger(__name__)


def nearest_videos(
    vectors: Tensor, centres: Sequence[int], *, num_neighbours: int, search: str | None = None
) -> list[list[int]]:
    """For each centre the other videos in the order of their Euclidean distance to it, at most ``num_neighbours``.

    Args:
        vectors: (N, d) floating tensor, one vector a video.
        centres: positions of videos.
        search: ``"exact"``, in chunks on the vectors' device; ``"faiss"``, as released: an inverted
            file, of whose cells the centre's own is searched, so that there may be fewer neighbours than asked for. It
            has 512 cells, or one for 39 videos where there are less than 19,968. None takes faiss where it is
            installed.

    Raises:
        ValueError: another search.
        ImportError: faiss by name, and it is not installed.

    >>> nearest_videos(torch.tensor([[0.0], [5.0], [1.0], [3.0]]), [0], num_neighbours=2, search="exact")
    [[2, 3]]
    """
    if search is None:
        search = "faiss" if importlib.util.find_spec("faiss") is not None else "exact"
    if search not in SEARCHES:
        raise ValueError(f"search must be one of {', '.join(SEARCHES)}, got {search!r}")
    # One more than asked for, because a centre is its own nearest.
    count = min(num_neighbours + 1, len(vectors))
    found = (_faiss_search if search == "faiss" else _exact_search)(vectors, list(centres), count)
    return [
        [video for video in row if video >= 0 and video != centre][:num_neighbours]
        for centre, row in zip(centres, found, strict=True)
    ]


def _exact_search(vectors: Tensor, centres: list[int], count: int) -> list[list[int]]:
    vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
    square = vectors.square().sum(dim=1)
    chunk = max(1, MAX_DISTANCES // len(vectors))
    found: list[list[int]] = []
    for first in range(0, len(centres), chunk):
        # The centre's own square is the same for all videos of its row.
        distance = square - 2 * vectors[centres[first : first + chunk]] @ vectors.T
        values, places = distance.topk(count, dim=1, largest=False)
        # topk leaves equals in any order: by position, and then by distance.
        places, by_place = places.sort(dim=1)
        found += places.gather(1, values.gather(1, by_place).argsort(dim=1, stable=True)).tolist()
    return found


def _faiss_search(vectors: Tensor, centres: list[int], count: int) -> list[list[int]]:
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise ImportError(f"search='faiss' needs faiss ({error}): pip install faiss-cpu, or search='exact'") from error
    array = vectors.detach().float().cpu().contiguous().numpy()
    quantizer = faiss.IndexFlatL2(array.shape[1])
    num_cells = max(1, min(MAX_CELLS, len(array) // MIN_VIDEOS_A_CELL))
    index = faiss.IndexIVFFlat(quantizer, array.shape[1], num_cells, faiss.METRIC_L2)
    index.train(array[: num_cells * MAX_VIDEOS_A_CELL])
    index.add(array)
    index.nprobe = 1
    return index.search(array[centres], count)[1].tolist()


def similar_batches(
    vectors: Tensor,
    *,
    batch_size: int = 16,
    num_candidates: int = 64,
    search: str | None = None,
    generator: random.Random,
) -> list[list[int]]:
    """Batches of ``batch_size`` videos, as many as there are whole ones, around centres drawn without replacement.

    A batch is drawn from the centre and its ``num_candidates`` nearest videos, so that the centre itself may drop out.
    A video may be in several batches of an epoch, or in none. Where the search finds too few, as the released one may
    in a small cell (it makes a smaller batch), the batch is filled with videos drawn from all.

    Args:
        vectors: (N, d), one vector a video.
        num_candidates: at least ``batch_size`` − 1, so that neighbours can fill a batch.
        search: see :func:`nearest_videos`.
        generator: Python's.

    Raises:
        ValueError: fewer videos than a batch holds, or too few candidates.

    >>> pairs = torch.tensor([[0.0], [9.0], [0.1], [9.1]])
    >>> chosen = similar_batches(pairs, batch_size=2, num_candidates=1, search="exact", generator=random.Random(0))
    >>> all(set(batch) in ({0, 2}, {1, 3}) for batch in chosen)
    True
    """
    num_videos = len(vectors)
    if num_videos < batch_size:
        raise ValueError(f"a batch of {batch_size} similar videos needs as many videos, got {num_videos}")
    if num_candidates < batch_size - 1:
        raise ValueError(
            f"num_candidates must be at least {batch_size - 1}, one less than a batch, got {num_candidates}"
        )
    centres = generator.sample(range(num_videos), num_videos // batch_size)
    neighbours = nearest_videos(vectors, centres, num_neighbours=num_candidates, search=search)
    batches = []
    for centre, near in zip(centres, neighbours, strict=True):
        batch = [centre, *near]
        if len(batch) > batch_size:
            batch = generator.sample(batch, batch_size)
        while len(batch) < batch_size:
            other = generator.randrange(num_videos)
            batch += [other] if other not in batch else []
        batches.append(batch)
    return batches


class SimilarVideoSampler(Sampler[int]):
    """The rows of batch after batch, for a DataLoader of the same ``batch_size``; :class:`RetrievalBatches` sets them.

    Until they are set, batches are neighbouring rows, as in the released code before its first search.

    Raises:
        InputError: fewer rows than a batch holds.

    >>> list(SimilarVideoSampler(5, batch_size=2))
    [0, 1, 2, 3]
    """

    def __init__(self, num_rows: int, *, batch_size: int):
        if num_rows < batch_size:
            raise InputError(
                f"batches of {batch_size} similar videos need as many videos, got {num_rows}: lower the batch size",
                field="retrieval_batches",
            )
        self.batch_size = batch_size
        self.batches = [
            list(range(first, first + batch_size)) for first in range(0, num_rows - batch_size + 1, batch_size)
        ]

    def __len__(self) -> int:
        return len(self.batches) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        return (row for batch in self.batches for row in batch)


@torch.no_grad()
def embed_videos(
    model: Any,
    dataset: Any,
    collator: Any,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    show_progress_bar: bool = False,
) -> Tensor:
    """(N, d) one vector a row, on the model's device: the mean over its clips and its sentences, the two halved.

    With one sentence a clip this is the mean over clips of half the sum of both vectors, as released. Under
    ``torch.distributed`` each rank embeds its share and all have all. Neither the model's mode nor the random numbers
    that training draws are touched.

    Args:
        model: a ``TempCLRModel``.
        dataset, collator: rows and the batch of paragraphs, one a row, that the model takes.
        batch_size: rows of a batch.
        num_workers: processes that read rows.
        show_progress_bar: on rank 0.
    """
    model = whole_model(model)
    rank, num_ranks = _place_among_ranks()
    device, was_training = next(model.parameters()).device, model.training
    share = range(rank, len(dataset), num_ranks)
    loader = DataLoader(
        Subset(dataset, list(share)),
        batch_size=batch_size,
        collate_fn=collator,
        num_workers=num_workers,
        generator=torch.Generator(),  # the loader draws a seed, which the global generator must not feel
    )
    model.eval()
    try:
        parts = []
        for batch in tqdm(loader, desc="embedding videos", disable=not show_progress_bar or rank > 0, leave=False):
            inputs = {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
            output = model(**inputs, return_loss=False)
            text = _mean(output.text_embeds, inputs["sentence_mask"])
            parts.append((text + _mean(output.video_embeds, inputs["clip_mask"])) / 2)
    finally:
        model.train(was_training)
    size = -(-len(dataset) // num_ranks)
    own = torch.cat(parts) if parts else torch.zeros(0, model.config.text_config.hidden_size, device=device)
    if num_ranks == 1:
        return own
    own = torch.nn.functional.pad(own, (0, 0, 0, size - len(own)))
    shares = [torch.empty_like(own) for _ in range(num_ranks)]
    torch.distributed.all_gather(shares, own.contiguous())
    return torch.stack(shares, dim=1).flatten(0, 1)[: len(dataset)]


def _mean(embeds: Tensor, mask: Tensor) -> Tensor:
    mask = mask[..., None].to(embeds.dtype)
    return ((embeds * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)).float()


class RetrievalBatches(TrainerCallback):
    """Embeds all training videos at the start of each epoch and makes the epoch's batches of similar ones.

    Under ``torch.distributed`` every rank embeds its share, rank 0 searches, and all ranks go through the same batches.

    Note [An epoch keeps its batches]: they are written to ``retrieval_batches`` in the output folder. A run that is
    resumed in the middle of an epoch takes them from there: embedded anew, the videos would make other batches than
    those that the epoch began with.

    Args:
        sampler: whose batches are set; the one that the Trainer reads rows by.
        dataset, collator: see :func:`embed_videos`; rows as in the training dataset.
        num_candidates, search: see :func:`similar_batches`.
        embedding_batch_size: rows of a batch when embedding.
    """

    def __init__(
        self,
        sampler: SimilarVideoSampler,
        dataset: Any,
        collator: Any,
        *,
        num_candidates: int = 64,
        search: str | None = None,
        embedding_batch_size: int = 64,
    ):
        if num_candidates < sampler.batch_size - 1:
            raise InputError(
                f"must be at least {sampler.batch_size - 1}, one less than a batch, got {num_candidates}",
                field="retrieval_candidates",
            )
        self.sampler, self.dataset, self.collator = sampler, dataset, collator
        self.num_candidates, self.search, self.embedding_batch_size = num_candidates, search, embedding_batch_size

    def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        position = round(state.epoch or 0.0, 6)
        epoch = int(position)
        file = Path(args.output_dir) / "retrieval_batches" / f"epoch-{epoch}.json"
        if position > epoch:
            self.sampler.batches = _read_batches(file)
            return
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        dtype = torch.bfloat16 if args.bf16 else torch.float16
        with torch.autocast(args.device.type, dtype=dtype, enabled=bool(args.bf16 or args.fp16)):
            vectors = embed_videos(
                model,
                self.dataset,
                self.collator,
                batch_size=self.embedding_batch_size,
                num_workers=args.dataloader_num_workers,
                show_progress_bar=not args.disable_tqdm,
            )
        rank, num_ranks = _place_among_ranks()
        batches: list[Any] = [None]
        if rank == 0:
            batches[0] = similar_batches(
                vectors,
                batch_size=self.sampler.batch_size,
                num_candidates=self.num_candidates,
                search=self.search,
                generator=random.Random(f"{args.seed} {epoch}"),
            )
            with atomic_path(file) as written:
                written.write_text(json.dumps(batches[0]), encoding="utf-8")
            _log.info("epoch %d goes through %d batches of similar videos", epoch, len(batches[0]))
        if num_ranks > 1:
            torch.distributed.broadcast_object_list(batches, src=0)
        self.sampler.batches = batches[0]


def _read_batches(file: Path) -> list[list[int]]:
    if not file.is_file():
        raise InputError("no such file: to go on in the middle of an epoch, its batches must be known", file=file)
    return json.loads(file.read_text(encoding="utf-8"))


def _place_among_ranks() -> tuple[int, int]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()
