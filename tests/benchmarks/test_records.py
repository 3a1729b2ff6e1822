"""Records, the journal that survives a kill, and result files."""

import json

import pytest

from mlip.benchmarks.record import Record, open_journal
from mlip.benchmarks.results import read_result, write_results


def record(case="Li/100", value=0.5, **changes):
    fields = {
        "task": "surface_energy",
        "case": case,
        "mode": "static",
        "calculator": "x",
        "status": "ok" if value is not None else "error",
        "input_hash": case,
        "reference": 0.4,
        "uncertainty": 0.05,
        "unit": "J/m²",
        "value": value,
        "tags": {"scored": True, "tiers": {"static": "smoke", "relaxed": "full"}},
    }
    return Record(**{**fields, **changes})


def test_status_and_value_go_together():
    with pytest.raises(ValueError, match="only with it"):
        record(value=0.3, status="nan")
    with pytest.raises(ValueError, match="only with it"):
        record(value=None, status="ok")
    with pytest.raises(ValueError, match="status is 'fine'"):
        record(status="fine")
    assert record(case="Li2O/100@0.12").material == "Li2O"
    assert record(case="Li2O/100@0.12").label == "100@0.12"
    assert record().error == pytest.approx(0.1)


def test_journal_drops_a_torn_last_line_and_goes_on(tmp_path):
    path = tmp_path / "records.jsonl"
    with open_journal(path) as journal:
        journal.append(record("a/1"))
        journal.append(record("a/2", value=None, detail="µ"))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"task": "surface_en')
    with open_journal(path) as journal:
        assert [r.case for r in journal.records] == ["a/1", "a/2"]
        journal.append(record("a/3"))
    with open_journal(path) as journal:
        assert [r.case for r in journal.records] == ["a/1", "a/2", "a/3"]
        assert journal.records[1].detail == "µ"


def test_journal_cut_at_every_byte_never_loses_a_finished_record(tmp_path):
    path = tmp_path / "records.jsonl"
    with open_journal(path) as journal:
        journal.append(record("a/1"))
        journal.append(record("a/2"))
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for length in range(0, len(content) + 1, 7):
        path.write_bytes(content[:length])
        with open_journal(path) as journal:
            expected = (length >= first) + (length >= len(content))
            assert len(journal.records) == expected


def test_journal_damaged_in_the_middle_is_named(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text("nonsense\n")
    with pytest.raises(ValueError, match="line 1 is damaged"), open_journal(path):
        pass


def test_two_runs_do_not_share_a_journal(tmp_path):
    path = tmp_path / "records.jsonl"
    with (
        open_journal(path),
        pytest.raises(ValueError, match="another run is writing"),
        open_journal(path),
    ):
        pass


def test_result_file_keeps_every_field(tmp_path):
    records = [record("a/1", value=0.123456, fmax=0.01), record("a/2", value=None, detail="why")]
    card = {"label": "X", "functional": "PBE", "weights": {"file": "/somewhere/private"}}
    calculator = {"name": "x", "card": card}
    path = write_results(tmp_path / "result.json", {"name": "surface_energy"}, calculator, records)
    assert read_result(path).records == records
    assert "/somewhere/private" not in path.read_text()
    assert "calculator" not in json.loads(path.read_text())["records"][0]  # written once


@pytest.mark.parametrize("text", ["{", "{}", '{"schema": 99}', "[]"])
def test_damaged_result_file_is_named(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.json in .* cannot be read"):
        read_result(path)
