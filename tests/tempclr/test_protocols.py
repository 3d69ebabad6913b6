"""Protocols name what a number measures and refuse settings that do not belong together."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from tempclr.evaluation.protocols import LocalizationProtocol, MatchingProtocol, RetrievalProtocol

KEPT = {"window_seconds": 2.0, "stride_seconds": 1.0, "keep_ratio": 1.3}


def test_names_say_task_background_and_measure():
    assert RetrievalProtocol(background="removed", measure="dtw").name == "full-video/background-removed/dtw"
    kept = RetrievalProtocol(background="kept", measure="otam+cap_avg", **KEPT)
    assert kept.name == "full-video/background-kept/otam+cap_avg"
    assert LocalizationProtocol(similarity="dot").name == "step-localization/one-frame-a-step"
    assert MatchingProtocol().name == "caption-clip-matching/dtw"


def test_every_setting_goes_into_the_results():
    protocol = RetrievalProtocol(background="kept", measure="dtw", **KEPT)
    assert protocol.to_dict() == {
        "name": "full-video/background-kept/dtw",
        "background": "kept",
        "measure": "dtw",
        "similarity": "cosine",
        "normalize_length": True,
        **KEPT,
    }
    assert LocalizationProtocol(similarity="cosine", temperature=0.05).to_dict()["temperature"] == 0.05
    assert MatchingProtocol("dot").to_dict() == {"name": "caption-clip-matching/dtw", "similarity": "dot"}


def test_protocols_do_not_change():
    with pytest.raises(FrozenInstanceError):
        MatchingProtocol().similarity = "dot"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "blurred", "measure": "dtw"}, "background must be one of removed, kept, got 'blurred'"),
        ({"background": "removed", "measure": "euclid"}, "measure must be one of"),
        ({"background": "removed", "measure": "dtw", "similarity": "l2"}, "similarity must be one of"),
        ({"background": "removed", "measure": "dtw", **KEPT}, "belong to background='kept'"),
        ({"background": "kept", "measure": "dtw"}, "needs positive window_seconds"),
        ({"background": "kept", "measure": "dtw", **KEPT, "window_seconds": 0.0}, "needs positive window_seconds"),
    ],
)
def test_bad_settings_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        RetrievalProtocol(**options)


def test_other_protocols_check_theirs():
    with pytest.raises(ValueError, match="similarity must be one of"):
        MatchingProtocol(similarity="l1")
    with pytest.raises(ValueError, match="temperature must be positive"):
        LocalizationProtocol(similarity="dot", temperature=0.0)


def test_the_package_hands_on_its_functions():
    import tempclr.evaluation as evaluation

    for name in evaluation.__all__:
        assert callable(getattr(evaluation, name)), name
    with pytest.raises(AttributeError, match="no attribute 'evaluate_everything'"):
        _ = evaluation.evaluate_everything
