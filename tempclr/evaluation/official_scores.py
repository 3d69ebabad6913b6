"""Full-video scores as the released code computes them, its defects included: only to compare with published numbers.

Raw dot products; matrices of different sizes are padded to one size, and the path leaks into the padding; the first
column of OTAM is subtracted where it should be added. docs/protocols.md shows each defect on a small example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tempclr.evaluation.protocols import MEASURES
from tempclr.evaluation.scores import best_match, combine, keep_windows, similarity_chunks
from tempclr.evaluation.shards import fill_rows
from tempclr_kernels import dtw

__all__ = ["official_otam_table", "official_padding", "official_score_pairs"]

KEEP_RATIO = 1.3


def official_score_pairs(
    sentences: Tensor,
    clips: Tensor,
    num_sentences: Tensor,
    num_clips: Tensor,
    *,
    background: str,
    measures: Sequence[str] = MEASURES,
    combination: str = "constant",
    across_ranks: bool = True,
    show_progress_bar: bool = False,
) -> dict[str, Tensor]:
    """Scores of all paragraphs against all videos as released, higher is better.

    Arguments as in :func:`tempclr.evaluation.scores.score_pairs`; ``background="kept"`` lets ``dtw`` and ``otam`` see
    each pair's int(1.3 · sentences) best windows. Costs 1 - dot product are multiplied by (target rows · target
    columns) / (rows · columns of the pair) and padded to the target, which is the square of the longest video with the
    background removed, and (longest paragraph, longest video) with it kept, also for transposed matrices.

    >>> a, one = torch.tensor([[[1.0], [2.0]]]), torch.tensor([2])
    >>> official_score_pairs(a, a, one, one, background="removed", measures=["dtw"])  # the last sentence is skipped
    {'dtw': tensor([[-0.]])}
    """
    longest = int(num_clips.max())
    target = (longest if background == "removed" else int(num_sentences.max()), longest)
    parts = list(dict.fromkeys(part for measure in measures for part in measure.split("+")))
    scores = {part: sentences.new_zeros(len(sentences), len(clips)) for part in parts}

    def score(rows: slice) -> dict[str, Tensor]:
        own, counts = sentences[rows], num_sentences[rows]
        found = {part: sentences.new_empty(len(own), len(clips)) for part in parts}
        for columns, close in similarity_chunks(own, clips, counts, num_clips, similarity="dot"):
            if "cap_avg" in parts:
                found["cap_avg"][:, columns] = best_match(close, counts)
            if set(parts) != {"cap_avg"}:
                cost, lengths = _scaled_costs(close, counts, num_clips[columns], target, background)
                for part in parts:
                    if part != "cap_avg":
                        found[part][:, columns] = -_distances(cost, lengths, target, part)
        return found

    fill_rows(scores, score, across_ranks=across_ranks, bar="score" if show_progress_bar else None)
    return {measure: combine([scores[part] for part in measure.split("+")], combination) for measure in measures}


def _scaled_costs(
    close: Tensor, num_sentences: Tensor, num_clips: Tensor, target: tuple[int, int], background: str
) -> tuple[Tensor, Tensor]:
    """Similarities (P, V, n, m) to scaled costs (P, V, n, m or fewer) and lengths (P, V, 2)."""
    counts = num_clips[None, :].expand(len(num_sentences), -1)
    if background == "kept":
        wanted = (num_sentences.double() * KEEP_RATIO).long()
        counts = torch.minimum(wanted[:, None], counts)
        close = keep_windows(close, num_clips, counts)
    lengths = torch.stack([num_sentences[:, None].expand_as(counts), counts], dim=-1)
    return (1 - close).mul_((target[0] * target[1] / lengths.prod(-1))[..., None, None].to(close.dtype)), lengths


def _distances(cost: Tensor, lengths: Tensor, target: tuple[int, int], measure: str) -> Tensor:
    if measure == "dtw":
        return dtw(official_padding(cost, lengths, _smallest_target(cost, target)))
    distance = torch.zeros_like(lengths[..., 0], dtype=cost.dtype)
    for matrix, sizes in ((cost, lengths), (cost.mT, lengths.flip(-1))):
        padded = official_padding(matrix, sizes, _smallest_target(matrix, target), both_sides=True)
        distance = distance + official_otam_table(padded)[..., -1, -1]
    return distance


def _smallest_target(cost: Tensor, target: tuple[int, int]) -> tuple[int, int]:
    """Note [One column of padding stands for all]: from its first column on, the zeros beyond a matrix hold one and the
    same total to the last column, and likewise from its second row on. Where every matrix leaves more room than that,
    the rest changes nothing and is left out."""
    num_rows, num_columns = cost.shape[-2:]
    return min(target[0], num_rows + 2), min(target[1], num_columns + 2)


def official_padding(cost: Tensor, lengths: Tensor, target: tuple[int, int], *, both_sides: bool = False) -> Tensor:
    """Matrices of several sizes padded, or cut, to one size as the released code does it.

    ``cost``: (..., n, m) with ``lengths`` (..., 2) valid rows and columns. Returns (..., *target), or (..., target[0],
    target[1] + 2) with ``both_sides``, which first puts a column of zeros on either side, as OTAM wants it.

    What is added is infinite, but for a corner of zeros at the end. The corner begins at the last valid row, not after
    it, and spans all columns where no column was added: the slice that should select the last 0 columns selects all.
    Where a matrix has more rows than the target, it is cut, and the corner begins at row (rows - target) - 1.
    """
    num_rows, num_columns = target[0], target[1] + 2 * both_sides
    rows, columns = lengths[..., 0, None, None], lengths[..., 1, None, None]
    ends = columns + 2 * both_sides
    row = torch.arange(num_rows, device=cost.device)[:, None]
    column = torch.arange(num_columns, device=cost.device)
    shape = (max(num_rows, cost.shape[-2]), max(num_columns, cost.shape[-1] + 2 * both_sides))
    right, below = shape[1] - cost.shape[-1] - both_sides, shape[0] - cost.shape[-2]
    padded = torch.nn.functional.pad(cost, (int(both_sides), right, 0, below))[..., :num_rows, :num_columns]
    if both_sides:
        padded.masked_fill_((column == 0) | (column == ends - 1), 0)
    padded.masked_fill_(row >= rows, math.inf).masked_fill_(column >= ends, math.inf)
    first_row = torch.where(rows <= num_rows, rows - 1, rows - num_rows - 1)
    first_column = torch.where(ends < num_columns, ends, ends - num_columns)
    return padded.masked_fill_((row >= first_row) & (column >= first_column), 0)


def official_otam_table(padded: Tensor) -> Tensor:
    """The released accumulated costs of OTAM, (..., rows, columns), the result being the last cell.

    ``padded``: costs with a column of zeros at the left, (..., rows, columns >= 3). In the first column of data the
    minimum of the predecessors is *subtracted* from the cost; every other column adds it.
    """
    cells = padded.movedim(-1, 0).contiguous()
    table = torch.zeros_like(cells)
    num_columns, num_rows = len(cells), cells.shape[-1]
    table[1, ..., 0] = cells[1, ..., 0]
    for row in range(1, num_rows):
        table[1, ..., row] = cells[1, ..., row] - table[1, ..., row - 1].clamp_max(0)
    for column in range(2, num_columns - 1):
        before = table[column - 1]
        table[column, ..., 0] = cells[column, ..., 0] + before[..., 0]
        table[column, ..., 1:] = cells[column, ..., 1:] + torch.minimum(before[..., 1:], before[..., :-1])
    before, last, costs = table[-2], table[-1], cells[-1]
    last[..., 0] = costs[..., 0] + before[..., 0]
    for row in range(1, num_rows):
        reached = torch.minimum(before[..., row - 1], before[..., row])
        last[..., row] = costs[..., row] + torch.minimum(reached, last[..., row - 1])
    return table.movedim(0, -1)
