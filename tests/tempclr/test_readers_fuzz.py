"""Official files changed at random: what comes out is rows that can be read, or one line that names the file."""

from __future__ import annotations

import copy
import importlib.util
import json
import tempfile
from pathlib import Path

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tempclr.data import readers
from tempclr.data.readers.official_files import iterate_members, read_json
from tempclr.data.row_files import split_names
from tempclr.data.rows import load_rows, read_paragraphs
from tempclr.errors import InputError

spec = importlib.util.spec_from_file_location("corpora_world", Path(__file__).with_name("corpora_world.py"))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)
CORPORA = world.CORPORA
datasets.disable_progress_bars()


def written(name, folder):
    corpus = CORPORA[name](folder / "official")
    world.write_features(folder / "features", corpus.seconds)
    return corpus


PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(
    value=st.dictionaries(st.text(max_size=6), PLAIN_JSON, max_size=5), size=st.integers(1, 40), indent=st.booleans()
)
def test_a_json_object_is_read_in_any_chunks(value, size, indent):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempclr.data.readers.official_files._CHUNK_CHARACTERS", size)
        file = Path(folder, "object.json")
        file.write_text(json.dumps(value, indent=2 if indent else None, ensure_ascii=False), encoding="utf-8")
        assert dict(iterate_members(file)) == value == read_json(file)


@given(cut=st.integers(0, 60), size=st.integers(1, 40), extra=st.sampled_from(["", "x", ",", "]", '"']))
def test_a_json_object_that_is_cut_is_refused(cut, size, extra):
    text = '{"a": [1, "two", {"b": null}], "c\\u00e9": -1.5e3, "d": "x\\ny"}'[:cut] + extra
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempclr.data.readers.official_files._CHUNK_CHARACTERS", size)
        file = Path(folder, "object.json")
        file.write_text(text)
        try:
            expected = json.loads(text)
        except ValueError:
            with pytest.raises(InputError, match=r"object.json: not JSON") as error:
                dict(iterate_members(file))
            assert "\n" not in str(error.value)
        else:
            assert dict(iterate_members(file)) == expected


WEIRD_TEXTS = ("", " ", "../x", "\ud800", "1", "x" * 300, "\x00", "\n", "é")
WEIRD_NUMBERS = (True, False, -1, 0, 3, 0.5, 1e308, float("nan"), float("inf"), 10**400)
WEIRD_LISTS = ([], [[]], [1], [1, 2], [2, 1], [1, 2, 3], [None, None], ["a", "b"])
WEIRD = st.sampled_from([None, {}, {"a": 1}, *WEIRD_TEXTS, *WEIRD_NUMBERS, *WEIRD_LISTS])


def places(value, path=()):
    """The path of every node of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutate_json(data, text):
    value = json.loads(text)
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        path = data.draw(st.sampled_from(list(places(value))), label="place")
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        action = data.draw(st.sampled_from(["replace", "delete", "rename", "double"]), label="action")
        if not path:
            value = copy.deepcopy(data.draw(WEIRD, label="value")) if action == "replace" else value
        elif action == "delete":
            del parent[path[-1]]
        elif action == "rename" and isinstance(parent, dict):
            parent[str(data.draw(WEIRD, label="name"))] = parent.pop(path[-1])
        elif action == "double" and isinstance(parent, list):
            parent.append(parent[path[-1]])
        else:
            parent[path[-1]] = copy.deepcopy(data.draw(WEIRD, label="value"))
    return json.dumps(value).encode()


def mutate_bytes(data, content):
    at = data.draw(st.integers(0, len(content)), label="at")
    upto = data.draw(st.integers(at, min(len(content), at + 30)), label="upto")
    return content[:at] + data.draw(st.binary(max_size=4), label="bytes") + content[upto:]


def mutate_cells(data, text):
    lines = text.split("\n")
    row = data.draw(st.integers(0, len(lines) - 1), label="row")
    cells = lines[row].split(",")
    cells[data.draw(st.integers(0, len(cells) - 1), label="cell")] = str(data.draw(WEIRD, label="value"))
    lines[row] = ",".join(cells)
    if data.draw(st.booleans(), label="double"):
        lines.insert(row, lines[row])
    return "\n".join(lines).encode(errors="replace")


def check_any_file(name, data):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        corpus = written(name, folder)
        files = sorted(file for file in (folder / "official").rglob("*") if file.is_file())
        file = data.draw(st.sampled_from(files), label="file")
        how = data.draw(st.sampled_from(["bytes", "json" if file.suffix == ".json" else "cells"]), label="how")
        text = file.read_bytes()
        if how == "bytes":
            file.write_bytes(mutate_bytes(data, text))
        else:
            file.write_bytes((mutate_json if how == "json" else mutate_cells)(data, text.decode()))
        skip_bad_rows = data.draw(st.booleans(), label="skip")
        try:
            report = prepare(name, corpus, folder, skip_bad_rows)
        except InputError as error:
            assert "\n" not in str(error) and str(folder) in str(error), str(error)
            assert not (folder / "rows").exists()
            return
        assert skip_bad_rows or not report.reasons
        assert all("\n" not in reason and str(folder) in reason for reason in report.reasons)
        for split in split_names(folder / "rows"):
            paragraphs, reasons = read_paragraphs(load_rows(folder / "rows", split=split), source=folder / "rows")
            assert not reasons and len(list(paragraphs)) == report.splits[split]["num_videos"]


def prepare(name, corpus, folder, skip_bad_rows):
    def read(available):
        told = {"available": available} if name == "crosstask" else {}
        return getattr(readers, f"read_{name}")(corpus.annotations, **corpus.options, **told)

    options = {"features": folder / "features", "skip_bad_rows": skip_bad_rows, "show_progress_bar": False}
    return readers.prepare_corpus(read, corpus=name, output_dir=folder / "rows", **options)


SETTINGS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


@pytest.mark.parametrize("name", CORPORA)
@given(data=st.data())
@settings(max_examples=12, **SETTINGS)
def test_no_official_file_ends_in_anything_but_rows_or_one_line(name, data):
    check_any_file(name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPORA)
@given(data=st.data())
@settings(max_examples=500, **SETTINGS)
def test_no_official_file_does_at_length(name, data):
    check_any_file(name, data)
