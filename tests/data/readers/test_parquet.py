"""Parquet copies: real frames in the published columns, read back as from the JSON."""

import json

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlip.data.inspect import inspect
from mlip.data.readers import read
from mlip.data.readers.recognize import format_of
from tests.data.readers import real
from tests.data.readers.test_other_formats import matpes_entry

FRAMES = real.frames()[:40]
VOIGT = [0, 4, 8, 5, 2, 1]
STRESS = {
    "key": "stress",
    "unit": "kbar",
    "sign": "compression_positive",
    "order": ["xx", "yy", "zz", "yz", "xz", "xy"],
}
UNITS = {
    "energy": {"key": "energy", "unit": "eV"},
    "forces": {"key": "forces", "unit": "eV/A"},
    "stress": STRESS,
}


def row(frame, number):
    """One row of the MPtrj copy: the columns of its published schema."""
    record = real.mptrj_record(frame)
    return {
        "cell": frame.atoms.cell.array.tolist(),
        "atomic_numbers": frame.atoms.numbers.tolist(),
        "cart_coords": frame.atoms.positions.tolist(),
        "magmoms": record["magmom"],
        "energy": record["uncorrected_total_energy"],
        "forces": record["force"],
        "abs_forces": np.linalg.norm(record["force"], axis=1).tolist(),
        "stress": np.ravel(record["stress"])[VOIGT].tolist(),
        "stress_matrix": None,
        "bandgap": None,
        "elements": sorted(set(frame.atoms.get_chemical_symbols())),
        "functional": "GGA",
        "provenance": {
            "material_id": f"mp-{number // 4}",
            "task_id": f"mp-{number // 4}",
            "calcs_reversed_index": 0,
            "ionic_step_index": number,
        },
    }


def matpes_row(frame, number):
    entry = matpes_entry(frame, number)
    kept = {key: entry[key] for key in ("matpes_id", "functional", "provenance", "bader_charges")}
    return {**row(frame, number), **kept}


