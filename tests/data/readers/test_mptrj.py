"""MPtrj's JSON: equal to the source, whatever the layout of the text; damaged and hostile files."""

import bz2
import gzip
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlip.data import json_stream
from mlip.data.json_stream import stream
from mlip.data.readers import read
from mlip.data.readers.recognize import format_of

spec = importlib.util.spec_from_file_location("real", Path(__file__).with_name("real.py"))
real = importlib.util.module_from_spec(spec)
sys.modules["real"] = real
spec.loader.exec_module(real)

FRAMES = real.frames()[:24]
TEXT = json.dumps(real.mptrj(FRAMES))


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.json.bz2"])
def test_frames_read_back(tmp_path, name):
    pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(name[6:], lambda text: text)
    path = tmp_path / name
    path.write_bytes(pack(TEXT.encode()))
    assert format_of(path) == "mptrj"
    for number, (frame, source) in enumerate(zip(read(path), FRAMES, strict=True)):
        energy, forces, stress = real.values(source)
        assert frame.labels["energy"] == energy
        np.testing.assert_array_equal(frame.labels["forces"], forces)
        np.testing.assert_allclose(frame.labels["stress"], stress, rtol=2e-8, atol=1e-15)
        np.testing.assert_array_equal(frame.atoms.positions, source.atoms.positions)
        np.testing.assert_array_equal(frame.atoms.numbers, source.atoms.numbers)
        magmoms = real.source_arrays(source).get("magmoms")
        assert ("magmoms" in frame.labels) == (magmoms is not None)
        assert frame.source == f"{path}#mp-{number // 4}-0-{number}"
        assert frame.info["source_id"] == f"mp-{number // 4}"
        assert frame.info["corrections"] == "none"


def test_the_corrected_energy_on_request(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(TEXT)
    frame = next(read(path, energy="corrected"))
    assert frame.labels["energy"] == FRAMES[0].info["corrected_total_energy"]
    assert frame.info["corrections"] == "MP2020"
    with pytest.raises(ValueError, match=r"energy is 'corected'; did you mean 'corrected'"):
        list(read(path, energy="corected"))


@pytest.mark.parametrize("block", [7, 64, 1000, 10**6])
def test_blocks_of_any_size_give_the_same(tmp_path, monkeypatch, block):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(real.mptrj(FRAMES[:3]), indent=1))
    whole = [(keys, value) for keys, value in stream(path, 2)]
    monkeypatch.setattr(json_stream, "BLOCK", block)
    assert [(keys, value) for keys, value in stream(path, 2)] == whole


KEYS = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def nested(value, depth, keys=()):
    if depth == 0 or not isinstance(value, dict | list):
        yield keys, value
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield from nested(inner, depth - 1, (*keys, key))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(KEYS, JSON, max_size=5) | st.lists(JSON, max_size=5),
    st.integers(1, 3),
    st.sampled_from([3, 50, 10**6]),
    st.sampled_from([None, 2]),
)
def test_any_json_is_streamed_as_it_would_be_loaded(
    tmp_path_factory, value, depth, block, indentation
):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(value, indent=indentation))
    before = json_stream.BLOCK
    json_stream.BLOCK = block
    try:
        assert list(stream(path, depth)) == list(nested(value, depth))
    finally:
        json_stream.BLOCK = before


@settings(max_examples=60, deadline=None)
@given(st.integers(1, len(TEXT) - 2))
def test_a_truncated_file_is_never_taken_for_a_whole_one(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(TEXT[:length])
    with pytest.raises(ValueError, match=r"a.json#.*(truncated|needed|has no)"):
        list(FORMAT_READ(path))


def FORMAT_READ(path):
    from mlip.data.readers.mptrj import read_mptrj

    return read_mptrj(path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.sampled_from('{}[]",:x\\\x00'))
def test_a_changed_character_is_an_error_or_a_harmless_text(tmp_path_factory, place, character):
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(TEXT[:place] + character + TEXT[place + 1 :])
    try:
        count = sum(1 for _ in FORMAT_READ(path))
    except ValueError as error:
        assert "a.json#" in str(error)  # noqa: PT017
    else:
        assert count == len(FRAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("force"), r"mp-0-0-1 has no 'force'"),
        (lambda r: r.update(uncorrected_total_energy=None), r"mp-0-0-1 has no 'uncorr"),
        (lambda r: r.update(force=[[0.0] * 3]), r"mp-0-0-1: forces \(key 'force'\) has shape"),
        (lambda r: r["structure"].pop("sites"), r"mp-0-0-1: the structure is not a pymatgen"),
        (lambda r: r["structure"]["sites"][0]["species"][0].update(occu=0.5), r"partially"),
        (lambda r: r["structure"]["sites"][0]["species"][0].update(element="Qq"), r"'Qq' is not"),
        (lambda r: r["structure"]["sites"][0].update(xyz=[0.0]), r"mp-0-0-1: xyz of the sites"),
        (lambda r: r["structure"].update({"@module": "os", "@class": "system"}), None),
    ],
)
def test_a_wrong_record_is_named_and_no_class_is_made(tmp_path, change, message):
    content = real.mptrj(FRAMES[:4])
    change(content["mp-0"]["mp-0-0-1"])
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    if message is None:
        assert len(list(read(path))) == 4
        return
    with pytest.raises(ValueError, match=rf"a.json#.*{message}"):
        list(read(path))


def test_a_truncated_archive_is_named(tmp_path):
    path = tmp_path / "a.json.gz"
    whole = gzip.compress(TEXT.encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a.json.gz#.*cannot be decompressed"):
        list(FORMAT_READ(path))


def test_a_value_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "LARGEST", 10_000)
    monkeypatch.setattr(json_stream, "BLOCK", 1000)
    path = tmp_path / "a.json"
    path.write_text('{"a": {"b": "' + "x" * 100_000)
    with pytest.raises(ValueError, match=r"more than 10000 bytes|is expected"):
        list(stream(path, 2))
