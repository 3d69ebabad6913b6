"""t-SNE in full, without trees: for a few thousand vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_POINTS = 5000
EXAGGERATION, EXAGGERATED_STEPS = 12.0, 250


def tsne(vectors: ArrayLike, *, perplexity: float = 50.0, num_steps: int = 1000) -> NDArray[np.float64]:
    """Places in the plane whose neighbourhoods resemble those of the vectors; the same every time.

    It starts from the two main components, as the pictures of TCLR do, so there is no chance in it. Of N vectors, one
    step takes N² time and memory.

    Args:
        vectors: ``(N, D)``, N from 4 to 5,000.
        perplexity: how many neighbours count, roughly; below (N - 1) / 3.
        num_steps: of gradient descent, the first 250 of them with exaggerated affinities.

    Returns:
        float64 ``(N, 2)``.

    Raises:
        ValueError: too few or too many vectors for the perplexity and the memory, or numbers that are not finite.

    Source: van der Maaten and Hinton, "Visualizing data using t-SNE" (2008); TCLR, appendix J.

    >>> tsne(np.repeat(np.eye(3), 8, axis=0), perplexity=4, num_steps=50).shape
    (24, 2)
    """
    points = np.asarray(vectors, dtype=np.float64)
    if points.ndim != 2 or not 4 <= len(points) <= MAX_POINTS or not np.isfinite(points).all():
        raise ValueError(f"t-SNE takes 4 to {MAX_POINTS} finite vectors (N, D), got shape {points.shape}")
    if not 1 <= perplexity < (len(points) - 1) / 3:
        raise ValueError(f"perplexity must be from 1 to below a third of {len(points)} vectors, got {perplexity}")
    affinities = joint_affinities(points, perplexity=perplexity)
    places = _main_components(points)
    rate = max(len(points) / EXAGGERATION / 4, 50.0)
    velocity, gains = np.zeros_like(places), np.ones_like(places)
    for step in range(num_steps):
        early = step < EXAGGERATED_STEPS
        gradient = kl_gradient(places, affinities * (EXAGGERATION if early else 1.0))[1]
        same_way = np.sign(gradient) == np.sign(velocity)
        gains = np.maximum(np.where(same_way, gains * 0.8, gains + 0.2), 0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        places = places + velocity
    return places - places.mean(axis=0)


def joint_affinities(points: NDArray[np.float64], *, perplexity: float) -> NDArray[np.float64]:
    """Symmetric probabilities ``(N, N)`` of pairs, each point's own Gaussian as wide as its perplexity asks."""
    distances = _squared_distances(points)
    np.fill_diagonal(distances, np.inf)
    # Relative to its nearest neighbour, no row can underflow; to the mean distance, the search is free of units.
    distances -= distances.min(axis=1, keepdims=True)
    distances /= max(float(distances[np.isfinite(distances)].mean()), 1e-12)
    low, high, precision = (np.full((len(points), 1), value) for value in (0.0, np.inf, 1.0))
    for _ in range(64):
        weights = np.exp(-distances * precision)
        total = weights.sum(axis=1, keepdims=True)
        finite = np.where(np.isfinite(distances), distances, 0.0)
        entropy = np.log(total) + precision * (weights * finite).sum(axis=1, keepdims=True) / total
        wide = entropy > math.log(perplexity)
        low, high = np.where(wide, precision, low), np.where(wide, high, precision)
        precision = np.where(np.isinf(high), precision * 2, (low + np.where(np.isinf(high), 0.0, high)) / 2)
    conditional = weights / total
    return (conditional + conditional.T) / (2 * len(points))


def kl_gradient(places: NDArray[np.float64], affinities: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The divergence of the places' Student affinities from the given ones, and its gradient ``(N, 2)``."""
    student = 1 / (1 + _squared_distances(places))
    np.fill_diagonal(student, 0.0)
    found = np.maximum(student / student.sum(), 1e-300)
    pull = (affinities - found) * student
    gradient = 4 * (pull.sum(axis=1, keepdims=True) * places - pull @ places)
    some: Any = affinities > 0
    return float((affinities[some] * np.log(affinities[some] / found[some])).sum()), gradient


def _squared_distances(points: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (points**2).sum(axis=1)
    return np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0.0)


def _main_components(points: NDArray[np.float64]) -> NDArray[np.float64]:
    left, values, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    if len(values) < 2:
        left, values = np.pad(left, ((0, 0), (0, 1))), np.pad(values, (0, 1))
    signs = np.sign(left[np.abs(left).argmax(axis=0), range(left.shape[1])])
    places = (left * np.where(signs == 0, 1, signs) * values)[:, :2]
    return places / max(float(places[:, 0].std()), 1e-12) * 1e-4
