"""The traps that the environment sets, each handled in one place."""

import os
import subprocess
import sys

import pytest
import torch

from mlip import runtime


def test_threads_are_set_everywhere(monkeypatch):
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "9")
    assert runtime.set_threads(1) == 1
    assert torch.get_num_threads() == 1
    assert os.environ["OMP_NUM_THREADS"] == "1"
    torch.set_num_threads(before)


def test_threads_default_to_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert runtime.set_threads() == 1


def test_threads_never_exceed_what_the_process_may_use():
    assert 1 <= runtime.available_cores() <= (os.cpu_count() or 1)


def test_no_threads_is_refused():
    with pytest.raises(ValueError, match="threads is 0"):
        runtime.set_threads(0)


class Payload:
    def __reduce__(self):
        return print, ("executed",)


def test_pickled_code_is_refused(tmp_path, capsys):
    torch.save({"x": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="refuses to run"):
        runtime.load_tensors(tmp_path / "evil.pt")
    assert "executed" not in capsys.readouterr().out


def test_tensors_are_read(tmp_path):
    torch.save({"x": torch.ones(2)}, tmp_path / "good.pt")
    assert runtime.load_tensors(tmp_path / "good.pt")["x"].sum() == 2


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.mace
@pytest.mark.parametrize("order", ["e3nn first", "mace first"])
def test_e3nn_and_mace_import_in_either_order(order):
    calls = ["runtime.import_e3nn()", "runtime.import_mace()"]
    if order == "mace first":
        calls.reverse()
    result = run_python(f"from mlip import runtime; {'; '.join(calls)}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "module", ["mlip", "mlip.properties", "mlip.benchmarks", "mlip.cli", "mlip.evaluation"]
)
def test_importing_does_not_load_torch(module):
    result = run_python(f"import sys, {module}; sys.exit('torch' in sys.modules)")
    assert result.returncode == 0, result.stderr
