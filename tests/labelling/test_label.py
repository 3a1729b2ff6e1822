"""Labelling keeps every frame: results, failures, and what a kill left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from mlip.cli import main
from mlip.data.journal import Journal
from mlip.data.readers import read
from mlip.labelling.label import cli_run, label

EMT_CONFIG = {"build": {"_target_": "ase.calculators.emt.EMT"}, "card": {"functional": "EMT"}}


def faulty(fault):
    target = "mlip.calculators.controls.Faulty"
    return {"build": {"_target_": target, "fault": fault, "size": 3}, "card": {"label": fault}}


@pytest.fixture
def copper(tmp_path):
    images = []
    for index in range(12):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=index)
        atoms.info = {"name": f"copper {index}", "REF_energy": 3.0}
        images.append(atoms)
    ase.io.write(tmp_path / "copper.extxyz", images)
    return tmp_path / "copper.extxyz"


def test_labels_equal_the_calculator_to_the_last_digit(copper, tmp_path):
    result = label(copper, tmp_path / "out.extxyz", EMT_CONFIG, workers=2, progress=False)
    frames = list(read(result.output, "ase"))
    assert [frame.info["name"] for frame in frames] == [f"copper {i}" for i in range(12)]
    assert "REF_energy" not in frames[0].info
    for frame in frames:
        atoms = frame.atoms.copy()
        atoms.calc = EMT()
        assert float(frame.labels["energy"]) == pytest.approx(atoms.get_potential_energy(), 1e-14)
        np.testing.assert_allclose(frame.labels["forces"], atoms.get_forces(), atol=1e-13)
        np.testing.assert_allclose(
            frame.labels["stress"], atoms.get_stress(voigt=False), atol=1e-14
        )
    assert not list(tmp_path.glob("*.journal"))
    assert json.loads(result.report.read_text())["computed"] == 12


@pytest.mark.parametrize(
    ("fault", "message"),
    [("kill", "code -9"), ("exit", "code 3"), ("nan", "energy is not finite"), ("hang", "within")],
)
def test_a_fault_costs_one_frame_and_is_told(fault, message, tmp_path):
    images = [molecule(name) for name in ("H2", "H2O", "CH4", "N2")]
    ase.io.write(tmp_path / "in.extxyz", images)
    result = label(
        tmp_path / "in.extxyz",
        tmp_path / "out.extxyz",
        faulty(fault),
        timeout_s=3,
        progress=False,
    )
    assert list(result.failures) == [1]
    assert message in result.failures[1]
    assert result.frames == 3
    assert [frame.info["input_frame"] for frame in read(result.output, "ase")] == [0, 2, 3]
    report = json.loads(result.report.read_text())
    assert report["failed"] == 1
    assert report["failures"][0]["frame"] == 1


def test_all_failing_is_an_error_after_the_report(copper, tmp_path):
    config = {"build": {"_target_": "mlip.calculators.controls.Raising"}}
    with pytest.raises(ValueError, match="each of the 12 frames failed"):
        label(copper, tmp_path / "out.extxyz", config, progress=False)
    assert json.loads((tmp_path / "out.extxyz.report.json").read_text())["failed"] == 12


def test_kill_and_resume(copper, tmp_path):
    whole = label(copper, tmp_path / "whole.extxyz", EMT_CONFIG, progress=False)
    big = [image for image in ase.io.read(copper, ":") for _ in range(40)]
    ase.io.write(tmp_path / "big.extxyz", big)
    output = tmp_path / "out.extxyz"
    command = [sys.executable, "-c", "from mlip.cli import main; main()", "data", "label"]
    command += [str(tmp_path / "big.extxyz"), str(output), "calculator=emt", "workers=2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out.extxyz.journal"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (journal.exists() and journal.stat().st_size > 20_000):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists()
    kept = journal.read_bytes().count(b"\n") - 1
    assert 0 < kept < len(big)
    with journal.open("ab") as file:
        file.write(b'{"frame": 400, "labels": {"ener')  # what a torn write looks like
    subprocess.run(command, check=True, capture_output=True)
    frames = list(read(output, "ase"))
    assert [frame.info["input_frame"] for frame in frames] == list(range(len(big)))
    once = list(read(whole.output, "ase"))
    # Another worker's neighbour list may add the same terms in another order.
    energy = float(once[1].labels["energy"])
    assert float(frames[40].labels["energy"]) == pytest.approx(energy, rel=1e-12)


def test_the_journal_of_another_job_is_refused(tmp_path):
    with Journal(tmp_path / "a.journal", {"input": "x", "frames": 1}) as journal:
        journal.add({"frame": 0, "failure": "no"})
    with pytest.raises(ValueError, match="input differ"):
        Journal(tmp_path / "a.journal", {"input": "y", "frames": 1})
    with Journal(tmp_path / "a.journal", {"input": "x", "frames": 1}) as again:
        assert again.failed == {0: "no"}


def test_a_charge_is_never_guessed(tmp_path):
    first, second = molecule("H2O"), molecule("H2O")
    first.info["total_charge"] = 1
    ase.io.write(tmp_path / "in.extxyz", [first, second])
    with pytest.raises(ValueError, match=r"1 frames state no total_charge .*1 others"):
        label(tmp_path / "in.extxyz", tmp_path / "out.extxyz", EMT_CONFIG, progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.extxyz"], "INPUT OUTPUT"),
        (["a.extxyz", "b.extxyz"], "calculator=NAME"),
        (["a.extxyz", "b.extxyz", "calculator=emtt"], "did you mean 'emt'"),
        (["a.extxyz", "b.extxyz", "calculator=emt", "workers=0"], "workers is 0"),
        (["a.extxyz", "b.extxyz", "calculator=emt"], "does not exist"),
    ],
)
def test_bad_commands(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["data", "label", *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["calculator=checkpoint"], "say checkpoint=FILE"),
        (["calculator=gfn2_xtb", "total_charge=abc"], "total_charge is 'abc'"),
    ],
)
def test_wrong_options_leave_nothing_behind(words, message, tmp_path):
    source = tmp_path / "a.extxyz"
    ase.io.write(source, molecule("H2O"))
    with pytest.raises(ValueError, match=message):
        cli_run([f"input={source}", f"output={tmp_path / 'b.extxyz'}", *words])
    assert [path.name for path in tmp_path.iterdir()] == ["a.extxyz"]
