"""How many sentences DTW pairs with their own clip when it aligns a paragraph with its own video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tempclr.costs import cost_matrix
from tempclr.evaluation.embeddings import Embeddings, embed_paragraphs
from tempclr.evaluation.protocols import MatchingProtocol, similarity_of
from tempclr_kernels import alignment

if TYPE_CHECKING:
    from tempclr.data.rows import Paragraph


@dataclass(frozen=True)
class MatchingResult:
    """``match_share`` is the mean over videos of ``per_video``, the share of each video's sentences on the diagonal."""

    protocol: MatchingProtocol
    match_share: float
    num_videos: int
    per_video: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """The part that goes into a results file."""
        return {
            "protocol": self.protocol.to_dict(),
            "match_share": self.match_share,
            "num_videos": self.num_videos,
        }


def match_shares(cost: Tensor, lengths: Tensor) -> NDArray[np.float64]:
    """Share of the diagonal cells (i, i) that lie on the hard DTW path of each square matrix.

    ``cost``: (num_videos, n, n), ``lengths``: (num_videos,) valid rows and columns. Returns (num_videos,). Ties go to
    the diagonal, as :func:`tempclr_kernels.alignment` breaks them.

    >>> match_shares(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), torch.tensor([2])).tolist()
    [1.0]
    """
    path = alignment(cost, torch.stack([lengths, lengths], dim=-1), measure="dtw", gamma=0.0)
    diagonal = torch.diagonal(path, dim1=-2, dim2=-1).double()
    valid = torch.arange(cost.shape[-1], device=cost.device) < lengths[:, None]
    return ((diagonal * valid).sum(-1) / lengths).cpu().numpy()


def evaluate_matching(
    model: Any,
    paragraphs: Sequence[Paragraph],
    *,
    similarity: str | None = None,
    protocol: str = "clean",
    batch_size: int = 64,
    show_progress_bar: bool = False,
) -> MatchingResult:
    """Share of sentences i whose cell (i, i) lies on the hard DTW path of the n × n costs of their own video.

    One pooled vector a sentence and one a segment, background removed; the mean is taken over videos. After Table 6(a)
    of the TempCLR paper, which gives the words but not the formula; the released code has neither, so that
    ``protocol="official"`` only means raw dot products.
    """
    embeddings = embed_paragraphs(model, paragraphs, batch_size=batch_size, show_progress_bar=show_progress_bar)
    return matching_from_embeddings(embeddings, similarity=similarity, protocol=protocol)


def matching_from_embeddings(
    embeddings: Embeddings, *, similarity: str | None = None, protocol: str = "clean"
) -> MatchingResult:
    """:func:`evaluate_matching` from vectors that are there already, background removed.

    >>> vectors, lengths = torch.eye(4).view(2, 2, 4), torch.tensor([2, 2])
    >>> matching_from_embeddings(Embeddings(vectors, lengths, vectors, lengths)).match_share
    1.0
    """
    if embeddings.background != "removed" or not torch.equal(embeddings.num_sentences, embeddings.num_clips):
        raise ValueError("matching needs one annotated segment a sentence: embed with the background removed")
    similarity = similarity_of(protocol, similarity)
    size = int(embeddings.num_clips.max())
    cost = cost_matrix(embeddings.sentences[:, :size], embeddings.clips[:, :size], similarity=similarity)
    shares = match_shares(cost, embeddings.num_sentences)
    return MatchingResult(
        protocol=MatchingProtocol(similarity=similarity, protocol=protocol),
        match_share=float(shares.mean()),
        num_videos=len(shares),
        per_video=shares,
    )
