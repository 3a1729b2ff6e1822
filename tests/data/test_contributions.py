"""Pulls of an MPContribs project by the real client, from a server on the loopback."""

import tempfile

import numpy as np
import pytest

pytest.importorskip("mpcontribs.client")

from mlip.cli import main
from mlip.data import contributions
from mlip.data.download import DownloadError
from mlip.data.pull import frames_of, pull
from mlip.data.readers import read
from tests.data.mpcontribs_server import KEY, Server
from tests.data.readers import real

FRAMES = real.frames()[8:15]


@pytest.fixture
def server(monkeypatch, tmp_path):
    entries, structures = [], []
    for number, frame in enumerate(FRAMES):
        identity = {"id": f"65aa{number:020x}", "name": "final", "md5": f"{number:032x}"}
        structures.append({**identity, **real.structure(frame.atoms)})
        entries.append({
            "id": f"65bb{number:020x}",
            "project": Server.project,
            "identifier": f"mp-{number}",
            "formula": frame.atoms.get_chemical_formula(),
            "data": {
                "chemsys": "-".join(sorted(set(frame.atoms.get_chemical_symbols()))),
                "temperature": {"value": 5000, "unit": "K", "display": "5000 K"},
                "properties": {
                    "a": {"element": "Li", "diffusivity": {"value": 1e-4, "unit": "cm²/s"}}
                },
            },
            "structures": [identity],
        })  # fmt: skip
    found = Server(entries, structures)
    monkeypatch.setenv("MPCONTRIBS_API_HOST", found.host)
    monkeypatch.setenv("MPCONTRIBS_API_KEY", KEY)
    # The client keeps the specification of a server in the folder for temporary files.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(contributions, "PAGE", 3)
    yield found
    found.shutdown()
    found.server_close()


def get(folder, **options):
    return pull(
        "amorphous_diffusivity", ["contributions"], folder / "got", progress=False, **options
    )


def downloads(server):
    return [path for path, _ in server.asked if "/download/" in path]


def test_contributions_become_frames(server, tmp_path):
    pulled = get(tmp_path)
    frames = list(frames_of("amorphous_diffusivity", pulled))
    assert len(frames) == len(FRAMES)
    for expected, frame in zip(FRAMES, frames, strict=True):
        assert (frame.atoms.numbers == expected.atoms.numbers).all()
        np.testing.assert_array_equal(frame.atoms.cell.array, expected.atoms.cell.array)
        np.testing.assert_allclose(frame.atoms.positions, expected.atoms.positions, atol=1e-12)
        assert (frame.info["temperature_K"], frame.info["diffusivity_Li"]) == (5000, 1e-4)
    assert len(downloads(server)) == 6  # three pages of contributions, three of structures
    get(tmp_path)
    assert len(downloads(server)) == 6
    assert [path.name for path in (tmp_path / "got" / "contributions").iterdir()] == [
        "contributions.json"
    ]


def test_what_arrived_before_a_failure_is_not_fetched_again(server, tmp_path):
    server.fail_after = 2
    with pytest.raises(DownloadError, match=r"1 pages are kept in .*pages: pull again to go on"):
        get(tmp_path)
    assert not list((tmp_path / "got" / "contributions").glob("*.json"))
    server.fail_after = None
    server.asked.clear()
    pulled = get(tmp_path)
    assert len(downloads(server)) == 4
    assert len(list(frames_of("amorphous_diffusivity", pulled))) == len(FRAMES)


def test_elements_and_limit_are_asked_of_the_server(server, tmp_path, capsys):
    symbols = sorted(set(FRAMES[2].atoms.get_chemical_symbols()))
    expected = [f for f in FRAMES if set(f.atoms.symbols) <= set(symbols)]
    output = tmp_path / "some.extxyz"
    main([
        "data", "pull", "amorphous_diffusivity", "subset=contributions",
        f"folder={tmp_path / 'got'}", f"output={output}", f"elements={','.join(symbols)}",
    ])  # fmt: skip
    asked = [o["data__chemsys__in"] for _, o in server.asked if "data__chemsys__in" in o]
    assert "-".join(symbols) in asked[0].split(",")
    assert len(list(read(output, "ase"))) == len(expected)
    pulled = get(tmp_path, narrowing=contributions.Narrowing(limit=2))
    assert pulled.files["contributions"][0].name == "contributions_first2.json"
    assert len(list(frames_of("amorphous_diffusivity", pulled))) == 2


def test_without_a_key(server, tmp_path, monkeypatch):
    monkeypatch.delenv("MPCONTRIBS_API_KEY")
    with pytest.raises(DownloadError, match=r"needs an API key.*export MPCONTRIBS_API_KEY"):
        get(tmp_path)
    assert not server.asked


def test_a_wrong_key(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MPCONTRIBS_API_KEY", "x" * 32)
    with pytest.raises(DownloadError, match="cannot be fetched"):
        get(tmp_path)
