"""A config builds calculators from allowed packages, and runs nothing else."""

import subprocess
import sys

import pytest
from ase.calculators.emt import EMT

from mlip.calculators.build import build_calculator

EMT_TARGET = "ase.calculators.emt.EMT"


def test_an_ase_calculator():
    assert isinstance(build_calculator({"_target_": EMT_TARGET, "asap_cutoff": True}), EMT)


BAD = {
    "no target": ({}, "has no _target_"),
    "program": ({"_target_": "os.system", "command": "true"}, "not allowed"),
    "nested program": (
        {"_target_": EMT_TARGET, "x": [{"_target_": "os.system"}]},
        r"build\.x\[0\]\._target_ is 'os\.system'",
    ),
    "borrowed name": ({"_target_": "mlip.calculators.build.import_module"}, "offers no"),
    "near miss": ({"_target_": "ase.calculators.emt.EMTT"}, "did you mean 'EMT'"),
    "no module": ({"_target_": "ase.calculators.emtt.EMT"}, "there is no module"),
    "not a calculator": (
        {"_target_": "ase.calculators.calculator.all_properties_of"},
        "offers no",
    ),
    "wrong arguments": (
        {"_target_": "ase.calculators.lj.LennardJones", "restart": None, "label": {}},
        "refuses the arguments",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case):
    config, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build_calculator(config)


def test_importing_it_needs_no_torch():
    code = "import sys, mlip.calculators.build; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
