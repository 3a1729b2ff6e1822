"""The published CHGNet, through the whole path."""

import pytest
from ase.build import bulk

from mlip.benchmarks import run_benchmark
from mlip.benchmarks.results import read_records
from mlip.calculators.build import build_calculator
from mlip.calculators.chgnet import chgnet
from mlip.config import compose

pytestmark = pytest.mark.chgnet
pytest.importorskip("chgnet")


def test_construction_is_silent_and_gives_a_total_energy(capsys):
    config = {"_target_": "mlip.calculators.chgnet.chgnet", "version": "0.3.0", "device": "cpu"}
    calculator = build_calculator(config)
    assert capsys.readouterr().out == ""
    cell = bulk("Li", "bcc", a=3.43)
    energies = []
    for atoms in (cell, cell.repeat((2, 1, 1))):
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
    assert energies[1] == pytest.approx(2 * energies[0], rel=1e-4)
    assert energies[0] == pytest.approx(-1.9, abs=0.15)  # eV/atom, DFT −1.899


def test_unknown_version_has_near_match():
    with pytest.raises(ValueError, match=r"did you mean '0\.3\.0'"):
        chgnet("0.3")


def test_lithium_surfaces_are_softened(tmp_path):
    config = compose("benchmark", [f"output={tmp_path}", "limit=3", "progress=false"])
    records = {record.case: record for record in read_records(run_benchmark(config))}
    values = [records[f"Li/{facet}"].value for facet in ("100", "110", "111")]
    assert values == pytest.approx([0.343, 0.320, 0.400], abs=2e-3)
    assert records["Li/100"].dtype == "float32"
    assert records["Li/100"].checkpoint_hash.startswith("d14ab7c0f0")
    assert records["Li/100"].versions["chgnet"]
