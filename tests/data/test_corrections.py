"""MP2020 and OMat24 corrections: the published values of real compounds, and never both."""

import gzip
import json

import numpy as np
import pytest

from mlip import paths
from mlip.data.alignment import require_one_kind
from mlip.data.corrections import apply, correction, remove
from mlip.data.frame import Frame
from mlip.data.mixed_sources import from_mixture

pytest.importorskip("pymatgen")
FILES = {"MP2020": "compounds_mp.json.gz", "OMat24": "compounds_omat24.json.gz"}


def compounds(kind):
    from pymatgen.entries.computed_entries import ComputedStructureEntry
    from pymatgen.io.ase import AseAtomsAdaptor

    with gzip.open(paths.content("datasets") / "omat24" / FILES[kind], "rt") as file:
        content = json.load(file)
    for name, value in content.items():
        entry = ComputedStructureEntry.from_dict(value)
        atoms = AseAtomsAdaptor.get_atoms(entry.structure, msonable=False)
        yield name, Frame(atoms, {"energy": np.array(entry.uncorrected_energy)}, name), entry


@pytest.mark.parametrize("kind", FILES)
def test_published_corrections_are_met(kind):
    checked = []
    for name, frame, entry in compounds(kind):
        assert correction(frame.atoms, kind) == pytest.approx(entry.correction, abs=1e-6), name
        checked.append(name)
    assert checked == ["MnO", "Li2CO3", "MgBr2", "FeCO3"]


def test_the_corrections_are_those_of_pymatgen():
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    scheme = MaterialsProject2020Compatibility(check_potcar=False)
    for _, frame, entry in compounds("MP2020"):
        bare = ComputedStructureEntry(
            entry.structure, entry.uncorrected_energy, parameters=entry.parameters
        )
        assert scheme.process_entry(bare, on_error="raise").correction == pytest.approx(
            correction(frame.atoms, "MP2020")
        )


def test_oxide_peroxide_and_superoxide_differ():
    from ase import Atoms

    def oxygen(distance):
        return Atoms("Li2O2", [[0, 0, 0], [4, 0, 0], [2, 2, 2], [2 + distance, 2, 2]],
                     cell=[8, 8, 8], pbc=True)  # fmt: skip

    assert correction(oxygen(2.8), "OMat24") == pytest.approx(2 * -0.657)
    assert correction(oxygen(1.49), "OMat24") == pytest.approx(2 * -0.433)
    assert correction(oxygen(1.33), "OMat24") == pytest.approx(2 * -0.152)


@pytest.mark.parametrize("kind", FILES)
def test_applied_and_removed_again(kind):
    for _, frame, entry in compounds(kind):
        corrected = apply(frame, kind)
        assert float(corrected.labels["energy"]) == pytest.approx(entry.energy)
        assert corrected.info["corrections"] == kind
        again = remove(corrected, kind)
        assert float(again.labels["energy"]) == pytest.approx(entry.uncorrected_energy)
        require_one_kind({"bare": [frame], "again": [again]})
        other = next(name for name in FILES if name != kind)
        with pytest.raises(ValueError, match=r"never mixed"):
            remove(corrected, other)
        with pytest.raises(ValueError, match=r"never mixed"):
            apply(corrected, other)


def test_a_corrected_source_joins_a_mixture_once_they_are_removed(tmp_path):
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    for name, change in (
        ("bare", lambda frame: frame),
        ("corrected", lambda f: apply(f, "MP2020")),
    ):
        structures = []
        for _, frame, _ in compounds("MP2020"):
            changed = change(frame)
            atoms = changed.atoms.copy()
            atoms.info.update(changed.info)
            atoms.calc = SinglePointCalculator(atoms, energy=float(changed.labels["energy"]))
            structures.append(atoms)
        write(tmp_path / f"{name}.extxyz", structures)
    sources = {
        n: {"path": str(tmp_path / f"{n}.extxyz"), "units": "ase"} for n in ("bare", "corrected")
    }
    shares = {"val_fraction": 0.0, "test_fraction": 0.0}
    with pytest.raises(ValueError, match="different corrections cannot be trained together"):
        from_mixture(sources, reference="bare", **shares)
    sources["corrected"] |= {"remove_corrections": "MP2020"}
    train = from_mixture(sources, aligned=False, **shares).train
    energies = [float(frame.labels["energy"]) for frame in train]
    assert energies[:4] == pytest.approx(energies[4:])


def test_an_unknown_scheme_is_refused():
    (_, frame, _), *_ = compounds("MP2020")
    with pytest.raises(ValueError, match="corrections is 'MP2O20'"):
        correction(frame.atoms, "MP2O20")