def write(path, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def both(tmp_path, rows, entries):
    (tmp_path / "a.json").write_text(json.dumps(entries))
    return write(tmp_path / "a.parquet", rows, row_group_size=7), tmp_path / "a.json"


def same(ours, theirs, labels):
    assert ours.atoms == theirs.atoms
    for key in ("frame_id", "source_id"):
        assert ours.info[key] == theirs.info[key]
    assert set(ours.labels) & labels == set(theirs.labels) & labels
    for label in set(ours.labels) & labels:
        np.testing.assert_array_equal(ours.labels[label], theirs.labels[label])


def test_mptrj_is_the_json_without_the_stress(tmp_path):
    rows = [row(frame, number) for number, frame in enumerate(FRAMES)]
    parquet, path = both(tmp_path, rows, real.mptrj(FRAMES))
    assert format_of(parquet) == "parquet"
    for ours, theirs in zip(read(parquet), read(path), strict=True):
        same(ours, theirs, {"energy", "forces", "magmoms"})
        assert ours.info["trajectory_id"] == theirs.info["trajectory_id"]
        assert "stress" not in ours.labels
        assert "does not state the unit" in ours.info["stress_left_out"]
    assert any("magmoms" in frame.labels for frame in read(parquet))
    stress = next(item for item in inspect(parquet).properties if item.key == "stress")
    assert "unit to declare" in stress.hint


def test_a_declared_stress_is_that_of_the_json(tmp_path):
    rows = [row(frame, number) for number, frame in enumerate(FRAMES)]
    parquet, path = both(tmp_path, rows, real.mptrj(FRAMES))
    for ours, theirs in zip(read(parquet, UNITS), read(path), strict=True):
        upper = np.triu_indices(3)  # six components cannot hold the asymmetry of rounding
        np.testing.assert_allclose(
            ours.labels["stress"][upper], theirs.labels["stress"][upper], atol=2e-5
        )


@pytest.mark.parametrize("structures", ["columns", "structure", "text"])
def test_matpes_is_its_json(structures, tmp_path):
    entries = [matpes_entry(frame, number) for number, frame in enumerate(FRAMES)]
    rows = [matpes_row(frame, number) for number, frame in enumerate(FRAMES)]
    if structures != "columns":
        for content, entry in zip(rows, entries, strict=True):
            for name in ("cell", "atomic_numbers", "cart_coords"):
                del content[name]
            found = entry["structure"]
            for site in found["sites"]:
                del site["properties"]  # parquet has no empty struct
            content["structure"] = json.dumps(found) if structures == "text" else found
    for content in rows:
        del content["magmoms"]
    parquet, path = both(tmp_path, rows, entries)
    assert format_of(parquet) == "matpes_parquet"
    for ours, theirs in zip(read(parquet), read(path), strict=True):
        same(ours, theirs, {"energy", "forces", "stress"})
        assert ours.info["functional"] == theirs.info["functional"] == "PBE"
        assert "charges" not in ours.labels


def test_memory_does_not_grow_with_the_file(tmp_path):
    table = pa.Table.from_pylist([row(frame, number) for number, frame in enumerate(FRAMES)])
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for _ in range(150):
            writer.write_table(table)
    size = (tmp_path / "a.parquet").stat().st_size
    before = psutil.Process().memory_info().rss
    count, peak = 0, 0
    for _ in read(tmp_path / "a.parquet"):
        count += 1
        if count % 500 == 0:
            peak = max(peak, psutil.Process().memory_info().rss - before)
    assert count == 150 * len(FRAMES)
    assert peak < max(size, 60e6), f"{peak / 1e6:.0f} MB for a file of {size / 1e6:.0f} MB"


def edit(change):
    content = row(FRAMES[0], 0)
    change(content)
    return content


WRONG = {
    "ragged": (lambda r: r["cart_coords"][0].pop(), "lists have"),
    "short": (lambda r: r["cart_coords"].pop(), "cart_coords has shape"),
    "null": (lambda r: r.update(cell=None), "cell is null"),
    "inside": (lambda r: r["cart_coords"][0].__setitem__(1, None), "null among its numbers"),
    "element": (lambda r: r["atomic_numbers"].__setitem__(0, 0), "not elements"),
    "nan": (lambda r: r["cell"][0].__setitem__(0, float("nan")), "cell is not finite"),
    "forces": (lambda r: r["forces"].pop(), "forces .* has shape"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_malformed_row_is_named(case, tmp_path):
    change, message = WRONG[case]
    path = write(tmp_path / "a.parquet", [row(FRAMES[0], 0), edit(change)])
    with pytest.raises(ValueError, match=rf"a\.parquet#1: .*{message}"):
        list(read(path))


def test_other_columns_are_listed(tmp_path):
    path = write(tmp_path / "a.parquet", [{"energy": 1.0, "positions": [0.0]}])
    with pytest.raises(ValueError, match=r"no column 'cell'.*it has energy, positions"):
        list(read(path))


def test_matpes_without_a_label(tmp_path):
    rows = [matpes_row(frame, number) for number, frame in enumerate(FRAMES[:3])]
    rows[2]["stress"] = None
    with pytest.raises(ValueError, match=r"a\.parquet#2 has no 'stress'"):
        list(read(write(tmp_path / "a.parquet", rows)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damage_never_passes_in_silence(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    whole = write(folder / "whole.parquet", [row(f, n) for n, f in enumerate(FRAMES[:6])])
    content = bytearray(whole.read_bytes())
    place = data.draw(st.integers(4, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    path = folder / "a.parquet"
    path.write_bytes(content)
    found = outcome(path)
    assert found == 6 or "a.parquet" in str(found)


def outcome(path):
    try:
        return len(list(read(path)))
    except ValueError as error:
        return str(error)
