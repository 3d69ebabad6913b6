"""The alignment kernels without any model: find a melody in a longer one, and learn a sequence by soft-DTW.

python examples/kernels_only.py
"""

import torch

from tempclr_kernels import alignment, dtw, otam, pairwise_distances

# A melody as a sequence of pitches; the same at another tempo; another one.
melody = torch.tensor([0.0, 2, 4, 5, 7, 5, 4, 2, 0])
slower = melody.repeat_interleave(2)
other = torch.tensor([7.0, 7, 0, 0, 3, 3, 0, 7, 7])


def cost(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a[:, None] - b).abs()


print(f"DTW: the same melody, slower: {dtw(cost(melody, slower)):.0f}; another melody: {dtw(cost(melody, other)):.0f}")
part = cost(melody, melody[2:6])
print(f"a part of it: DTW {dtw(part):.0f}, OTAM, which leaves outer rows free: {otam(part):.0f}")
print("which notes are matched:", alignment(part, measure="otam").argmax(0).tolist())

# Every sequence against every other one, whatever their lengths.
bins = torch.eye(8)  # a pitch as a one-hot vector, so that the cosine of two pitches is 0 or 1
sequences = [bins[pitches.long()] for pitches in (melody, slower, other)]
lengths = torch.tensor([len(sequence) for sequence in sequences])
padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
print("all pairs:\n", pairwise_distances(padded, padded, lengths, lengths))

# The mean of a set of sequences under soft-DTW, by its gradient: a barycentre.
performances = torch.stack([melody.roll(shift) + 0.3 * torch.randn(len(melody)) for shift in (0, 0, 1)])
mean = performances.mean(0).clone().requires_grad_()
optimizer = torch.optim.Adam([mean], lr=0.1)
for step in range(100):
    loss = dtw((mean[:, None] - performances[:, None, :]) ** 2, gamma=1.0).mean()
    if step == 0:
        start = loss.item()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"soft-DTW to the performances: {start:.2f} from the plain mean, {loss.item():.2f} from the barycentre")
