"""Looking at data must not wait for torch."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["readers", "card", "inspect", "doctor", "splits"])
def test_importing_the_data_layer_does_not_import_torch(module):
    code = f"import sys, mlip.data.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
