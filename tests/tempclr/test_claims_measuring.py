"""What the claims measure on a model: each video's numbers are its own, in whatever company it is measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import training_world as world

from tempclr.recipes.claims.measuring import aligned_seconds, measure_localization


def test_aligned_seconds_of_a_video_are_those_it_has_alone():
    model = world.make_model().eval()
    model.processor = world.make_processor()
    paragraphs = world.make_paragraphs(10, seed=3)
    together = aligned_seconds(model, paragraphs)
    assert together.tolist() == [aligned_seconds(model, [one])[0] for one in paragraphs]
    assert len(set(together.tolist())) > 1
    np.testing.assert_array_equal(measure_localization(model, paragraphs)["seconds"], together)
