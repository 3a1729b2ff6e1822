"""Several sources and every kind of energy reference, trained from the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from mlip.data.card import load_frames
from mlip.data.frame import Frame
from mlip.data.store.convert import convert
from mlip.data.write_extxyz import to_extxyz
from mlip.models.loading import load
from tests.e2e.test_training import train

pytestmark = pytest.mark.mace
SHIFT = 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Test frames of lithium with another zero of energy, and an isolated atom: file and store."""
    folder = tmp_path_factory.mktemp("mixed")
    frames = load_frames("mlearn_li", "test")
    other = [replace(f, labels={**f.labels, "energy": f.labels["energy"] + SHIFT * len(f)})
             for f in frames]  # fmt: skip
    (folder / "other.extxyz").write_text("".join(map(to_extxyz, other)))
    convert(folder / "other.extxyz", folder / "store", "ase")
    atom = Frame(Atoms("Li"), {"energy": np.array(-0.29), "forces": np.zeros((1, 3))})
    (folder / "atom.extxyz").write_text(to_extxyz(atom))
    (folder / "with_atom.extxyz").write_text("".join(map(to_extxyz, [atom, *frames])))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    sources = "{li: {card: mlearn_li, weight: 0.2}, other: {path: %s, weight: 2}}"
    result = train(
        "trainer.max_epochs=2", "data=mixture", f"data.sources={sources % (folder / 'store')}",
        "data.reference=li", "data.batch={edges: 5000}", f"output={folder}/run",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def test_the_alignment_is_printed_and_kept(run, folder):
    assert "energies aligned to li" in run.stdout
    summary = json.loads((folder / "run" / "summary.json").read_text())
    shifts = summary["alignment"]["shifts"]
    assert shifts["other"]["Li"] == pytest.approx(SHIFT, abs=0.05)
    assert summary["sources"]["other"]["frames"] > 20
    assert summary["errors"]["test"]["energy_per_atom_rmse_meV"] < 1000  # not 3 eV apart
    page = (folder / "run" / "report.html").read_text()
    assert "Energies aligned to li" in page
    assert "Li&nbsp;+" in page


def test_errors_are_told_by_source(run, folder):
    text = (folder / "run" / "report.html").read_text()
    assert ">other<" in text


@pytest.mark.parametrize("choice", ["isolated", "{isolated: FOLDER/atom.extxyz, units: ase}"])
def test_isolated_atoms_as_references(choice, folder, tmp_path):
    result = train(
        "trainer.max_epochs=1", "data=extxyz", f"data.path={folder}/with_atom.extxyz",
        "data.units=ase", f"energy_references={choice.replace('FOLDER', str(folder))}",
        "data.source.test_fraction=0.3", f"output={tmp_path}/out",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    potential = load(tmp_path / "out" / "best.safetensors")
    assert float(potential.energy_references[0]) == pytest.approx(-0.29)
    counts = json.loads((tmp_path / "out" / "summary.json").read_text())["frames"]
    assert sum(counts.values()) == (29 if choice == "isolated" else 30)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["energy_references=isolatd"], "did you mean 'isolated'"),
        (["energy_references=foundation"], "start=FILE"),
        (["energy_references=isolated"], "no isolated atom of Li"),
        (["data=mixture", "data.sources={li: {card: mlearn_li}}"], "two or more"),
    ],
)
def test_bad_choices(overrides, message, tmp_path):
    result = train("trainer.max_epochs=1", f"output={tmp_path}/out", *overrides)
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr
