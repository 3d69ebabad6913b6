"""Results files are the same for the same numbers; tables read well."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tempclr.evaluation.metrics import retrieval_metrics
from tempclr.evaluation.protocols import MatchingProtocol, RetrievalProtocol
from tempclr.evaluation.report import markdown_table, plain, retrieval_table, write_results
from tempclr.evaluation.retrieval import RetrievalResult


def result() -> RetrievalResult:
    query_ranks = np.array([1, 2, 11])
    return RetrievalResult(
        metrics={"dtw": retrieval_metrics(query_ranks)},
        ranks={"dtw": query_ranks},
        protocols={"dtw": RetrievalProtocol(background="removed", measure="dtw")},
        num_queries=3,
    )


def test_equal_results_give_equal_bytes(tmp_path):
    write_results(tmp_path / "a.json", {"b": 1 / 3, "a": {"y": np.float32(0.1), "x": np.arange(2)}})
    write_results(tmp_path / "b.json", {"a": {"x": (0, 1), "y": 0.1 + 1e-9}, "b": 0.33333333})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json").read_text().endswith("}\n")


def test_result_objects_write_their_protocol(tmp_path):
    write_results(tmp_path / "deep/results.json", {"retrieval": result(), "protocol": MatchingProtocol()})
    found = json.loads((tmp_path / "deep/results.json").read_text())
    assert found["protocol"]["name"] == "caption-clip-matching/dtw"
    dtw = found["retrieval"]["measures"]["dtw"]
    assert dtw["protocol"]["name"] == "full-video/background-removed/dtw"
    assert (dtw["R@1"], dtw["median_rank"]) == (0.333333, 2.0)
    assert found["retrieval"]["tie_rule"] == "pessimistic"


def test_nothing_is_written_when_a_number_is_not_finite(tmp_path):
    with pytest.raises(ValueError, match=r"results\['a'\]\[1\] is nan"):
        write_results(tmp_path / "results.json", {"a": [0.0, float("nan")]})
    assert not list(tmp_path.iterdir())


def test_plain_types():
    assert plain([np.int64(3), np.bool_(True), True, None, "x", -0.0]) == [3, True, True, None, "x", 0.0]
    assert str(plain(-1e-9)) == "0.0"
    with pytest.raises(TypeError, match=r"results\['f'\] is a set"):
        plain({"f": {1}})


def test_tables_align_numbers_to_the_right():
    table = markdown_table(["name", "R@1", "note"], [["a|b", 0.5, "x"], ["long name", None, "y\nz"]], digits=2)
    assert table.splitlines() == [
        "| name      |  R@1 | note |",
        "| :-------- | ---: | :--- |",
        "| a\\|b      | 0.50 | x    |",
        "| long name |    – | y z  |",  # noqa: RUF001
    ]
    with pytest.raises(ValueError, match="row 0 has 1 cells for 2 headers"):
        markdown_table(["a", "b"], [[1]])
    assert markdown_table(["a"], []) == "| a   |\n| :-- |"


def test_retrieval_table_has_a_row_a_model_and_measure():
    lines = retrieval_table({"unit loss": result(), "TempCLR": result()}).splitlines()
    assert len(lines) == 4
    assert lines[0].split("|")[1:-1] == [" model     ", " measure ", "   R@1 ", "   R@5 ", "  R@10 ", " median rank "]
    assert "0.333" in lines[2] and "0.667" in lines[2]
