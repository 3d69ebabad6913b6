"""Ranks fixed embeddings on however many ranks it is started on; run by test_retrieval_ranks.py."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tempclr.evaluation import Embeddings, clip_retrieval_from_embeddings, retrieval_from_embeddings
from tempclr.evaluation.protocols import MEASURES


def make_embeddings(**windows):
    generator = torch.Generator().manual_seed(0)
    count, size = 300, 24
    longest = 14 if windows else 5
    num_sentences = torch.randint(1, 6, (count,), generator=generator)
    num_clips = torch.randint(1, longest + 1, (count,), generator=generator) if windows else num_sentences
    topics = torch.randn(count, 1, size, generator=generator)
    sentences = topics + 2 * torch.randn(count, 5, size, generator=generator)
    clips = topics + 2 * torch.randn(count, longest, size, generator=generator)
    return Embeddings(sentences, num_sentences, clips, num_clips, **windows)


def main():
    torch.set_num_threads(1)
    folder, num_ranks = Path(sys.argv[1]), int(sys.argv[2])
    if num_ranks > 1:
        torch.distributed.init_process_group("gloo")
    removed, kept = make_embeddings(), make_embeddings(window_seconds=16.0, stride_seconds=16.0)
    found = {}
    for protocol in ("clean", "official"):
        for name, embeddings in (("removed", removed), ("kept", kept)):
            result = retrieval_from_embeddings(embeddings, measures=MEASURES, protocol=protocol)
            found |= {(protocol, name, measure): values.tolist() for measure, values in result.ranks.items()}
        clips = clip_retrieval_from_embeddings(removed, protocol=protocol)
        found |= {(protocol, "clips", name): values.tolist() for name, values in clips.ranks.items()}
    rank = torch.distributed.get_rank() if num_ranks > 1 else 0
    torch.save(found, folder / f"ranks-{num_ranks}-{rank}.pt")


main()
