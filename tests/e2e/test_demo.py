"""The demo as it is promised: small errors on held-out frames, surface energies within a tenth."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlip.benchmarks.results import read_result

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.mace, pytest.mark.chgnet]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The commands of ``make demo``, in a folder of their own."""
    output = tmp_path_factory.mktemp("demo") / "demo"
    recipe = (ROOT / "Makefile").read_text().split("\ndemo:")[1].split("\n\n")[0]
    commands = re.findall(r"\$\(BIN\)/(python train\.py .*|mlip benchmark .*)", recipe)
    assert len(commands) == 2
    for command in commands:
        command = command.replace("runs/demo", str(output)).replace("'", "").split()
        tool = Path(sys.executable).with_name(command[0])
        subprocess.run([str(tool), *command[1:]], cwd=ROOT, check=True)
    return output


def test_errors_on_test_frames(demo):
    errors = json.loads((demo / "summary.json").read_text())["errors"]["test"]
    assert errors["energy_per_atom_rmse_meV"] < 4.0
    assert errors["forces_rmse_meV_per_A"] < 50.0


@pytest.mark.parametrize("facet", ["100", "110", "111"])
@pytest.mark.parametrize("mode", ["static", "relaxed"])
def test_surface_energies_of_lithium(demo, facet, mode):
    result = read_result(demo / "benchmark" / "surface_energy" / "checkpoint" / "result.json")
    (record,) = [r for r in result.records if r.case == f"Li/{facet}" and r.mode == mode]
    assert record.value == pytest.approx(record.reference, rel=0.10)


def test_the_other_elements_are_rows(demo):
    result = read_result(
        demo / "benchmark" / "grain_boundary_energy" / "checkpoint" / "result.json"
    )
    assert {record.status for record in result.records} == {"unsupported_element"}
