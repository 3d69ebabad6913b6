"""Pictures: an alignment over its own video's frames, captions matched to clips, loss curves, recalls, failures.

All functions build a ``matplotlib.figure.Figure`` of their own, touch no global state, need no display, and return the
figure; with ``path`` they also save it, whole or not at all. Colours are Okabe and Ito's, which colour-blind readers
tell apart; line styles differ as well.
"""

from tempclr.plots.alignments import plot_alignment
from tempclr.plots.curves import plot_losses
from tempclr.plots.matches import plot_failures, plot_matches
from tempclr.plots.recalls import plot_recalls, plot_retrieval, plot_tasks

__all__ = [
    "plot_alignment",
    "plot_failures",
    "plot_losses",
    "plot_matches",
    "plot_recalls",
    "plot_retrieval",
    "plot_tasks",
]
